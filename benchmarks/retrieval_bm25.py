"""BM25 in shards beside bm25s as it is used by itself: token lists of all passages in memory, one index, its own top-k.

Passages are drawn with a seed: 60 words on average, log-uniform ranks of a million words (Zipf's law), the first of them the
stop words of English. The figures at 2*10^7 are extrapolated from the shards that were built.
"""

import itertools
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS
from bm25s.tokenization import Tokenized

from benchmarks.memory import PeakMemory
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.text import ENGLISH

Made = TypeVar("Made")
RANKS = 1_000_000
BLOCK = 1000  # passages that are drawn at once
QUERIES = 8
DEPTH = 20
REPETITIONS = 9
LARGE = 20_000_000


def measured(options: Namespace, folder: Path) -> dict[str, object]:
    size, peer_size = options.size, options.peer_size
    shutil.rmtree(folder / "cache", ignore_errors=True)
    file = written(folder, size)
    result: dict[str, object] = {"passages": size, "text_mb": round(file.stat().st_size / 1e6)}
    with PeakMemory() as memory:
        corpus, convert_s = timed(lambda: Corpus.open(file, folder / "cache"))
        _, build_s = timed(lambda: Bm25(corpus, ENGLISH))
        index, take_in_s = timed(lambda: Bm25(corpus, ENGLISH))
    disk_mb = sum(path.stat().st_size for path in corpus.folder.rglob("*") if path.is_file()) / 1e6
    result |= {"convert_s": round(convert_s, 1), "build_s": round(build_s, 1), "disk_mb": round(disk_mb)}
    result |= {"take_in_ms": round(1000 * take_in_s, 1)} | told(memory, "build")
    queries = [" ".join(words) for words in drawn_words(np.random.default_rng(1), [10] * QUERIES)]
    with PeakMemory() as memory:
        result["first_ms"] = round(1000 * timed(lambda: index.search(queries, DEPTH))[1] / QUERIES, 2)
        ms = 1000 * median_s(lambda: index.search(queries, DEPTH)) / QUERIES
    result |= {"query_ms": round(ms, 2)} | told(memory, "search")
    times = LARGE / size
    result["extrapolated"] = {
        "passages": LARGE,
        "minutes": round(times * (convert_s + build_s) / 60, 1),
        "disk_gb": round(times * disk_mb / 1000, 1),
        "query_ms": round(times * ms, 1),
    }
    return {"bm25": result | (compared(peer_size, folder, queries) if peer_size else {})}


def compared(size: int, folder: Path, queries: Sequence[str]) -> dict[str, object]:
    """Ours and the library's own way at one size, in this order, as that one leaves its memory taken."""
    corpus = Corpus.open(written(folder, size), folder / "cache")
    ours, build_s = timed(lambda: Bm25(corpus, ENGLISH))
    with PeakMemory() as memory:
        library, library_build_s = timed(lambda: by_bm25s(corpus))
    tokens = [ENGLISH.search_tokens(query) for query in queries]

    def search() -> bm25s.Results:
        return library.retrieve(tokens, k=DEPTH, n_threads=1, show_progress=False, backend_selection="numpy")

    theirs = search().scores.tolist()
    found = [[hit.score for hit in hits] for hits in ours.search(queries, DEPTH)]
    ms, library_ms = (1000 * median_s(way) / QUERIES for way in (lambda: ours.search(queries, DEPTH), search))
    peer = {"passages": size, "build_s": round(library_build_s, 1), "query_ms": round(library_ms, 2)} | told(memory, "build")
    own = {"passages": size, "build_s": round(build_s, 1), "query_ms": round(ms, 2)}
    return {"bm25s": peer, "beside_it": own, "equal_scores": found == theirs, "search_speedup": round(library_ms / ms, 2)}


def by_bm25s(corpus: Corpus) -> bm25s.BM25:
    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in ENGLISH.search_tokens(text)] for text in corpus.texts()]
    index = bm25s.BM25()
    index.index(Tokenized(ids, vocabulary), show_progress=False)
    return index


def written(folder: Path, size: int) -> Path:
    """A file of that many passages, by a process of its own: its memory is not ours."""
    file = folder / f"passages-{size}.jsonl"
    if not file.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.retrieval_bm25", file, str(size)], check=True)
    return file


def write(file: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    with file.open("w") as out:
        for start in range(0, size, BLOCK):
            lengths = rng.integers(30, 91, min(BLOCK, size - start)).tolist()
            for number, words in enumerate(drawn_words(rng, lengths), start):
                out.write(f'{{"id": "p{number}", "title": "", "text": "{" ".join(words)}"}}\n')


def drawn_words(rng: np.random.Generator, lengths: Sequence[int]) -> Iterator[list[str]]:
    ranks = iter(np.exp(rng.uniform(0, np.log(RANKS), sum(lengths))).astype(int).tolist())
    for length in lengths:
        own = itertools.islice(ranks, length)
        yield [STOPWORDS_EN_PLUS[rank] if rank < len(STOPWORDS_EN_PLUS) else f"w{rank}" for rank in own]


def told(memory: PeakMemory, of: str) -> dict[str, float]:
    parts = {"own_before": memory.own_before_mb, "own": memory.own_mb, "mapped": memory.mapped_mb}
    return {f"{of}_{part}_mb": round(megabytes) for part, megabytes in parts.items()}


def timed(way: Callable[[], Made]) -> tuple[Made, float]:
    start = time.perf_counter()
    made = way()
    return made, time.perf_counter() - start


def median_s(way: Callable[[], object]) -> float:
    return statistics.median(timed(way)[1] for _ in range(REPETITIONS))


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
