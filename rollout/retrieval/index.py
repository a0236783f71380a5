"""What a Retriever searches."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

SHARD_PASSAGES = 250_000  # that are indexed at once


class Part(NamedTuple):
    """One of `of` parts of an index, counted from 0."""

    number: int = 0
    of: int = 1

    def share(self, count: int) -> range:
        """Which of `count` things are this part's; each is of one part."""
        return range(count * self.number // self.of, count * (self.number + 1) // self.of)


WHOLE = Part()


class Hit(NamedTuple):
    """A passage by its position in the corpus; the higher the score, the better it suits the query."""

    position: int
    score: float


class SearchIndex(Protocol):
    @property
    def size(self) -> int:
        """Passages that it holds."""
        ...

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        """For each query the `depth` best hits, best first, of equal ones the lower position; fewer where fewer have anything
        to do with it."""
        ...

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """For each query the scores float32 [len(positions[i])] of the passages at positions[i]."""
        ...
