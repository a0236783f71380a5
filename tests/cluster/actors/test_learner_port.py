"""What the loss of a learner is, and what is not, with actors that are plain objects, in simulated time."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError

from cluster.actors.errors import InputsLost, LearnerLost
from cluster.actors.learner_port import LearnerPort
from cluster.actors.ports import Snapshot
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from rollout.errors import ClusterError, LapdogError, PolicyError
from rollout.types import Version
from tests.cluster.fakes import FakeCluster, FakeHandle, raised_by_the_task

pytestmark = pytest.mark.simulated_time


async def started(handle: FakeHandle) -> LearnerPort:
    def spawn(name: str, *, avoid: Collection[str]) -> FakeHandle:
        return handle

    port = LearnerPort(spawn, RetryPolicy(call_deadline_s=0.05), lambda text: None)
    await port.start()
    return port


@pytest.mark.parametrize(
    ("met", "raised", "message"),
    [
        (ActorDiedError(), LearnerLost, "lost in update"),
        (OutOfMemoryError("the node ran out of memory"), LearnerLost, "lost in update .the node ran out of memory"),
        (raised_by_the_task(OSError("bad device")), LearnerLost, "update failed .OSError: .*bad device"),
        (raised_by_the_task(ObjectLostError("ab" * 28, None, "")), InputsLost, "what update was given is lost"),
        (ObjectLostError("ab" * 28, None, ""), InputsLost, "what update was given is lost"),
        (raised_by_the_task(PolicyError("a/b: no such folder; correct it")), PolicyError, "its traceback"),
        (None, LearnerLost, "update gave no answer in 0.05 s"),
    ],
)
async def test_what_a_call_meets_is_told_apart(met: Exception | None, raised: type[LapdogError], message: str) -> None:
    learner = FakeHandle()
    port = await started(learner)
    learner.error, learner.is_frozen = met, met is None
    with pytest.raises(raised, match=message):
        await port.update(1, None, [])
    assert learner.process_kills == (met is None)


async def test_a_learner_that_freezes_after_its_update_is_lost_when_it_publishes() -> None:
    learner = FakeHandle()
    port = await started(learner)
    learner.is_frozen = True
    with pytest.raises(LearnerLost, match="weights gave no answer"):
        await port.publish(Version(0, 1))
    assert learner.process_kills == 1


async def test_weights_stay_where_they_were_made_and_their_size_is_awaited() -> None:
    port = await started(FakeHandle(weights=lambda: ("buffer", 6)))
    snapshot = await port.publish(Version(0, 1))
    assert snapshot.version == Version(0, 1) and await snapshot.weights == "buffer"


async def test_a_learner_is_idle_or_busy_once_it_is_there() -> None:
    learner = FakeHandle(update=lambda *_: ("metrics", 1.5))
    learner.is_held = True
    port = await started(learner)
    assert port.states == {"starting": 0, "idle": 1, "busy": 0}
    update = asyncio.create_task(port.update(1, None, []))
    await asyncio.sleep(0)
    assert port.states == {"starting": 0, "idle": 0, "busy": 1}
    learner.answer()
    assert (await update).seconds == 1.5
    port.close()
    assert port.states == {"starting": 1, "idle": 0, "busy": 0} and learner.kills == 1


def failing(*names: str) -> Callable[[FakeHandle], None]:
    """Those of these names die while they load."""

    def prepare(handle: FakeHandle) -> None:
        handle.loads = handle.name not in names
        if not handle.loads:
            asyncio.get_running_loop().call_soon(handle.die)

    return prepare


def port_of(cluster: FakeCluster) -> LearnerPort:
    return LearnerPort(cluster.spawn, RetryPolicy(), cluster.events.append)


async def test_a_learner_is_started_three_times() -> None:
    cluster = FakeCluster(failing("0", "1"))
    port = port_of(cluster)
    await port.start()
    assert port.restarts == 0 and cluster.pauses_s() == [0.5, 1]
    assert [handle.kills for handle in cluster.handles] == [1, 1, 0]
    assert cluster.events[0].startswith("learner: cannot be started (The actor died")
    with pytest.raises(ClusterError, match="learner: cannot be started"):
        await port_of(FakeCluster(failing("0", "1", "2"))).start()


async def test_a_new_learner_takes_the_place_of_the_lost_one_on_another_node() -> None:
    cluster = FakeCluster()
    port = port_of(cluster)
    await port.start()
    cluster.handles[0].die()
    with pytest.raises(LearnerLost):
        await port.check()
    await port.start()
    await port.check()
    assert port.restarts == 1 and cluster.avoided == [[], ["a"]]
    assert [handle.kills for handle in cluster.handles] == [1, 0]


async def test_a_learner_without_a_place_counts_the_seconds_until_it_has_one() -> None:
    def without_place(handle: FakeHandle) -> None:
        handle.has_place = False

    cluster = FakeCluster(without_place)
    port = port_of(cluster)
    assert await port.without_a_place_s() == 0
    starting: asyncio.Task[Any] = asyncio.create_task(port.start())
    await asyncio.sleep(20)
    assert await port.without_a_place_s() == 20
    cluster.handles[0].answer()
    await starting
    assert await port.without_a_place_s() == 0


@pytest.mark.parametrize(
    ("method", "met", "message"),
    [
        ("update", ActorDiedError(), "lost in update"),
        ("weights", ActorDiedError(), "lost in weights"),
        ("weights", raised_by_the_task(RuntimeError("CUDA error")), "weights failed .RuntimeError: .*CUDA error"),
    ],
)
async def test_weights_that_could_not_be_made_never_become_current(method: str, met: Exception, message: str) -> None:
    """Samplers would raise what the learner met, and be replaced."""
    learner = FakeHandle(update=lambda *_: ("metrics", 1.5))
    port = await started(learner)
    store = SnapshotStore(port, Version(0, 0))
    learner.answers[method] = lambda *_: met
    with pytest.raises(LearnerLost, match=message):
        await store.after(port.update(1, None, []), Version(0, 1), publish=True)
    assert store.current == Snapshot(Version(0, 0))
