"""What a Retriever searches."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


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
        """For each query the `depth` best hits, best first, of equals the one that stands first in the corpus; fewer where
        fewer have anything to do with it."""
        ...

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """For each query its scores of the given passages, float32 [len(positions[i])]; 0 where they share nothing."""
        ...
