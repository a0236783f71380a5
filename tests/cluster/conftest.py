import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.head import Head


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    head = Head(tmp_path)
    try:
        head.wait_until_up()
        yield head
    finally:
        head.close()


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return shutil.copytree(finished_run, tmp_path / "first", symlinks=True)
