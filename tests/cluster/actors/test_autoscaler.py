"""Replicas that come, go, die and hang, with actors that are plain objects; nothing here waits for a clock."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

import cluster.actors.pool
import cluster.actors.replica
from cluster.actors.autoscaler import MAKE_ROOM_S, Autoscaler, samplers_that_fit
from cluster.actors.pool import Pool, ReplicasLost
from cluster.actors.replica import LONGEST_PAUSE_S, pause_s
from cluster.actors.session import Shares
from cluster.settings.tree import ClusterSettings
from rollout.errors import ClusterError

PLACED: Any = SimpleNamespace(pending_s=0.0)
SHARES = Shares(sampler={"CPU": 1.0, "GPU": 0.0}, learner={"CPU": 1.0, "GPU": 0.0}, reward={"CPU": 0.5})


class FakeActor:
    def __init__(self, name: str, node: str, starts: bool):
        self.name, self.node, self.starts = name, node, starts
        self.dies = self.hangs = self.gone = self.broken = self.killed = False

    @property
    def ping(self) -> Any:
        return SimpleNamespace(remote=self._placed)

    @property
    def ready(self) -> Any:
        return SimpleNamespace(remote=self._ready)

    async def _placed(self) -> tuple[str, int]:
        if self.gone:
            raise ActorDiedError()
        if self.node == "full":
            await asyncio.Event().wait()
        return self.node, 0

    async def _ready(self) -> None:
        if not self.starts:
            raise ActorDiedError()

    async def work(self, gate: asyncio.Event | None) -> str:
        if self.dies or self.gone:
            raise ActorDiedError()
        if self.broken:
            raise RayTaskError("work", "its traceback", OSError("bad disk"))
        if self.hangs:
            await asyncio.Event().wait()
        if gate is not None:
            await gate.wait()
        return self.name


class ActorHandles:
    """A pool of fakes on nodes a, b, a, b, ...; `failing`: names of those that do not start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int, failing: Iterable[str] = (), call_deadline_s: float = 60.0):
        self.actors: list[FakeActor] = []
        self.avoided: list[list[str]] = []
        self.pauses: list[float] = []
        self.said: list[str] = []
        self.frozen: list[str] = []
        self.failing = set(failing)
        self.nodes: dict[str, str] = {}
        self.pool = Pool("worker", self._spawn, size, 60.0, call_deadline_s, self.said.append)
        sleep = asyncio.sleep

        async def without_waiting(seconds: float) -> None:
            self.pauses += [seconds] if seconds else []
            await sleep(0)

        monkeypatch.setattr(cluster.actors.pool.ray, "kill", lambda actor: setattr(actor, "killed", True))
        for module in (cluster.actors.pool, cluster.actors.replica):
            monkeypatch.setattr(module, "kill_process", lambda replica: self.frozen.append(replica.actor.name))
        monkeypatch.setattr(cluster.actors.pool.asyncio, "sleep", without_waiting)

    def _spawn(self, name: str, avoided: Collection[str]) -> FakeActor:
        self.avoided.append(list(avoided))
        node = self.nodes.get(name, "ab"[len(self.actors) % 2])
        self.actors.append(FakeActor(name, node, name not in self.failing))
        return self.actors[-1]

    async def work(self, gate: asyncio.Event | None = None, attempts: int = 3) -> str:
        name, _ = await self.pool.call(lambda actor: [actor.work(gate)], attempts)
        return name

    @property
    def living(self) -> list[str]:
        return [actor.name for actor in self.actors if not actor.killed]


Use = Callable[[ActorHandles], Awaitable[None]]


