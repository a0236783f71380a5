"""BM25 over a corpus, by bm25s; the index is built once per corpus and mapped into memory."""

import bm25s

from rollout.errors import DataError
from rollout.retrieval.corpus import Corpus, build_once

STOPWORDS = "english"


class Bm25:
    def __init__(self, corpus: Corpus):
        folder = corpus.folder / f"bm25-{bm25s.__version__}"
        build_once(folder, lambda target: _index(corpus).save(target, show_progress=False))
        self._index = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
        self._size = len(corpus)

    def search(self, queries: list[str], depth: int) -> list[list[tuple[int, float]]]:
        """For each query the `depth` best (position, score), best first; all of a smaller corpus."""
        tokens = bm25s.tokenize(queries, stopwords=STOPWORDS, return_ids=False, show_progress=False)
        found = self._index.retrieve(
            tokens, k=min(depth, self._size), n_threads=1, show_progress=False, backend_selection="numpy"
        )
        return [
            list(zip(positions.tolist(), scores.tolist(), strict=True))
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
