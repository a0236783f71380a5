"""What a Retriever searches."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


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
        """For each query the `depth` best hits, best first; fewer where fewer have anything to do with it."""
        ...
