"""The language of a run's texts, where `data.language` leaves it open."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import regex

from rollout.characters import folded
from rollout.retrieval.corpus import Corpus
from rollout.text import LANGUAGES, STOP_WORDS, UNKNOWN
from rollout.types import Prompt

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

Item = TypeVar("Item")
SAMPLE = 1000  # examples, and passages, that are looked at
LONGEST = 2000  # characters of one text
IDENTIFIED, IDENTIFIED_LENGTH = 400, 400  # texts and characters of each that are asked for their language
HAN, KANA, LATIN, CYRILLIC = "han", "kana", "latin", "cyrillic"
# A script that several languages write stands for the one that most write in it, where the texts do not tell.
SPACED = {
    "Hangul": "ko",
    "Arabic": "ar",
    "Hebrew": "he",
    "Devanagari": "hi",
    "Bengali": "bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Greek": "el",
    "Armenian": "hy",
    "Georgian": "ka",
    "Ethiopic": "am",
    "Thaana": "dv",
    "Tibetan": "bo",
    "Latin": LATIN,
    "Cyrillic": CYRILLIC,
}
UNSPACED = {
    "Han": HAN,
    "Hiragana": KANA,
    "Katakana": KANA,
    "Thai": "th",
    "Lao": "lo",
    "Khmer": "km",
    "Myanmar": "my",
    "Yi": "ii",
    "Javanese": "jv",
}
_CHARACTERS = (rf"(?P<{name}>\p{{{script}}})" for script, name in UNSPACED.items())
_WORDS = (rf"(?P<{name}>\p{{{script}}}[\p{{{script}}}\p{{M}}]*)" for script, name in (SPACED | {"L": UNKNOWN}).items())
_WORD = regex.compile("|".join([*_CHARACTERS, *_WORDS]))
_SEVERAL = {LATIN: "en", CYRILLIC: UNKNOWN, "ar": "ar", "hi": "hi", "bn": "bn"}  # and what stands if nothing is told
# py3langid's names for varieties, and for Bokmål
_VARIETIES = {"no": "nb", "ary": "ar", "arz": "ar", "sdh": "ku", "uzs": "uz"}
_NO_LANGUAGE = "zxx"
LEAST_SHARE = 0.2  # mean probability of a language that is told; running text of a language that py3langid knows has .25 to 1
LEAST_HINT = 0.1  # of one that is not known, where names, numbers and lone letters have less
LEAST_LEAD = 1.5  # times the second's, where the language decides on stop words or case, and times that of English
MOST_MARKED = 0.1  # of English words that have a letter beyond a-z
LEAST_KANA = 0.2  # of texts with characters of Chinese that have kana, too, where they are Japanese


def language_of(prompts: Sequence[Prompt], corpus: Corpus | None) -> str:
    """ISO 639 code of the language that most texts of examples and passages are in, `und` for one that is not known."""
    return language_of_texts(_texts(prompts, corpus))


def language_of_texts(texts: Iterable[str]) -> str:
    """The script by majority of the texts, each by majority of its words; then the language by that script, by kana, or as
    py3langid tells. Letters a-z that tell no language, and no letters at all, are English."""
    by_script = defaultdict[str, list[str]](list)
    for text in texts:
        own = Counter(match.lastgroup or UNKNOWN for match in _WORD.finditer(folded(text[:LONGEST])))
        if own[KANA]:
            own[KANA] += own.pop(HAN, 0)
        if own:
            by_script[own.most_common(1)[0][0]].append(text[:IDENTIFIED_LENGTH])
    votes = Counter({script: len(own) for script, own in by_script.items()})
    if votes[KANA] and votes[KANA] >= LEAST_KANA * (votes[KANA] + votes[HAN]):
        votes[KANA] += votes.pop(HAN, 0)
    [(script, _)] = votes.most_common(1) or [(LATIN, 0)]
    if script in _SEVERAL:
        return _identified(by_script[script], _SEVERAL[script])
    return {HAN: "zh", KANA: "ja"}.get(script, script)


def _identified(texts: Sequence[str], otherwise: str) -> str:
    """By mean probability over the texts: a short text tells little and weighs little."""
    shares = Counter[str]()
    for text in _spread(texts, IDENTIFIED):
        for language, probability in _identifier().rank(text):
            shares[_VARIETIES.get(language, language)] += probability / min(len(texts), IDENTIFIED)
    shares.pop(_NO_LANGUAGE, None)
    [(best, share), (_, second)] = shares.most_common(2) if shares else [(UNKNOWN, 0), (UNKNOWN, 0)]
    if share < LEAST_LEAD * shares["en"]:
        return "en"
    if share < LEAST_SHARE:
        is_another = otherwise == "en" and (share >= LEAST_HINT or _marked(texts) > MOST_MARKED)
        return UNKNOWN if is_another else otherwise
    if best in (*STOP_WORDS, "az") and share < LEAST_LEAD * second:
        return UNKNOWN
    return best if best in LANGUAGES else UNKNOWN


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # a second, which nothing else needs

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _marked(texts: Sequence[str]) -> float:
    words = [word for text in texts for word in text.split()]
    return sum(not word.isascii() for word in words) / max(1, len(words))


def _texts(prompts: Sequence[Prompt], corpus: Corpus | None) -> Iterator[str]:
    """Two of an example, question and answers, for each passage."""
    for prompt in _spread(prompts, SAMPLE):
        yield prompt.question
        yield " ".join(prompt.answers)
        yield from (passage.text for passage in (prompt.passages or ())[:1])
    if corpus is not None:
        yield from (corpus[place].text for place in _spread(range(len(corpus)), min(SAMPLE, len(prompts) or SAMPLE)))


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """So many, evenly between; all of fewer."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
