"""Where actors are made on Ray, with their names, resources and threads."""

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ray

from cluster.actors.autoscaler import Autoscaler
from cluster.actors.learner_client import LearnerClient
from cluster.actors.pool import Pool
from cluster.actors.pools import RecordsPool, RewardPools, SamplerPool
from cluster.actors.ports import ActorHandles
from cluster.actors.replica import RayHandle, Spawn
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.session import Resources, Shares
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from reward.actor import ExtraRewardActor, RecordsActor, RewardActor
from reward.config import ExtraReward
from rollout.actor import SamplerActor

NODE = "ray.io/node-id"


@dataclass(frozen=True, slots=True)
class Factory:
    """Makes the actors of one run, in a namespace of its own. event: told of what is lost."""

    settings: Settings
    shares: Shares
    run: str
    policy_path: str
    event: Event
    namespace: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def actors(self) -> ActorHandles:
        samplers, rewards, learner = self.samplers(), self.rewards(), self.learner()
        nodes = Autoscaler(self.settings.cluster, self.shares, samplers, rewards, learner, self.retry, self.event)
        return ActorHandles(samplers, rewards, self.records(), learner, nodes)

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy.of(self.settings.cluster)

    def samplers(self) -> SamplerPool:
        key, _, value = (self.settings.cluster.sampler_label or "").partition("=")
        spawn = self._spawn("sampler", SamplerActor, self.shares.sampler, self._of_sampler, {key: value} if key else {})
        return SamplerPool("sampler", spawn, self.settings.cluster.fewest_samplers, self.retry, self.event)

    def rewards(self) -> RewardPools:
        reward, event, own = self.settings.reward, self.event, []
        for extra in reward.extra:
            if extra.own_pool:
                share = {"CPU": self.shares.reward["CPU"], "GPU": extra.gpus}
                role = f"reward-{extra.short_name}"
                spawn = self._spawn(role, ExtraRewardActor, share, _named(extra))
                own.append(Pool(f"reward actor of {extra.column}", spawn, extra.pool_size, self.retry, event))
        spawn = self._spawn("reward", RewardActor, self.shares.reward, lambda name: (name, reward))
        scorers = Pool("reward actor", spawn, self.settings.cluster.rewards, self.retry, event)
        return RewardPools(scorers, own, self.retry)

    def records(self) -> RecordsPool:
        spawn = self._spawn("records", RecordsActor, {"CPU": 0.0}, lambda name: (self.settings.reward,))
        return RecordsPool("records actor", spawn, 1, self.retry, self.event)

    def learner(self) -> LearnerClient:
        of_learner = learner_arguments(self.settings, self.policy_path)
        spawn = self._spawn("learner", LearnerActor, self.shares.learner, lambda name: of_learner)
        return LearnerClient(spawn, self.retry, self.event)

    def _of_sampler(self, name: str) -> tuple[Any, ...]:
        return sampler_arguments(name, self.settings, self.policy_path)

    def _spawn(
        self,
        role: str,
        kind: type,
        share: Resources,
        arguments: Callable[[str], tuple[Any, ...]],
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> Spawn:
        """Ray never restarts an actor by itself: the pool replaces what is lost, where it is safe."""
        own = {name: amount for name, amount in share.items() if name not in ("CPU", "GPU")}
        resources = {"num_cpus": share["CPU"], "num_gpus": share.get("GPU", 0.0), "resources": own}
        strategy = {"scheduling_strategy": "SPREAD"} if role == "sampler" else {}

        def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
            place = {"name": f"{role}-{name}", "namespace": f"{self.run}-{self.namespace}"} | _placement(labels, avoid)
            actor = ray.remote(kind).options(max_restarts=0, **resources, **strategy, **place)
            return RayHandle(actor.remote(*arguments(name)))

        return spawn


def _named(extra: ExtraReward) -> Callable[[str], tuple[Any, ...]]:
    return lambda name: (name, extra)


def sampler_arguments(name: str, settings: Settings, policy_path: str) -> tuple[Any, ...]:
    sections = settings.data, settings.policy, settings.rollout
    return name, policy_path, *sections, settings.seed, settings.cluster.threads or 1


def learner_arguments(settings: Settings, policy_path: str) -> tuple[Any, ...]:
    sections = settings.learner, settings.rollout, settings.policy
    return policy_path, *sections, settings.reward.weights(), settings.cluster.threads


def _placement(labels: Mapping[str, str], avoid: Collection[str]) -> dict[str, Any]:
    """Where an actor must lie, and away from some nodes as long as others have room."""
    if not avoid:
        return {"label_selector": dict(labels)} if labels else {}
    elsewhere = {**labels, NODE: f"!in({', '.join(avoid)})"}
    return {"label_selector": elsewhere, "fallback_strategy": [{"label_selector": dict(labels)}]}
