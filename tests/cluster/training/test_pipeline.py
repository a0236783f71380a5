"""Admission, order and staleness, over ports whose actors are plain objects, in simulated time."""

import asyncio
import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ObjectLostError, RayActorError

from cluster.actors.errors import InputsLost
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import GroupRef, RecordsPort, RewardPort, SamplerPort, Snapshot
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
from tests.cluster.fakes import FakeCluster, FakeHandle

pytestmark = pytest.mark.simulated_time

POLICY = RetryPolicy(first_pause_s=0)
LOST = ObjectLostError("ab" * 28, None, "")
FIRST = Version(0, 0)
PROMPTS = [Prompt(id=str(n), question=f"q {n}", answers=("a",)) for n in range(12)]


@dataclass
class Samplers:
    """What sampler actors do: the next calls take `seconds`, those after them no time; those with a prompt in `poison` kill
    their actor, the first `lost` lose their inputs. version: of the weights they claim to sample with, where it is not the
    one they are given. A group is its prompt."""

    version: Version | None = None
    seconds: deque[float] = field(default_factory=deque)
    poison: set[str] = field(default_factory=set)
    lost: int = 0
    asked: list[list[str]] = field(default_factory=list)

    def prepare(self, handle: FakeHandle) -> None:
        handle.answers["sample"] = partial(self.sample, handle)

    def sample(self, handle: FakeHandle, prompts: Sequence[Prompt], mode: Mode, version: Version, weights: list[Any]) -> Any:
        self.asked.append(ids(prompts))
        if self.seconds:
            take(handle, self.seconds.popleft())
        if self.lost:
            self.lost -= 1
            return LOST
        if self.poison & set(ids(prompts)):
            return RayActorError(error_msg=f"killed by call {len(self.asked)}")
        return SampleReport(version=self.version or version, figures={}), *prompts


@dataclass
class Rewards:
    """What reward actors do: a group of a prompt in `dull` has equal rewards at its first attempt, one in `hopeless` always;
    the first `lost` calls lose their inputs."""

    dull: Collection[str] = ()
    hopeless: Collection[str] = ()
    lost: int = 0

    def prepare(self, handle: FakeHandle) -> None:
        handle.answers["score"] = partial(self.score, handle)

    def score(self, handle: FakeHandle, count: int, *groups: Prompt) -> Any:
        if self.lost:
            self.lost -= 1
            return LOST
        ranges = tuple(0.0 if self.is_dull(prompt) else 1.0 for prompt in groups)
        return ScoreReport(reward_ranges=ranges, figures={"seconds_reward": 0.0}), *groups

    def is_dull(self, prompt: Prompt) -> bool:
        return prompt.id in self.hopeless or (prompt.id in self.dull and prompt.attempt == 0)


def take(handle: FakeHandle, seconds: float) -> None:
    """Have the call that it is just given end so much later."""
    handle.is_held = True
    asyncio.get_running_loop().call_later(seconds, handle.answer)


def rollout_client(
    samplers: Samplers, rewards: Rewards, snapshots: SnapshotStore, mode: Mode, retry: RetryPolicy = POLICY, size: int = 8
) -> RolloutClient:
    """size: actors of each role."""
    sampling = SamplerPort("sampler", FakeCluster(samplers.prepare).spawn, size, retry, print)
    scoring = RewardPort(Pool("reward actor", FakeCluster(rewards.prepare).spawn, size, retry, print), [], retry)
    sampling.start()
    scoring.start()
    return RolloutClient(sampling, scoring, snapshots, mode, retry, now)


def now() -> float:
    return asyncio.get_running_loop().time()


def pipeline(samplers: Samplers, max_staleness: int = 0, **changed: Any) -> Pipeline:
    stage = Stage(name="rl", mode="sample", first=1, steps=9, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)
    stage = changed.pop("stage", stage)
    snapshots = changed.pop("snapshots", None) or SnapshotStore(None, changed.pop("version", FIRST))
    rewards = changed.pop("rewards", None) or Rewards()
    client = rollout_client(samplers, rewards, snapshots, stage.mode, size=changed.pop("size", 8))
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
    batch = await flow.batch()
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
    flow = pipeline(Samplers(seconds=deque([2.0, 1.0])))
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))
    assert now() == 2.0


async def test_asynchronous_batches_take_calls_as_they_end() -> None:
    flow = pipeline(Samplers(seconds=deque([9.0])), max_staleness=1)
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:])
    assert now() < 9.0


async def test_groups_that_are_too_stale_are_counted_and_their_prompts_come_again() -> None:
    samplers = Samplers(version=Version(0, 0))
    flow = pipeline(samplers, max_staleness=1, version=Version(0, 2))
    flow.admit()
    waiting = asyncio.ensure_future(full(flow))
    while len(samplers.asked) < 8:
        await asyncio.sleep(0)
        assert len(untrained(flow)) <= 8
    samplers.version = None
    batch = await waiting
    flow.cancel()
    assert batch.requeued >= 8 and set(ids(batch.prompts)) <= set(ids(PromptOrder(PROMPTS, seed=0).take(8)))


