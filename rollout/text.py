"""How text becomes tokens, in any language: what search, rewards and evaluation share. docs/data.md says it for users."""

import importlib.util
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import regex

from rollout.characters import MEANT_PUNCTUATION, folded, found, is_foreign, narrow, pieces
from rollout.numerals import DECIMAL_POINT, ungrouped

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
_CHARACTERS_OF_BLEU = ("th", "lo", "km", "my", "bo", "dz", "ii")
_TURKIC = str.maketrans({"I": "ı", "İ": "i"})

_VERSION = 2  # of the tokens that are searched: another one makes new indexes
_IN_A_LIST = re.compile(r"(?<=\d),(?=\d)")
_BESIDE_NUMBERS = re.compile(r"(?<=\d)[/:^](?=\d)|[<>≤≥≠≈±]")  # they are not searched
_CHINESE_OR_JAPANESE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_WITHIN_WORDS = ("", "་")  # nothing, or the point between syllables of Tibetan
_SYLLABLES = re.compile("[가-힣]{3,}")  # two are a word already

# English: each as its library has it
_SEARCHED_IN_ENGLISH = re.compile(r"\b\w\w+\b")  # bm25s
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#\-])")  # SQuAD 1.1
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MAYBE_MEANT = re.compile(r"[\d+#\-]")
_ALL_PUNCTUATION = regex.compile(rf"({MEANT_PUNCTUATION})|[{re.escape(string.punctuation)}]", regex.V1)
_COMPARED_BY_ROUGE = re.compile(r"[a-z0-9]+")  # rouge-score


@dataclass(frozen=True, slots=True)
class TextRules:
    """Tokens of text in a run's language. bleu: the name of sacrebleu's tokenizer.

    English has the tokens of bm25s, SQuAD, rouge-score and sacrebleu, to the letter. All else has words with their marks, and
    single characters of scripts that put no spaces between words; so has, in an English run, what stands between two spaces and
    holds such a character or two letters of a script that is not Latin.
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
        bleu = f"sacrebleu's {self.bleu} tokens" + (", of references without spaces zh or char" if self.bleu == "13a" else "")
        return f"data.language {self.language}: {tokens}; {stop_words}; BLEU on {bleu}"

    def search_tokens(self, text: str) -> list[str]:
        """What BM25 counts: words, of scripts without spaces characters and pairs of them, of Korean words pairs of syllables
        too, since particles end them; no stop words."""
        lower = self._lower(text)
        if self.language == "en":
            tokens = self._by_piece(lower, _SEARCHED_IN_ENGLISH.findall, self._searched)
        else:
            tokens = self._searched(lower)
        left_out = stop_words(self.language)
        return [token for token in tokens if token not in left_out]

    def answer_tokens(self, text: str) -> list[str]:
        """What F1 and exact match compare. In English SQuAD 1.1's normalisation: lower case, no punctuation, no articles, split
        at white space; but MEANT_PUNCTUATION stays. A text that would vanish keeps its articles, or else all that it has."""
        lower = self._lower(text)
        if self.language != "en":
            return self._words(lower) or lower.split()
        if not lower.isascii():
            lower = " ".join(self._by_piece(ungrouped(lower, "en"), lambda latin: [latin], self._words))
        if _MAYBE_MEANT.search(lower):
            bare = _ALL_PUNCTUATION.sub(r"\1", ungrouped(lower, "en"))
        else:
            bare = lower.translate(_PUNCTUATION)
        return _ARTICLES.sub(" ", bare).split() or bare.split() or lower.split()

    def rouge_tokens(self, text: str) -> list[str]:
        """What ROUGE compares: in English rouge-score's own runs of a-z and 0-9, or else, and where a text has none of
        them, words as of F1."""
        lower = self._lower(text)
        if self.language == "en":
            return self._by_piece(lower, _COMPARED_BY_ROUGE.findall, self._words) or self._words(lower)
        return self._words(lower) or lower.split()

    def raw_tokens(self, text: str) -> list[str]:
        """What white space parts, and of scripts without spaces each character with the punctuation behind it."""
        parts = folded(text).split()
        return parts if text.isascii() else [piece for part in parts for piece in pieces(part)]

    def bleu_against(self, references: Sequence[str]) -> str:
        """The name of sacrebleu's tokenizer for these references of one text: the language's own, or as the script of most of
        their words wants it where that is another."""
        spaced = "13a" if self.bleu == "char" else self.bleu
        if all(reference.isascii() for reference in references):
            return spaced
        tokens = [token for reference in references for token in found(folded(reference))]
        characters = [token[0] for token in tokens if token["character"]]
        if 2 * len(characters) < len(tokens):
            return spaced
        if 2 * sum(_CHINESE_OR_JAPANESE.match(character) is not None for character in characters) < len(characters):
            return "char"
        if self.language in ("zh", "ja"):
            return self.bleu
        return "char" if any(map(_KANA.match, characters)) else "zh"

    def _lower(self, text: str) -> str:
        text = narrow(folded(text))
        return (text.translate(_TURKIC) if self.language in ("tr", "az") else text).lower()

    def _by_piece(self, lower: str, latin: Callable[[str], list[str]], foreign: Callable[[str], list[str]]) -> list[str]:
        """Of an English run's text: what white space parts goes to either, by its own script."""
        if lower.isascii():
            return latin(lower)
        return [token for piece in lower.split() for token in (foreign if is_foreign(piece) else latin)(piece)]

    def _found(self, lower: str) -> list[regex.Match[str]]:
        text = ungrouped(lower, self.language)
        return found(_IN_A_LIST.sub(" ", text) if self.language in DECIMAL_POINT else text)

    def _words(self, lower: str) -> list[str]:
        return [token[0] for token in self._found(lower)]

    def _searched(self, lower: str) -> list[str]:
        tokens = self._found(_BESIDE_NUMBERS.sub(" ", lower))
        words = [token[0] for token in tokens]
        characters = [
            first[0] + second[0]
            for first, second in pairwise(tokens)
            if first["character"] and second["character"] and first.string[first.end() : second.start()] in _WITHIN_WORDS
        ]
        syllables = [pair for word in words for part in _SYLLABLES.findall(word) for pair in map("".join, pairwise(part))]
        return words + characters + syllables


@cache
def stop_words(language: str) -> frozenset[str]:
    """bm25s' list of the language, or none."""
    from bm25s import stopwords  # settings are told without it

    name = STOP_WORDS.get(language)
    return frozenset() if name is None else frozenset(getattr(stopwords, f"STOPWORDS_{name}"))


ENGLISH = TextRules.of("en")
