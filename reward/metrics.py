"""What one text is worth against one reference: every metric returns a value in [0, 1], and 0 if either text is blank."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from rollout.characters import folded
from rollout.text import TextRules

Metric = Callable[[str, str], float]


class TextMetrics:
    """The metrics on the tokens of a language."""

    def __init__(self, rules: TextRules):
        self.rules = rules
        tokenizer = _Cached(rules.rouge_tokens)
        self._rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=tokenizer)
        self._rouge_l = RougeScorer(["rougeL"], tokenizer=tokenizer)

    def f1(self, text: str, reference: str) -> float:
        """Bag-of-tokens F1 on normalised tokens."""
        return _overlap_f1(self.rules.answer_tokens(text), self.rules.answer_tokens(reference))

    def raw_f1(self, text: str, reference: str) -> float:
        """Bag-of-tokens F1 on tokens between white space, the LAPDOG paper's training score: punctuation and case count."""
        return _overlap_f1(self.rules.raw_tokens(text), self.rules.raw_tokens(reference))

    def exact_match(self, text: str, reference: str) -> float:
        """1 if both normalise to the same tokens, else 0."""
        if not text.strip() or not reference.strip():
            return 0.0
        return float(self.rules.answer_tokens(text) == self.rules.answer_tokens(reference))

    def rouge_l(self, text: str, reference: str) -> float:
        """F measure of the longest common subsequence (Lin 2004), by rouge-score without stemming."""
        return _clamp(self._rouge_l.score(reference, text)["rougeL"].fmeasure)

    def rouge(self, text: str, references: Sequence[str]) -> dict[str, float]:
        """F measures {rouge1, rouge2, rougeL} by rouge-score, each with its own best reference."""
        scores = self._rouge.score_multi(references, text)
        return {name: _clamp(score.fmeasure) for name, score in scores.items()}

    def bleu(self, text: str, reference: str) -> float:
        """sacrebleu's sentence BLEU / 100: exponential smoothing, only the n-gram orders that the text has."""
        if not text.strip() or not reference.strip():
            return 0.0
        counted = _counted(reference, self.rules.bleu_against([reference]))
        return _clamp(counted.corpus_score([folded(text)], None).score / 100)

    def bleu_counts(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """What sacrebleu's corpus BLEU adds up, int [N, 10], of texts [N] with one or more references each, their number free
        to differ: tokens of the text and of the closest reference; its n-grams that are found, and all of them, n from 1 to 4.
        """
        # effective_order changes no count; without it and force sacrebleu warns
        scorer = cache(lambda tokenizer: BLEU(force=True, tokenize=tokenizer, effective_order=True))
        scores = [
            scorer(self.rules.bleu_against(own)).sentence_score(folded(text), [folded(reference) for reference in own])
            for text, own in zip(texts, references, strict=True)
        ]
        return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores])

    def corpus_bleu(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
        """sacrebleu's corpus BLEU / 100; None where no text has four tokens: there is nothing whose share could be taken."""
        return bleu_of_counts(self.bleu_counts(texts, references).sum(0))


@lru_cache(maxsize=256)
def _counted(reference: str, tokenizer: str) -> BLEU:
    """sacrebleu counts the reference's n-grams once here, where `sentence_score` would count them for every text."""
    return BLEU(effective_order=True, tokenize=tokenizer, references=[[folded(reference)]])


def bleu_of_counts(sums: np.ndarray) -> float | None:
    """Corpus BLEU / 100 of the sums [10] of `bleu_counts`."""
    length, reference_length, *counts = map(int, sums)
    score = BLEU.compute_bleu(counts[:4], counts[4:], length, reference_length, smooth_method="exp")
    return _clamp(score.score / 100) if counts[-1] else None


def best(metric: Metric, text: str, references: Sequence[str]) -> float:
    """The metric against the reference that suits it best."""
    return max(metric(text, reference) for reference in references)


class _Cached:
    """A tokenizer of rouge-score's: a group's texts meet the same references again and again."""

    def __init__(self, tokenize: Callable[[str], list[str]]):
        self.tokenize = lru_cache(maxsize=4096)(tokenize)


def _overlap_f1(tokens: list[str], reference: list[str]) -> float:
    shared = (Counter(tokens) & Counter(reference)).total()
    return 2 * shared / (len(tokens) + len(reference)) if shared else 0.0


def _clamp(value: float) -> float:
    # sacrebleu returns 100.00000000000004 for some perfect texts.
    return min(1.0, max(0.0, value))
