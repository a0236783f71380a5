import asyncio

import pytest

from cluster.actors.errors import InputsLost, LearnerLost
from cluster.actors.ports import Snapshot
from cluster.actors.snapshots import SnapshotStore
from rollout.types import Version

pytestmark = pytest.mark.simulated_time

FIRST, SECOND = Version(0, 0), Version(0, 1)


class FakeLearner:
    """Publishes "weights 1", "weights 2", ...; it is lost where `lost`."""

    def __init__(self) -> None:
        self.published: list[Version] = []
        self.checks = 0
        self.lost = False

    async def publish(self, version: Version) -> Snapshot:
        await self.check()
        self.published.append(version)
        return Snapshot(version, f"weights {len(self.published)}")

    async def check(self) -> None:
        self.checks += 1
        await asyncio.sleep(1)
        if self.lost:
            raise LearnerLost("learner: gone")


def store_of(learner: FakeLearner | None) -> SnapshotStore:
    return SnapshotStore(learner, FIRST)  # type: ignore[arg-type]  # it uses two methods


async def test_what_is_published_is_current_once_the_learner_has_answered() -> None:
    store = store_of(FakeLearner())
    publishing = asyncio.create_task(store.publish(SECOND))
    await asyncio.sleep(0)
    assert store.current == Snapshot(FIRST)
    await publishing
    assert store.current == Snapshot(SECOND, "weights 1")


async def test_weights_of_a_lost_learner_do_not_become_current() -> None:
    learner = FakeLearner()
    store, learner.lost = store_of(learner), True
    with pytest.raises(LearnerLost):
        await store.publish(SECOND)
    assert store.current == Snapshot(FIRST)


async def test_what_many_calls_lost_is_published_again_once() -> None:
    learner = FakeLearner()
    store = store_of(learner)
    await store.publish(SECOND)
    lost = store.current
    await asyncio.gather(*(store.restore(lost) for _ in range(5)))
    assert learner.published == [SECOND, SECOND] and store.current == Snapshot(SECOND, "weights 2")


async def test_what_is_no_longer_current_is_not_published_again() -> None:
    learner = FakeLearner()
    store = store_of(learner)
    await store.publish(SECOND)
    before = store.current
    await store.publish(Version(0, 2))
    await store.restore(before)
    assert learner.published == [SECOND, Version(0, 2)] and store.current.version.step == 2


async def test_where_no_weights_were_given_only_the_learner_is_asked() -> None:
    learner = FakeLearner()
    store = store_of(learner)
    await store.restore(store.current)
    assert (learner.published, learner.checks) == ([], 1)
    learner.lost = True
    with pytest.raises(LearnerLost):
        await store.restore(store.current)


async def test_without_a_learner_nothing_is_published_again() -> None:
    store = store_of(None)
    await store.restore(store.current)
    assert store.current == Snapshot(FIRST)


def test_staleness_counts_steps_whatever_the_incarnation() -> None:
    store = store_of(None)
    store.current = Snapshot(Version(3, 7))
    assert [store.staleness(Version(*at)) for at in ((3, 7), (3, 5), (2, 6))] == [0, 2, 1]


async def test_a_restore_beside_a_newer_publication_leaves_the_newer_one() -> None:
    learner = FakeLearner()
    store = store_of(learner)
    await store.publish(SECOND)
    lost, third = store.current, Version(0, 2)
    await asyncio.gather(store.publish(third), store.restore(lost))
    assert learner.published == [SECOND, third] and store.current == Snapshot(third, "weights 2")


@pytest.mark.parametrize("publish", [True, False])
async def test_nothing_is_restored_while_the_learner_changes_its_weights(publish: bool) -> None:
    """Its weights would be those after the update, under the version before it: an update on gold answers changes them, too,
    and what is then published again bears the version that the learner has reached."""
    learner = FakeLearner()
    store = store_of(learner)
    await store.publish(SECOND)
    lost, third = store.current, Version(0, 2)

    async def update() -> str:
        await asyncio.sleep(5)
        return "metrics"

    updating = asyncio.create_task(store.after(update(), third, publish))
    await asyncio.sleep(1)
    assert store.current == lost and not updating.done()
    await store.restore(lost)
    assert await updating == "metrics"
    assert learner.published == [SECOND, third] and store.current == Snapshot(third, "weights 2")


async def test_an_update_that_fails_leaves_the_learner_at_its_version() -> None:
    learner = FakeLearner()
    store = store_of(learner)
    await store.publish(SECOND)

    async def update() -> None:
        raise InputsLost("groups are gone")

    with pytest.raises(InputsLost):
        await store.after(update(), Version(0, 2), publish=False)
    await store.restore(store.current)
    assert learner.published == [SECOND, SECOND]
