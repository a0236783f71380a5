"""A SearchIndex by vectors, and their slices: kept beside the corpus, mapped by all processes of a node."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from rollout.errors import DataError, PolicyError
from rollout.retrieval.build import build_once, mapped_array
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.encoder import Encoder
from rollout.retrieval.index import WHOLE, Hit, Part
from rollout.retrieval.vectors import Vectors, kept_as

QUERIES_KEPT = 1024
OTHER_CONTENT = (
    "retriever.path or data.passages: samplers find other content there than others do; "
    "bring all nodes to the same files, and start again"
)
STORED_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


class Neighbours(Protocol):
    """Vectors of all passages, here or elsewhere, as `Vectors` searches them. width: D."""

    width: int

    def __len__(self) -> int: ...

    def top(self, queries: np.ndarray, count: int) -> list[list[Hit]]: ...

    def scores(self, queries: np.ndarray, positions: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class Dense:
    """Finds the passages whose vectors have the largest inner product with the query's. Searched once it was given vectors.

    loaded: name of the vectors in use."""

    def __init__(self, encoder: Encoder, size: int, device: str = "cpu"):
        """size: passages of the corpus. device: where vectors are searched."""
        self.encoder, self.size, self._device = encoder, size, device
        self._vectors: Neighbours | None = None
        self.loaded: str | None = None
        self._vector_of = lru_cache(QUERIES_KEPT)(lambda query: encoder.embed_queries([query])[0])

    def load(self, slices: Sequence[np.ndarray], name: str) -> None:
        """Take all slices in order, as `embed_slice` makes them. Raises as `search_in` does."""
        self.search_in(Vectors(slices, self._device), name)

    def search_in(self, vectors: Neighbours, name: str) -> None:
        """Raises PolicyError for vectors of another encoder."""
        if vectors.width != self.encoder.width:
            raise PolicyError(
                f"{self.encoder.name}: gives vectors of width {self.encoder.width}, those of the index have {vectors.width}; "
                "give the encoder that the index was made with"
            )
        if len(vectors) != self.size:
            raise ValueError(f"{len(vectors)} vectors of {self.size} passages")
        self._vectors, self.loaded = vectors, name

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        return self._loaded.top(self._vectors_of(queries), depth) if queries else []

    def scores(self, queries: Sequence[str], positions: Sequence[Sequence[int]]) -> list[np.ndarray]:
        wanted = [np.array(own, np.int64) for own in positions]
        return self._loaded.scores(self._vectors_of(queries), wanted) if queries else []

    def _vectors_of(self, queries: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector_of(query) for query in queries])

    @property
    def _loaded(self) -> Neighbours:
        if self._vectors is None:
            raise RuntimeError("passages are searched by vectors before any were given")
        return self._vectors


def slice_count(passages: int, size: int) -> int:
    return -(-passages // size)


def embed_slice(corpus: Corpus, encoder: Encoder, number: int, size: int, dtype: str) -> np.ndarray:
    """Vectors of the passages of slice `number`, at most `size`, as `dtype` is kept: a function of these passages alone."""
    texts = list(corpus.texts(number * size, min((number + 1) * size, len(corpus))))
    vectors = kept_as(encoder.embed_passages(texts), dtype)
    if dtype == "float16" and not np.isfinite(vectors).all():
        raise PolicyError(f"{encoder.name}: its vectors exceed float16; set retriever.dtype to float32 or bfloat16")
    return vectors


def kept_slices(corpus: Corpus, encoder: Encoder, size: int, dtype: str, part: Part = WHOLE) -> list[np.ndarray]:
    """The slices of a part, mapped from their files; those that are missing are made, with a bar for whom watches."""
    folder = vectors_folder(corpus, encoder, size, dtype)
    slices, numbers = [], part.share(slice_count(len(corpus), size))
    total = min(numbers.stop * size, len(corpus)) - numbers.start * size
    with tqdm(total=total, desc="embedding passages", unit="passage", disable=None, leave=False, delay=1) as bar:
        for number in numbers:
            slices.append(kept_slice(folder / f"{number:06}", corpus, encoder, number, size, dtype))
            bar.update(len(slices[-1]))
    return slices


def vectors_folder(corpus: Corpus, encoder: Encoder, size: int, dtype: str) -> Path:
    return corpus.folder / f"vectors-{encoder.digest}-{dtype}-{size}"


def kept_slice(folder: Path, corpus: Corpus, encoder: Encoder, number: int, size: int, dtype: str) -> np.ndarray:
    """One of them, as a plain array: Ray hands that on without a copy. Raises DataError for a file that is not what was written
    there."""
    file = folder / "vectors.npy"
    build_once(folder, lambda target: np.save(target / file.name, embed_slice(corpus, encoder, number, size, dtype)))
    expected = (min(size, len(corpus) - number * size), encoder.width)
    try:
        mapped = mapped_array(file)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove {folder}, it is made again") from error
    if mapped.shape != expected or mapped.dtype != STORED_AS[dtype]:
        raise DataError(f"{file}: holds {mapped.dtype} {mapped.shape}, not {expected}; remove {folder}, it is made again")
    return mapped