async def after_a_batch_without_the_first_call(first_s: float) -> Pipeline:
    """One staleness, versions 0 and 1: the first call, of version 0, can still be trained on in the next batch alone. The
    others of the first two batches take 1 s, those after them no time."""
    flow = pipeline(Samplers(seconds=deque([first_s, 1.0, 1.0, 1.0])), max_staleness=1)
    batch = await full(flow)
    assert ids(batch.prompts) == ids(PromptOrder(PROMPTS, seed=0).take(6)[2:]) and now() == 1.0
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
    flow = await after_a_batch_without_the_first_call(1.5)
    batch = await full(flow)
    assert set(ids(batch.prompts)) >= set(ids(PromptOrder(PROMPTS, seed=0).take(2))) and batch.requeued == 0
    assert now() == 1.5


async def test_a_call_that_takes_twice_as_long_as_any_is_not_waited_for() -> None:
    flow = await after_a_batch_without_the_first_call(9.0)
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(10)[6:])
    assert now() == 2.0


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
    assert [await group.reference for group in batch.groups] == batch.prompts
    assert batch.filtered == 2 and len(batch.rollouts) == 4
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
    """A call takes a random while. risk: that it loses its inputs; four times as often its actor dies soon, in it or after."""

    rng: random.Random = field(default_factory=random.Random)
    risk: float = 0.0

    def sample(self, handle: FakeHandle, *arguments: Any) -> Any:
        self.seconds.append(self.rng.choice([1, 1, 1, 8]) * a_while(self.rng))
        self.lost = int(self.rng.random() < self.risk)
        if self.rng.random() < 4 * self.risk:
            asyncio.get_running_loop().call_later(a_while(self.rng), handle.die)
        return super().sample(handle, *arguments)


@dataclass
class ErraticRewards(Rewards):
    """Score after a random while; of the groups a random share is dull. risk: that a call loses its inputs."""

    rng: random.Random = field(default_factory=random.Random)
    dull_share: float = 0.0
    risk: float = 0.0

    def score(self, handle: FakeHandle, *arguments: Any) -> Any:
        take(handle, a_while(self.rng))
        self.lost = int(self.rng.random() < self.risk)
        return super().score(handle, *arguments)

    def is_dull(self, prompt: Prompt) -> bool:
        return self.rng.random() < self.dull_share


def a_while(rng: random.Random) -> float:
    """Seconds whose sums are exact: a wait for less than the simulated clock's precision would never end."""
    return rng.randrange(1024) / 1024


some_or_many_seeds = pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 400), marks=pytest.mark.slow)])


@some_or_many_seeds
async def test_no_history_loses_a_prompt_or_trains_on_one_twice(seeds: range) -> None:
    """Random delays, dull groups and staleness, stopped and resumed with other settings: every prompt taken is in one place."""
    for seed in seeds:
        print("seed", seed)  # seen where it fails
        await history_of_one_stage(random.Random(seed))


async def history_of_one_stage(rng: random.Random) -> None:
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
            size=rng.randrange(1, 9),
        )
        for _ in range(min(rng.randrange(1, 8), 30 - step)):
            flow.admit()
            batch = await full(flow)
            if rng.random() < 0.2:
                flow.give_back(batch)
                batch = await full(flow)
            await asyncio.sleep(a_while(rng))  # the update
            step += 1
            trained(flow, batch, Version(0, step))
            done += [prompt.key for prompt in batch.prompts]
            assert max(batch.staleness) <= max_staleness and len(batch.groups) == 4
            taken = flow.order.epoch * len(prompts) + flow.order.position
            kept = [prompt.key for prompt in [*untrained(flow), *flow.filtered]]
            assert len({*done, *kept}) == len(done) + len(kept) == taken
        order, queue, aside = flow.order.state(), untrained(flow), list(flow.filtered)
        flow.cancel()


async def test_a_prompt_that_fails_three_times_alone_is_left_out_and_the_others_go_on() -> None:
    order = ids(PromptOrder(PROMPTS, seed=0).take(12))
    samplers = Samplers(poison={order[1]})
    flow = pipeline(samplers)
    flow.admit()
    assert await flow.batch() is None and [each.prompt.id for each in flow.failed] == [order[1]]
    assert "lost its replica" in str(flow.failed[0].error)
    flow.failed = []
    assert ids((await full(flow)).prompts) == [order[0], order[2], order[3], order[4]]
    assert samplers.asked.count([order[1]]) == 3 and samplers.asked.count(order[:2]) == POLICY.call_attempts
    assert untrained(flow) == []


async def test_where_all_prompts_fail_each_batch_tells_of_some() -> None:
    flow = pipeline(Samplers(poison={prompt.id for prompt in PROMPTS}), prompts_per_call=1)
    flow.admit()
    for _ in range(3):
        assert await flow.batch() is None and flow.failed
        flow.failed = []
    flow.cancel()
    flow.client.samplers.close()


