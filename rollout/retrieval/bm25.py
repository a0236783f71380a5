"""BM25 over a corpus: bm25s' own scores, in shards that are built once per corpus, mapped into memory and searched as one."""

from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

from rollout.errors import DataError
from rollout.retrieval.build import build_once
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import SHARD_PASSAGES, WHOLE, Hit, Part
from rollout.retrieval.postings import build_shards, shard_folders
from rollout.retrieval.shard import Shard
from rollout.text import TextRules

_VERSION = 2  # of the files: another one makes new indexes


class Bm25:
    """A SearchIndex of the tokens that the rules search. It finds only passages that share one with the query.

    shard_passages: how much is built at once; an index that stands already has shards of its own size, and the same results.
    part: of the shards; passages of others are not found, and their scores are 0.
    """

    def __init__(self, corpus: Corpus, rules: TextRules, shard_passages: int = SHARD_PASSAGES, part: Part = WHOLE):
        self._rules = rules
        folder = corpus.folder / f"bm25-{_VERSION}-{bm25s.__version__}-{rules.index_name}"
        build_once(folder, lambda target: _build(corpus, rules, shard_passages, target))
        shards = list(shard_folders(folder))
        self._shards = [Shard(*shards[number]) for number in part.share(len(shards))]
        self.size = len(corpus)

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        return [self._best(self._rules.search_tokens(query), depth) for query in queries]

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        pairs = zip(queries, positions, strict=True)
        return [self._scores(self._rules.search_tokens(query), np.asarray(wanted, np.int64)) for query, wanted in pairs]

    def _best(self, tokens: list[str], depth: int) -> list[Hit]:
        positions, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        for shard in self._shards:
            least = scores[-1].item() if len(scores) == depth > 0 else 0.0  # of equal scores the earlier shard's wins
            found, theirs = shard.better(tokens, least, depth)
            positions, scores = np.concatenate([positions, found]), np.concatenate([scores, theirs])
            best = best_places(scores, depth)
            positions, scores = positions[best], scores[best]
        return [Hit(position, score) for position, score in zip(positions.tolist(), scores.tolist(), strict=True)]

    def _scores(self, tokens: list[str], positions: np.ndarray) -> np.ndarray:
        scores = np.zeros(len(positions), np.float32)
        for shard in self._shards:
            if (own := (shard.start <= positions) & (positions < shard.stop)).any():
                scores[own] = shard.scores(tokens, positions[own])
        return scores


def best_places(scores: np.ndarray, depth: int) -> np.ndarray:
    """Places of the `depth` highest of float32 scores, highest first, of equal ones the first."""
    is_long = len(scores) > depth > 0
    places = np.flatnonzero(scores >= np.partition(scores, -depth)[-depth]) if is_long else np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")[:depth]]


def _build(corpus: Corpus, rules: TextRules, shard_passages: int, target: Path) -> None:
    if not build_shards(map(rules.search_tokens, corpus.texts()), len(corpus), shard_passages, target):
        raise DataError(
            f"data.passages: no passage has a word to search for in data.language {rules.language}, where stop words"
            f"{' and single letters' if rules.language == 'en' else ''} are none; give others"
        )
