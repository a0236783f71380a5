"""Admission, order and staleness, over ports that answer at once."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.actors.errors import InputsLost, ReplicasLost
from cluster.actors.ports import GroupRef, SampledCall, ScoredCall, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.checkpoint import RunState
from cluster.training.pipeline import Batch, Pipeline, call_size, expiring
from cluster.training.pipeline_state import note_position, restored, write_groups
from cluster.training.rollout_client import InflightCall, RolloutClient
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.types import Mode, Prompt, PromptKey, SampleReport, ScoreReport, Version

FIRST = Version(0, 0)
PROMPTS = [Prompt(id=str(n), question=f"q {n}", answers=("a",)) for n in range(12)]


@dataclass
class Samplers:
    """Calls begin when `gates` let them and end when `ends` do; those with a prompt in `poison` fail, the first `lost` lose
    their inputs. version: of the weights they claim to sample with, where it is not the current one. A group is its prompt."""

    version: Version | None = None
    gates: deque[asyncio.Event] = field(default_factory=deque)
    ends: deque[asyncio.Event] = field(default_factory=deque)
    poison: set[str] = field(default_factory=set)
    lost: int = 0
    asked: list[list[str]] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.asked)

    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        self.asked.append(ids(prompts))
        if self.gates:
            await self.gates.popleft().wait()
        version = self.version or snapshot().version
        if self.lost:
            self.lost -= 1
            raise InputsLost("sampler: what it was given is lost")
        if bad := self.poison & set(ids(prompts)):
            raise ReplicasLost(f"sampler: call {self.calls} lost its replica ({min(bad)})")
        if self.ends:
            await self.ends.popleft().wait()
        report = SampleReport(version=version, figures={})
        return SampledCall(tuple(GroupRef(prompt, prompt, version) for prompt in prompts), report)


@dataclass
class Rewards:
    """A group of a prompt in `dull` has equal rewards at its first attempt, one in `hopeless` always. clock: reads 1 s or more
    once something was scored."""

    dull: Iterable[str] = ()
    hopeless: Iterable[str] = ()
    lost: int = 0
    clock: "Clock | None" = None

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        if self.lost:
            self.lost -= 1
            raise InputsLost("reward actor: what it was given is lost")
        if self.clock is not None:
            self.clock.now = max(self.clock.now, 1.0)
        ranges = tuple(0.0 if self.is_dull(group.prompt) else 1.0 for group in groups)
        scored = tuple(replace(group, reward_range=range) for group, range in zip(groups, ranges, strict=True))
        return ScoredCall(scored, ScoreReport(reward_ranges=ranges, figures={}))

    def is_dull(self, prompt: Prompt) -> bool:
        return prompt.id in self.hopeless or (prompt.id in self.dull and prompt.attempt == 0)


class Clock:
    """Stands still at 0 until a call ends, which takes it a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Publisher:
    """What a learner does when weights are lost: `published` holds what it gave out."""

    def __init__(self) -> None:
        self.published: list[Snapshot] = []

    async def check(self) -> None:
        await asyncio.sleep(0)

    async def publish(self, version: Version) -> Snapshot:
        await asyncio.sleep(0)
        self.published.append(Snapshot(version, "again"))
        return self.published[-1]


def pipeline(samplers: Samplers, max_staleness: int = 0, **changed: Any) -> Pipeline:
    stage = Stage(name="rl", mode="sample", first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)
    stage = changed.pop("stage", stage)
    snapshots = changed.pop("snapshots", None) or SnapshotStore(None, changed.pop("version", FIRST))
    clock = changed.pop("clock", Clock())
    rewards = changed.pop("rewards", None) or Rewards()
    client = RolloutClient(samplers, rewards, snapshots, stage.mode, RetryPolicy(first_pause_s=0), clock)
    arguments: dict[str, Any] = dict(
        client=client,
        stage=stage,
        order=PromptOrder(PROMPTS, seed=0),
        prompts_per_call=2,
        max_staleness=max_staleness,
        prompts_left=100,
    )
    return Pipeline(**(arguments | changed))


async def full(flow: Pipeline) -> Batch:
    """The next batch of a pipeline in which nothing fails."""
    batch = await asyncio.wait_for(flow.batch(), 20)
    assert batch is not None, flow.failed
    return batch


def trained(flow: Pipeline, batch: Batch, version: Version | None = None) -> None:
    """As after an update, whose weights are published if they have a version."""
    if version is not None:
        flow.client.snapshots.current = Snapshot(version)
    flow.trained(batch)


