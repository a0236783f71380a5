"""How text becomes tokens, in any language: what search, rewards and evaluation share. docs/data.md says it for users."""

import importlib.util
import re
import string
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import regex

AUTO = "auto"
UNKNOWN = "und"  # ISO 639's own code for it
# ISO 639-1
LANGUAGES = frozenset(
    """aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et
    eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl
    km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj
    om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to
    tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu""".split()
)
# Those whose stop words bm25s has. Its Chinese ones are words of several characters, which are no tokens of ours.
STOP_WORDS = {
    "en": "EN",
    "da": "DANISH",
    "de": "GERMAN",
    "es": "SPANISH",
    "fr": "FRENCH",
    "it": "ITALIAN",
    "ko": "KOREAN",
    "nb": "NORWEGIAN",
    "nl": "DUTCH",
    "no": "NORWEGIAN",
    "pt": "PORTUGUESE",
    "ru": "RUSSIAN",
    "sv": "SWEDISH",
    "tr": "TURKISH",
}
_CHARACTERS_OF_BLEU = ("th", "lo", "km", "my")
_TURKIC = str.maketrans({"I": "ı", "İ": "i"})

_VERSION = 1  # of the tokens that are searched: another one makes new indexes
_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛ʼ", "'"), **dict.fromkeys("“”„‟", '"')})
_MINUS = re.compile(r"−(?=[$€£¥]?\.?\d)")
# A letter of a script without spaces between words. Kana's long vowels and a closing mark are of no script, zero is no letter.
_UNSPACED = r"[[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&\p{L}]ーｰ〆〇]"
_IN_WORDS = rf"[[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d]--{_UNSPACED}]"  # joiners stand within words of Persian and Hindi
_SIGN = rf"(?<!{_IN_WORDS}|[_.)\]\-])-(?=[$€£¥]?\.?\d)"
_LEADING_POINT = rf"(?<!{_IN_WORDS}|[_.])\.(?=\d)"
_NAME_ENDING = rf"(?<=\p{{L}})(?:\+\+?|\#)(?!{_IN_WORDS}|[_+\#])"  # C++, C#
_TOKEN = regex.compile(
    rf"""
    (?P<character>{_UNSPACED}\p{{M}}*)
    | (?:{_SIGN})? (?:{_LEADING_POINT})? {_IN_WORDS}+ (?:(?<=\d)[.,٫](?=\d){_IN_WORDS}+)* (?:{_NAME_ENDING})?
    | \p{{RI}}\p{{RI}} | \p{{ExtPict}}(?:[\ufe0f\p{{EMod}}]|\u200d\p{{ExtPict}})*  # flags and other emoji
    """,
    regex.V1 | regex.VERBOSE,
)
_IDLE_IN_NUMBERS = regex.compile(r"(?<=\d)[,٬](?=\d{3}(?!\d))|(?<=-)[$€£¥](?=\.?\d)")  # -$1,000 is -1000
_PIECE = regex.compile(rf"{_UNSPACED}\p{{M}}*[^\p{{L}}\p{{N}}]*|(?:(?!{_UNSPACED}).)+", regex.V1 | regex.DOTALL)
_FOREIGN = regex.compile(rf"{_UNSPACED}|[\p{{L}}--\p{{Latin}}]{{2}}", regex.V1)

# English: each as its library has it
_SEARCHED_IN_ENGLISH = re.compile(r"\b\w\w+\b")  # bm25s
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#])")  # SQuAD 1.1
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MEANT = rf"(?<=\d)\.(?=\d)|{_LEADING_POINT}|{_SIGN}|{_NAME_ENDING}"
_MEANT_PUNCTUATION = regex.compile(_MEANT, regex.V1)
_ALL_PUNCTUATION = regex.compile(rf"({_MEANT})|[{re.escape(string.punctuation)}]", regex.V1)
_COMPARED_BY_ROUGE = re.compile(r"[a-z0-9]+")  # rouge-score