async def test_the_first_of_a_prompts_errors_is_told() -> None:
    flow = pipeline(Samplers(poison={prompt.id for prompt in PROMPTS}), prompts_per_call=1, prompts_left=1)
    flow.admit()
    assert await flow.batch() is None
    assert "killed by call 1" in str(flow.failed[0].error)


async def test_lost_weights_are_published_once_more_and_the_calls_repeated_in_their_order() -> None:
    actors = FakeCluster(lambda handle: handle.answers.update(weights=lambda: ("again", 6)))
    learner = LearnerPort(actors.spawn, POLICY, print)
    await learner.start()
    snapshots = SnapshotStore(learner, FIRST)
    snapshots.current = Snapshot(FIRST, "lost")
    flow = pipeline(Samplers(lost=2), snapshots=snapshots)
    flow.admit()
    assert ids((await full(flow)).prompts) == ids(PromptOrder(PROMPTS, seed=0).take(4))
    assert actors.handles[0].asked == [("weights", ())]
    assert snapshots.current.version == FIRST and await snapshots.current.weights == "again"


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
    assert len(samplers.asked) == 3


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
    samplers.seconds = deque([9.0])
    flow.admit()
    await asyncio.sleep(1)
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
        await asyncio.sleep(1)  # the update
        trained(flow, batch, Version(0, step))
        flow.admit()
    assert stalenesses == [[0] * 4, [1] * 4, [1] * 4]


class Groups:
    """What records actors do with the groups of checkpoints: some are lost before they are written."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.written: list[Prompt] = []
        self.port = RecordsPort("records actor", FakeCluster(self.prepare).spawn, 1, POLICY, print)
        self.port.start()

    def prepare(self, handle: FakeHandle) -> None:
        handle.answers.update(write_groups=self.write, read_groups=lambda path: (None, *self.written))

    def write(self, path: Path, *groups: Prompt) -> Any:
        if self.rng.random() < 0.2:
            return LOST
        self.written = list(groups)


GOLD = Stage(name="supervised", mode="gold", first=1, steps=8, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)
SAMPLED = Stage(name="rl", mode="sample", first=9, steps=16, prompts_per_step=4, lr=1.0, lr_warmup_steps=0)


class History:
    """A run through both stages that is killed and resumed at random; `done` and `failed` are those of its stage."""

    def __init__(self, seed: int, folder: Path):
        self.rng, self.folder = random.Random(seed), folder
        self.prompts = [Prompt(id=str(n), question="q", answers=("a",)) for n in range(self.rng.randrange(3, 30))]
        self.poison = {prompt.id for prompt in self.prompts if self.rng.random() < 0.05}
        self.on_policy = self.rng.random() < 0.4  # then no groups are set aside either
        self.groups = Groups(self.rng)
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
        samplers = ErraticSamplers(rng=self.rng, poison=self.poison, risk=0.05)
        rewards = ErraticRewards(rng=self.rng, dull_share=self.rng.choice([0, 0.3, 0.9, 1]), risk=0.05)
        snapshots = SnapshotStore(None, Version(0, self.state.step))
        client = rollout_client(samplers, rewards, snapshots, stage.mode, RetryPolicy(), self.rng.randrange(1, 9))
        flow = await restored(self.state, self.folder, client, stage, self.groups.port, self.prompts, settings)
        for group, prompt in zip(flow.ready, self.groups.written if flow.ready else (), strict=True):
            assert (await group.reference).key == group.prompt.key == prompt.key
        return flow

    async def step(self, flow: Pipeline) -> None:
        flow.admit()
        given_back = False
        while (batch := await flow.batch()) is None or (not given_back and self.rng.random() < 0.2):
            if batch is None:
                self.note_failed(flow)
            else:
                flow.give_back(batch)
                given_back = True
        await asyncio.sleep(a_while(self.rng))  # the update
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
        await write_groups(self.groups.port, ready, self.folder, self.state)
        self.state.write(self.folder / "state.json")
        self.state = RunState.read(self.folder / "state.json")
        kept = [*self.state.pending, *self.state.filtered, *(group.prompt for group in self.state.ready)]
        everywhere = [*self.done, *self.failed, *(PromptKey(saved.epoch, saved.id) for saved in kept)]
        order = self.state.order
        assert len(set(everywhere)) == len(everywhere) == order["epoch"] * len(self.prompts) + order["position"]

    def note_failed(self, flow: Pipeline) -> None:
        self.failed += [each.prompt.key for each in flow.take_failed()]


@some_or_many_seeds
async def test_no_history_of_two_stages_with_failures_and_losses_has_a_prompt_in_two_places_or_none(
    seeds: range, tmp_path: Path
) -> None:
    """Stopped, killed and resumed with other settings. On policy and with gold answers, prompts come in the order's order."""
    for seed in seeds:
        print("seed", seed)
        history = History(seed, tmp_path)
        for stage in (GOLD, SAMPLED):
            await history.go(stage)
        assert history.state.step == SAMPLED.last
