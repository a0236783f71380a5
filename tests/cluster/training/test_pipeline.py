"""Admission, order and staleness, with pools that answer at once."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors.pool import ReplicasLost
from cluster.actors.replica import InputsLost
from cluster.store.checkpoint import TrainState
from cluster.training.isolation import FailedPrompt
from cluster.training.pipeline import Batch, Pipeline, call_size, lag_to_wait_for
from cluster.training.pipeline_state import note
from cluster.training.rollout_client import GroupRef, RolloutClient, Snapshot
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.errors import ClusterError
from rollout.types import Mode, Prompt, Version

FIRST = Version(0, 0)
PROMPTS = [Prompt(id=str(n), question=f"q {n}", answers=("a",)) for n in range(12)]


class AnsweringPool:
    """Stands in for both pools: `version` is what a sampler reports, calls begin when `gates` let them and end when `ends` do,
    a group of a prompt in `dull` has equal rewards at its first attempt, one in `hopeless` always."""

    def __init__(self, version: Version = FIRST, dull: Iterable[str] = (), hopeless: Iterable[str] = ()):
        self.version, self.calls = version, 0
        self.gates: deque[asyncio.Event] = deque()
        self.ends: deque[asyncio.Event] = deque()
        self.dull, self.hopeless = set(dull), set(hopeless)

    async def call(self, invoke: Any, attempts: int = 3) -> tuple[CallReport, list[Any]]:
        self.calls += 1
        if self.gates:
            await self.gates.popleft().wait()
        groups = invoke(self)
        if self.ends:
            await self.ends.popleft().wait()
        spreads = tuple(0.0 if self._is_dull(prompt) else 1.0 for prompt in groups)
        return CallReport(seconds=0.0, version=self.version, spreads=spreads), groups

    def _is_dull(self, prompt: Prompt) -> bool:
        return prompt.id in self.hopeless or (prompt.id in self.dull and prompt.attempt == 0)

    @property
    def groups(self) -> Any:
        """The sampler's remote method: a group is its prompt."""
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda prompts, *_: prompts))

    @property
    def score(self) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *groups: list(groups)))


async def never() -> Snapshot:
    raise AssertionError("nothing was lost")


def pipeline(samplers: AnsweringPool, max_staleness: int = 0, **changed: Any) -> Pipeline:
    source: dict[str, Any] = dict(
        samplers=samplers,
        rewards=AnsweringPool(),
        stage=Stage(name="rl", mode="sample", first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0),
        weights=Snapshot(Version(0, 0)),
        republish=never,
    )
    source |= {name: changed.pop(name) for name in source if name in changed}
    arguments: dict[str, Any] = dict(
        source=RolloutClient(**source),
        order=PromptOrder(PROMPTS, seed=0),
        prompts_per_call=2,
        max_staleness=max_staleness,
        prompts_left=100,
        fail=lambda failed: pytest.fail(str(failed)),
    )
    return Pipeline(**(arguments | changed))


def untrained(flow: Pipeline) -> list[Prompt]:
    return [*(group.prompt for group in flow.ready), *flow.unfinished()]


def ids(prompts: list[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


def test_calls_of_a_batch_are_equal_and_fill_it_exactly() -> None:
    assert call_size(16, 8) == 8
    assert call_size(10, 8) == 5
    assert call_size(7, 4) == 1
    assert call_size(4, 8) == 4


def test_no_more_than_staleness_plus_one_batches_are_admitted() -> None:
    async def run() -> None:
        for max_staleness in (0, 2):
            flow = pipeline(AnsweringPool(), max_staleness)
            flow.admit()
            flow.admit()
            assert len(untrained(flow)) == 4 * (max_staleness + 1)
            batch = await flow.batch()
            flow.admit()
            assert len(untrained(flow)) == 4 * max_staleness  # slots are freed after the update only
            flow.trained(batch, None)
            flow.admit()
            assert len(untrained(flow)) == 4 * (max_staleness + 1)

    asyncio.run(run())


def test_on_policy_batches_come_in_admission_order_however_calls_end() -> None:
    async def run() -> list[str]:
        samplers = AnsweringPool()
        first, second = asyncio.Event(), asyncio.Event()
        samplers.gates = deque([first, second])
        flow = pipeline(samplers)
        flow.admit()
        waiting = asyncio.ensure_future(flow.batch())
        second.set()
        await asyncio.sleep(0)
        first.set()
        return ids((await waiting).prompts)

    assert asyncio.run(run()) == ids(PromptOrder(PROMPTS, seed=0).take(4))


def test_asynchronous_batches_take_calls_as_they_end() -> None:
    async def run() -> list[str]:
        samplers = AnsweringPool()
        slow = asyncio.Event()
        samplers.gates = deque([slow])
        flow = pipeline(samplers, max_staleness=1)
        flow.admit()
        prompts = ids((await flow.batch()).prompts)
        flow.cancel()
        return prompts

    assert asyncio.run(run()) == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:])


