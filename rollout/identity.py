"""Which process an actor is, and which code it runs."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[1]
RUN_BY_ACTORS = ("rollout", "reward", "learner")


class Identity(NamedTuple):
    """code: digest of what actors run; folder: where it lies."""

    node: str
    process: int
    code: str
    folder: str


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Of all modules that actors run, as they were when this process asked first."""
    files = sorted(file.relative_to(FOLDER) for package in RUN_BY_ACTORS for file in (FOLDER / package).rglob("*.py"))
    parts = (f"{file.as_posix()}\n".encode() + (FOLDER / file).read_bytes() for file in files)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