def untrained(flow: Pipeline) -> list[Prompt]:
    return [*(group.prompt for group in flow.ready), *flow.unfinished()]


def ids(prompts: Iterable[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


def test_calls_of_a_batch_are_equal_and_fill_it_exactly() -> None:
    assert call_size(16, 8) == 8
    assert call_size(10, 8) == 5
    assert call_size(7, 4) == 1
    assert call_size(4, 8) == 4


async def test_no_more_than_staleness_plus_one_batches_are_admitted() -> None:
    for max_staleness in (0, 2):
        flow = pipeline(Samplers(), max_staleness)
        flow.admit()
        flow.admit()
        assert len(untrained(flow)) == 4 * (max_staleness + 1)
        batch = await full(flow)
        flow.admit()
        assert len(untrained(flow)) == 4 * max_staleness  # slots are freed after the update only
        trained(flow, batch)
        flow.admit()
        assert len(untrained(flow)) == 4 * (max_staleness + 1)


async def test_on_policy_batches_come_in_admission_order_however_calls_end() -> None:
    samplers = Samplers()
    first, second = asyncio.Event(), asyncio.Event()
    samplers.gates = deque([first, second])
    flow = pipeline(samplers)
    flow.admit()
    waiting = asyncio.ensure_future(full(flow))
    second.set()
    await asyncio.sleep(0)
    first.set()
    assert ids((await waiting).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))


async def test_asynchronous_batches_take_calls_as_they_end() -> None:
    samplers = Samplers()
    slow = asyncio.Event()
    samplers.gates = deque([slow])
    flow = pipeline(samplers, max_staleness=1)
    flow.admit()
    prompts = ids((await full(flow)).prompts)
    flow.cancel()
    assert prompts == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:])


async def test_groups_that_are_too_stale_are_counted_and_their_prompts_come_again() -> None:
    samplers = Samplers(version=Version(0, 0))
    flow = pipeline(samplers, max_staleness=1, version=Version(0, 2))
    flow.admit()
    waiting = asyncio.ensure_future(full(flow))
    while samplers.calls < 8:
        await asyncio.sleep(0)
        assert len(untrained(flow)) <= 8
    samplers.version = Version(0, 2)
    batch = await waiting
    flow.cancel()
    assert batch.requeued >= 8 and set(ids(batch.prompts)) <= set(ids(PromptOrder(PROMPTS, seed=0).take(8)))


async def after_a_batch_without_the_first_call(clock: Clock, end: asyncio.Event) -> Pipeline:
    """One staleness, versions 0 and 1: the first call, of version 0, can still be trained on in the next batch alone."""
    samplers = Samplers(ends=deque([end]))
    flow = pipeline(samplers, max_staleness=1, rewards=Rewards(clock=clock), clock=clock)
    flow.admit()
    batch = await full(flow)
    assert ids(batch.prompts) == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:])
    trained(flow, batch, Version(0, 1))
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
    """Batches of four, staleness two at most. made, to_come: groups by staleness, those to come each of a call of its own."""
    ready = [staleness for staleness, count in made.items() for _ in range(count)]
    running = {InflightCall((prompt,)): staleness for staleness, count in to_come.items() for prompt in PROMPTS[:count]}
    calls = expiring(running, ready, size=4, max_staleness=2)
    assert calls == [call for call, staleness in running.items() if awaited is not None and staleness >= awaited]


async def test_a_call_at_its_last_chance_is_waited_for() -> None:
    end = asyncio.Event()
    flow = await after_a_batch_without_the_first_call(Clock(), end)
    waiting = asyncio.ensure_future(full(flow))
    for _ in range(9):
        await asyncio.sleep(0)
    assert not waiting.done()
    end.set()
    batch = await waiting
    flow.cancel()
    assert set(ids(batch.prompts)) >= set(ids(PromptOrder(PROMPTS, seed=0).take(2))) and batch.requeued == 0


async def test_a_call_that_takes_twice_as_long_as_any_is_not_waited_for() -> None:
    clock = Clock()
    flow = await after_a_batch_without_the_first_call(clock, asyncio.Event())
    clock.now = 2.1
    prompts = ids((await full(flow)).prompts)
    flow.cancel()
    assert prompts == ids(PromptOrder(PROMPTS, seed=0).take(10)[6:])


async def test_no_prompt_is_admitted_beyond_the_last_step() -> None:
    flow = pipeline(Samplers(), max_staleness=3, prompts_left=8)
    flow.admit()
    trained(flow, await full(flow))
    flow.admit()
    assert len(untrained(flow)) == 4


