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
