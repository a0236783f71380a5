"""The corpus and the index that the settings ask for."""

from rollout.config import DataSettings
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import SearchIndex
from rollout.retrieval.retriever import Retriever


def open_index(corpus: Corpus, data: DataSettings) -> SearchIndex:
    """BM25, built on first use: another kind of index is a file beside `bm25.py` and a line here."""
    return Bm25(corpus, data.text_rules, data.shard_passages)


def open_retriever(data: DataSettings, n_context: int) -> Retriever:
    """One that finds nothing where the settings name no passages. Raises DataError for passages that cannot be searched, or
    that are fewer than `n_context`."""
    if data.passages is None:
        return Retriever(data.query, n_context)
    corpus = Corpus.open(data.passages, data.cache)
    return Retriever(data.query, n_context, corpus, open_index(corpus, data))