async def test_queued_prompts_go_before_the_order() -> None:
    order = PromptOrder(PROMPTS, seed=0)
    flow = pipeline(Samplers(), order=order, queue=deque([PROMPTS[3], PROMPTS[5]]))
    flow.admit()
    assert ids(flow.unfinished()) == ["3", "5", *ids(PromptOrder(PROMPTS, seed=0).take(2))]


async def test_groups_that_teach_nothing_are_replaced_and_their_prompts_kept() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    flow = pipeline(Samplers(), rewards=Rewards(dull=[order[1], order[4]]), dynamic_sampling=1)
    flow.admit()
    batch = await full(flow)
    assert ids(batch.prompts) == [order[0], order[2], order[3], order[5]]  # in the order of admission
    assert [group.reference for group in batch.groups] == batch.prompts and batch.filtered == 2 and len(batch.rollouts) == 4
    assert [(prompt.id, prompt.attempt) for prompt in flow.filtered] == [(order[1], 1), (order[4], 1)]
    assert flow.unfinished() == []


async def test_filtered_prompts_come_once_more_when_the_epoch_is_over() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    flow = pipeline(Samplers(), rewards=Rewards(dull=order[:1], hopeless=order[1:2]), dynamic_sampling=1)
    done: list[Prompt] = []
    for _ in range(3):
        flow.admit()
        batch = await full(flow)
        trained(flow, batch)
        done += batch.prompts
    assert ids(done) == [*order[2:], *order[:2]]  # every prompt once, none of the next epoch
    assert [prompt.attempt for prompt in done] == [0] * 10 + [1, 1]
    assert not flow.filtered and {prompt.epoch for prompt in done} == {0}


async def test_no_more_prompts_are_replaced_than_the_bound_allows() -> None:
    everything = [prompt.id for prompt in PROMPTS]
    for bound in (0, 1, 2):
        flow = pipeline(Samplers(), rewards=Rewards(hopeless=everything), dynamic_sampling=bound)
        flow.admit()
        batch = await full(flow)
        assert batch.filtered == 4 * bound and len(batch.groups) == 4


async def test_what_a_call_made_beyond_a_full_batch_goes_into_the_next() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    flow = pipeline(Samplers(), 1, rewards=Rewards(dull=order[:1]), dynamic_sampling=1)
    flow.admit()
    batch = await full(flow)
    assert ids(batch.prompts) == order[1:5] and ids(untrained(flow))[0] == order[5]
    trained(flow, batch)
    flow.admit()
    assert len(untrained(flow)) == 8
    following = await full(flow)
    assert ids(following.prompts)[0] == order[5]
    flow.cancel()


@dataclass
class ErraticSamplers(Samplers):
    """Answer after a random while."""

    rng: random.Random = field(default_factory=random.Random)

    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        await a_while(self.rng)
        sampled = await super().sample(prompts, mode, snapshot)
        await a_while(self.rng)
        return sampled


@dataclass
class ErraticRewards(Rewards):
    """Score after a random while; of the groups a random share is dull."""

    rng: random.Random = field(default_factory=random.Random)
    dull_share: float = 0.0

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        await a_while(self.rng)
        return await super().score(groups)

    def is_dull(self, prompt: Prompt) -> bool:
        return self.rng.random() < self.dull_share


async def a_while(rng: random.Random) -> None:
    for _ in range(rng.randrange(12)):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(40))
async def test_no_history_loses_a_prompt_or_trains_on_one_twice(seed: int) -> None:
    """Random delays, dull groups and staleness, stopped and resumed with other settings: every prompt taken is in one place."""
    rng = random.Random(seed)
    prompts = [Prompt(id=str(n), question="q", answers=("a",)) for n in range(rng.randrange(3, 30))]
    order, queue, aside, step, done = {"epoch": 0, "position": 0}, [], [], 0, []
    while step < 30:
        max_staleness = rng.randrange(4)
        flow = pipeline(
            ErraticSamplers(rng=rng),
            max_staleness,
            rewards=ErraticRewards(rng=rng, dull_share=rng.choice([0, 0.3, 0.9, 1])),
            order=PromptOrder(prompts, seed=0, **order),
            queue=deque(queue),
            filtered=deque(aside),
            dynamic_sampling=rng.choice([0, 1, 3]),
            prompts_left=(30 - step) * 4,
            version=Version(0, step),
            prompts_per_call=rng.choice([1, 2, 4]),
        )
        for _ in range(min(rng.randrange(1, 8), 30 - step)):
            flow.admit()
            batch = await asyncio.wait_for(flow.batch(), 20)
            if rng.random() < 0.2:
                flow.give_back(batch)
                batch = await asyncio.wait_for(flow.batch(), 20)
            step += 1
            trained(flow, batch, Version(0, step))
            done += [prompt.key for prompt in batch.prompts]
            assert max(batch.staleness) <= max_staleness and len(batch.groups) == 4
            taken = flow.order.epoch * len(prompts) + flow.order.position
            kept = [prompt.key for prompt in [*untrained(flow), *flow.filtered]]
            assert len({*done, *kept}) == len(done) + len(kept) == taken
        order, queue, aside = flow.order.state(), untrained(flow), list(flow.filtered)
        flow.cancel()
        await asyncio.sleep(0)


