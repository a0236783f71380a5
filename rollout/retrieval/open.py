"""The corpus, the indexes and the retriever that the settings ask for. PyTorch is loaded only where vectors are wanted."""

from typing import TYPE_CHECKING

from rollout.config import DataSettings
from rollout.errors import DataError, SettingsError
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.index import WHOLE, Part, SearchIndex
from rollout.retrieval.parts import AskParts, IndexInParts, VectorsInParts
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.retrieval.url_source import UrlSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rollout.retrieval.dense import Dense
    from rollout.retrieval.encoder import Encoder

LEXICAL = RetrieverSettings()


def open_index(corpus: Corpus, data: DataSettings, part: Part = WHOLE) -> SearchIndex:
    """BM25, built on first use."""
    return Bm25(corpus, data.text_rules, data.shard_passages, part)


def open_corpus(data: DataSettings, n_context: int) -> Corpus | None:
    """None where the settings name no passages. Raises DataError for those that are fewer than `n_context`."""
    if data.passages is None:
        return None
    corpus = Corpus.open(data.passages, data.cache)
    if n_context > len(corpus):
        raise DataError(f"policy.n_context: {n_context} passages are asked for, the corpus holds {len(corpus)}; lower it")
    return corpus


def open_encoder(settings: RetrieverSettings, tokenizer: "PreTrainedTokenizerBase | None", device: str) -> "Encoder":
    """That of `retriever.path`, or else a bag of the tokens of the policy's `tokenizer`."""
    from rollout.retrieval.encoder import load_encoder, static_encoder

    if settings.path is not None:
        return load_encoder(settings, device)
    if tokenizer is None:
        raise SettingsError("retriever.path: is missing, and there is no policy whose tokens could take its place; give it")
    return static_encoder(tokenizer, settings, device)


def open_source(
    data: DataSettings,
    n_context: int,
    settings: RetrieverSettings = LEXICAL,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    device: str = "cpu",
    ask_parts: AskParts | None = None,
) -> LocalSource | UrlSource | None:
    """One whose vectors are yet to be loaded, where it searches any; a server that the settings name; None where they name no
    passages either.

    ask_parts: of parts that lie elsewhere: nothing is indexed or loaded here.
    """
    if settings.url is not None:
        return UrlSource(settings, data.query)
    corpus = open_corpus(data, n_context)
    if corpus is None:
        return None
    mode = settings.used_mode
    size, lexical = len(corpus), None
    if mode != "dense":
        lexical = open_index(corpus, data) if ask_parts is None else IndexInParts(ask_parts, size)
    dense = None if mode == "lexical" else _open_dense(settings, size, tokenizer, device)
    if dense is not None and ask_parts is not None:
        dense.search_in(VectorsInParts(ask_parts, size, dense.encoder.width), "in parts")
    return LocalSource(corpus, data.query, settings, lexical, dense)


def open_retriever(
    data: DataSettings,
    n_context: int,
    settings: RetrieverSettings = LEXICAL,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    device: str = "cpu",
) -> Retriever:
    """One that asks the server that the settings name, or finds nothing where they name no passages either; indexes and vectors
    are built on first use.

    tokenizer: of the policy, where vectors are made of its tokens. Raises DataError for passages that cannot be searched, or
    that are fewer than `n_context`, PolicyError for a path that leads to no encoder.
    """
    source = open_source(data, n_context, settings, tokenizer, device)
    if isinstance(source, LocalSource) and source.dense is not None:
        from rollout.retrieval.dense import kept_slices, vectors_folder

        wanted = source.corpus, source.dense.encoder, settings.slice_passages, settings.dtype
        source.dense.load(kept_slices(*wanted), vectors_folder(*wanted).name)
    return Retriever(n_context, source)


def _open_dense(settings: RetrieverSettings, size: int, tokenizer: "PreTrainedTokenizerBase | None", device: str) -> "Dense":
    from rollout.retrieval.dense import Dense

    return Dense(open_encoder(settings, tokenizer, device), size, device)
