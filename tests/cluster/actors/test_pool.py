"""Replicas that come, go, die and hang, with actors that are plain objects, in simulated time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from ray.exceptions import ObjectLostError

from cluster.actors.errors import InputsLost, ReplicasLost
from cluster.actors.pool import Pool
from cluster.actors.retry_policy import RetryPolicy
from rollout.errors import ClusterError, DataError, SettingsError
from tests.cluster.fakes import FakeCluster, FakeHandle, raised_by_the_task, work

pytestmark = pytest.mark.simulated_time


def pool_of(cluster: FakeCluster, size: int, policy: RetryPolicy | None = None, slots: int = 1) -> Pool:
    """A pool of so many replicas, which it has begun to start."""
    pool = Pool("worker", cluster.spawn, size, policy or RetryPolicy(), cluster.events.append, slots)
    pool.start()
    return pool


async def started(cluster: FakeCluster, size: int, policy: RetryPolicy | None = None, slots: int = 1) -> Pool:
    """A pool whose replicas are ready and idle."""
    pool = pool_of(cluster, size, policy, slots)
    await asyncio.sleep(1)
    assert pool.states == {"starting": 0, "idle": size, "busy": 0}
    return pool


def starts_none(*names: str) -> Callable[[FakeHandle], None]:
    """Those of these names die before they have a place."""

    def prepare(handle: FakeHandle) -> None:
        handle.is_dead = handle.name in names

    return prepare


def starts_held(*names: str) -> Callable[[FakeHandle], None]:
    def prepare(handle: FakeHandle) -> None:
        handle.is_held = handle.name in names

    return prepare


def begun(pool: Pool, calls: int) -> "list[asyncio.Task[str]]":
    return [asyncio.create_task(work(pool)) for _ in range(calls)]


def spread(handles: Iterable[FakeHandle]) -> dict[str, int]:
    """Calls under way, by the name of their actor."""
    return {handle.name: len(handle.under_way) for handle in handles if not handle.kills}


async def test_a_pool_grows_while_calls_wait() -> None:
    cluster = FakeCluster(starts_held("0", "1", "2"))
    pool = pool_of(cluster, 1)
    calls = begun(pool, 3)
    await asyncio.sleep(0)
    pool.resize(3)
    await asyncio.sleep(1)
    for handle in cluster.handles:
        handle.answer()
    assert sorted(await asyncio.gather(*calls)) == ["0", "1", "2"]


async def test_a_shrinking_pool_lets_idle_replicas_go_and_busy_ones_finish() -> None:
    cluster = FakeCluster(starts_held("0", "2"))
    pool = pool_of(cluster, 2)
    [first] = begun(pool, 1)
    await asyncio.sleep(0)
    assert await work(pool) == "1"
    pool.resize(1)
    assert cluster.living == ["0"]
    pool.resize(2)
    [second] = begun(pool, 1)
    await asyncio.sleep(1)
    pool.resize(1)
    assert cluster.living == ["0", "2"]
    for name in (0, 2):
        cluster.handles[name].answer()
    assert [await first, await second] == ["0", "2"]
    assert len(cluster.living) == 1 and pool.restarts == 0


async def test_what_is_still_starting_goes_first() -> None:
    cluster = FakeCluster()
    pool = pool_of(cluster, 2)
    await work(pool)
    pool.resize(4)
    pool.resize(2)
    assert sorted([await work(pool), await work(pool)]) == ["0", "1"] and cluster.living == ["0", "1"]


async def test_of_what_is_starting_the_newest_goes_first() -> None:
    cluster = FakeCluster(starts_none_at_once)
    pool = pool_of(cluster, 3)
    await asyncio.sleep(1)
    pool.resize(2)
    await asyncio.sleep(1)
    assert cluster.living == ["0", "1"]
    pool.close()


def starts_none_at_once(handle: FakeHandle) -> None:
    handle.loads = False


async def test_busy_replicas_take_no_calls_while_one_of_them_is_to_go() -> None:
    cluster = FakeCluster(starts_held("0", "1"))
    pool = await started(cluster, 2, slots=2)
    begun(pool, 2)
    await asyncio.sleep(1)
    pool.resize(1)
    begun(pool, 2)
    await asyncio.sleep(1)
    assert spread(cluster.handles) == {"0": 1, "1": 1}
    cluster.handles[0].answer()
    await asyncio.sleep(1)
    assert spread(cluster.handles) == {"1": 2}


@pytest.mark.parametrize("sizes", [(4, 1, 3), (4, 2, 1)])
async def test_a_pool_resized_while_it_starts_ends_at_the_size_that_was_asked_for_last(sizes: tuple[int, ...]) -> None:
    cluster = FakeCluster()
    pool = pool_of(cluster, 2)
    for size in sizes:
        pool.resize(size)
    await asyncio.sleep(1)
    assert pool.states == {"starting": 0, "idle": sizes[-1], "busy": 0} and len(cluster.living) == sizes[-1]
    assert await work(pool)


async def test_a_busy_replica_that_was_to_go_is_not_replaced_if_it_is_lost() -> None:
    cluster = FakeCluster(starts_held("0", "1"))
    pool = await started(cluster, 2)
    calls = begun(pool, 2)
    await asyncio.sleep(1)
    pool.resize(1)
    cluster.handles[0].die()
    await asyncio.sleep(1)
    cluster.handles[1].answer()
    assert await asyncio.gather(*calls) == ["1", "1"] and len(cluster.handles) == 2


async def test_a_replacement_keeps_away_from_the_node_of_the_lost_replica_for_a_while() -> None:
    cluster = FakeCluster()
    policy = RetryPolicy()
    pool = await started(cluster, 2, policy)
    cluster.handles[1].die()
    while pool.restarts == 0:
        await work(pool)
    await asyncio.sleep(1)
    assert cluster.avoided == [[], [], ["b"]]
    assert cluster.events == ["worker lost: The actor died unexpectedly before finishing this task."]
    await asyncio.sleep(policy.excluded_s)
    pool.resize(3)
    await asyncio.sleep(1)
    assert cluster.avoided[3:] == [[]]


async def test_a_replica_that_raises_what_is_no_users_mistake_is_replaced_and_its_call_repeated() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 2)
    cluster.handles[0].error = raised_by_the_task(OSError("bad disk"))
    assert "0" not in [await work(pool) for _ in range(2)]
    assert pool.restarts == 1 and cluster.events == ["worker lost: OSError: bad disk"]


@pytest.mark.parametrize(
    ("met", "raised"),
    [
        (raised_by_the_task(DataError("b.jsonl:7: is empty; fill it in")), DataError),
        (ObjectLostError("ab" * 28, None, ""), InputsLost),
    ],
)
async def test_an_error_that_is_no_loss_reaches_the_caller_alone(met: Exception, raised: type[Exception]) -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 1)
    cluster.handles[0].error = met
    with pytest.raises(raised):
        await work(pool)
    cluster.handles[0].error = None
    assert await work(pool) == "0" and pool.restarts == 0


async def test_what_goes_wrong_before_an_actor_is_asked_takes_no_slot() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 1)
    with pytest.raises(TypeError, match="not serialisable"):
        await pool.call("work", late=unserialisable)
    assert await work(pool) == "0"


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_call_ends_cancelled_however_near_its_answer_is(turns: int) -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1)
    cancelled, after = begun(pool, 2)
    await asyncio.sleep(1)
    [reference] = cluster.handles[0].under_way
    reference.set_result("0")
    for _ in range(turns):
        await asyncio.sleep(0)
    was_under_way = cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled() == was_under_way
    cluster.handles[0].answer()
    assert await after == "0" and pool.states == {"starting": 0, "idle": 1, "busy": 0}


def unserialisable() -> tuple[Any, ...]:
    raise TypeError("not serialisable")


async def test_replicas_that_died_unnoticed_use_up_one_attempt_at_most() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 6)
    for handle in cluster.handles[:5]:
        handle.die()
    assert await work(pool, attempts=3) == "5" and pool.restarts == 5
    cluster.handles[5].die()
    assert await work(pool, attempts=1)


async def test_a_start_that_fails_in_our_own_code_reaches_every_caller() -> None:
    def broken(name: str, *, avoid: Collection[str]) -> FakeHandle:
        raise TypeError("spawn")

    pool = Pool("worker", broken, 2, RetryPolicy(), print)
    pool.start()
    for _ in range(2):
        with pytest.raises(TypeError, match="spawn"):
            await work(pool)


async def test_a_replacement_that_finds_no_room_elsewhere_goes_where_there_is_some() -> None:
    def full(handle: FakeHandle) -> None:
        handle.has_place = handle.name != "1"

    cluster = FakeCluster(full)
    policy = RetryPolicy()
    pool = await started(cluster, 1, policy)
    cluster.handles[0].die()
    assert await work(pool) == "2"
    assert cluster.avoided == [[], ["a"], []] and cluster.pauses_s(2) == [policy.elsewhere_s]
    assert cluster.living == ["2"] and pool.restarts == 1


async def test_pauses_before_replacements_double_until_a_call_is_answered() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 1)
    for _ in range(2):
        first = len(cluster.handles)
        cluster.prepare = dies_when_asked
        cluster.handles[-1].is_held = True
        dies_when_asked(cluster.handles[-1])
        with pytest.raises(ReplicasLost, match="one call lost 3 replicas"):
            await work(pool)
        cluster.prepare = lambda handle: None
        await work(pool)
        assert cluster.pauses_s(first + 1) == [0.5, 1]


def dies_when_asked(handle: FakeHandle) -> None:
    handle.answers["work"] = handle.die


async def test_replicas_that_are_lost_together_are_replaced_at_once() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 6)
    pool.drop_nodes({"elsewhere"})
    assert await work(pool) and pool.restarts == 6
    assert len(cluster.handles) == 12 and cluster.pauses_s(7) == []


async def test_idle_replicas_of_a_node_that_left_are_replaced_before_a_call_meets_them() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 2)
    pool.drop_nodes({"a"})
    assert cluster.living == ["0"]
    await asyncio.sleep(1)
    assert {await work(pool) for _ in range(8)} == {"0", "2"}


async def test_a_hanging_replica_is_killed_at_the_deadline_and_its_call_repeated() -> None:
    cluster = FakeCluster()
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=0.01))
    hanging = cluster.handles[0]
    hanging.is_frozen = True
    assert await work(pool) == "1"
    assert cluster.events == ["worker lost: no answer in 0.01 s"] and (hanging.kills, hanging.process_kills) == (1, 1)


async def test_a_start_that_takes_long_is_told_of_and_given_up_at_the_deadline() -> None:
    def slow(handle: FakeHandle) -> None:
        handle.has_place, handle.loads = handle.name != "0", handle.name != "1"

    cluster = FakeCluster(slow)
    pool = pool_of(cluster, 1, RetryPolicy(start_deadline_s=300, slow_start_s=60))
    assert await pool.without_a_place_s() == 0
    await asyncio.sleep(30)
    assert await pool.without_a_place_s() == 30
    assert await work(pool) == "2" and await pool.without_a_place_s() == 0
    assert cluster.spawned_at == [0, 300.5, 601.5]
    assert cluster.events == [
        "worker is without a place: `ray status` tells what is lacking after 60 s; waiting for 300 s",
        "worker: cannot be started (not ready in 300 s); trying again in 0.5 s",
        "worker is still loading after 60 s; waiting for 300 s",
        "worker: cannot be started (not ready in 300 s); trying again in 1 s",
    ]
    assert [(handle.kills, handle.process_kills) for handle in cluster.handles] == [(1, 0), (1, 1), (0, 0)]


async def test_a_worker_that_takes_long_to_start_does_not_lack_a_place() -> None:
    def slow(handle: FakeHandle) -> None:
        handle.has_worker = False

    cluster = FakeCluster(slow)
    pool = pool_of(cluster, 1, RetryPolicy(start_deadline_s=300, slow_start_s=60))
    await asyncio.sleep(100)
    assert cluster.events == ["worker is still starting after 60 s; waiting for 300 s"]
    pool.close()


async def test_an_actor_of_other_code_is_refused() -> None:
    def of_another_checkout(handle: FakeHandle) -> None:
        handle.code = "0123"

    pool = pool_of(FakeCluster(of_another_checkout), 1)
    refused = (
        r"^worker: runs other code \(/elsewhere\) than this process \(.+\); bring all nodes to one version, and start again$"
    )
    with pytest.raises(SettingsError, match=refused):
        await work(pool)


async def test_a_replica_that_does_not_start_hinders_nobody_while_others_work() -> None:
    cluster = FakeCluster(starts_none("1", "2", "3", "4"))
    pool = await started(cluster, 1)
    pool.resize(2)
    while len(cluster.handles) < 6:
        assert await work(pool) == "0"
        await asyncio.sleep(0.1)
    assert cluster.pauses_s(2) == pytest.approx([0.5, 1, 2, 4])


async def test_a_pool_none_of_whose_replicas_starts_fails_every_caller_with_the_cause() -> None:
    cluster = FakeCluster(starts_none("0", "1", "2"))
    pool = pool_of(cluster, 1)
    for _ in range(2):
        with pytest.raises(ClusterError, match="worker: cannot be started .The actor died"):
            await work(pool)
    assert len(cluster.handles) == 3 and all(handle.kills == 1 for handle in cluster.handles)


async def test_starts_that_fail_end_nothing_while_another_is_under_way() -> None:
    def one_bad_node(handle: FakeHandle) -> None:
        handle.loads = False
        ends = handle.answer if handle.name == "0" else handle.die
        asyncio.get_running_loop().call_later(20 if handle.name == "0" else 1, ends)

    cluster = FakeCluster(one_bad_node)
    pool = pool_of(cluster, 2)
    assert await work(pool) == "0" and cluster.spawned_at == [0, 0, 1.5, 3.5, 6.5, 11.5]
    pool.close()


async def test_a_start_keeps_away_from_the_node_on_which_the_last_one_failed() -> None:
    def loses_those_that_load(handle: FakeHandle) -> None:
        if handle.name == "1":
            handle.loads = False
            asyncio.get_running_loop().call_later(1, handle.die)

    cluster = FakeCluster(loses_those_that_load)
    pool_of(cluster, 2)
    await asyncio.sleep(10)
    assert cluster.avoided == [[], [], ["b"]] and cluster.living == ["0", "2"]


async def test_a_pool_that_had_failed_works_and_grows_to_its_size_once_a_replica_comes_up() -> None:
    cluster = FakeCluster(starts_none("0", "1", "2", "3", "4", "5"))
    pool = pool_of(cluster, 2)
    with pytest.raises(ClusterError, match="cannot be started"):
        await work(pool)
    await asyncio.sleep(60)
    assert pool.states == {"starting": 0, "idle": 2, "busy": 0} and await work(pool)


@pytest.mark.parametrize("refusing", [("0",), ("0", "1")])
async def test_a_users_mistake_ends_a_pool_once_no_start_has_hope(refusing: tuple[str, ...]) -> None:
    mistake = DataError("b.jsonl: no such file; correct it")

    def prepare(handle: FakeHandle) -> None:
        handle.start_error = raised_by_the_task(mistake) if handle.name in refusing else None

    pool = pool_of(FakeCluster(prepare), 2)
    if len(refusing) == 1:
        assert await work(pool) == "1"
        return
    with pytest.raises(DataError, match="b.jsonl: no such file"):
        await work(pool)


async def test_the_first_of_the_failures_that_end_a_pool_is_raised() -> None:
    def prepare(handle: FakeHandle) -> None:
        handle.start_error = raised_by_the_task(OSError(f"device {handle.name}"))

    with pytest.raises(ClusterError, match="cannot be started .OSError: device 0"):
        await work(pool_of(FakeCluster(prepare), 1))


async def test_a_closed_pool_has_killed_every_replica_once_whatever_its_calls_meet() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = pool_of(cluster, 2)
    [call] = begun(pool, 1)
    await asyncio.sleep(1)
    pool.close()
    await asyncio.sleep(1)
    assert [handle.kills for handle in cluster.handles] == [1, 1] and cluster.events == []
    call.cancel()


async def test_a_replica_with_two_slots_has_two_calls_under_way() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, slots=2)
    calls = begun(pool, 3)
    await asyncio.sleep(1)
    assert spread(cluster.handles) == {"0": 2} and pool.states == {"starting": 0, "idle": 0, "busy": 1}
    cluster.handles[0].answer()
    assert await asyncio.gather(*calls) == ["0", "0", "0"] and pool.restarts == 0


async def test_calls_are_spread_evenly_over_slots() -> None:
    cluster = FakeCluster(starts_held("0", "1", "2"))
    pool = await started(cluster, 3, slots=3)
    for calls, most in ((3, 1), (3, 2), (3, 3), (1, 3)):
        begun(pool, calls)
        await asyncio.sleep(1)
        assert spread(cluster.handles) == dict.fromkeys("012", most)
    for handle in cluster.handles:
        handle.answer()
    await asyncio.sleep(1)
    assert sorted(Counter(len(handle.asked) for handle in cluster.handles).items()) == [(3, 2), (4, 1)]


async def test_all_calls_of_a_lost_replica_are_repeated_and_it_is_replaced_once() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, slots=2)
    calls = begun(pool, 2)
    await asyncio.sleep(1)
    cluster.handles[0].die()
    assert await asyncio.gather(*calls) == ["1", "1"]
    assert pool.restarts == 1 and cluster.handles[0].kills == 1 and len(cluster.events) == 1


async def beside(pool: Pool, cluster: FakeCluster, spoil: Callable[[FakeHandle], None]) -> list[Any]:
    """What becomes of two calls that may lose one actor each: the first spoils the actor of both, a second one is well."""
    first = asyncio.create_task(work(pool, attempts=2))
    await asyncio.sleep(1)
    second = asyncio.create_task(work(pool, attempts=2))
    await asyncio.sleep(1)
    assert spread(cluster.handles) == {"0": 2}
    spoil(cluster.handles[0])
    cluster.prepare = lambda handle: dies_when_asked(handle) if handle.name == "1" else None
    return await asyncio.gather(first, second, return_exceptions=True)


def freeze(handle: FakeHandle) -> None:
    handle.is_frozen = True


def fail_the_first(handle: FakeHandle) -> None:
    [first, _] = handle.under_way
    first.set_result(raised_by_the_task(OSError("bad disk")))


@pytest.mark.parametrize("spoil", [freeze, fail_the_first])
async def test_a_call_whose_actor_another_one_has_spoilt_does_not_count_it(spoil: Callable[[FakeHandle], None]) -> None:
    """Both are then given one that dies: the second that the guilty call loses, the first that the innocent one does."""
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10), slots=2)
    guilty, innocent = await beside(pool, cluster, spoil)
    assert isinstance(guilty, ReplicasLost) and innocent == "2"
    assert pool.restarts == 2


async def test_an_actor_that_dies_counts_for_every_call_that_it_had() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10), slots=2)
    assert [type(end) for end in await beside(pool, cluster, FakeHandle.die)] == [ReplicasLost, ReplicasLost]


async def test_a_cancelled_call_that_never_ends_counts_no_attempt_of_its_neighbours() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10), slots=2)
    cancelled = asyncio.create_task(work(pool))
    await asyncio.sleep(1)
    beside_it = asyncio.create_task(work(pool, attempts=1))
    await asyncio.sleep(1)
    cancelled.cancel()
    assert await beside_it == "1" and pool.restarts == 1


async def test_an_actor_that_does_not_answer_a_ping_counts_for_every_call_that_it_had() -> None:
    """Any of them may have stopped it."""
    cluster = FakeCluster(dies_when_asked)
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10), slots=2)
    freeze(cluster.handles[0])
    cluster.handles[0].answers.clear()
    calls = []
    for attempts in (1, 2):  # the first begins with a ping
        calls.append(asyncio.create_task(work(pool, attempts)))
        await asyncio.sleep(1)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [ReplicasLost, ReplicasLost]
    assert sum(len(handle.asked) for handle in cluster.handles) == 1 + 2


async def test_a_slot_that_is_lost_before_its_call_begins_is_not_used() -> None:
    """One call is answered and hands its slot on; in the same moment the other finds that the actor has died."""
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, slots=2)
    answered, lost, waiting = begun(pool, 3)
    await asyncio.sleep(1)
    [first, _] = cluster.handles[0].under_way
    first.set_result("0")
    cluster.handles[0].die()
    assert await asyncio.gather(answered, lost, waiting) == ["0", "1", "1"]
    assert len(cluster.handles[0].asked) == 2


@pytest.mark.parametrize("resized", [False, True])
async def test_a_replica_that_may_stay_takes_calls_again(resized: bool) -> None:
    """Two replicas of two slots, one of which is to go: both take no more until one has gone, or may stay."""
    cluster = FakeCluster(starts_held("0", "1"))
    pool = await started(cluster, 2, slots=2)
    begun(pool, 5)
    await asyncio.sleep(1)
    pool.resize(1)
    first, second = (list(handle.under_way) for handle in cluster.handles)
    for reference in (first[0], second[0]):
        reference.set_result("")
        await asyncio.sleep(1)
    assert spread(cluster.handles) == {"0": 1, "1": 1}
    if resized:
        pool.resize(2)
    else:
        first[1].set_result("")
    await asyncio.sleep(1)
    assert sum(len(handle.asked) for handle in cluster.handles) == 5
    assert spread(cluster.handles) == ({"0": 2, "1": 1} if resized else {"1": 2})


async def test_a_cancelled_call_keeps_its_slot_until_its_actor_is_done() -> None:
    """The next call would wait behind it in the actor, and seem to hang."""
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10))
    first, second = begun(pool, 2)
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(5)
    assert first.cancelled() and len(cluster.handles[0].asked) == 1
    cluster.handles[0].answer()
    assert await second == "0" and pool.restarts == 0


async def test_a_cancelled_call_that_never_ends_loses_its_actor_at_the_deadline() -> None:
    cluster = FakeCluster(starts_held("0"))
    pool = await started(cluster, 1, RetryPolicy(call_deadline_s=10))
    [call] = begun(pool, 1)
    await asyncio.sleep(1)
    call.cancel()
    await asyncio.sleep(20)
    assert pool.restarts == 1 and cluster.handles[0].process_kills == 1
    assert await work(pool) == "1"
