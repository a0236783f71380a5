"""Rows of unlike length -> batches of about one length, so that little is padding."""

from collections.abc import Sequence

import numpy as np

PADDING = 1 / 8  # share of a batch above which it is cut,
TOKENS = 2048  # if it is large enough to keep the machine busy


def buckets(lengths: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Indices of the rows of each batch, longest first."""
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    cuts, begin, real = [], 0, 0
    for end, length in enumerate(lengths[order]):
        padded = (end + 1 - begin) * lengths[order[begin]]
        if padded - real - length > PADDING * padded and (end - begin) * lengths[order[begin]] >= TOKENS:
            cuts.append(end)
            begin, real = end, 0
        real += length
    return np.split(order, cuts)


def padded_tokens(lengths: Sequence[int] | np.ndarray) -> int:
    """Tokens of all batches, padding included."""
    lengths = np.asarray(lengths)
    return int(sum(len(bucket) * lengths[bucket].max() for bucket in buckets(lengths)))
