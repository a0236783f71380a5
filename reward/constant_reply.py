"""The best constant reply: the floor that any policy has to beat."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rollout.text import ENGLISH, TextRules
from rollout.types import Prompt

# Scores this close are equal: far above float64's rounding of a mean, far below a difference that matters.
_ROUNDING = 1e-9


def best_constant_reply(
    prompts: Sequence[Prompt], seed: int, n_candidates: int = 600, n_examples: int = 400, rules: TextRules = ENGLISH
) -> str:
    """The training answer that scores best by mean F1 + ROUGE-L when said to every example.

    Candidates are drawn from the distinct, not blank answers, then examples from the prompts, both without replacement by
    one generator made from the seed; of equally good candidates the first drawn wins. Raises ValueError if all answers are
    blank.
    """
    answers = list(dict.fromkeys(answer for prompt in prompts for answer in prompt.answers if answer.strip()))
    if not answers:
        raise ValueError("no prompt has an answer to choose a constant reply from")
    rng = np.random.default_rng(seed)
    candidates = [answers[i] for i in rng.choice(len(answers), min(n_candidates, len(answers)), replace=False)]
    answered = [prompt.answers for prompt in prompts if prompt.answers]
    examples = [answered[i] for i in rng.choice(len(answered), min(n_examples, len(answered)), replace=False)]
    return candidates[_best_row(candidates, examples, rules)]


def _best_row(candidates: list[str], examples: list[tuple[str, ...]], rules: TextRules) -> int:
    """Index of the best of C candidates for E examples with R >= E references in all."""
    references = [reference for own in examples for reference in own]
    starts = np.cumsum([0] + [len(own) for own in examples[:-1]])
    # Of sorted tokens the longest common subsequence is all that they have in common, counted as bags.
    f1 = _f_measures(*([sorted(rules.answer_tokens(text)) for text in texts] for texts in (candidates, references)))
    rouge_l = _f_measures(*([rules.rouge_tokens(text) for text in texts] for texts in (candidates, references)))
    scores = sum(np.maximum.reduceat(pairs, starts, axis=1).mean(axis=1) for pairs in (f1, rouge_l))
    return int(np.argmax(scores >= np.max(scores) - _ROUNDING))


def _f_measures(texts: list[list[str]], references: list[list[str]]) -> np.ndarray:
    """2 * longest common subsequence / (length + length) of tokens, 0 for two empty texts: float64 [C, R]."""
    lengths = np.add.outer([len(tokens) for tokens in texts], [len(tokens) for tokens in references])
    return 2 * _common_subsequences(texts, references) / np.maximum(lengths, 1)


def _common_subsequences(texts: list[list[str]], references: list[list[str]]) -> np.ndarray:
    """Lengths of the longest common subsequences, int64 [C, R].

    The bit vectors of Hyyrö 2004 ("Bit-parallel LCS-length computation revisited"), with all texts side by side in one
    integer: bit i of a text is 0 where its first i + 1 tokens have a longer common subsequence with the reference's tokens so
    far than its first i. A bit that stays 0 behind each text takes the carry of its sum.
    """
    lengths = np.array([len(tokens) for tokens in texts])
    starts = np.cumsum(lengths + 1) - lengths - 1
    places: defaultdict[str, int] = defaultdict(int)
    for start, tokens in zip(starts.tolist(), texts, strict=True):
        for i, token in enumerate(tokens, start):
            places[token] |= 1 << i
    everywhere = sum(((1 << len(tokens)) - 1) << start for start, tokens in zip(starts.tolist(), texts, strict=True))
    size = (int(lengths.sum()) + len(texts) + 7) // 8
    columns = []
    for tokens in references:
        bits = everywhere
        for token in tokens:
            met = bits & places[token]
            bits = ((bits + met) | (bits ^ met)) & everywhere
        ones = np.unpackbits(np.frombuffer(bits.to_bytes(size, "little"), np.uint8), bitorder="little")
        columns.append(lengths - np.add.reduceat(ones, starts, dtype=np.int64))
    return np.stack(columns, axis=1)
