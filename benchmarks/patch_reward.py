"""The reward that LAPDOG's GRPO patch pays: raw-token F1 + ROUGE-L + BLEU on 0..100, which drowns the others."""

from collections.abc import Sequence

from reward.metrics import best, bleu, raw_f1, rouge_l
from rollout.types import Passage, Prompt


def f1_rouge_bleu(prompt: Prompt, passages: tuple[Passage, ...], responses: Sequence[str]) -> list[float]:
    return [_score(text, prompt.answers) for text in responses]


def _score(text: str, answers: tuple[str, ...]) -> float:
    return best(raw_f1, text, answers) + best(rouge_l, text, answers) + 100 * best(bleu, text, answers)