async def test_a_prompt_that_fails_three_times_alone_is_left_out_and_the_others_go_on() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    samplers = Samplers(poison={order[1]})
    flow = pipeline(samplers)
    flow.admit()
    assert await flow.batch() is None and [each.prompt.id for each in flow.failed] == [order[1]]
    assert "lost its replica" in str(flow.failed[0].error)
    flow.failed = []
    assert ids((await full(flow)).prompts) == [order[0], order[2], order[3], order[4]]
    assert samplers.asked.count([order[1]]) == 3 and samplers.asked.count(order[:2]) == 1
    assert untrained(flow) == []


async def test_where_all_prompts_fail_each_batch_tells_of_some() -> None:
    flow = pipeline(Samplers(poison={prompt.id for prompt in PROMPTS}), prompts_per_call=1)
    flow.admit()
    for _ in range(3):
        assert await flow.batch() is None and flow.failed
        flow.failed = []
    flow.cancel()


async def test_the_first_of_a_prompts_errors_is_told() -> None:
    flow = pipeline(Samplers(poison={prompt.id for prompt in PROMPTS}), prompts_per_call=1, prompts_left=1)
    flow.admit()
    assert await flow.batch() is None
    assert str(flow.failed[0].error).startswith("sampler: call 1 ")


async def test_lost_weights_are_published_once_more_and_the_calls_repeated_in_their_order() -> None:
    learner = Publisher()
    snapshots = SnapshotStore(learner, FIRST)  # type: ignore[arg-type]  # of a learner it asks for no more
    snapshots.current = Snapshot(FIRST, "lost")
    flow = pipeline(Samplers(lost=2), snapshots=snapshots)
    flow.admit()
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))
    assert len(learner.published) == 1 and snapshots.current is learner.published[0]


async def test_inputs_that_are_lost_again_and_again_end_the_run() -> None:
    flow = pipeline(Samplers(lost=99))
    flow.admit()
    with pytest.raises(InputsLost):
        await flow.batch()
    flow.cancel()


async def test_groups_lost_before_they_are_scored_are_sampled_again() -> None:
    samplers = Samplers()
    flow = pipeline(samplers, rewards=Rewards(lost=1))
    flow.admit()
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))
    assert samplers.calls == 3


async def test_a_batch_given_back_comes_again_first_and_in_its_order() -> None:
    flow = pipeline(Samplers())
    flow.admit()
    batch = await full(flow)
    flow.give_back(batch)
    flow.admit()
    assert ids((await full(flow)).prompts) == ids(batch.prompts)


@pytest.mark.parametrize("mode", ["sample", "gold"])
async def test_a_batch_given_back_is_trained_before_what_was_made_ahead_of_it(mode: Mode) -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    stage = Stage(name="rl", mode=mode, first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)
    flow = pipeline(Samplers(), stage=stage)
    flow.admit()
    batch = await full(flow)
    flow.give_back(batch)
    done = []
    for _ in range(3):
        flow.admit()
        batch = await full(flow)
        trained(flow, batch)
        done += ids(batch.prompts)
    assert done == order and flow.order.position == 12


async def test_a_batch_given_back_is_the_same_where_groups_were_replaced_in_it() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))

    flow = pipeline(Samplers(), rewards=Rewards(hopeless=order[1:9]), dynamic_sampling=1)
    flow.admit()
    batch = await full(flow)
    flow.give_back(batch)
    assert flow.unfinished() == batch.prompts
    again = await full(flow)
    assert (again.prompts, again.filtered, len(again.rollouts)) == (batch.prompts, 4, len(batch.rollouts))
    assert ids([*flow.filtered]) == order[1:5]


