"""What one text is worth against one reference: every function returns a value in [0, 1], and 0 if either text is blank."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU

Metric = Callable[[str, str], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised_tokens(text: str) -> list[str]:
    """SQuAD 1.1's normalisation: lower case, no punctuation, no articles; then split at white space."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def f1(text: str, reference: str) -> float:
    """Bag-of-tokens F1 on normalised tokens. As in SQuAD 1.1, texts that normalise to nothing share nothing: 0."""
    return _overlap_f1(normalised_tokens(text), normalised_tokens(reference))


def raw_f1(text: str, reference: str) -> float:
    """Bag-of-tokens F1 on `str.split()` tokens, the LAPDOG paper's training score: punctuation and case count."""
    return _overlap_f1(text.split(), reference.split())


def exact_match(text: str, reference: str) -> float:
    """1 if both normalise to the same tokens, else 0."""
    if not text.strip() or not reference.strip():
        return 0.0
    return float(normalised_tokens(text) == normalised_tokens(reference))


def rouge_l(text: str, reference: str) -> float:
    """F measure of the longest common subsequence (Lin 2004), by rouge-score without stemming."""
    return _clamp(_ROUGE_L.score(reference, text)["rougeL"].fmeasure)


def rouge(text: str, references: Sequence[str]) -> dict[str, float]:
    """F measures {rouge1, rouge2, rougeL} by rouge-score, each with its own best reference."""
    scores = _ROUGE.score_multi(references, text)
    return {name: _clamp(score.fmeasure) for name, score in scores.items()}


def bleu(text: str, reference: str) -> float:
    """sacrebleu's sentence BLEU / 100: 13a tokens, exponential smoothing, only the n-gram orders that the text has."""
    if not text.strip() or not reference.strip():
        return 0.0
    return _clamp(_bleu_against(reference).corpus_score([text], None).score / 100)


def corpus_bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """sacrebleu's corpus BLEU / 100 of texts [N] with one or more references each, their number free to differ."""
    depth = max(len(own) for own in references)
    streams = [[own[i] if i < len(own) else None for own in references] for i in range(depth)]
    # force only silences a warning about text that looks tokenised, as dialogue data is.
    return _clamp(BLEU(force=True).corpus_score(texts, streams).score / 100)  # type: ignore[arg-type]


def best(metric: Metric, text: str, references: Sequence[str]) -> float:
    """The metric against the reference that suits it best."""
    return max(metric(text, reference) for reference in references)


def rouge_tokens(text: str) -> list[str]:
    """rouge-score's own tokens: lower case, runs of a-z and 0-9."""
    return _RougeTokenizer.tokenize(text)


class _RougeTokenizer:
    """A group's texts meet the same references again and again."""

    tokenize = staticmethod(lru_cache(maxsize=4096)(DefaultTokenizer(False).tokenize))


_ROUGE = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_RougeTokenizer())
_ROUGE_L = RougeScorer(["rougeL"], tokenizer=_RougeTokenizer())


@lru_cache(maxsize=256)
def _bleu_against(reference: str) -> BLEU:
    """sacrebleu counts the reference's n-grams once here, where `sentence_score` would count them for every text."""
    return BLEU(effective_order=True, references=[[reference]])


def _overlap_f1(tokens: list[str], reference: list[str]) -> float:
    shared = (Counter(tokens) & Counter(reference)).total()
    return 2 * shared / (len(tokens) + len(reference)) if shared else 0.0


def _clamp(value: float) -> float:
    # sacrebleu returns 100.00000000000004 for some perfect texts.
    return min(1.0, max(0.0, value))
