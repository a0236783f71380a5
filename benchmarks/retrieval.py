"""Passages indexed and searched, at any size: seconds, memory, disk, milliseconds a query, beside the libraries' own ways.

    python -m benchmarks.retrieval [--part bm25] [--size 100000] [--peer-size 100000] [--folder DIR]

The last line is JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import retrieval_bm25

Part = Callable[[int, int, Path], dict[str, object]]  # of size, peer's size and folder, what it adds to the last line
PARTS: dict[str, Part] = {"bm25": retrieval_bm25.measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="default: all")
    parser.add_argument("--size", type=int, default=100_000, help="passages of our index")
    parser.add_argument(
        "--peer-size", type=int, default=100_000, help="passages of the peer's, which holds all in memory; 0: none"
    )
    parser.add_argument("--folder", type=Path, help="keeps passages and indexes there; default: a temporary folder")
    options = parser.parse_args()
    result: dict[str, object] = {"bench": "retrieval"}
    with tempfile.TemporaryDirectory() as passing:
        for part in [options.part] if options.part else PARTS:
            result |= PARTS[part](options.size, options.peer_size, options.folder or Path(passing))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
