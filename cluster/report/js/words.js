// ---- words as F1 compares them: TextRules.answer_tokens of rollout/text.py, with its characters.py and numerals.py ----------
const DECIMAL_POINT = new Set(
  ("am ar as bn bo cy dz en auto ga gd gu gv ha he hi ig ii ja ki km kn ko ks kw lg mg mi ml mn mr ms mt my nd ne ny om or pa sa sd si sn " +
   "so sw ta te th ti tl tn ug ur yo za zh zu").split(" "));
const DECIMAL_COMMA = new Set(
  ("af az ba be bg br bs ca cs cv da de el eo es et eu ff fi fo fr fy gl hr ht hu hy ia id ie is it jv ka kk kl ku ky lb ln lo lt lu lv mk " +
   "nb nl nn no pl ps pt rm rn ro ru rw sc se sg sk sl sq sr ss su sv tg tk tr tt uk uz ve vi wo").split(" "));
const SPACED_THOUSANDS = new Set(
  "af ba be bg br cs cv eo et ff fi fr ht hu hy ka kk ky lt lv nb nn no pl ru se sk sq sv tg tk tt uk uz".split(" "));
const THIN = "٬'\u00a0\u2007\u2009\u202f";
const PATTERNS = (() => {
  const scripts = (...names) => names.map((name) => String.raw`\p{sc=${name}}`).join("");
  const unspaced = String.raw`(?:(?=\p{L})[${scripts("Han", "Hira", "Kana", "Bopo", "Yiii", "Tang", "Nshu", "Thai", "Laoo", "Khmr", "Mymr",
    "Tale", "Talu", "Lana", "Tavt", "Ahom", "Java", "Bali", "Tibt")}]|[ーｰ〆〇])`;
  const character = String.raw`(?:(?:(?=[\p{L}\p{M}])\p{sc=Tibt})+|${unspaced}\p{M}*)`;
  const inWords = String.raw`(?:(?!${unspaced})[\p{L}\p{M}\p{N}\u200c\u200d])`;
  const beforeSign = String.raw`(?<!${inWords}|[_.)\]\-])`, beforeNumber = String.raw`(?=\p{Sc}?\.?\p{Nd})`;
  const sign = `${beforeSign}-${beforeNumber}`;
  const compared = String.raw`[<>≤≥≠≈±]=?(?=-?\p{Sc}?\.?\p{Nd})`;
  const point = String.raw`(?<!${inWords}|[_.])\.(?=\p{Nd})`;
  const ending = String.raw`(?<=\p{L})(?:\+\+?|#)(?!${inWords}|[_+#])|(?<=(?<!${inWords})(?:(?!i)\p{L}|ab))-(?!${inWords}|[_\-])`;
  const joint = String.raw`(?<=\p{Nd})(?:[.\/:]|\^-?)(?=\p{Nd})|(?<=\p{Nd}e)-(?=\p{Nd})|(?<=\p{L})\+\+(?=\p{Nd})` +
    String.raw`|(?<=(?<!${inWords})\p{L})#(?=\p{Nd})`;
  const word = String.raw`${inWords}+(?:(?:(?<=\p{Nd})[,٫](?=\p{Nd})|${joint})${inWords}+)*`;
  const emoji = String.raw`\p{RI}\p{RI}|\p{ExtPict}(?:[\p{EMod}\u{e0020}-\u{e007f}]|\u200d\p{ExtPict})*`;
  const plainLetters = scripts("Latn", "Cyrl", "Grek", "Hebr", "Han", "Hira", "Kana", "Hang", "Thai", "Laoo");
  return {
    invisible: /(?![\u200c\u200d\u{e0020}-\u{e007f}])\p{DI}/gu,
    joiner: new RegExp(String.raw`(?<!(?![${plainLetters}])[\p{L}\p{M}]|[\p{ExtPict}\p{EMod}])[\u200c\u200d]+` +
      String.raw`|[\u200c\u200d]+(?![\p{L}\p{M}\p{ExtPict}])`, "gu"),
    dash: new RegExp(`${beforeSign}[‒–]${beforeNumber}`, "gu"),
    token: new RegExp(String.raw`(${character}|(?:${compared})?(?:${sign})?(?:${point})?${word}(?:${ending})?|${emoji})`, "gu"),
    foreign: new RegExp(String.raw`${unspaced}|(?:(?!\p{sc=Latn})\p{L}){2}`, "u"),
    punctuation: new RegExp(`(${joint}|${compared}|${point}|${sign}|${ending})|[!-/:-@[-\`{-~]`, "gu"),
    articles: /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_+#\-])/gu,
    currency: /(?<=-)\p{Sc}(?=\.?\p{Nd})/gu,
    list: /(?<=\p{Nd}),(?=\p{Nd})/gu,
    number: new RegExp(String.raw`(?<![\p{Nd}.,٫٬'])(?!0)(\p{Nd}{1,2}(?:,\p{Nd}{2})+,\p{Nd}{3}` +
      String.raw`|\p{Nd}{1,3}([.,${THIN}])\p{Nd}{3}(?:\2\p{Nd}{3})*|(?<!\p{Nd} )\p{Nd}{1,3}( )\p{Nd}{3}(?: \p{Nd}{3}(?!\p{Nd}))*)` +
      String.raw`(?:([.,٫])(\p{Nd}+))?(?!\p{Nd}|[.,٫٬']\p{Nd})`, "gu"),
  };
})();
const parted = (text) => text.split(/\s+/).filter(Boolean);
// A run of before there was such a setting is English.
const isEnglish = (language) => ["en", "auto"].includes(language);

