"""Searching passages by vectors, and by words and vectors, exactly.

    python -m benchmarks.vectors [--passages 100000] [--width 384] [--queries 8] [--threads 1] [--encoder FOLDER]

top-k   ours: `Vectors.top`, exact in float64; faiss: faiss-cpu's IndexFlatIP on the same vectors
hybrid  ours: `LocalSource.find`, BM25 and vectors, every candidate scored by both; theirs: bm25s and faiss, each by itself
copies  three processes map the same slices and search them; the sum of their proportional memory over that of the matrix
embed   tokens a second of `Encoder.embed_passages`, with --encoder

Clustered vectors and drawn words. The last line is JSON; recall is the share of faiss' ids that ours have at the same place.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import bm25s
import faiss
import numpy as np
import psutil
import torch

from benchmarks.machine import median_seconds
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import Dense
from rollout.retrieval.encoder import load_encoder
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.retrieval.vectors import Vectors
from rollout.text import ENGLISH

DEPTH, SLICE, WORDS, VOCABULARY, PROCESSES = 20, 4096, 60, 30_000, 3


def vectors_of(count: int, width: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [count, width] of length 1, about the centres."""
    drawn = centres[rng.integers(len(centres), size=count)] + rng.standard_normal((count, width)).astype(np.float32)
    found: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def texts_of(count: int, rng: np.random.Generator) -> list[str]:
    """Of words whose frequencies fall as those of a language."""
    words = np.minimum(rng.zipf(1.2, (count, WORDS)), VOCABULARY)
    return [" ".join(f"w{word}" for word in row) for row in words.tolist()]


class Given:
    """In the encoder's place: queries are numbers of rows that are known, so that only the search takes time."""

    name, digest = "given", "given"

    def __init__(self, queries: np.ndarray, texts: Sequence[str]):
        self.width, self._rows = queries.shape[1], dict(zip(texts, queries, strict=True))

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._rows[text] for text in texts])


def sliced(matrix: np.ndarray) -> list[np.ndarray]:
    return [matrix[i : i + SLICE] for i in range(0, len(matrix), SLICE)]


def top_k(matrix: np.ndarray, queries: np.ndarray, repetitions: int) -> dict[str, float]:
    ours, theirs = Vectors(sliced(matrix)), faiss.IndexFlatIP(matrix.shape[1])
    theirs.add(matrix)
    ways = {"ours": lambda: ours.top(queries, DEPTH), "faiss": lambda: theirs.search(queries, DEPTH)}
    seconds = median_seconds(ways, repetitions)
    found = [[hit.position for hit in hits] for hits in ours.top(queries, DEPTH)]
    recall = float(np.mean(np.array(found) == theirs.search(queries, DEPTH)[1]))
    print(f"top-k   ours {1e3 * seconds['ours']:.1f} ms, faiss Flat {1e3 * seconds['faiss']:.1f} ms, same ids {recall:.4f}")
    return {"topk_speedup": seconds["faiss"] / seconds["ours"], "topk_ms": 1e3 * seconds["ours"], "recall": recall}


def hybrid(
    folder: Path, matrix: np.ndarray, queries: np.ndarray, rng: np.random.Generator, repetitions: int
) -> dict[str, float]:
    texts, asked = texts_of(len(matrix), rng), texts_of(len(queries), rng)
    rows = (json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts))
    (folder / "passages.jsonl").write_text("\n".join(rows) + "\n")
    corpus = Corpus.open(folder / "passages.jsonl", folder / "cache")
    dense = Dense(Given(queries, asked), len(corpus))  # type: ignore[arg-type]
    dense.load(sliced(matrix), "given")
    ours = LocalSource(corpus, "all", RetrieverSettings(mode="hybrid"), Bm25(corpus, ENGLISH), dense)
    words, flat = bm25s.BM25(), faiss.IndexFlatIP(matrix.shape[1])
    words.index([text.split() for text in texts], show_progress=False)
    flat.add(matrix)
    tokens = [text.split() for text in asked]

    def theirs() -> None:
        words.retrieve(tokens, k=DEPTH, n_threads=1, show_progress=False)
        flat.search(queries, DEPTH)

    seconds = median_seconds({"ours": lambda: ours.find(asked, 4), "theirs": theirs}, repetitions)
    print(f"hybrid  ours {1e3 * seconds['ours']:.1f} ms, bm25s and faiss Flat {1e3 * seconds['theirs']:.1f} ms")
    return {"hybrid_speedup": seconds["theirs"] / seconds["ours"], "hybrid_ms": 1e3 * seconds["ours"]}


def proportional_memory(file: Path, queries: np.ndarray, together: "multiprocessing.synchronize.Barrier") -> tuple[int, float]:
    """(bytes that mapping and searching the matrix added, seconds of taking it in), measured while all processes hold it."""
    Vectors([queries]).top(queries, 1)  # what the libraries themselves take
    before = psutil.Process().memory_full_info().pss
    start = time.perf_counter()
    vectors = Vectors(sliced(np.load(file, mmap_mode="r")))
    seconds = time.perf_counter() - start
    vectors.top(queries, DEPTH)
    together.wait()
    added = psutil.Process().memory_full_info().pss - before
    together.wait()
    return added, seconds


def copies(folder: Path, matrix: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    np.save(folder / "matrix.npy", matrix)
    with multiprocessing.get_context("spawn").Manager() as manager:
        together = manager.Barrier(PROCESSES)
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            told = pool.starmap(proportional_memory, [(folder / "matrix.npy", queries, together)] * PROCESSES, 1)
    held, seconds = sum(added for added, _ in told) / matrix.nbytes, max(each for _, each in told)
    print(f"copies  {PROCESSES} processes hold {held:.2f} times the matrix, taken in within {seconds:.2f} s")
    return {"copies": held, "take_in_s": seconds}


def embed(encoder: Path, rng: np.random.Generator) -> dict[str, float]:
    loaded = load_encoder(RetrieverSettings(path=str(encoder)), "cpu")
    tokenizer = loaded.model.tokenizer
    known = [word for word in tokenizer.get_vocab() if word.isalpha()]
    texts = [" ".join(rng.choice(known, 2 * WORDS)) for _ in range(256)]
    tokens = sum(min(256, len(tokenizer(text)["input_ids"])) for text in texts)
    seconds = median_seconds({"embed": lambda: loaded.embed_passages(texts)}, 3)["embed"]
    print(f"embed   {tokens / seconds:.0f} tokens a second, {len(texts) / seconds:.0f} passages")
    return {"embed_tokens_per_s": tokens / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"passages": 100_000, "width": 384, "queries": 8, "threads": 1, "repetitions": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, options.width)).astype(np.float32)
    matrix, queries = (vectors_of(count, options.width, centres, rng) for count in (options.passages, options.queries))
    with tempfile.TemporaryDirectory() as folder:
        figures = top_k(matrix, queries, options.repetitions) | copies(Path(folder), matrix, queries)
        figures |= hybrid(Path(folder), matrix, queries, rng, options.repetitions)
    if options.encoder is not None:
        figures |= embed(options.encoder, rng)
    print(json.dumps({"bench": "vectors", **vars(options), "encoder": str(options.encoder), **figures}))


if __name__ == "__main__":
    main()