@pytest.fixture
def with_crew(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(use: Use, size: int = 2, **options: Any) -> None:
        async def all() -> None:
            handles = ActorHandles(monkeypatch, size, **options)
            handles.pool.start()
            try:
                await use(handles)
            finally:
                handles.pool.close()

        asyncio.run(asyncio.wait_for(all(), 30))

    return run


def test_a_pool_grows_while_calls_wait(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        gate = asyncio.Event()
        calls = [asyncio.ensure_future(handles.work(gate)) for _ in range(3)]
        await asyncio.sleep(0)
        handles.pool.resize(3)
        gate.set()
        assert sorted(await asyncio.gather(*calls)) == ["0", "1", "2"]

    with_crew(use, size=1)


def test_a_shrinking_pool_lets_idle_replicas_go_and_busy_ones_finish(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        gate = asyncio.Event()
        first = asyncio.ensure_future(handles.work(gate))
        await asyncio.sleep(0)
        assert await handles.work() == "1"
        handles.pool.resize(1)
        assert handles.living == ["0"]
        handles.pool.resize(2)
        assert await handles.work() == "2"
        second = asyncio.ensure_future(handles.work(gate))
        await asyncio.sleep(0)
        handles.pool.resize(1)
        assert handles.living == ["0", "2"]
        gate.set()
        assert [await first, await second] == ["0", "2"]
        assert len(handles.living) == 1 and handles.pool.restarts == 0

    with_crew(use)


def test_what_is_still_starting_goes_first(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await handles.work()
        handles.pool.resize(4)
        handles.pool.resize(2)
        assert sorted([await handles.work(), await handles.work()]) == ["0", "1"] and handles.living == ["0", "1"]

    with_crew(use)


def test_a_replacement_keeps_away_from_the_node_of_the_lost_replica(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await handles.work()
        handles.actors[1].dies = True
        while handles.pool.restarts == 0:
            await handles.work()
        while len(handles.avoided) < 3:
            await asyncio.sleep(0)
        assert handles.avoided == [[], [], ["b"]]
        assert handles.said == ["worker lost: The actor died unexpectedly before finishing this task."]

    with_crew(use)


def test_a_replica_that_raises_what_is_no_users_mistake_is_replaced_and_its_call_repeated(
    with_crew: Callable[..., None],
) -> None:
    async def use(handles: ActorHandles) -> None:
        await asyncio.gather(handles.work(), handles.work())
        handles.actors[0].broken = True
        assert "0" not in [await handles.work() for _ in range(2)]
        assert handles.pool.restarts == 1 and handles.said == ["worker lost: OSError: bad disk"]

    with_crew(use)


def test_replicas_that_died_unnoticed_use_up_one_attempt_at_most(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await asyncio.gather(*(handles.work() for _ in range(6)))
        for actor in handles.actors[:5]:
            actor.gone = True
        assert await handles.work() == "5" and handles.pool.restarts == 5
        for actor in handles.actors:
            actor.gone = actor.name == "5"
        assert await handles.work(attempts=1)

    with_crew(use, size=6)


def test_a_start_that_fails_in_our_own_code_reaches_every_caller(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        def broken(name: str, avoided: Collection[str]) -> FakeActor:
            raise TypeError("spawn")

        handles.pool._starter._spawn = broken
        with pytest.raises(TypeError, match="spawn"):
            await handles.work()

    with_crew(use)


def test_a_replacement_that_finds_no_room_elsewhere_goes_where_there_is_some(
    with_crew: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.actors.replica, "ELSEWHERE_S", 0.01)

    async def use(handles: ActorHandles) -> None:
        await handles.work()
        handles.nodes["1"] = "full"
        handles.actors[0].dies = True
        assert await handles.work() == "2"
        assert handles.avoided == [[], ["a"], []]
        assert handles.living == ["2"] and handles.pool.restarts == 1

    with_crew(use, size=1)


def test_samplers_make_room_for_a_learner_that_finds_none(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        said: list[str] = []
        learner: Any = SimpleNamespace(pending_s=0.0)
        watch = Autoscaler(settings(), SHARES, handles.pool, handles.pool, learner, said.append)
        sizes = []
        for seconds in (0.0, MAKE_ROOM_S - 1, MAKE_ROOM_S, 2 * MAKE_ROOM_S, 9 * MAKE_ROOM_S, 0.0):
            learner.pending_s = seconds
            watch.follow([node("a", CPU=4.5)])
            sizes.append(handles.pool.size)
        assert sizes == [3, 3, 2, 1, 1, 3]
        assert said[1] == "samplers: 3 -> 2, to make room for the others"
        assert await handles.work()

    with_crew(use, size=1)


def test_pauses_before_replacements_double_until_a_call_is_answered(with_crew: Callable[..., None]) -> None:
    assert [pause_s(n) for n in range(5)] == [0, 0.5, 1, 2, 4] and pause_s(1000) == LONGEST_PAUSE_S

    async def use(handles: ActorHandles) -> None:
        await handles.work()
        for _ in range(2):
            spawned = len(handles.actors)
            with pytest.raises(ReplicasLost, match="one call lost 3 replicas"):
                await handles.pool.call(lambda actor: [dying()])
            while len(handles.actors) < spawned + 3:
                await asyncio.sleep(0)
            assert handles.pauses == [0.5, 1]
            await handles.work()
            handles.pauses.clear()

    async def dying() -> None:
        raise ActorDiedError()

    with_crew(use, size=1)


def test_replicas_that_are_lost_together_are_replaced_at_once(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await asyncio.gather(*(handles.work() for _ in range(6)))
        handles.pool.forget_nodes({"elsewhere"})
        while len(handles.actors) < 12:
            await asyncio.sleep(0)
        assert await handles.work() and handles.pool.restarts == 6 and handles.pauses == []

    with_crew(use, size=6)


def test_a_hanging_replica_is_killed_at_the_deadline_and_its_call_repeated(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await handles.work()
        handles.actors[0].hangs = True
        assert await handles.work() == "1"
        assert handles.actors[0].killed and handles.said == ["worker lost: no answer in 0.01 s"] and handles.frozen == ["0"]

    with_crew(use, size=1, call_deadline_s=0.01)


def test_a_replica_that_does_not_start_hinders_nobody_while_others_work(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await handles.work()
        handles.pool.resize(2)
        while len(handles.actors) < 6:
            await handles.work()
        assert handles.pauses[:4] == [0.5, 1, 2, 4]

    with_crew(use, size=1, failing=["1", "2", "3", "4"])


def test_a_pool_none_of_whose_replicas_starts_fails_every_caller_with_the_cause(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        for _ in range(2):
            with pytest.raises(ClusterError, match="worker: cannot be started .The actor died"):
                await handles.work()
        assert len(handles.actors) == 3

    with_crew(use, size=1, failing=["0", "1", "2"])


def test_idle_replicas_of_a_node_that_left_are_replaced_before_a_call_meets_them(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        await asyncio.gather(handles.work(), handles.work())
        handles.pool.forget_nodes({"a"})
        assert handles.living == ["0"]
        assert {await handles.work() for _ in range(8)} == {"0", "2"}

    with_crew(use)


def test_a_pool_resized_while_it_starts_ends_at_the_size_that_was_asked_for_last(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        for size in (4, 1, 3):
            handles.pool.resize(size)
        await handles.work()
        while handles.pool.idle < 3:
            await asyncio.sleep(0)
        assert len(handles.living) == 3

    with_crew(use, size=2)


def node(name: str, alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Labels": labels or {}, "Resources": resources}


def settings(**values: Any) -> ClusterSettings:
    return ClusterSettings(**{"samplers": "auto", "rewards": 1} | values)


def test_samplers_fill_what_the_learner_and_the_rewards_leave() -> None:
    # head: 4 CPUs - 1 - 0.5 = 2.5 -> 2 samplers; other: 3; the dead node counts for nothing
    nodes = [node("head", CPU=4.0), node("other", CPU=3.0), node("dead", alive=False, CPU=64.0)]
    assert samplers_that_fit(nodes, settings(), SHARES) == 5


def test_samplers_keep_within_their_bounds() -> None:
    nodes = [node("head", CPU=4.0), node("other", CPU=3.0)]
    assert samplers_that_fit(nodes, settings(max_samplers=3), SHARES) == 3
    assert samplers_that_fit([node("head", CPU=1.0)], settings(min_samplers=2), SHARES) == 2
    assert samplers_that_fit(nodes, settings(samplers=7), SHARES) == 7


def test_samplers_follow_a_custom_resource_a_label_and_gpus() -> None:
    own = Shares(sampler={"CPU": 1.0, "GPU": 0.0, "rollout": 1.0}, learner=SHARES.learner, reward=SHARES.reward)
    nodes = [node("head", CPU=8.0), node("other", CPU=8.0, rollout=2.0)]
    assert samplers_that_fit(nodes, settings(sampler_resource="rollout"), own) == 2
    labelled = [node("head", CPU=8.0), node("other", CPU=3.0, labels={"role": "sampler"})]
    assert samplers_that_fit(labelled, settings(sampler_label="role=sampler"), SHARES) == 3
    gpus = Shares(sampler={"CPU": 1.0, "GPU": 1.0}, learner={"CPU": 1.0, "GPU": 1.0}, reward={"CPU": 0.5})
    assert samplers_that_fit([node("head", CPU=64.0, GPU=4.0)], settings(), gpus) == 3


def test_the_watch_follows_nodes_that_join_and_leave(with_crew: Callable[..., None]) -> None:
    async def use(handles: ActorHandles) -> None:
        said: list[str] = []
        watch = Autoscaler(settings(), SHARES, handles.pool, handles.pool, PLACED, said.append)
        await handles.work()
        a, b = node("a", CPU=3.0), node("b", CPU=2.0)
        watch.follow([a])
        assert handles.pool.size == 1
        watch.follow([a, b])
        assert handles.pool.size == 3
        assert len({await handles.work() for _ in range(12)}) == 3
        watch.follow([a, {**b, "Alive": False}])
        assert handles.pool.size == 1 and said == ["samplers: 1 -> 3, nodes: 2", "samplers: 3 -> 1, nodes: 1"]
        assert [actor.node for actor in handles.actors if not actor.killed] == ["a"]
        await handles.work()

    with_crew(use, size=1)
