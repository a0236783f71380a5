"""Content by its SHA-256, in hexadecimal digits."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
