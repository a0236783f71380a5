"""Questions -> passages: from a corpus, by words, by vectors, or by both."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rollout.config import QueryPart
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import Hit, SearchIndex
from rollout.retrieval.query import build_query
from rollout.retrieval.settings import RetrieverSettings
from rollout.types import PartRanking, RankingName, Retrieval

if TYPE_CHECKING:
    from rollout.retrieval.dense import Dense  # settings name what is read here, and load no torch

RANKING_DEPTH = 20


class PassageSource(Protocol):
    """Where a Retriever finds passages."""

    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        """For each question the `n_context` best passages, or fewer where fewer are found."""
        ...


class LocalSource:
    """Searches the indexes of `corpus` with the parts of the question that the settings choose.

    A hybrid scores what either index puts forward: scale * <query, passage> + lexical_weight * BM25, in float64; ties go by
    position.
    """

    def __init__(
        self,
        corpus: Corpus,
        lexical_query: QueryPart,
        settings: RetrieverSettings,
        lexical: SearchIndex | None,
        dense: "Dense | None" = None,
    ):
        self.corpus, self.dense, self._lexical, self._settings = corpus, dense, lexical, settings
        self._queries: dict[RankingName, QueryPart] = {"lexical": lexical_query, "dense": settings.query or lexical_query}

    def find(self, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        if not questions:
            return []
        if self._lexical is not None and self.dense is not None:
            return self._mixed(self._lexical, self.dense, questions, n_context)
        name: RankingName = "lexical" if self.dense is None else "dense"
        index = self._lexical if self.dense is None else self.dense
        if index is None:
            raise ValueError("a source without an index")
        found = index.search(self._asked(name, questions), max(n_context, RANKING_DEPTH))
        return [self._retrieval(hits, n_context) for hits in found]

    def _mixed(self, lexical: SearchIndex, dense: SearchIndex, questions: Sequence[str], n_context: int) -> list[Retrieval]:
        settings, words, meant = self._settings, self._asked("lexical", questions), self._asked("dense", questions)
        candidates, depth = max(settings.candidates, n_context), max(n_context, RANKING_DEPTH)
        of_words = lexical.search(words, max(settings.lexical, depth))
        of_vectors = dense.search(meant, max(candidates, depth))
        pools = [
            sorted({hit.position for hit in (*by_words[: settings.lexical], *by_vectors[:candidates])})
            for by_words, by_vectors in zip(of_words, of_vectors, strict=True)
        ]
        scored = zip(pools, lexical.scores(words, pools), dense.scores(meant, pools), of_words, of_vectors, strict=True)
        return [self._mixture(*each, n_context=n_context) for each in scored]

    def _mixture(
        self,
        pool: Sequence[int],
        lexical: np.ndarray,
        dense: np.ndarray,
        by_words: Sequence[Hit],
        by_vectors: Sequence[Hit],
        n_context: int,
    ) -> Retrieval:
        """pool: positions in ascending order; lexical, dense: float32 [len(pool)]."""
        scale, weight = self._settings.used_scale, self._settings.lexical_weight
        scores = scale * dense.astype(np.float64) + weight * lexical.astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        read = order[:n_context]

        def part(own: np.ndarray, hits: Sequence[Hit]) -> PartRanking:
            return PartRanking(scores=tuple(own[read].tolist()), ranking=self._ids(hits[:RANKING_DEPTH]))

        hits = [Hit(pool[i], float(scores[i])) for i in order[: max(n_context, RANKING_DEPTH)]]
        return self._retrieval(hits, n_context, {"lexical": part(lexical, by_words), "dense": part(dense, by_vectors)})

    def _retrieval(
        self, hits: Sequence[Hit], n_context: int, parts: Mapping[RankingName, PartRanking] | None = None
    ) -> Retrieval:
        best = hits[:n_context]
        return Retrieval(
            passages=tuple(self.corpus[hit.position] for hit in best),
            scores=tuple(hit.score for hit in best),
            ranking=self._ids(hits),
            parts=parts or {},
        )

    def _ids(self, hits: Sequence[Hit]) -> tuple[str, ...]:
        return self.corpus.ids([hit.position for hit in hits])

    def _asked(self, name: RankingName, questions: Sequence[str]) -> list[str]:
        return [build_query(question, self._queries[name]) for question in questions]
