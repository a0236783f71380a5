import asyncio
from collections.abc import Callable

import pytest

from tests.cluster.fakes import SimulatedTimeLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time is simulated where no Ray is."""
    with_ray = "ray_session" in getattr(item, "fixturenames", ())
    return {"loop": asyncio.new_event_loop if with_ray else SimulatedTimeLoop}