@dataclass(frozen=True, slots=True)
class TextRules:
    """Tokens of text in a run's language. bleu: the name of sacrebleu's tokenizer.

    English has the tokens of bm25s, SQuAD, rouge-score and sacrebleu, to the letter. All else has words with their marks, and
    single characters of scripts that put no spaces between words; so has, in an English run, a text that holds such a
    character or a word in a script that is not Latin: what scripts tell is told for each text.
    """

    language: str
    bleu: str

    @classmethod
    def of(cls, language: str) -> "TextRules":
        """Raises ValueError for `auto`, which `rollout.language` decides once for a run."""
        if language == AUTO:
            raise ValueError("the language is not decided yet")
        if language == "ja":
            has_mecab = all(importlib.util.find_spec(name) for name in ("MeCab", "ipadic"))
            return cls(language, "ja-mecab" if has_mecab else "char")
        return cls(language, "zh" if language == "zh" else "char" if language in _CHARACTERS_OF_BLEU else "13a")

    @property
    def index_name(self) -> str:
        """Part of the name of an index of these tokens."""
        return f"{self.language}-{_VERSION}"

    def told(self) -> str:
        stop_words = "stop words of the language" if self.language in STOP_WORDS else "no stop words"
        tokens = (
            "words as SQuAD, rouge-score and bm25s have them" if self.language == "en" else "words or characters, by script"
        )
        return f"data.language {self.language}: {tokens}; {stop_words}; BLEU on sacrebleu's {self.bleu} tokens"

    def search_tokens(self, text: str) -> list[str]:
        """What BM25 counts: words, and of scripts without spaces characters and pairs of them; no stop words."""
        lower = self._lower(text)
        if self._is_english(lower):
            tokens = _SEARCHED_IN_ENGLISH.findall(lower)
        else:
            found = _found(lower)
            tokens = [token[0] for token in found] + [
                first[0] + second[0]
                for first, second in pairwise(found)
                if first.end() == second.start() and first["character"] and second["character"]
            ]
        left_out = stop_words(self.language)
        return [token for token in tokens if token not in left_out]

    def answer_tokens(self, text: str) -> list[str]:
        """What F1 and exact match compare. In English SQuAD 1.1's normalisation: lower case, no punctuation, no articles, split
        at white space; but the sign and the decimal point of a number stay, and the end of names such as C++. A text that
        would vanish keeps its articles, or else all that it has."""
        lower = self._lower(text)
        if not self._is_english(lower):
            words = _words(lower)
            kept = [word for word in words if word not in ("a", "an", "the")] if self.language == "en" else words
            return kept or words or lower.split()
        meant = _MEANT_PUNCTUATION.search(lower) is not None
        bare = _ALL_PUNCTUATION.sub(r"\1", lower) if meant else lower.translate(_PUNCTUATION)
        return _ARTICLES.sub(" ", bare).split() or bare.split() or lower.split()

    def rouge_tokens(self, text: str) -> list[str]:
        """What ROUGE compares: in English rouge-score's own runs of a-z and 0-9, or else, and where a text has none of
        them, words as of F1."""
        lower = self._lower(text)
        if self.language == "en":
            return (_COMPARED_BY_ROUGE.findall(lower) if self._is_english(lower) else []) or _words(lower)
        return _words(lower) or lower.split()

    def raw_tokens(self, text: str) -> list[str]:
        """What white space parts, and of scripts without spaces each character with the punctuation behind it."""
        parts = folded(text).split()
        return parts if text.isascii() else [piece for part in parts for piece in _PIECE.findall(part)]

    def _lower(self, text: str) -> str:
        text = folded(text)
        if self.language in ("tr", "az"):
            text = text.translate(_TURKIC)
        return (text if text.isascii() else _MINUS.sub("-", text)).lower()

    def _is_english(self, text: str) -> bool:
        return self.language == "en" and (text.isascii() or _FOREIGN.search(text) is None)


@cache
def stop_words(language: str) -> frozenset[str]:
    """bm25s' list of the language, or none."""
    from bm25s import stopwords  # settings are told without it

    name = STOP_WORDS.get(language)
    return frozenset() if name is None else frozenset(getattr(stopwords, f"STOPWORDS_{name}"))


def folded(text: str) -> str:
    """Letters composed (NFC), curly quotes straight."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_QUOTES)


def _found(lower: str) -> list[regex.Match[str]]:
    """Tokens of any language, with the sign and the decimal mark of numbers; a comma before three digits parts thousands."""
    return list(_TOKEN.finditer(_IDLE_IN_NUMBERS.sub("", lower)))


def _words(lower: str) -> list[str]:
    return [token[0] for token in _found(lower)]


ENGLISH = TextRules.of("en")
