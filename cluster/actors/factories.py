"""What makes the actors of a run, with their arguments; on Ray with names and resources, too."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import ray

from cluster.actors.actor_handles import ActorHandles
from cluster.actors.autoscaler import Autoscaler
from cluster.actors.handle import RayHandle, Spawn
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import RecordsPort, RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import Roles, prefix_of
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from reward.actor import ExtraRewardActor, RecordsActor, RewardActor
from reward.config import ExtraReward
from rollout.actor import SamplerActor

NODE = "ray.io/node-id"
Arguments = Callable[[str], tuple[Any, ...]]  # of the actor of this name


@dataclass(frozen=True, slots=True)
class Factory(ABC):
    """Makes the actors of one run. event: told of what is lost."""

    settings: Settings
    roles: Roles
    policy_path: str
    event: Event

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy.of(self.settings.cluster)

    def actors(self) -> ActorHandles:
        return ActorHandles(self.samplers(), self.rewards(), self.records(), self.learner())

    def samplers(self) -> SamplerPort:
        told, threads = self.settings, self.settings.cluster.threads or 1
        of_each = self.policy_path, told.data, told.policy, told.retriever, told.rollout, told.seed, threads, told.draws
        return SamplerPort(*self._pool("sampler", SamplerActor, lambda name: (name, *of_each)))

    def rewards(self) -> RewardPort:
        reward, rules = self.settings.reward, self.settings.data.text_rules
        scorers = Pool(*self._pool("reward", RewardActor, lambda name: (name, reward, rules)))
        return RewardPort(scorers, [self._measuring(extra) for extra in reward.extra if extra.own_pool], self.retry)

    def records(self) -> RecordsPort:
        reward, rules = self.settings.reward, self.settings.data.text_rules
        return RecordsPort(*self._pool("records", RecordsActor, lambda name: (reward, rules)))

    def learner(self) -> LearnerPort:
        told = self.settings
        sections = told.learner, told.rollout, told.policy, told.reward.weights(), told.cluster.threads
        spawn = self._spawn("learner", LearnerActor, lambda name: (self.policy_path, *sections))
        return LearnerPort(spawn, self.retry, self.event)

    def _measuring(self, extra: ExtraReward) -> Pool:
        name, spawn, size, retry, event = self._pool(prefix_of(extra), ExtraRewardActor, lambda name: (name, extra))
        return Pool(f"reward actor of {name}", spawn, size, retry, event)

    @abstractmethod
    def _spawn(self, role: str, kind: type, arguments: Arguments) -> Spawn: ...

    def _pool(self, role: str, kind: type, arguments: Arguments) -> tuple[str, Spawn, int, RetryPolicy, Event]:
        """What a pool of the role's actors is made of."""
        return self.roles[role].name, self._spawn(role, kind, arguments), self.roles[role].count, self.retry, self.event


@dataclass(frozen=True, slots=True)
class RayFactory(Factory):
    """On Ray, which never restarts an actor by itself: the pool replaces what is lost, where it is safe."""

    run: str
    namespace: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def actors(self) -> ActorHandles:
        samplers, rewards, learner = self.samplers(), self.rewards(), self.learner()
        nodes = Autoscaler(self.settings.cluster, self.roles, samplers, rewards, learner, self.retry, self.event)
        return ActorHandles(samplers, rewards, self.records(), learner, nodes)

    def _spawn(self, role: str, kind: type, arguments: Arguments) -> Spawn:
        share, labels = self.roles[role], {}
        options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus, "resources": dict(share.own)}
        if role == "sampler":
            options["scheduling_strategy"] = "SPREAD"
            key, _, value = (self.settings.cluster.sampler_label or "").partition("=")
            labels = {key: value} if key else {}

        def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
            named = {"name": f"{role}-{name}", "namespace": f"{self.run}-{self.namespace}"}
            actor = ray.remote(kind).options(max_restarts=0, **options, **named, **_placement(labels, avoid))
            return RayHandle(actor.remote(*arguments(name)), share.resources)

        return spawn


def _placement(labels: dict[str, str], avoid: Collection[str]) -> dict[str, Any]:
    """Where an actor must lie, and away from some nodes as long as others have room."""
    if not avoid:
        return {"label_selector": labels} if labels else {}
    elsewhere = {**labels, NODE: f"!in({', '.join(avoid)})"}
    return {"label_selector": elsewhere, "fallback_strategy": [{"label_selector": labels}]}
