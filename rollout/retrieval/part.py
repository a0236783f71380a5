"""What one of several actors holds of an index: some of BM25's shards and of the vectors' slices, by absolute positions."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rollout.config import DataSettings
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import kept_slice, kept_slices, slice_count, vectors_folder
from rollout.retrieval.encoder import Encoder
from rollout.retrieval.index import Hit, Part, SearchIndex
from rollout.retrieval.open import open_encoder, open_index
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class IndexPart:
    """Opened on first use, from `data.cache`, where what is missing is made. It may hold no shard or no slice."""

    def __init__(
        self,
        part: Part,
        data: DataSettings,
        settings: RetrieverSettings,
        tokenizer: "Callable[[], PreTrainedTokenizerBase | None]",
    ):
        """tokenizer: reads the policy's, where vectors are made of its tokens."""
        self.part, self._data, self._settings, self._tokenizer = part, data, settings, tokenizer

    def slices(self) -> Sequence[int]:
        """Numbers of those that it holds; none where nothing is searched by vectors."""
        if self._settings.used_mode == "lexical":
            return ()
        return self.part.share(slice_count(len(self._corpus), self._settings.slice_passages))

    def embed(self, number: int) -> None:
        """Make one of the slices, unless it lies in the cache."""
        made_of = self._corpus, self._encoder, self._settings.slice_passages, self._settings.dtype
        kept_slice(vectors_folder(*made_of) / f"{number:06}", *made_of[:2], number, *made_of[2:])

    def open(self) -> None:
        if self._settings.used_mode != "dense":
            _ = self._lexical
        _ = self._vectors

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        """By words, as a SearchIndex does."""
        return self._lexical.search(queries, depth)

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """By words; 0 for passages of other parts."""
        return self._lexical.scores(queries, positions)

    def nearest(self, queries: np.ndarray, count: int) -> list[list[Hit]]:
        """Of queries float32 [Q, D], as Vectors does."""
        if self._vectors is None:
            return [[] for _ in queries]
        found = self._vectors.top(queries, count)
        return [[Hit(position + self._start, score) for position, score in hits] for hits in found]

    def products(self, queries: np.ndarray, positions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of queries float32 [Q, D] with the passages at their positions; for those of other parts -0, with which a sum keeps
        the sign of a zero, too."""
        products = [np.full(len(each), -0.0, np.float32) for each in positions]
        if self._vectors is None:
            return products
        inside = [each - self._start for each in positions]
        own = [(0 <= each) & (each < len(self._vectors)) for each in inside]
        found = self._vectors.scores(queries, [each[mine] for each, mine in zip(inside, own, strict=True)])
        for each, mine, scores in zip(products, own, found, strict=True):
            each[mine] = scores
        return products

    @cached_property
    def _corpus(self) -> Corpus:
        assert self._data.passages is not None, "passages are searched"
        return Corpus.open(self._data.passages, self._data.cache)

    @cached_property
    def _lexical(self) -> SearchIndex:
        return open_index(self._corpus, self._data, self.part)

    @cached_property
    def _encoder(self) -> Encoder:
        return open_encoder(self._settings, self._tokenizer(), "cpu")

    @cached_property
    def _vectors(self) -> Vectors | None:
        if not self.slices():
            return None
        made_of = self._corpus, self._encoder, self._settings.slice_passages, self._settings.dtype
        vectors = Vectors(kept_slices(*made_of, self.part))
        del self._encoder  # samplers embed queries
        return vectors

    @property
    def _start(self) -> int:
        """Position of the first passage whose vector it holds."""
        return self.slices()[0] * self._settings.slice_passages
