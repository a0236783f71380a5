"""An index whose parts lie elsewhere: all are asked, and what they find is merged to what one index finds, to the bit."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from rollout.retrieval.index import Hit

AskParts = Callable[..., Sequence[Any]]  # name and arguments of a method of IndexPart -> what each part answers


class IndexInParts:
    """A SearchIndex by words. size: passages of all parts."""

    def __init__(self, ask: AskParts, size: int):
        self._ask, self.size = ask, size

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        return _merged(self._ask("search", queries, depth), depth)

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return _added(self._ask("scores", queries, positions))


class VectorsInParts:
    """What `Dense` searches in place of Vectors. size: passages of all parts; width: of their vectors."""

    def __init__(self, ask: AskParts, size: int, width: int):
        self._ask, self._size, self.width = ask, size, width

    def __len__(self) -> int:
        return self._size

    def top(self, queries: np.ndarray, count: int) -> list[list[Hit]]:
        return _merged(self._ask("nearest", queries, count), count)

    def scores(self, queries: np.ndarray, positions: Sequence[np.ndarray]) -> list[np.ndarray]:
        return _added(self._ask("products", queries, positions))


def _merged(of_parts: Sequence[list[list[Hit]]], depth: int) -> list[list[Hit]]:
    """For each query the best of what all parts found, of equal ones the lower position."""
    of_queries = zip(*of_parts, strict=True)
    return [sorted((hit for hits in found for hit in hits), key=_rank)[:depth] for found in of_queries]


def _rank(hit: Hit) -> tuple[float, int]:
    return -hit.score, hit.position


def _added(of_parts: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    """A passage is of one part; what the others say of it changes no bit of a sum."""
    return [reduce(np.add, scores) for scores in zip(*of_parts, strict=True)]
