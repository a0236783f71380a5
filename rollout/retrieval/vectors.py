"""Vectors of passages, searched exactly: the best k of a query by inner product, in blocks, on a CPU or GPU.

A matrix product finds candidates, in float32, whose order its roundings may turn; these are scored again, each by itself, in
float64. So a score's bits depend on the two vectors alone: not on the other queries, the slices, the device, or threads.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch

from rollout.retrieval.index import Hit

QUERIES_AT_ONCE, RESCORED_AT_ONCE = 64, 4096
UNIT = 2.0**-24  # of float32: half the distance from 1 to the next number


class Vectors:
    """slices: [n_i, D], one behind the other, float32, float16, or bfloat16 as the uint16 that it is in numpy. On a CPU they
    stay where they are, which may be a mapped file or Ray's object store."""

    def __init__(self, slices: Sequence[np.ndarray], device: str = "cpu"):
        self._slices = [_tensor(each).to(device) for each in slices]
        self._starts = [0, *accumulate(len(each) for each in self._slices)]
        self.width = self._slices[0].shape[1]
        self._longest = max(float(block.norm(dim=1).max()) for _, block in self._blocks())

    def __len__(self) -> int:
        return self._starts[-1]

    def top(self, queries: np.ndarray, count: int) -> list[list[Hit]]:
        """For each of queries float32 [Q, D] the `count` best, best first, ties by position."""
        starts = range(0, len(queries), QUERIES_AT_ONCE)
        return [hits for i in starts for hits in self._top(queries[i : i + QUERIES_AT_ONCE], min(count, len(self)))]

    def scores(self, queries: np.ndarray, positions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each of queries float32 [Q, D] the products float32 [n] with the vectors at its positions int64 [n]."""
        counts = [len(each) for each in positions]
        wanted, of_query = np.concatenate(positions), np.repeat(np.arange(len(queries)), counts)
        found = np.empty(len(wanted), np.float32)
        for i in range(0, len(wanted), RESCORED_AT_ONCE):
            part = slice(i, i + RESCORED_AT_ONCE)
            found[part] = (self._rows(wanted[part]).astype(np.float64) * queries[of_query[part]]).sum(1)
        return np.split(found, np.cumsum(counts)[:-1])

    @torch.inference_mode()
    def _top(self, queries: np.ndarray, count: int) -> list[list[Hit]]:
        asked = _tensor(queries).to(self._slices[0].device)
        # twice the error of a product of D terms (Higham 2002, section 3.1), and that of rounding the score
        slack = 2 * (self.width + 2) * UNIT * self._longest * asked.norm(dim=1)
        best = torch.full((len(queries), count), -torch.inf, device=asked.device)
        floor = best[:, -1]
        near: list[tuple[torch.Tensor, torch.Tensor]] = []  # positions of what may be among the best, and their scores
        for start, block in self._blocks():
            found = block @ asked.T  # [n, Q]: of the two ways round the faster one
            places = (found >= floor).any(1).nonzero()[:, 0]
            if len(places):
                near.append((places + start, found[places]))
                best = torch.cat([best, found[places].T], 1).topk(count).values
                floor = best[:, -1] - slack
        positions, found = (torch.cat(each) for each in zip(*near, strict=True))
        kept = [positions[own].cpu().numpy() for own in (found >= floor).unbind(1)]
        return [_ranked(*each, count) for each in zip(kept, self.scores(queries, kept), strict=True)]

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """float32 [n, D]"""
        found = np.empty((len(positions), self.width), np.float32)
        of_slice = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(of_slice).tolist():
            own = of_slice == number
            inside = torch.from_numpy(positions[own] - self._starts[number])
            block = self._slices[number]
            found[own] = block[inside.to(block.device)].float().cpu().numpy()
        return found

    def _blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """(position of the first, float32 [n, D]) of each slice; a narrower dtype goes through a work space."""
        for start, block in zip(self._starts[:-1], self._slices, strict=True):
            yield start, block.float()


def _ranked(positions: np.ndarray, scores: np.ndarray, count: int) -> list[Hit]:
    order = np.lexsort((positions, -scores))[:count]
    return [Hit(position, score) for position, score in zip(positions[order].tolist(), scores[order].tolist(), strict=True)]


def kept_as(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """float32 [n, D] as `dtype` is kept: rounded to float16, or to bfloat16, which numpy holds as uint16."""
    if dtype == "bfloat16":
        return torch.from_numpy(vectors).to(torch.bfloat16).view(torch.uint16).numpy()
    with np.errstate(over="ignore"):  # what is infinite is refused
        return vectors.astype(dtype, copy=False)


def _tensor(values: np.ndarray) -> torch.Tensor:
    """The same memory. Nothing writes to it, which torch warns that one could."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        found = torch.from_numpy(values)
    return found.view(torch.bfloat16) if found.dtype == torch.uint16 else found
