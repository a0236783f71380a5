"""Which process an actor is, and which code it runs."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
RUN_BY_ACTORS = ("rollout", "reward", "learner")


class Identity(NamedTuple):
    """code: digest of what actors run; folder: where it lies."""

    node: str
    process: int
    code: str
    folder: str


@cache
def code_digest(packages: tuple[str, ...] = RUN_BY_ACTORS) -> str:
    """Of all modules of these packages, by default of those that actors run, as they were when this process asked first."""
    files = sorted(file.relative_to(PROJECT) for package in packages for file in (PROJECT / package).rglob("*.py"))
    parts = (f"{file.as_posix()}\n".encode() + (PROJECT / file).read_bytes() for file in files)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