def test_groups_that_are_too_old_are_counted_and_their_prompts_come_again() -> None:
    async def run() -> tuple[int, list[str]]:
        samplers = AnsweringPool(Version(0, 0))
        flow = pipeline(samplers, max_staleness=1, weights=Snapshot(Version(0, 2)))
        flow.admit()
        waiting = asyncio.ensure_future(flow.batch())
        while samplers.calls < 8:
            await asyncio.sleep(0)
            assert len(untrained(flow)) <= 8
        samplers.version = Version(0, 2)
        batch = await waiting
        return batch.requeued, ids(batch.prompts)

    requeued, prompts = asyncio.run(run())
    assert requeued >= 8 and set(prompts) <= set(ids(PromptOrder(PROMPTS, seed=0).take(8)))


class Clock:
    """Stands still at 0 until a call ends, which takes it a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr("cluster.training.rollout_client.time", SimpleNamespace(monotonic=lambda: self.now))

    def rewards(self) -> AnsweringPool:
        pool = AnsweringPool()
        answer = pool.call

        async def after_a_second(invoke: Any, attempts: int = 3) -> tuple[CallReport, list[Any]]:
            self.now = max(self.now, 1.0)
            return await answer(invoke, attempts)

        pool.call = after_a_second  # type: ignore[method-assign]
        return pool


async def after_a_batch_without_the_first_call(clock: Clock, end: asyncio.Event) -> Pipeline:
    """One staleness, versions 0 and 1: the first call, of version 0, can still be trained on in the next batch alone."""
    samplers = AnsweringPool()
    samplers.ends = deque([end])
    flow = pipeline(samplers, max_staleness=1, rewards=clock.rewards())
    flow.admit()
    batch = await flow.batch()
    assert ids(batch.prompts) == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:])
    samplers.version = Version(0, 1)
    flow.trained(batch, Snapshot(samplers.version))
    return flow


@pytest.mark.parametrize(
    ("made", "to_come", "awaited"),
    [
        ({}, {}, None),
        ({0: 4}, {2: 1}, 2),  # its last chance
        ({2: 1}, {2: 3}, 2),
        ({2: 4}, {2: 1}, None),  # one becomes too old whatever is done
        ({1: 4}, {1: 4}, None),  # those to come fit into the batch after
        ({2: 1, 0: 3}, {1: 4}, None),
        ({2: 1, 0: 3}, {1: 5}, 1),  # four of them fit into the batch after, so this one must hold two of the six
        ({}, {0: 8}, None),  # two batches after this one hold eight
        ({}, {0: 9}, 0),
        ({0: 4}, {0: 12}, None),
    ],
)
def test_groups_that_would_become_too_old_are_waited_for(
    made: dict[int, int], to_come: dict[int, int], awaited: int | None
) -> None:
    """Batches of four, staleness two at most."""
    assert lag_to_wait_for(made, to_come, size=4, max_staleness=2) == awaited


def test_a_call_at_its_last_chance_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[list[str], int]:
        end = asyncio.Event()
        flow = await after_a_batch_without_the_first_call(Clock(monkeypatch), end)
        waiting = asyncio.ensure_future(flow.batch())
        for _ in range(9):
            await asyncio.sleep(0)
        assert not waiting.done()
        end.set()
        batch = await waiting
        flow.cancel()
        return ids(batch.prompts), batch.requeued

    prompts, requeued = asyncio.run(run())
    assert set(prompts) >= set(ids(PromptOrder(PROMPTS, seed=0).take(2))) and requeued == 0


def test_a_call_that_takes_twice_as_long_as_any_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[str]:
        clock = Clock(monkeypatch)
        flow = await after_a_batch_without_the_first_call(clock, asyncio.Event())
        clock.now = 2.1
        prompts = ids((await flow.batch()).prompts)
        flow.cancel()
        return prompts

    assert asyncio.run(run()) == ids(PromptOrder(PROMPTS, seed=0).take(10)[6:])


def test_no_prompt_is_admitted_beyond_the_last_step() -> None:
    async def run() -> int:
        flow = pipeline(AnsweringPool(), max_staleness=3, prompts_left=8)
        flow.admit()
        flow.trained(await flow.batch(), None)
        flow.admit()
        return len(untrained(flow))

    assert asyncio.run(run()) == 4


def test_queued_prompts_go_before_the_order() -> None:
    async def run() -> list[str]:
        order = PromptOrder(PROMPTS, seed=0)
        flow = pipeline(AnsweringPool(), order=order, queue=deque([PROMPTS[3], PROMPTS[5]]))
        flow.admit()
        return ids(flow.unfinished())

    assert asyncio.run(run()) == ["3", "5", *ids(PromptOrder(PROMPTS, seed=0).take(2))]


def test_groups_that_teach_nothing_are_replaced_and_their_prompts_kept() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    async def run() -> None:
        flow = pipeline(AnsweringPool(), rewards=AnsweringPool(dull=[order[1], order[4]]), dynamic_sampling=1)
        flow.admit()
        batch = await flow.batch()
        assert ids(batch.prompts) == [order[0], order[2], order[3], order[5]]  # in the order of admission
        assert batch.references == batch.prompts and batch.filtered == 2 and len(batch.calls) == 4
        assert [(prompt.id, prompt.attempt) for prompt in flow.filtered] == [(order[1], 1), (order[4], 1)]
        assert flow.unfinished() == []

    asyncio.run(run())


def test_prompts_set_aside_come_once_more_when_the_epoch_is_over() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    async def run() -> None:
        flow = pipeline(AnsweringPool(), rewards=AnsweringPool(dull=order[:1], hopeless=order[1:2]), dynamic_sampling=1)
        trained: list[Prompt] = []
        for _ in range(3):
            flow.admit()
            batch = await flow.batch()
            flow.trained(batch, None)
            trained += batch.prompts
        assert ids(trained) == [*order[2:], *order[:2]]  # every prompt once, none of the next epoch
        assert [prompt.attempt for prompt in trained] == [0] * 10 + [1, 1]
        assert not flow.filtered and {prompt.epoch for prompt in trained} == {0}

    asyncio.run(run())


def test_no_more_prompts_are_replaced_than_the_bound_allows() -> None:
    everything = [prompt.id for prompt in PROMPTS]

    async def run(bound: int) -> Batch:
        flow = pipeline(AnsweringPool(), rewards=AnsweringPool(hopeless=everything), dynamic_sampling=bound)
        flow.admit()
        return await flow.batch()

    for bound in (0, 1, 2):
        batch = asyncio.run(run(bound))
        assert batch.filtered == 4 * bound and len(batch.groups) == 4


def test_what_a_call_made_beyond_a_full_batch_goes_into_the_next() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    async def run() -> None:
        flow = pipeline(AnsweringPool(), 1, rewards=AnsweringPool(dull=order[:1]), dynamic_sampling=1)
        flow.admit()
        batch = await flow.batch()
        assert ids(batch.prompts) == order[1:5] and ids(untrained(flow))[0] == order[5]
        flow.trained(batch, None)
        flow.admit()
        assert len(untrained(flow)) == 8
        following = await flow.batch()
        assert ids(following.prompts)[0] == order[5]
        flow.cancel()

    asyncio.run(run())


class ErraticPool(AnsweringPool):
    """Answers after a random while; of its groups a random share is dull."""

    def __init__(self, rng: random.Random, version: Callable[[], Version], dull_share: float):
        super().__init__()
        self._rng, self._version_now, self._dull_share = rng, version, dull_share

    async def call(self, invoke: Any, attempts: int = 3) -> tuple[CallReport, list[Any]]:
        for _ in range(self._rng.randrange(12)):
            await asyncio.sleep(0)
        groups, version = invoke(self), self._version_now()
        for _ in range(self._rng.randrange(12)):
            await asyncio.sleep(0)
        spreads = tuple(float(self._rng.random() >= self._dull_share) for _ in groups)
        return CallReport(seconds=0.0, version=version, spreads=spreads), groups


@pytest.mark.parametrize("seed", range(40))
def test_no_history_loses_a_prompt_or_trains_on_one_twice(seed: int) -> None:
    """Random delays, dull groups and staleness, stopped and resumed with other settings: every prompt taken is in one place."""
    asyncio.run(_erratic_history(random.Random(seed)))


async def _erratic_history(rng: random.Random) -> None:
    prompts = [Prompt(id=str(n), question="q", answers=("a",)) for n in range(rng.randrange(3, 30))]
    order, queue, aside, step, trained = {"epoch": 0, "position": 0}, [], [], 0, []
    while step < 30:
        max_staleness = rng.randrange(4)
        flow = pipeline(
            AnsweringPool(),
            max_staleness,
            order=PromptOrder(prompts, seed=0, **order),
            queue=deque(queue),
            filtered=deque(aside),
            dynamic_sampling=rng.choice([0, 1, 3]),
            prompts_left=(30 - step) * 4,
            weights=Snapshot(Version(0, step)),
            prompts_per_call=rng.choice([1, 2, 4]),
        )
        flow.source.samplers = ErraticPool(rng, lambda flow=flow: flow.source.weights.version, 0)
        flow.source.rewards = ErraticPool(rng, lambda: FIRST, rng.choice([0, 0.3, 0.9, 1]))
        for _ in range(min(rng.randrange(1, 8), 30 - step)):
            flow.admit()
            batch = await asyncio.wait_for(flow.batch(), 20)
            if rng.random() < 0.2:
                flow.give_back(batch)
                batch = await asyncio.wait_for(flow.batch(), 20)
            step += 1
            flow.trained(batch, Snapshot(Version(0, step)))
            trained += [prompt.key for prompt in batch.prompts]
            assert max(batch.staleness) <= max_staleness and len(batch.groups) == 4
            taken = flow.order.epoch * len(prompts) + flow.order.position
            kept = [prompt.key for prompt in [*untrained(flow), *flow.filtered]]
            assert len({*trained, *kept}) == len(trained) + len(kept) == taken
        order, queue, aside = flow.order.state(), untrained(flow), list(flow.filtered)
        flow.cancel()
        await asyncio.sleep(0)


class FailingPool(AnsweringPool):
    """Calls with a prompt in `poison` fail; those with one in `lost` meet lost inputs, so many times."""

    def __init__(self, poison: Iterable[str] = (), lost: int = 0):
        super().__init__()
        self.poison, self.lost, self.asked = set(poison), lost, list[list[str]]()

    async def call(self, invoke: Any, attempts: int = 3) -> tuple[CallReport, list[Any]]:
        prompts = invoke(self)
        self.asked.append(ids(prompts))
        if self.lost:
            self.lost -= 1
            raise InputsLost("worker: what it was given is lost")
        if bad := self.poison & set(ids(prompts)):
            raise ReplicasLost(f"worker: one call lost {attempts} replicas ({min(bad)})")
        return await super().call(lambda pool: prompts, attempts)


def test_a_prompt_that_fails_three_times_alone_is_set_aside_and_the_others_go_on() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    failed: list[FailedPrompt] = []

    async def run() -> None:
        samplers = FailingPool(poison=[order[1]])
        flow = pipeline(samplers, fail=failed.append)
        flow.admit()
        batch = await flow.batch()
        assert ids(batch.prompts) == [order[0], order[2], order[3], order[4]]
        assert samplers.asked.count([order[1]]) == 3 and samplers.asked.count(order[:2]) == 1
        assert untrained(flow) == []

    asyncio.run(run())
    assert [f.prompt.id for f in failed] == [order[1]]
    assert "one call lost" in str(failed[0].error)


def test_the_first_of_a_prompts_errors_is_told() -> None:
    class Worsening(FailingPool):
        async def call(self, invoke: Any, attempts: int = 3) -> tuple[CallReport, list[Any]]:
            raise ReplicasLost(f"cause {len(self.asked.append([]) or self.asked)}")

    failed: list[FailedPrompt] = []

    def stop(prompt: FailedPrompt) -> None:
        failed.append(prompt)
        raise ClusterError("too many")

    async def run() -> None:
        flow = pipeline(Worsening(), prompts_per_call=1, prompts_left=1, fail=stop)
        flow.admit()
        with pytest.raises(ClusterError, match="too many"):
            await flow.batch()

    asyncio.run(run())
    assert str(failed[0].error) == "cause 1"


def test_lost_weights_are_published_once_more_and_the_calls_repeated_in_their_order() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(4))
    published: list[Snapshot] = []

    async def republish() -> Snapshot:
        await asyncio.sleep(0)
        published.append(Snapshot(FIRST, ["again"]))
        return published[-1]

    async def run() -> None:
        samplers = FailingPool(lost=2)
        flow = pipeline(samplers, republish=republish)
        flow.admit()
        assert ids((await flow.batch()).prompts) == order
        assert len(published) == 1 and flow.source.weights is published[0]

    asyncio.run(run())


def test_groups_lost_before_they_are_scored_are_sampled_again() -> None:
    async def run() -> None:
        samplers = AnsweringPool()

        async def same() -> Snapshot:
            return flow.source.weights

        flow = pipeline(samplers, rewards=FailingPool(lost=1), republish=same)
        flow.admit()
        assert ids((await flow.batch()).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))
        assert samplers.calls == 3

    asyncio.run(run())


def test_a_batch_given_back_comes_again_first_and_in_its_order() -> None:
    async def run() -> None:
        flow = pipeline(AnsweringPool())
        flow.admit()
        batch = await flow.batch()
        flow.give_back(batch)
        flow.admit()
        assert ids((await flow.batch()).prompts) == ids(batch.prompts)

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["sample", "gold"])
def test_a_batch_given_back_is_trained_before_what_was_made_ahead_of_it(mode: Mode) -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    async def run() -> None:
        samplers = AnsweringPool()
        flow = pipeline(samplers, max_staleness=0)
        flow.source.stage = replace(flow.stage, mode=mode)
        flow.admit()
        batch = await flow.batch()
        flow.give_back(batch)
        trained = []
        for _ in range(3):
            flow.admit()
            batch = await flow.batch()
            flow.trained(batch, None)
            trained += ids(batch.prompts)
        assert trained == order and flow.order.position == 12

    asyncio.run(run())


def test_a_batch_given_back_is_the_same_where_groups_were_replaced_in_it() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    async def run() -> None:
        flow = pipeline(AnsweringPool(), rewards=AnsweringPool(hopeless=order[1:9]), dynamic_sampling=1)
        flow.admit()
        batch = await flow.batch()
        flow.give_back(batch)
        assert flow.given_back == batch.prompts
        again = await flow.batch()
        assert (again.prompts, again.filtered, len(again.calls)) == (batch.prompts, 4, len(batch.calls))
        assert ids([*flow.filtered]) == order[1:5]

    asyncio.run(run())


def test_a_batch_given_back_comes_first_in_a_checkpoint_too() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    gold = Stage(name="supervised", mode="gold", first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)

    async def run() -> list[str]:
        flow = pipeline(AnsweringPool(), stage=gold, prompts_per_call=3)
        flow.ready.extend(GroupRef(prompt, prompt, FIRST, None) for prompt in flow.order.take(6))
        flow.give_back(await flow.batch())
        state = TrainState()
        assert note(flow, state) == []
        return [id for _, id, _ in state.pending]

    assert asyncio.run(run()) == order[:6]


def test_a_prompt_that_fails_when_its_batch_is_made_again_is_left_out() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    failed: list[FailedPrompt] = []

    async def run() -> None:
        samplers = FailingPool()
        flow = pipeline(samplers, fail=failed.append)
        flow.admit()
        batch = await flow.batch()
        flow.give_back(batch)
        samplers.poison = {order[2]}
        assert ids((await flow.batch()).prompts) == [*order[:2], order[3], order[4]]

    asyncio.run(run())
    assert [one.prompt.id for one in failed] == [order[2]]


def test_what_is_finished_at_a_checkpoint_is_kept_with_it_and_counted_in_the_next_batch() -> None:
    async def run() -> None:
        samplers = AnsweringPool()
        flow = pipeline(samplers, max_staleness=2)
        flow.admit()
        batch = await flow.batch()
        flow.trained(batch, None)
        samplers.ends = deque([asyncio.Event()])
        flow.admit()
        for _ in range(9):
            await asyncio.sleep(0)
        made, unfinished = flow.made_ahead(), flow.unfinished()
        assert (len(made), len(unfinished)) == (10, 2)
        assert not {group.prompt for group in made} & set(unfinished)
        following = await flow.batch()
        assert following.groups == made[:4] and len(batch.calls) + len(following.calls) == 7
        flow.cancel()

    asyncio.run(run())


def test_groups_of_a_checkpoint_are_trained_on_before_new_ones() -> None:
    async def run() -> None:
        saved = [GroupRef(PROMPTS[n], f"group {n}", FIRST, 1.0) for n in (7, 3)]
        flow = pipeline(AnsweringPool(), ready=deque(saved))
        flow.admit()
        batch = await flow.batch()
        assert batch.references[:2] == ["group 7", "group 3"] and len(batch.groups) == 4
        assert flow.order.position == 2

    asyncio.run(run())
