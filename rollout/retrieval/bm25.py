"""BM25 over a corpus, by bm25s; the index is built once per corpus and mapped into memory."""

from collections.abc import Sequence

import bm25s

from rollout.errors import DataError
from rollout.retrieval.corpus import Corpus, build_once
from rollout.retrieval.index import Hit

STOPWORDS = "english"


class Bm25:
    """A SearchIndex."""

    def __init__(self, corpus: Corpus):
        folder = corpus.folder / f"bm25-{bm25s.__version__}"
        build_once(folder, lambda target: _index(corpus).save(target, show_progress=False))
        self._index = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
        self.size = len(corpus)

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        tokens = bm25s.tokenize(list(queries), stopwords=STOPWORDS, return_ids=False, show_progress=False)
        found = self._index.retrieve(
            tokens, k=min(depth, self.size), n_threads=1, show_progress=False, backend_selection="numpy"
        )
        return [
            list(map(Hit, positions.tolist(), scores.tolist()))
            for positions, scores in zip(found.documents, found.scores, strict=True)
        ]


def _index(corpus: Corpus) -> bm25s.BM25:
    tokens = bm25s.tokenize(corpus.texts(), stopwords=STOPWORDS, show_progress=False)
    if not tokens.vocab.keys() - {""}:
        raise DataError(
            "data.passages: no passage has a word to search for, of two letters or more and no stop word; give others"
        )
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    return index
