"""Passages searched by vectors, and by words and vectors, beside faiss-cpu's IndexFlatIP and bm25s. Clustered vectors."""

import multiprocessing
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import psutil

from benchmarks.machine import median_seconds
from benchmarks.retrieval_bm25 import by_bm25s, drawn_words, written
from rollout.policy.tokenizer import train_tokenizer
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import Dense
from rollout.retrieval.encoder import load_encoder, static_encoder
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.retrieval.vectors import Vectors
from rollout.text import ENGLISH

DEPTH, SLICE, CENTRES, PROCESSES, WORDS_A_QUERY, READ = 20, 4096, 500, 3, 10, 4
EMBEDDED, STATIC_EMBEDDED = 256, 4096
SETTINGS = RetrieverSettings(mode="hybrid")


def top_k(options: Namespace, folder: Path) -> dict[str, object]:
    matrix, queries = drawn(options)
    ours, theirs = Vectors(sliced(matrix)), flat(matrix)
    ways = {"ours": lambda: ours.top(queries, DEPTH), "faiss": lambda: theirs.search(queries, DEPTH)}
    seconds = median_seconds(ways, options.repetitions)
    known = theirs.search(queries, DEPTH)[1].tolist()
    found = [{hit.position for hit in hits} for hits in ours.top(queries, DEPTH)]
    recall = float(np.mean([len(own & set(ids)) / len(own) for own, ids in zip(found, known, strict=True)]))
    result = {"topk_speedup": round(seconds["faiss"] / seconds["ours"], 2), "recall": recall}
    return result | told("topk", seconds, options.queries)


def hybrid(options: Namespace, folder: Path) -> dict[str, object]:
    """Ours with the texts that are read; bm25s and faiss each by itself, with nothing mixed or read."""
    matrix, queries = drawn(options)
    corpus = Corpus.open(written(folder, options.size), folder / "cache")
    asked = [" ".join(words) for words in drawn_words(np.random.default_rng(2), [WORDS_A_QUERY] * options.queries)]
    dense = Dense(Given(queries, asked), len(corpus))  # type: ignore[arg-type]
    dense.load(sliced(matrix), "given")
    ours = LocalSource(corpus, "all", SETTINGS, Bm25(corpus, ENGLISH), dense)
    words, vectors = by_bm25s(corpus), flat(matrix)
    tokens = [ENGLISH.search_tokens(query) for query in asked]

    def theirs() -> None:
        words.retrieve(tokens, k=DEPTH, n_threads=1, show_progress=False, backend_selection="numpy")
        vectors.search(queries, DEPTH)

    seconds = median_seconds({"ours": lambda: ours.find(asked, READ), "bm25s_faiss": theirs}, options.repetitions)
    nearest = vectors.search(queries, SETTINGS.candidates)[1]
    known = [mixed(words.get_scores(own), ids, matrix, query) for own, ids, query in zip(tokens, nearest, queries, strict=True)]
    same = [list(each.ranking) == ids for each, ids in zip(ours.find(asked, READ), known, strict=True)]
    result = {"hybrid_speedup": round(seconds["bm25s_faiss"] / seconds["ours"], 2), "hybrid_recall": float(np.mean(same))}
    return result | told("hybrid", seconds, options.queries)


def mixed(by_words: np.ndarray, nearest: np.ndarray, matrix: np.ndarray, query: np.ndarray) -> list[str]:
    """What a hybrid finds, by the peers' results: by_words [n] are BM25 scores, nearest the positions of candidates."""
    best = np.argsort(-by_words, kind="stable")[: SETTINGS.lexical]
    pool = np.union1d(best[by_words[best] > 0], nearest)
    scores = SETTINGS.used_scale * (matrix[pool] @ query).astype(float) + SETTINGS.lexical_weight * by_words[pool].astype(float)
    return [f"p{position}" for position in pool[np.argsort(-scores, kind="stable")][:DEPTH].tolist()]


def copies(options: Namespace, folder: Path) -> dict[str, object]:
    """Three processes take in the same slices and search them: the sum of their proportional memory over the matrix."""
    matrix, queries = drawn(options)
    file = folder / "matrix.npy"
    np.save(file, matrix)
    with multiprocessing.get_context("spawn").Manager() as manager:
        together = manager.Barrier(PROCESSES)
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            took = pool.starmap(proportional_memory, [(file, queries, together)] * PROCESSES, 1)
    held, seconds = sum(added for added, _ in took) / matrix.nbytes, max(each for _, each in took)
    return {"copies": round(held, 1), "samplers": PROCESSES, "take_in_ms": round(1000 * seconds, 1)}


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


def embed(options: Namespace, folder: Path) -> dict[str, object]:
    """Passages of the corpus by the encoder, or by the static one of a tokenizer that is trained on them."""
    texts = list(Corpus.open(written(folder, options.size), folder / "cache").texts(0, STATIC_EMBEDDED))
    if options.encoder is None:
        encoder = static_encoder(train_tokenizer(texts, 4096), SETTINGS, "cpu")
    else:
        encoder, texts = load_encoder(RetrieverSettings(path=str(options.encoder)), "cpu"), texts[:EMBEDDED]
    counted = encoder.model.preprocess(texts)
    tokens = len(counted["input_ids"]) if "offsets" in counted else int(counted["attention_mask"].sum())
    seconds = median_seconds({"embed": lambda: encoder.embed_passages(texts)}, 3)["embed"]
    return {"encoder": "static" if options.encoder is None else options.encoder.name} | {
        "embed_tokens_per_s": round(tokens / seconds),
        "embed_passages_per_s": round(len(texts) / seconds),
    }


def drawn(options: Namespace) -> tuple[np.ndarray, np.ndarray]:
    """float32 [size, width] and [queries, width] of length 1, about the same centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, options.width), np.float32)

    def about(count: int) -> np.ndarray:
        found = centres[rng.integers(CENTRES, size=count)] + rng.standard_normal((count, options.width), np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    return about(options.size), about(options.queries)


def sliced(matrix: np.ndarray) -> list[np.ndarray]:
    return [matrix[i : i + SLICE] for i in range(0, len(matrix), SLICE)]


def flat(matrix: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    return index


class Given:
    """In the encoder's place: queries are numbers of rows that are known, so that only the search takes time."""

    name, digest = "given", "given"

    def __init__(self, queries: np.ndarray, texts: Sequence[str]):
        self.width, self._rows = queries.shape[1], dict(zip(texts, queries, strict=True))

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._rows[text] for text in texts])


def told(name: str, seconds: dict[str, float], queries: int) -> dict[str, object]:
    """Milliseconds of each way for all queries, and queries a second."""
    figures: dict[str, object] = {}
    for way, taken in seconds.items():
        figures |= {f"{name}_{way}_ms": round(1000 * taken, 2), f"{name}_{way}_queries_per_s": round(queries / taken, 1)}
    return figures
