"""Passages indexed and searched, at any size: seconds, memory, disk, milliseconds a query, beside the libraries' own ways.

    python -m benchmarks.retrieval [--part topk] [--size 100000] [--queries 8] [--threads 1] [--encoder DIR] [--folder DIR]

bm25    `Bm25` built and searched; bm25s on as many passages as --peer-size says
topk    `Vectors.top`, exact in float64; faiss-cpu's IndexFlatIP on the same vectors
hybrid  `LocalSource.find`, every candidate scored by words and vectors; bm25s and faiss, each by itself
copies  three processes with the same slices: the sum of their proportional memory over the size of the matrix
embed   tokens a second of `Encoder.embed_passages`, with --encoder or by the static one

Milliseconds are of all queries together, but for query_ms of bm25. The last line is JSON; recall is the share of faiss' ids
that ours finds, hybrid_recall that of the queries for which all ids are, in order, those of a mixture of the peers' scores.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import faiss
import torch

from benchmarks import retrieval_bm25, retrieval_vectors

Part = Callable[[argparse.Namespace, Path], dict[str, object]]  # of flags and a folder, what it adds to the last line
PARTS: dict[str, Part] = {
    "bm25": retrieval_bm25.measured,
    "topk": retrieval_vectors.top_k,
    "hybrid": retrieval_vectors.hybrid,
    "copies": retrieval_vectors.copies,
    "embed": retrieval_vectors.embed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="default: all")
    parser.add_argument("--size", type=int, default=100_000, help="passages")
    parser.add_argument(
        "--peer-size", type=int, default=100_000, help="of bm25: passages of the peer's, which holds all in memory; 0: none"
    )
    for name, default in {"width": 384, "queries": 8, "threads": 1, "repetitions": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", type=Path, help="folder of a sentence-transformers encoder")
    parser.add_argument("--folder", type=Path, help="keeps passages and indexes there; default: a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    result: dict[str, object] = {"bench": "retrieval", "size": options.size, "threads": options.threads}
    with tempfile.TemporaryDirectory() as passing:
        folder = options.folder or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        for part in [options.part] if options.part else PARTS:
            found = PARTS[part](options, folder)
            print(json.dumps({part: found}, indent=1), flush=True)
            result |= found
    print(json.dumps(result))


if __name__ == "__main__":
    main()
