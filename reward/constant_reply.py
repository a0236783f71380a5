"""The best constant reply: the floor that any policy has to beat."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reward.metrics import normalised_tokens, rouge_l, rouge_tokens
from rollout.types import Prompt

# Scores this close are equal: far above float64's rounding of a mean, far below a difference that matters.
_ROUNDING = 1e-9


def best_constant_reply(prompts: Sequence[Prompt], seed: int, n_candidates: int = 600, n_examples: int = 400) -> str:
    """The training answer that scores best by mean F1 + ROUGE-L when said to every example.

    Candidates are drawn from the distinct, not blank answers, then examples from the prompts, both without replacement by
    one generator made from the seed; of equally good candidates the first drawn wins. Exact: a common subsequence is no
    longer than the tokens in common, so ROUGE-1 >= ROUGE-L, and candidates are tried in the order of F1 + ROUGE-1, which is
    cheap, until none can beat the best. Raises ValueError if all answers are blank.
    """
    answers = list(dict.fromkeys(answer for prompt in prompts for answer in prompt.answers if answer.strip()))
    if not answers:
        raise ValueError("no prompt has an answer to choose a constant reply from")
    rng = np.random.default_rng(seed)
    candidates = [answers[i] for i in rng.choice(len(answers), min(n_candidates, len(answers)), replace=False)]
    answered = [prompt.answers for prompt in prompts if prompt.answers]
    examples = [answered[i] for i in rng.choice(len(answered), min(n_examples, len(answered)), replace=False)]
    return candidates[_best_row(candidates, examples)]


def _best_row(candidates: list[str], examples: list[tuple[str, ...]]) -> int:
    """Index of the best of C candidates for E examples with R >= E references in all."""
    references = [reference for own in examples for reference in own]
    starts = np.cumsum([0] + [len(own) for own in examples[:-1]])
    _, f1_pairs = _unigrams([normalised_tokens(text) for text in candidates], [normalised_tokens(text) for text in references])
    shared, rouge_pairs = _unigrams([rouge_tokens(text) for text in candidates], [rouge_tokens(text) for text in references])
    f1 = np.maximum.reduceat(f1_pairs, starts, axis=1).mean(axis=1)
    bound = f1 + np.maximum.reduceat(rouge_pairs, starts, axis=1).mean(axis=1)
    best_score, best_row = -np.inf, 0
    for row in np.argsort(-bound, kind="stable"):
        if bound[row] < best_score - _ROUNDING:
            break
        pairs = rouge_pairs[row].copy()
        # Below two shared tokens the longest common subsequence is those tokens, and ROUGE-1 is ROUGE-L.
        for column in np.flatnonzero(shared[row] > 1):
            pairs[column] = rouge_l(candidates[row], references[column])
        score = f1[row] + np.maximum.reduceat(pairs, starts).mean()
        if score > best_score + _ROUNDING or (abs(score - best_score) <= _ROUNDING and row < best_row):
            best_score, best_row = score, int(row)
    return best_row


def _unigrams(texts: list[list[str]], references: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens in common, counted as bags, and the F measure 2*common / (length + length): both [C, R]."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(token for tokens in texts for token in tokens))}
    left, right = _counts(texts, vocabulary), _counts(references, vocabulary)
    shared = np.zeros((len(texts), len(references)), np.float32)
    level = 1
    # min(a, b) is the number of levels k with a >= k and b >= k: one product of 0/1 matrices for each level.
    while (columns := (left.max(axis=0) >= level) & (right.max(axis=0) >= level)).any():
        shared += (left[:, columns] >= level).astype(np.float32) @ (right[:, columns] >= level).astype(np.float32).T
        level += 1
    lengths = np.add.outer([len(tokens) for tokens in texts], [len(tokens) for tokens in references])
    return shared, 2.0 * shared / np.maximum(lengths, 1)


def _counts(texts: list[list[str]], vocabulary: dict[str, int]) -> np.ndarray:
    """int32 [texts, vocabulary]: how often each text has each token."""
    counts = np.zeros((len(texts), len(vocabulary)), np.int32)
    for row, tokens in enumerate(texts):
        for token, count in Counter(tokens).items():
            if token in vocabulary:
                counts[row, vocabulary[token]] = count
    return counts
