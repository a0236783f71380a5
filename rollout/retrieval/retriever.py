"""Prompts -> the passages their policy reads."""

from collections.abc import Sequence

from rollout.errors import DataError
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.query import build_query
from rollout.types import Prompt, Retrieval

RANKING_DEPTH = 20


class Retriever:
    """Searches `corpus` with the chosen part of the question, unless the example supplies its passages itself."""

    def __init__(self, corpus: Corpus | None, query: str, n_context: int):
        if corpus is not None and n_context > len(corpus):
            raise DataError(f"policy.n_context: {n_context} passages are asked for, the corpus holds {len(corpus)}; lower it")
        self._corpus, self._query, self._n_context = corpus, query, n_context
        self._bm25 = Bm25(corpus) if corpus is not None else None

    def retrieve(self, prompts: Sequence[Prompt]) -> list[Retrieval]:
        searched = [p for p in prompts if p.passages is None]
        found = iter(self._search(searched))
        return [next(found) if p.passages is None else self._supplied(p) for p in prompts]

    def _search(self, prompts: list[Prompt]) -> list[Retrieval]:
        if self._corpus is None or self._bm25 is None or not prompts:
            return [Retrieval(passages=(), scores=())] * len(prompts)
        queries = [build_query(p.question, self._query) for p in prompts]
        depth = max(self._n_context, RANKING_DEPTH)
        return [self._retrieval(self._corpus, hits) for hits in self._bm25.search(queries, depth)]

    def _retrieval(self, corpus: Corpus, hits: list[tuple[int, float]]) -> Retrieval:
        best = hits[: self._n_context]
        return Retrieval(
            passages=tuple(corpus[position] for position, _ in best),
            scores=tuple(score for _, score in best),
            ranking=corpus.ids([position for position, _ in hits]),
        )

    def _supplied(self, prompt: Prompt) -> Retrieval:
        passages = prompt.passages or ()
        kept = passages[: self._n_context]
        return Retrieval(passages=kept, scores=(0.0,) * len(kept), ranking=tuple(p.id for p in passages))
