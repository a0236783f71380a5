"""A sorted vocabulary in two mapped files: found by halves, so that no process holds a dictionary of it."""

import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from rollout.retrieval.build import mapped_array, write_array

BLOCK = 4096  # words whose places are Python numbers at once
ROWS_KEPT = 1024  # of the words that were asked for last


class Words:
    """Different words in UTF-8, sorted by their bytes."""

    def __init__(self, folder: Path):
        self._ends = mapped_array(folder / "word_ends.npy")
        self._letters = mapped_array(folder / "words.npy").data
        self.row = lru_cache(ROWS_KEPT)(self._row)

    @staticmethod
    def write(folder: Path, words: Sequence[str]) -> None:
        """words: in order; that of Python's strings, by code points, is that of their UTF-8."""
        encoded = [word.encode() for word in words]
        ends = np.fromiter(map(len, encoded), np.int64, len(encoded)).cumsum()
        letters = np.frombuffer(b"".join(encoded), np.uint8)
        write_array(folder / "words.npy", [letters], np.uint8, len(letters))
        write_array(folder / "word_ends.npy", [ends], np.int64, len(ends))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._letters[self._ends[row - 1] if row else 0 : self._ends[row]])

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for row in range(0, len(self), BLOCK):
            ends = self._ends[row : row + BLOCK].tolist()
            yield from (bytes(self._letters[first:last]) for first, last in pairwise([start, *ends]))
            start = ends[-1]

    def _row(self, word: str) -> int | None:
        """Its place among the words; None where it is none of them."""
        wanted = word.encode()
        row = bisect.bisect_left(self, wanted)
        return row if row < len(self) and self[row] == wanted else None
