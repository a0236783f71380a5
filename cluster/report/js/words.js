// ---- words as F1 compares them: TextRules.answer_tokens of rollout/text.py ---------------------------------------------------
const PATTERNS = (() => {
  const character = String.raw`(?:(?=\p{L})[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Bopo}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmr}\p{sc=Mymr}]|[ーｰ〆〇])`;
  const inWords = String.raw`(?:(?!${character})[\p{L}\p{M}\p{N}\u200c\u200d])`;
  const sign = String.raw`(?<!${inWords}|[_.)\]\-])-(?=[$€£¥]?\.?\p{Nd})`;
  const point = String.raw`(?<!${inWords}|[_.])\.(?=\p{Nd})`;
  const ending = String.raw`(?<=\p{L})(?:\+\+?|#)(?!${inWords}|[_+#])`;
  const number = String.raw`${inWords}+(?:(?<=\p{Nd})[.,٫](?=\p{Nd})${inWords}+)*`;
  const emoji = String.raw`\p{RI}\p{RI}|\p{ExtPict}(?:[\ufe0f\p{EMod}]|\u200d\p{ExtPict})*`;
  const meant = String.raw`(?<=\p{Nd})\.(?=\p{Nd})|${point}|${sign}|${ending}`;
  return {
    token: new RegExp(String.raw`(${character}\p{M}*|(?:${sign})?(?:${point})?${number}(?:${ending})?|${emoji})`, "gu"),
    foreign: new RegExp(String.raw`${character}|(?:(?!\p{sc=Latin})\p{L}){2}`, "u"),
    punctuation: new RegExp(`(${meant})|[!-/:-@[-\`{-~]`, "gu"),
    articles: /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_+#])/gu,
    idle: /(?<=\p{Nd})[,٬](?=\p{Nd}{3}(?!\p{Nd}))|(?<=-)[$€£¥](?=\.?\p{Nd})/gu,
  };
})();
const parted = (text) => text.split(/\s+/).filter(Boolean);
// A run of before there was such a setting is English.
const isEnglish = (text, language) => ["en", "auto"].includes(language) && !PATTERNS.foreign.test(text);

function lowered(text, language) {
  const folded = text.normalize("NFC").replace(/[‘’‚‛ʼ]/g, "'").replace(/[“”„‟]/g, '"').replace(/−(?=[$€£¥]?\.?\p{Nd})/gu, "-");
  return ["tr", "az"].includes(language) ? folded.toLocaleLowerCase("tr") : folded.toLowerCase();
}
function words(text, language) {
  const lower = lowered(text, language);
  const first = (...choices) => choices.find((choice) => choice.length) ?? [];
  if (isEnglish(lower, language)) {
    const bare = lower.replace(PATTERNS.punctuation, "$1");
    return first(parted(bare.replace(PATTERNS.articles, " ")), parted(bare), parted(lower));
  }
  const found = lower.replace(PATTERNS.idle, "").match(PATTERNS.token) ?? [];
  return first(["en", "auto"].includes(language) ? found.filter((word) => !["a", "an", "the"].includes(word)) : found, found, parted(lower));
}
// Parts of a text, marked where they have one of the wanted words.
function marked(text, wanted, language) {
  const parts = text.split(isEnglish(lowered(text, language), language) ? /(\s+)/ : PATTERNS.token);
  return parts.map((part) => (words(part, language).some((word) => wanted.has(word)) ? element("mark", {}, part) : part));
}