async def test_a_batch_given_back_comes_first_in_a_checkpoint_too() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(6 + 16))  # four batches are admitted
    gold = Stage(name="supervised", mode="gold", first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)

    flow = pipeline(Samplers(), stage=gold, prompts_per_call=3)
    flow.ready.extend(GroupRef(prompt, prompt, FIRST, None) for prompt in flow.order.take(6))
    flow.give_back(await full(flow))
    state = RunState()
    assert note_position(flow, state) == []
    assert [saved.id for saved in state.pending] == order


async def test_a_prompt_that_fails_when_its_batch_is_made_again_is_left_out() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    samplers = Samplers()
    flow = pipeline(samplers)
    flow.admit()
    flow.give_back(await full(flow))
    samplers.poison = {order[2]}
    assert await flow.batch() is None and [each.prompt.id for each in flow.failed] == [order[2]]
    flow.failed = []
    assert ids((await full(flow)).prompts) == [*order[:2], order[3], order[4]]


async def test_what_is_finished_at_a_checkpoint_is_kept_with_it_and_counted_in_the_next_batch() -> None:
    samplers = Samplers()
    flow = pipeline(samplers, max_staleness=2)
    flow.admit()
    batch = await full(flow)
    trained(flow, batch)
    samplers.ends = deque([asyncio.Event()])
    flow.admit()
    for _ in range(9):
        await asyncio.sleep(0)
    made, unfinished = flow.made_ahead(), flow.unfinished()
    assert (len(made), len(unfinished)) == (10, 2)
    assert not {group.prompt for group in made} & set(unfinished)
    following = await full(flow)
    assert following.groups == made[:4] and len(batch.rollouts) + len(following.rollouts) == 7
    flow.cancel()


async def test_groups_of_a_checkpoint_are_trained_on_before_new_ones() -> None:
    saved = [GroupRef(PROMPTS[n], f"group {n}", FIRST, 1.0) for n in (7, 3)]
    flow = pipeline(Samplers(), ready=deque(saved))
    flow.admit()
    batch = await full(flow)
    assert [group.reference for group in batch.groups[:2]] == ["group 7", "group 3"] and len(batch.groups) == 4
    assert flow.order.position == 2


async def test_a_prompt_that_shares_a_call_made_again_and_is_not_wanted_may_fail() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    samplers = Samplers()
    flow = pipeline(samplers, rewards=Rewards(dull=order[:1]), dynamic_sampling=1)
    flow.admit()
    flow.give_back(await full(flow))
    samplers.poison = {order[0]}
    assert ids((await full(flow)).prompts) == order[1:5] and not flow.failed
    assert ids(flow.filtered) == order[:1] and untrained(flow) == []


async def test_groups_made_before_an_update_are_one_version_old_after_it() -> None:
    flow = pipeline(Samplers(), max_staleness=1)
    flow.admit()
    stalenesses = []
    for step in (1, 2, 3):
        batch = await full(flow)
        stalenesses.append(batch.staleness)
        trained(flow, batch, Version(0, step))
        flow.admit()
    assert stalenesses == [[0] * 4, [1] * 4, [1] * 4]


@dataclass
class FaultySamplers(Samplers):
    """Answer after a random while; some calls lose their inputs, some their actor, those of a prompt in `poison` always."""

    rng: random.Random = field(default_factory=random.Random)

    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        await asyncio.sleep(self.rng.random())
        self.lost = int(self.rng.random() < 0.05)
        if self.rng.random() < 0.05:
            raise ReplicasLost("sampler: its node left")
        sampled = await super().sample(prompts, mode, snapshot)
        await asyncio.sleep(10 * self.rng.random() ** 4)
        return sampled


@dataclass
class FaultyRewards(ErraticRewards):
    """Score after a random while; some of what they are given is lost."""

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        await asyncio.sleep(self.rng.random())
        self.lost = int(self.rng.random() < 0.05)
        return await super().score(groups)


