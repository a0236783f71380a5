"""Samplers that follow the cluster's nodes, with actors that are plain objects, in simulated time."""

import asyncio
from typing import Any

import pytest

from cluster.actors.autoscaler import Autoscaler, samplers_that_fit
from cluster.actors.index_port import IndexPort
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import Roles, roles_of
from cluster.settings.actor_settings import ClusterSettings
from cluster.settings.tree import Settings
from reward.config import ExtraReward, RewardSettings
from tests.cluster.fakes import FakeCluster, FakeHandle, work

pytestmark = pytest.mark.simulated_time

POLICY = RetryPolicy(make_room_s=30)


def node(name: str, alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Labels": labels or {}, "Resources": resources}


def settings(**values: Any) -> ClusterSettings:
    return ClusterSettings(**{"samplers": "auto"} | values)


def roles(*extra: ExtraReward, **values: Any) -> Roles:
    """One sampler of 1 CPU, one reward actor of 0.5, a learner of 1, and what else is told."""
    return roles_of(Settings(cluster=settings(**{"rewards": 1} | values), reward=RewardSettings(extra=extra)))


ROLES = roles()
INDEX: dict[str, Any] = {"data": {"passages": "p.jsonl"}, "retriever": {"index_actors": 1}}
WITH_INDEX = roles_of(Settings(cluster=settings(rewards=1), **INDEX))


class Followed:
    """An autoscaler of a sampler, two reward actors, two of an extra reward's own, a learner, and the `part` of an index, if
    there is one. events: told by it alone."""

    def __init__(self, learner: FakeHandle | None = None, part: FakeHandle | None = None):
        self.events: list[str] = []
        self.cluster, self.scoring, self.own = FakeCluster(), FakeCluster(), FakeCluster()
        self.pool = Pool("sampler", self.cluster.spawn, 1, POLICY, print)
        self.samplers = SamplerPort(self.pool)
        own = [Pool("judge", self.own.spawn, 2, POLICY, print)]
        self.rewards = RewardPort(Pool("reward actor", self.scoring.spawn, 2, POLICY, print), own)
        self.learner = LearnerPort(lambda name, *, avoid: learner or FakeHandle(), POLICY, print)
        self.index = IndexPort(1 if part else 0, lambda name, *, avoid: part or FakeHandle(), POLICY, print)
        actors = self.samplers, self.rewards, self.learner, self.index
        self.autoscaler = Autoscaler(settings(), WITH_INDEX if part else ROLES, *actors, POLICY, self.events.append)

    async def start(self) -> None:
        self.index.start()
        self.samplers.start()
        self.rewards.start()
        await asyncio.sleep(0.1)


async def test_samplers_make_room_for_a_learner_that_finds_none() -> None:
    learner = FakeHandle()
    learner.has_place = False
    followed = Followed(learner)
    await followed.start()
    starting = asyncio.create_task(followed.learner.start())
    await asyncio.sleep(0)
    sizes, before = [], 0.0
    for seconds in (0.0, 29, 30, 60, 270):
        await asyncio.sleep(seconds - before)
        before = seconds
        assert await followed.learner.without_a_place_s() == seconds
        await followed.autoscaler.follow([node("a", CPU=4.5), node("b", CPU=0.0)])
        sizes.append(followed.samplers.size)
    learner.answer()
    await starting
    await followed.autoscaler.follow([node("a", CPU=4.5), node("b", CPU=0.0)])
    assert [*sizes, followed.samplers.size] == [3, 3, 2, 1, 1, 3]
    assert followed.events[1] == "samplers: 3 -> 2, to make room for the others"
    assert await work(followed.pool)


async def test_samplers_make_room_for_an_extra_rewards_own_actors() -> None:
    followed = Followed()

    def without_place(handle: FakeHandle) -> None:
        handle.has_place = False

    followed.own.prepare = without_place
    await followed.start()
    sizes = []
    for seconds in (29, 1):
        await asyncio.sleep(seconds)
        await followed.autoscaler.follow([node("a", CPU=4.5)])
        sizes.append(followed.samplers.size)
    assert sizes == [3, 2]


async def test_samplers_make_room_for_a_part_of_the_index() -> None:
    part = FakeHandle()
    part.has_place = False
    followed = Followed(part=part)
    await followed.start()
    sizes = []
    for seconds in (29, 1):
        await asyncio.sleep(seconds)
        await followed.autoscaler.follow([node("a", CPU=5.5)])
        sizes.append(followed.samplers.size)
    assert sizes == [3, 2]
    followed.index.close()


async def test_samplers_stay_while_a_learner_that_has_its_place_starts() -> None:
    learner = FakeHandle()
    learner.has_worker = False
    followed = Followed(learner)
    await followed.start()
    starting = asyncio.create_task(followed.learner.start())
    await asyncio.sleep(200)
    await followed.autoscaler.follow([node("a", CPU=4.5)])
    assert await followed.learner.without_a_place_s() == 0 and followed.samplers.size == 3
    starting.cancel()


async def test_the_watch_follows_nodes_that_join_and_leave() -> None:
    followed = Followed()
    await followed.start()
    a, b = node("a", CPU=3.0), node("b", CPU=2.0)
    await followed.autoscaler.follow([a])
    assert followed.samplers.size == 1
    await followed.autoscaler.follow([a, b])
    assert followed.samplers.size == 3
    await asyncio.sleep(1)
    assert len({await work(followed.pool) for _ in range(12)}) == 3
    await followed.autoscaler.follow([a, {**b, "Alive": False}])
    assert followed.samplers.size == 1
    assert followed.events == ["samplers: 1 -> 3, nodes: 2", "samplers: 3 -> 1, nodes: 1"]
    assert [handle.node for handle in followed.cluster.handles if not handle.kills] == ["a"]
    assert await work(followed.pool)


async def test_reward_actors_of_every_kind_that_lay_on_a_node_that_left_are_replaced() -> None:
    followed = Followed()
    await followed.start()
    await followed.autoscaler.follow([node("a", CPU=8.0)])
    for cluster in (followed.scoring, followed.own):
        assert [handle.kills for handle in cluster.handles] == [0, 1]
    assert followed.rewards.restarts == 2


def test_samplers_fill_what_the_learner_and_the_rewards_leave() -> None:
    # head: 4 CPUs - 1 - 0.5 = 2.5 -> 2 samplers; other: 3; the dead node counts for nothing
    nodes = [node("head", CPU=4.0), node("other", CPU=3.0), node("dead", alive=False, CPU=64.0)]
    assert samplers_that_fit(nodes, settings(), ROLES) == 5


def test_samplers_leave_room_for_actors_of_extra_rewards() -> None:
    # head: 4 CPUs - 1 - 0.5 - 2 * 0.5 = 1.5 -> 1 sampler; other: 3
    judged = roles(ExtraReward(function="rewards:judge", actors=2))
    assert samplers_that_fit([node("head", CPU=4.0), node("other", CPU=3.0)], settings(), judged) == 4


def test_rewards_on_a_gpu_find_their_place_before_those_that_need_none() -> None:
    """Else the reward actor would take the CPU that only the judge can use, and a sampler would seem to fit where it goes."""
    judged = roles(ExtraReward(function="rewards:judge", gpus=1), reward_cpus=1, rewards=1, learner_cpus=0)
    nodes = [node("gpu", CPU=1.0, GPU=1.0), node("other", CPU=2.0)]
    assert samplers_that_fit(nodes, settings(), judged) == 1


def test_samplers_keep_within_their_bounds() -> None:
    nodes = [node("head", CPU=4.0), node("other", CPU=3.0)]
    assert samplers_that_fit(nodes, settings(max_samplers=3), ROLES) == 3
    assert samplers_that_fit([node("head", CPU=1.0)], settings(min_samplers=2), ROLES) == 2
    assert samplers_that_fit(nodes, settings(samplers=7), ROLES) == 7


def test_samplers_follow_a_custom_resource_a_label_and_gpus() -> None:
    nodes = [node("head", CPU=8.0), node("other", CPU=8.0, rollout=2.0)]
    assert samplers_that_fit(nodes, settings(sampler_resource="rollout"), roles(sampler_resource="rollout")) == 2
    labelled = [node("head", CPU=8.0), node("other", CPU=3.0, labels={"role": "sampler"})]
    assert samplers_that_fit(labelled, settings(sampler_label="role=sampler"), ROLES) == 3
    gpus = roles(sampler_gpus=1, learner_gpus=1)
    assert samplers_that_fit([node("head", CPU=64.0, GPU=4.0)], settings(), gpus) == 3
