"""The reward that LAPDOG's GRPO patch pays: raw-token F1 + ROUGE-L + BLEU on 0..100, which drowns the others."""

from collections.abc import Sequence

from reward.metrics import TextMetrics, best
from rollout.text import ENGLISH
from rollout.types import Passage, Prompt

METRICS = TextMetrics(ENGLISH)


def f1_rouge_bleu(prompt: Prompt, passages: tuple[Passage, ...], responses: Sequence[str]) -> list[float]:
    return [_score(text, prompt.answers) for text in responses]


def _score(text: str, answers: tuple[str, ...]) -> float:
    return best(METRICS.raw_f1, text, answers) + best(METRICS.rouge_l, text, answers) + 100 * best(METRICS.bleu, text, answers)