class Groups:
    """What checkpoints hold of groups: some are lost before they are written."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.written: list[Any] = []

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None:
        if self.rng.random() < 0.2:
            raise InputsLost("records actor: what it was given is lost")
        self.written = [group.reference for group in groups]

    async def read_groups(self, path: Path, count: int) -> list[Any]:
        assert len(self.written) == count
        return self.written


GOLD = Stage(name="supervised", mode="gold", first=1, steps=8, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)
SAMPLED = Stage(name="rl", mode="sample", first=9, steps=16, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)


class History:
    """A run through both stages that is killed and resumed at random; `done` and `failed` are those of its stage."""

    def __init__(self, seed: int, folder: Path):
        self.rng, self.folder = random.Random(seed), folder
        self.prompts = [Prompt(id=str(n), question="q", answers=("a",)) for n in range(self.rng.randrange(3, 30))]
        self.poison = {prompt.id for prompt in self.prompts if self.rng.random() < 0.05}
        self.on_policy = self.rng.random() < 0.4  # then no groups are set aside either
        self.records = Groups(self.rng)
        self.state = RunState()
        self.done: list[PromptKey] = []
        self.failed: list[PromptKey] = []

    async def go(self, stage: Stage) -> None:
        self.state.begin(stage.name)
        self.done, self.failed = [], []
        await self.save(await self.resumed(stage))
        while self.state.step < stage.last:
            flow, (done, failed, step) = await self.resumed(stage), (list(self.done), list(self.failed), self.state.step)
            try:
                for _ in range(min(self.rng.randrange(1, 8), stage.last - step)):
                    await self.step(flow)
                killed = self.rng.random() < 0.3
            except InputsLost:  # again and again: the run ends, and somebody resumes it
                killed = True
            if killed:
                self.state, self.done, self.failed = RunState.read(self.folder / "state.json"), done, failed
            else:
                await self.save(flow)
            flow.cancel()

    async def resumed(self, stage: Stage) -> Pipeline:
        rollout = {"prompts_per_call": self.rng.choice([1, 2, 4]), "dynamic_sampling": self.rng.choice([0, 1, 3])}
        max_staleness = self.rng.randrange(4)
        if self.on_policy:
            max_staleness, rollout["dynamic_sampling"] = 0, 0
        settings = build(Settings, {f"rollout.{name}": value for name, value in rollout.items()} | {"seed": 0})
        settings = settings.with_values(cluster=settings.cluster.with_values(max_staleness=max_staleness))
        samplers = FaultySamplers(rng=self.rng, poison=self.poison)
        rewards = FaultyRewards(rng=self.rng, dull_share=self.rng.choice([0, 0.3, 0.9, 1]))
        snapshots = SnapshotStore(None, Version(0, self.state.step))
        clock = asyncio.get_running_loop().time
        client = RolloutClient(samplers, rewards, snapshots, stage.mode, RetryPolicy(), clock)
        return await restored(self.state, self.folder, client, stage, self.records, self.prompts, settings)  # type: ignore[arg-type]

    async def step(self, flow: Pipeline) -> None:
        flow.admit()
        given_back = False
        while (batch := await flow.batch()) is None or (not given_back and self.rng.random() < 0.2):
            if batch is None:
                self.note_failed(flow)
            else:
                flow.give_back(batch)
                given_back = True
        self.state.step += 1
        trained(flow, batch, Version(0, self.state.step))
        self.done += [prompt.key for prompt in batch.prompts]
        assert max(batch.staleness) <= flow.max_staleness and len(batch.groups) == 4
        if self.on_policy or not flow.stage.sampled:
            order = PromptOrder(self.prompts, seed=0).take(len(self.done) + len(self.failed) + 4)
            assert self.done == [prompt.key for prompt in order if prompt.key not in self.failed][: len(self.done)]

    async def save(self, flow: Pipeline) -> None:
        ready = note_position(flow, self.state)
        self.note_failed(flow)
        await write_groups(self.records, ready, self.folder, self.state)  # type: ignore[arg-type]
        self.state.write(self.folder / "state.json")
        self.state = RunState.read(self.folder / "state.json")
        kept = [*self.state.pending, *self.state.filtered, *(group.prompt for group in self.state.ready)]
        everywhere = [*self.done, *self.failed, *(PromptKey(saved.epoch, saved.id) for saved in kept)]
        order = self.state.order
        assert len(set(everywhere)) == len(everywhere) == order["epoch"] * len(self.prompts) + order["position"]

    def note_failed(self, flow: Pipeline) -> None:
        self.failed += [each.prompt.key for each in flow.take_failed()]


@pytest.mark.simulated_time
@pytest.mark.parametrize("seed", range(40))
async def test_no_history_of_two_stages_with_failures_and_losses_has_a_prompt_in_two_places_or_none(
    seed: int, tmp_path: Path
) -> None:
    """Stopped, killed and resumed with other settings. On policy and with gold answers, prompts come in the order's order."""
    history = History(seed, tmp_path)
    for stage in (GOLD, SAMPLED):
        await history.go(stage)
    assert history.state.step == SAMPLED.last
