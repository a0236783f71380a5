import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.fakes import SimulatedTimeLoop
from tests.cluster.head import Head


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"loop": SimulatedTimeLoop if item.get_closest_marker("simulated_time") else asyncio.new_event_loop}


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
