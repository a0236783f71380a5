"""No history of calls, deaths, frozen actors, failing starts and resizes loses a call or a replica, in simulated time."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ray.exceptions import ObjectLostError

from cluster.actors.errors import InputsLost, ReplicasLost
from cluster.actors.pool import Pool
from cluster.actors.retry_policy import RetryPolicy
from rollout.errors import ClusterError, DataError
from tests.cluster.fakes import FakeCluster, FakeHandle, SimulatedTimeLoop, raised_by_the_task

POLICY = RetryPolicy()
LONG_S = 1000 * POLICY.call_deadline_s  # for whatever is under way
REFUSED, BROKEN, LOST = DataError("a.jsonl:3: is empty"), OSError("bad disk"), ObjectLostError("ab" * 28, None, "")
MET = {"refused": raised_by_the_task(REFUSED), "broken": raised_by_the_task(BROKEN), "inputs lost": LOST}
QUIET = 30
TURNS = st.sampled_from([QUIET, 0, 1, 2])  # of the loop, before the next thing happens
STARTS = ["dies", "dies loading", "finds no place", "freezes loading", "takes a while", "refuses"]


@dataclass(eq=False)
class Call:
    """asked: the actors that it was given to. met: what they raised. It is its own answer."""

    number: int
    attempts: int
    task: "asyncio.Task[Any]" = field(init=False)
    asked: list[FakeHandle] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    is_answered: bool = False
    is_cancelled: bool = False


class PoolHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedTimeLoop()
        self.cluster = FakeCluster(self.prepare)
        self.calls: list[Call] = []
        self.starts: deque[str] = deque()
        self.wrong: list[str] = []
        self.is_over = False

    def do(self, what: Callable[[], Any], turns: int = 0) -> Any:
        """In the loop, which then takes so many turns; after `QUIET` of them all waits for the next thing that happens."""

        async def run() -> Any:
            done = what()
            for _ in range(turns):
                await asyncio.sleep(0)
            return done

        done = self.loop.run_until_complete(run())
        if turns == QUIET:
            self.no_slot_is_wasted()
        return done

    def no_slot_is_wasted(self) -> None:
        states = self.pool.states
        if not states["starting"] and sum(states.values()) <= self.pool.size:
            ready = [len(self.references(handle)) for handle in self.cluster.handles if not handle.kills]
            waiting = sum(not call.task.done() for call in self.calls) - len(self.awaited())
            assert waiting == 0 or min(ready) == self.slots, f"{waiting} calls wait while slots are free: {ready}"

    def awaited(self) -> list[Any]:
        """Calls and pings under way, but for cancelled calls, which still occupy their actors."""
        answers = [handle.under_way[reference] for handle in self.cluster.handles for reference in self.references(handle)]
        return [answer for answer in answers if not (isinstance(answer, Call) and answer.task.done())]

    def prepare(self, handle: FakeHandle) -> None:
        handle.answers["work"] = partial(self.work, handle)
        handle.is_held = not self.is_over
        start = self.starts.popleft() if self.starts and not self.is_over else ""
        if start == "refuses" and not self.may_fail:
            start = ""
        handle.is_dead = start == "dies"
        handle.has_place = start != "finds no place"
        handle.loads = start not in ("dies loading", "freezes loading", "takes a while")
        handle.start_error = MET["refused"] if start == "refuses" else None
        if start == "dies loading":
            self.loop.call_later(5, handle.die)
        if start == "takes a while":
            self.loop.call_later(5, self.come_up, handle)

    def come_up(self, handle: FakeHandle) -> None:
        handle.answer()
        handle.is_held = not self.is_over

    def work(self, handle: FakeHandle, call: Call) -> Call:
        call.asked.append(handle)
        if handle.kills:
            self.wrong.append(f"call {call.number} went to actor {handle.name}, which was discarded")
        if call.is_answered or call.task.done():
            self.wrong.append(f"call {call.number} was repeated after its end")
        if len(self.references(handle)) >= self.slots:
            self.wrong.append(f"call {call.number} went to actor {handle.name}, which has {self.slots} under way")
        return call

    def references(self, handle: FakeHandle) -> "list[asyncio.Future[Any]]":
        """What occupies it: calls, and pings that somebody waits for."""
        return [
            reference
            for reference, answer in handle.under_way.items()
            if not reference.done() and (isinstance(answer, Call) or not handle.askers[reference].done())
        ]

    @property
    def living(self) -> list[FakeHandle]:
        return [handle for handle in self.cluster.handles if not handle.is_dead]

    @property
    def under_way(self) -> "list[tuple[Call, asyncio.Future[Any]]]":
        """Calls of living actors that can be answered."""
        return [
            (answer, reference)
            for handle in self.living
            if not handle.is_frozen
            for reference, answer in handle.under_way.items()
            if isinstance(answer, Call) and not reference.done()
        ]

    def begin(self, attempts: int) -> Call:
        call = Call(len(self.calls), attempts)
        self.calls.append(call)
        call.task = asyncio.create_task(self.pool.call("work", call, attempts=attempts))
        return call

    @initialize(
        size=st.integers(1, 3),
        slots=st.integers(1, 3),
        starts=st.lists(st.sampled_from(STARTS), max_size=2),
        may_fail=st.sampled_from([False, False, False, True]),
    )
    def start(self, size: int, slots: int, starts: list[str], may_fail: bool) -> None:
        self.slots, self.starts, self.may_fail = slots, deque(starts), may_fail
        self.pool = Pool("worker", self.cluster.spawn, size, POLICY, self.cluster.events.append, slots)
        self.do(self.pool.start)

    @precondition(lambda self: sum(not call.task.done() for call in self.calls) < 12)
    @rule(attempts=st.sampled_from([1, 3]), calls=st.integers(1, 8), turns=TURNS)
    def call(self, attempts: int, calls: int, turns: int) -> None:
        self.do(lambda: [self.begin(attempts) for _ in range(calls)], turns)

    @rule(seconds=st.sampled_from([0.1, 0.1, 0.1, 5.0, 60.0, POLICY.start_deadline_s, POLICY.call_deadline_s]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.do(lambda: None, QUIET)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), is_the_last=st.booleans(), turns=TURNS)
    def answer(self, data: st.DataObject, is_the_last: bool, turns: int) -> None:
        """Some that actors give, perhaps just before one of them dies."""
        for call, reference in data.draw(st.lists(st.sampled_from(self.under_way), min_size=1, max_size=2, unique=True)):
            call.is_answered = True
            reference.set_result(call)
        if is_the_last:
            call.asked[-1].die()
        self.do(lambda: None, turns)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), met=st.sampled_from(list(MET)), turns=TURNS)
    def fail(self, data: st.DataObject, met: str, turns: int) -> None:
        call, reference = data.draw(st.sampled_from(self.under_way))
        call.met.append(met)
        reference.set_exception(MET[met])
        self.do(lambda: None, turns)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), how=st.sampled_from(["dies", "freezes"]), turns=TURNS)
    def lose(self, data: st.DataObject, how: str, turns: int) -> None:
        handle = data.draw(st.sampled_from(self.living))
        if how == "dies":
            handle.die()
        else:
            handle.is_frozen = True
        self.do(lambda: None, turns)

    @rule(node=st.sampled_from("ab"), dies=st.booleans(), is_noticed=st.booleans(), turns=TURNS)
    def node_leaves(self, node: str, dies: bool, is_noticed: bool, turns: int) -> None:
        for handle in self.living:
            if handle.node == node and dies:
                handle.die()
        if is_noticed:
            self.do(lambda: self.pool.drop_nodes({"a", "b"} - {node}), turns)

    @rule(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=2), turns=TURNS)
    def resize(self, sizes: list[int], turns: int) -> None:
        self.do(lambda: list(map(self.pool.resize, sizes)), turns)

    @precondition(lambda self: any(not call.task.done() for call in self.calls))
    @rule(data=st.data(), turns=TURNS)
    def cancel(self, data: st.DataObject, turns: int) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if not call.task.done()]))
        call.is_cancelled |= call.task.cancel()
        self.do(lambda: None, turns)

    @precondition(lambda self: self.may_fail or not self.pool.states["starting"])  # else three starts in a row might fail
    @rule(starts=st.lists(st.sampled_from(STARTS), min_size=1, max_size=3))
    def next_starts(self, starts: list[str]) -> None:
        self.starts = deque(starts if self.may_fail else starts[:2])

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.wrong
        assert all(handle.kills <= 1 for handle in self.cluster.handles)

    def teardown(self) -> None:
        try:
            if hasattr(self, "pool"):
                self.end()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def end(self) -> None:
        """All that lives answers, all that starts comes up: every call ends, and the pool has its size."""
        self.is_over = True
        for call, _ in self.under_way:
            call.is_answered = True
        for handle in self.living:
            handle.answer()
        self.time_passes(LONG_S)
        states, size = self.pool.states, self.pool.size
        failure = self.probe()
        assert failure or states == {"starting": 0, "idle": size, "busy": 0}, states
        for call in self.calls:
            assert call.task.done(), f"call {call.number} has no end"
            self.check_end(call)
        if failure is None:
            assert self.pool.states == {"starting": 0, "idle": size, "busy": 0}
            assert len([handle for handle in self.living if not handle.kills]) == size
        for handle in self.living:
            handle.is_held = True
        last = self.do(lambda: [self.begin(3) for _ in range(self.slots)], turns=QUIET)
        self.do(self.pool.close, turns=9)
        self.do(lambda: [call.task.cancel() for call in last], turns=9)
        assert [handle.kills for handle in self.cluster.handles] == [1] * len(self.cluster.handles)
        self.nothing_is_wrong()

    def probe(self) -> Exception | None:
        """Give every replica a call, so that the losses of idle ones are noticed; what has failed the pool, if anything has."""
        for _ in range(2):
            probes = self.do(lambda: [self.begin(3) for _ in range(self.pool.size * self.slots)])
            self.time_passes(LONG_S)
            if all(probe.task.done() and probe.task.exception() for probe in probes):
                return probes[0].task.exception()
            assert [probe.task.result() for probe in probes] == [(probe, []) for probe in probes]
        return None

    def check_end(self, call: Call) -> None:
        if call.is_cancelled or call.task.cancelled():
            assert call.is_cancelled and call.task.cancelled()
            return
        error = call.task.exception()
        if error is None:
            assert call.task.result() == (call, [])
        elif type(error) is ClusterError or error is REFUSED:
            assert self.may_fail
        elif isinstance(error, ReplicasLost):
            assert len(call.asked) == call.attempts == len({handle.name for handle in call.asked})
        elif isinstance(error, InputsLost):
            assert call.met[-1] == "inputs lost"
        elif isinstance(error, DataError):
            assert call.met[-1] == "refused"
        else:
            assert isinstance(error, OSError) and len(call.asked) == call.attempts and call.met[-1] == "broken"


@pytest.mark.parametrize("histories", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_history_of_a_pool_loses_a_call_or_a_replica(histories: int) -> None:
    repeatable = settings(max_examples=histories, stateful_step_count=40, derandomize=True, database=None, deadline=None)
    run_state_machine_as_test(PoolHistory, settings=settings(repeatable, suppress_health_check=list(HealthCheck)))
