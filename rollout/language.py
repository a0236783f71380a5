"""The language of a run's texts, where `data.language` leaves it open."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import regex
from bm25s.stopwords import STOPWORDS_EN_PLUS

from rollout.retrieval.corpus import Corpus
from rollout.text import UNKNOWN, folded, stop_words
from rollout.types import Prompt

Item = TypeVar("Item")
ENGLISH = frozenset(STOPWORDS_EN_PLUS)  # as long as the other lists
SAMPLE = 1000  # examples, and passages, that are looked at
LONGEST = 2000  # characters of one text
HAN, KANA, LATIN, CYRILLIC = "han", "kana", "latin", "cyrillic"
# Scripts that several languages write stand for the one that most write in them: their stop words are not known anyway.
SPACED = {
    "Hangul": "ko",
    "Arabic": "ar",
    "Hebrew": "he",
    "Devanagari": "hi",
    "Bengali": "bn",
    "Tamil": "ta",
    "Telugu": "te",
    "Gujarati": "gu",
    "Greek": "el",
    "Armenian": "hy",
    "Georgian": "ka",
    "Ethiopic": "am",
    "Latin": LATIN,
    "Cyrillic": CYRILLIC,
    "L": UNKNOWN,
}
UNSPACED = {"Han": HAN, "Hiragana": KANA, "Katakana": KANA, "Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my"}
_CHARACTERS = (rf"(?P<{name}>\p{{{script}}})" for script, name in UNSPACED.items())
_WORDS = (rf"(?P<{name}>\p{{{script}}}[\p{{{script}}}\p{{M}}]*)" for script, name in SPACED.items())
_WORD = regex.compile("|".join([*_CHARACTERS, *_WORDS]))
_ALPHABETS = {
    LATIN: ("en", "da", "de", "es", "fr", "it", "nb", "nl", "pt", "sv", "tr", "vi"),
    CYRILLIC: ("ru",),
}
_OWN_LETTERS = {"tr": regex.compile("[ığ]"), "vi": regex.compile("[ơưđạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]")}
LEAST_SHARE = 0.18  # of a text's words that tell its language; in running text a third and more
LEAST_LEAD = 1.5  # over English: times as many words that tell it
MOST_MARKED = 0.1  # of English words that have a letter beyond a-z
LEAST_KANA = 0.2  # of texts with characters of Chinese that have kana, too, where they are Japanese


def language_of(prompts: Sequence[Prompt], corpus: Corpus | None) -> str:
    """ISO 639 code of the language that most texts of examples and passages are in, `und` for one that is not known."""
    return language_of_texts(_texts(prompts, corpus))


def language_of_texts(texts: Iterable[str]) -> str:
    """The script by majority of the texts, each by majority of its words; then the language by that script, by kana, or by
    stop words. Letters a-z that tell no language, and no letters at all, are English."""
    votes, words = Counter[str](), Counter[str]()
    for text in texts:
        own = Counter[str]()
        for match in _WORD.finditer(folded(text[:LONGEST])):
            script = match.lastgroup or UNKNOWN
            own[script] += 1
            if script in _ALPHABETS:
                words[match[0].lower()] += 1
        if own[KANA]:
            own[KANA] += own.pop(HAN, 0)
        if own:
            votes[own.most_common(1)[0][0]] += 1
    if votes[KANA] and votes[KANA] >= LEAST_KANA * (votes[KANA] + votes[HAN]):
        votes[KANA] += votes.pop(HAN, 0)
    [(script, _)] = votes.most_common(1) or [(LATIN, 0)]
    if script in _ALPHABETS:
        return _by_stop_words(words, _ALPHABETS[script])
    return {HAN: "zh", KANA: "ja"}.get(script, script)


def _by_stop_words(words: Counter[str], languages: Sequence[str]) -> str:
    """words: of the texts, some perhaps of other scripts."""
    total = max(1, words.total())
    shares = {language: sum(words[word] for word in words if _tells(word, language)) / total for language in languages}
    best = max(shares, key=lambda language: shares[language])
    if shares[best] >= LEAST_SHARE:
        return best if shares[best] >= LEAST_LEAD * shares.get("en", 0) else "en"
    marked = sum(count for word, count in words.items() if not word.isascii()) / total
    return "en" if "en" in languages and marked <= MOST_MARKED else UNKNOWN


def _tells(word: str, language: str) -> bool:
    letters = _OWN_LETTERS.get(language)
    own = ENGLISH if language == "en" else stop_words(language)
    return word in own or (letters is not None and letters.search(word) is not None)


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