function lowered(text, language) {
  const composed = text.replace(PATTERNS.invisible, "").normalize("NFC").replace(PATTERNS.joiner, "");
  const typed = composed.replace(/[‘’‚‛ʼ]/g, "'").replace(/[“”„‟]/g, '"').replace(/[‐‑−]/g, "-");
  const narrow = typed.replace(/[\ufe50-\ufe6f\uff01-\uffee]+/g, (wide) => wide.normalize("NFKC")).replace(PATTERNS.dash, "-");
  return ["tr", "az"].includes(language) ? narrow.toLocaleLowerCase("tr") : narrow.toLowerCase();
}
function ungrouped(lower, language) {
  const decimal = DECIMAL_POINT.has(language) ? "." : DECIMAL_COMMA.has(language) ? "," : "";
  const thousands = { ".": ",", ",": "." }[decimal];
  return lower.replace(PATTERNS.number, (number, whole, mark, space, point, decimals) => {
    const told = space ? SPACED_THOUSANDS.has(language)
      : mark === point ? point === undefined
      : mark === undefined || THIN.includes(mark) || mark === thousands || point !== undefined || whole.split(mark).length > 2;
    if (!told) return number;
    const digits = whole.replace(/\P{Nd}/gu, "");
    return point === undefined ? digits : digits + (point === "٫" ? point : decimal || point) + decimals;
  });
}
function found(lower, language) {
  const numbered = ungrouped(lower, language);
  return (DECIMAL_POINT.has(language) ? numbered.replace(PATTERNS.list, " ") : numbered).replace(PATTERNS.currency, "").match(PATTERNS.token) ?? [];
}
function words(text, language) {
  const lower = lowered(text, language);
  const first = (...choices) => choices.find((choice) => choice.length) ?? [];
  if (!isEnglish(language)) return first(found(lower, language), parted(lower));
  const apart = parted(ungrouped(lower, language)).map((piece) => (PATTERNS.foreign.test(piece) ? found(piece, language).join(" ") : piece)).join(" ");
  const bare = apart.replace(PATTERNS.punctuation, "$1");
  return first(parted(bare.replace(PATTERNS.articles, " ")), parted(bare), parted(apart));
}
// Parts of a text, marked where they have one of the wanted words.
function marked(text, wanted, language) {
  const pieces = isEnglish(language) ? text.split(/(\s+)/) : [text];
  const parts = pieces.flatMap((piece) => (!isEnglish(language) || PATTERNS.foreign.test(piece) ? piece.split(PATTERNS.token) : [piece]));
  return parts.map((part) => (words(part, language).some((word) => wanted.has(word)) ? element("mark", {}, part) : part));
}
