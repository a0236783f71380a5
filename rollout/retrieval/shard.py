"""Postings of a stretch of the corpus, mapped: for each word the passages that have it, and what it adds to their scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rollout.retrieval.build import mapped_array
from rollout.retrieval.words import Words

GROUP = 64  # passages of whose scores only the best is looked at, to tell which of all can be among the best


class Shard:
    """Passages from position `start` to `stop`. Files: words, and `ends` [words] of their postings; `passages` int32, counted
    from `start`, and `scores` float32 [postings], by word and then by passage."""

    def __init__(self, folder: Path, start: int, stop: int):
        self.start, self.stop = start, stop
        self._words = Words(folder)
        self._ends, self._passages, self._scores = (
            mapped_array(folder / f"{name}.npy") for name in ("ends", "passages", "scores")
        )

    def better(self, tokens: Sequence[str], least: float, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions int64, scores float32), by position, of passages whose score is above `least`: the `depth` best with all
        that equal the last of them, and maybe more."""
        scores = np.zeros(self.stop - self.start, np.float32)
        for passages, added in self._postings(tokens):
            np.add.at(scores, passages, added)  # of the ways to add them up the fastest
        floor = _reached(scores, depth)
        found = np.flatnonzero(scores >= floor if floor > least else scores > least)
        return found + self.start, scores[found]

    def scores(self, tokens: Sequence[str], positions: np.ndarray) -> np.ndarray:
        """float32 [len(positions)], added up in the same order; positions: of this shard's passages."""
        scores = np.zeros(len(positions), np.float32)
        wanted = (positions - self.start).astype(np.int32)
        for passages, added in self._postings(tokens):
            places = np.searchsorted(passages, wanted)
            places[places == len(passages)] = 0
            has = passages[places] == wanted
            scores[has] += added[places[has]]
        return scores

    def _postings(self, tokens: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = [row for token in tokens if (row := self._words.row(token)) is not None]
        spans = [slice(self._ends[row - 1] if row else 0, self._ends[row]) for row in rows]
        return [(self._passages[span], self._scores[span]) for span in spans]


def _reached(scores: np.ndarray, depth: int) -> float:
    """A score that at least `depth` of them reach: as many groups of GROUP have their best there."""
    best = scores[: len(scores) // GROUP * GROUP].reshape(GROUP, -1).max(0)
    return float(np.partition(best, -depth)[-depth]) if len(best) >= depth > 0 else -np.inf
