"""Prompts -> the passages their policy reads."""

from collections.abc import Sequence

from rollout.errors import DataError
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import Hit, SearchIndex
from rollout.retrieval.query import build_query
from rollout.types import Prompt, Retrieval

RANKING_DEPTH = 20


class Retriever:
    """Searches the index of `corpus` with the chosen part of the question, unless the example supplies its passages itself;
    without them nothing is found. Fewer passages than `n_context` are read where the index finds fewer."""

    def __init__(self, query: str, n_context: int, corpus: Corpus | None = None, index: SearchIndex | None = None):
        if index is not None and n_context > index.size:
            raise DataError(f"policy.n_context: {n_context} passages are asked for, the corpus holds {index.size}; lower it")
        self.corpus, self._index, self._query, self._n_context = corpus, index, query, n_context

    def retrieve(self, prompts: Sequence[Prompt]) -> list[Retrieval]:
        searched = [p for p in prompts if p.passages is None]
        found = iter(self._search(searched))
        return [next(found) if p.passages is None else self._supplied(p) for p in prompts]

    def _search(self, prompts: list[Prompt]) -> list[Retrieval]:
        if self.corpus is None or self._index is None or not prompts:
            return [Retrieval(passages=(), scores=())] * len(prompts)
        queries = [build_query(p.question, self._query) for p in prompts]
        depth = max(self._n_context, RANKING_DEPTH)
        return [self._retrieval(self.corpus, hits) for hits in self._index.search(queries, depth)]

    def _retrieval(self, corpus: Corpus, hits: list[Hit]) -> Retrieval:
        best = hits[: self._n_context]
        return Retrieval(
            passages=tuple(corpus[hit.position] for hit in best),
            scores=tuple(hit.score for hit in best),
            ranking=corpus.ids([hit.position for hit in hits]),
        )

    def _supplied(self, prompt: Prompt) -> Retrieval:
        passages = prompt.passages or ()
        kept = passages[: self._n_context]
        return Retrieval(passages=kept, scores=(0.0,) * len(kept), ranking=tuple(p.id for p in passages))
