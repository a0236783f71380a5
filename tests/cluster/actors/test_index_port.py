"""Actors that hold an index in parts, which are plain objects, in simulated time. Ray's own restarts are a change of node."""

import asyncio
from collections.abc import Callable

import pytest

from cluster.actors.index_port import IndexPort
from cluster.actors.retry_policy import RetryPolicy
from rollout.errors import ClusterError, LapdogError, PolicyError, SettingsError
from tests.cluster.fakes import FakeCluster, FakeHandle, raised_by_the_task

pytestmark = pytest.mark.simulated_time

RETRY = RetryPolicy(start_deadline_s=300, call_deadline_s=900, look_s=2)


class Parts:
    """Three of them, of which the last has no slice."""

    def __init__(self, prepare: Callable[[FakeHandle], None] = lambda handle: None):
        def prepared(handle: FakeHandle) -> None:
            handle.answers["slices"] = lambda: [[0, 1], [2], []][int(handle.name)]
            prepare(handle)

        self.cluster, self.events = FakeCluster(prepared), list[str]()
        self.port = IndexPort(3, self.cluster.spawn, RETRY, self.events.append)
        self.port.start()


def only(number: int, change: Callable[[FakeHandle], None]) -> Callable[[FakeHandle], None]:
    return lambda handle: change(handle) if handle.name == str(number) else None


async def test_every_part_embeds_its_slices_and_is_told_of_once_it_is_ready() -> None:
    parts = Parts()
    assert parts.port.states == {"starting": 3, "idle": 0, "busy": 0}
    await parts.port.opened()
    asked = [handle.asked for handle in parts.cluster.handles]
    assert asked == [[("slices", ()), ("embed", (0,)), ("embed", (1,))], [("slices", ()), ("embed", (2,))], [("slices", ())]]
    assert parts.events[0] == "opening the index in 3 parts" and parts.events[-1].startswith("the index is open after ")
    assert sorted(parts.events[1:-1]) == [f"index part {i + 1} of 3 ready on node {'aba'[i]}" for i in range(3)]
    assert parts.port.states == {"starting": 0, "idle": 3, "busy": 0} and len(parts.port.actors) == 3
    parts.port.close()
    assert [handle.kills for handle in parts.cluster.handles] == [1, 1, 1]


async def test_without_parts_nothing_is_done() -> None:
    port = IndexPort(0, FakeCluster().spawn, RETRY, print)
    port.start()
    await port.opened()
    port.close()
    assert not port.actors and await port.without_a_place_s() == 0


@pytest.mark.parametrize(
    ("change", "raised", "told"),
    [
        (
            lambda handle: setattr(handle, "start_error", raised_by_the_task(PolicyError("retriever.path x: is none"))),
            PolicyError,
            "retriever.path x: is none",
        ),
        (
            lambda handle: setattr(handle, "start_error", raised_by_the_task(KeyError("shard"))),
            ClusterError,
            "index part 2 of 3: ready failed .KeyError: 'shard'.; see its log in the dashboard",
        ),
        (
            lambda handle: setattr(handle, "has_place", False),
            ClusterError,
            "index part 2 of 3: not started in 300 s; `ray status` tells what is lacking",
        ),
        (lambda handle: setattr(handle, "code", "other"), SettingsError, "index part 2 of 3: runs other code"),
    ],
)
async def test_what_one_part_meets_ends_the_wait_for_all(
    change: Callable[[FakeHandle], None], raised: type[LapdogError], told: str
) -> None:
    parts = Parts(only(1, change))
    with pytest.raises(raised, match=told):
        await parts.port.opened()
    parts.port.close()


async def test_a_part_that_ray_starts_again_is_told_of_and_counted() -> None:
    parts = Parts()
    await parts.port.opened()
    await asyncio.sleep(5)
    parts.cluster.handles[0].node = "other"
    await asyncio.sleep(5)
    assert parts.events[-1] == "index part 1 of 3 was lost; Ray has started it again on node other"
    assert parts.port.restarts == 1
    parts.port.close()


async def test_a_part_that_is_lost_again_and_again_before_it_is_open_ends_the_run() -> None:
    parts = Parts(only(2, lambda handle: setattr(handle, "loads", False)))
    opening = asyncio.create_task(parts.port.opened())
    for node in ("x", "y", "z"):
        await asyncio.sleep(5)
        parts.cluster.handles[2].node = node
    with pytest.raises(ClusterError, match="index part 3 of 3: lost 3 times before it was open; see its log"):
        await opening
    parts.port.close()


async def test_a_frozen_process_is_ended_so_that_ray_starts_another() -> None:
    parts = Parts()
    await parts.port.opened()
    frozen = parts.cluster.handles[1]
    frozen.is_frozen = True
    await asyncio.sleep(2 + 100)
    assert await parts.port.without_a_place_s() == 0  # it has one
    await asyncio.sleep(802)
    assert frozen.process_kills == 1 and parts.events[-1] == "index part 2 of 3: no answer in 900 s; ending its process"
    parts.port.close()
