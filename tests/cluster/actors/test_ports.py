"""What ports make of calls to actors, with actors that are plain objects, in simulated time."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.actors.errors import ReplicasLost
from cluster.actors.pool import Pool
from cluster.actors.ports import GroupRef, RecordsPort, RewardPort, SamplerPort, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from rollout.types import Prompt, SampleReport, ScoreReport, Version
from tests.cluster.fakes import FakeCluster, FakeHandle

pytestmark = pytest.mark.simulated_time

POLICY = RetryPolicy(first_pause_s=0)
FIRST, SECOND = Snapshot(Version(0, 0)), Snapshot(Version(0, 1), "weights", "vectors")
PROMPTS = [Prompt(id=str(n), question=f"q {n}", answers=("a",)) for n in range(2)]


def sampling(handle: FakeHandle) -> None:
    def sample(prompts: list[Prompt], mode: str, version: Version, weights: list[Any], vectors: list[Any]) -> tuple[Any, ...]:
        return SampleReport(version=version, figures={}), *(f"group {prompt.id}" for prompt in prompts)

    handle.answers["sample"] = sample


async def test_a_call_is_sampled_with_what_is_current_when_a_sampler_is_free() -> None:
    cluster, current = FakeCluster(sampling), FIRST
    pool = SamplerPort(Pool("sampler", cluster.spawn, 1, POLICY, print))
    pool.start()
    calls = [asyncio.create_task(pool.sample(PROMPTS, "sample", lambda: current)) for _ in range(2)]
    await asyncio.sleep(0)
    current = SECOND
    await asyncio.sleep(1)
    sampled = await calls[0]
    assert cluster.handles[0].asked[0] == ("sample", (PROMPTS, "sample", SECOND.version, ["weights"], ["vectors"]))
    assert [(group.prompt, group.version) for group in sampled.groups] == [(prompt, SECOND.version) for prompt in PROMPTS]
    assert [await group.reference for group in sampled.groups] == ["group 0", "group 1"]
    await calls[1]


async def test_samplers_are_given_no_weights_where_their_folder_holds_them_and_no_vectors_where_none_are_searched() -> None:
    cluster = FakeCluster(sampling)
    pool = SamplerPort(Pool("sampler", cluster.spawn, 1, POLICY, print))
    pool.start()
    await pool.sample(PROMPTS, "greedy", lambda: FIRST)
    assert cluster.handles[0].asked == [("sample", (PROMPTS, "greedy", FIRST.version, [], []))]


@pytest.mark.parametrize(("prompts", "lost"), [(1, 1), (2, 3)])
async def test_a_lone_prompt_is_given_to_one_sampler_and_several_to_three(prompts: int, lost: int) -> None:
    def dies(handle: FakeHandle) -> None:
        handle.answers["sample"] = lambda *_: handle.die()

    cluster = FakeCluster(dies)
    pool = SamplerPort(Pool("sampler", cluster.spawn, 1, POLICY, print))
    pool.start()
    with pytest.raises(ReplicasLost):
        await pool.sample(PROMPTS[:prompts], "sample", lambda: FIRST)
    assert pool.restarts == lost


def scoring(handle: FakeHandle) -> None:
    def score(count: int, *groups_and_values: Any) -> tuple[Any, ...]:
        return ScoreReport(reward_ranges=(0.0, 1.5), figures={"seconds_reward": 1.0}), *(f"scored {n}" for n in range(count))

    handle.answers["score"] = score


async def test_scorers_are_given_the_groups_and_then_what_actors_of_extra_rewards_measured() -> None:
    report = ScoreReport(reward_ranges=(), figures={"seconds_reward": 0.25})

    def measuring(name: str, handle: FakeHandle) -> None:
        handle.answers["measure"] = lambda *groups: (report, f"{name} of {len(groups)} groups")

    scorers, own = FakeCluster(scoring), [FakeCluster(partial(measuring, name)) for name in ("judge", "toxicity")]
    extra = [Pool(f"extra {n}", cluster.spawn, 1, POLICY, print) for n, cluster in enumerate(own)]
    rewards = RewardPort(Pool("reward actor", scorers.spawn, 1, POLICY, print), extra)
    rewards.start()
    groups = [GroupRef(prompt, f"group {prompt.id}", SECOND.version) for prompt in PROMPTS]
    call = await rewards.score(groups)
    [(method, (count, *given))] = scorers.handles[0].asked
    assert (method, count) == ("score", 2)
    assert given == ["group 0", "group 1", "judge of 2 groups", "toxicity of 2 groups"]
    assert [(group.prompt, group.version, group.reward_range) for group in call.groups] == [
        (PROMPTS[0], SECOND.version, 0.0),
        (PROMPTS[1], SECOND.version, 1.5),
    ]
    assert [await group.reference for group in call.groups] == ["scored 0", "scored 1"]
    assert [group.zero_variance for group in call.groups] == [True, False]
    assert call.report.figures == {"seconds_reward": 1.5}
    assert rewards.states == {"starting": 0, "idle": 3, "busy": 0}


async def test_groups_of_a_file_come_as_references() -> None:
    def reading(handle: FakeHandle) -> None:
        handle.answers["read_groups"] = lambda path: (None, "group 0", "group 1")

    pool = RecordsPort(Pool("records actor", FakeCluster(reading).spawn, 1, POLICY, print))
    pool.start()
    assert [await group for group in await pool.read_groups(Path("groups.parquet"), 2)] == ["group 0", "group 1"]
