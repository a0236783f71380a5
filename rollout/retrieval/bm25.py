"""BM25 over a corpus, by bm25s; the index is built once per corpus and mapped into memory."""

from collections.abc import Sequence

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized

from rollout.errors import DataError
from rollout.retrieval.corpus import Corpus, build_once
from rollout.retrieval.index import Hit
from rollout.text import TextRules


class Bm25:
    """A SearchIndex of the tokens that the rules search. It finds only passages that share one with the query."""

    def __init__(self, corpus: Corpus, rules: TextRules):
        self._rules = rules
        folder = corpus.folder / f"bm25-{bm25s.__version__}-{rules.index_name}"
        build_once(folder, lambda target: _index(corpus, rules).save(target, show_progress=False))
        self._index = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
        self.size = len(corpus)

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        tokens = [self._rules.search_tokens(query) for query in queries]
        found = self._index.retrieve(
            tokens, k=min(depth, self.size), n_threads=1, show_progress=False, backend_selection="numpy"
        )
        return [
            [Hit(position, score) for position, score in zip(positions.tolist(), scores.tolist(), strict=True) if score > 0]
            for positions, scores in zip(found.documents, found.scores, strict=True)
        ]

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        tokens = [self._rules.search_tokens(query) for query in queries]
        return [
            self._index.get_scores(own)[places] if own else np.zeros(len(places), np.float32)
            for own, places in zip(tokens, map(list, positions), strict=True)
        ]


def _index(corpus: Corpus, rules: TextRules) -> bm25s.BM25:
    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in rules.search_tokens(text)] for text in corpus.texts()]
    if not vocabulary:
        raise DataError(
            f"data.passages: no passage has a word to search for in data.language {rules.language}, where stop words"
            f"{' and single letters' if rules.language == 'en' else ''} are none; give others"
        )
    index = bm25s.BM25()
    index.index(Tokenized(ids, vocabulary), show_progress=False)
    return index
