"""What makes the actors of a run, with their arguments; on Ray with names and resources, too."""

import contextlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ray

from cluster.actors.actor_ports import ActorPorts
from cluster.actors.autoscaler import Autoscaler
from cluster.actors.handle import RayHandle, Spawn
from cluster.actors.index_port import IndexPort
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import RecordsPort, RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import RoleKind, Roles, prefix_of
from cluster.actors.session import session
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from reward.actor import ExtraRewardActor, RecordsActor, RewardActor
from reward.config import ExtraReward
from rollout.actor import WATCH, IndexActor, SamplerActor
from rollout.retrieval.index import Part

NODE = "ray.io/node-id"
NOTHING: Mapping[str, str] = MappingProxyType({})
LASTING = {"max_restarts": -1, "max_task_retries": -1, "concurrency_groups": {WATCH: 1}}
Arguments = Callable[[str], tuple[Any, ...]]  # of the actor of this name
BuildActors = Callable[[str, Event], ActorPorts]  # the actors of a run, of a policy's path


@dataclass(frozen=True, slots=True)
class Factory(ABC):
    """Makes the actors of one run. event: told of what is lost."""

    settings: Settings
    roles: Roles
    retry: RetryPolicy
    policy_path: str
    event: Event

    def actors(self) -> ActorPorts:
        index = self.index()
        return ActorPorts(index, self.samplers(index), self.rewards(), self.records(), self.learner(), self.retry)

    def index(self) -> IndexPort:
        told, threads = self.settings, self.settings.cluster.threads or 1
        size, of_each = self.roles[RoleKind.INDEX].count, (self.policy_path, told.data, told.policy, told.retriever, threads)
        spawn = self._spawn(RoleKind.INDEX, IndexActor, lambda name: (Part(int(name), size), *of_each))
        return IndexPort(size, spawn, self.retry, self.event)

    def samplers(self, index: IndexPort) -> SamplerPort:
        told, threads = self.settings, self.settings.cluster.threads or 1
        of_each = self.policy_path, told.data, told.policy, told.retriever, told.rollout, told.seed, threads, told.draws
        spawned = self._pool(RoleKind.SAMPLER, SamplerActor, lambda name: (name, *of_each, index.actors))
        return SamplerPort(spawned, self._hold)

    def rewards(self) -> RewardPort:
        reward, rules = self.settings.reward, self.settings.data.text_rules
        scorers = self._pool(RoleKind.REWARD, RewardActor, lambda name: (name, reward, rules))
        return RewardPort(scorers, [self._measuring(extra) for extra in reward.extra if extra.own_pool])

    def records(self) -> RecordsPort:
        reward, rules = self.settings.reward, self.settings.data.text_rules
        return RecordsPort(self._pool(RoleKind.RECORDS, RecordsActor, lambda name: (reward, rules)))

    def learner(self) -> LearnerPort:
        told = self.settings
        sections = told.learner, told.rollout, told.policy, told.reward.weights(), told.cluster.threads
        spawn = self._spawn(RoleKind.LEARNER, LearnerActor, lambda name: (self.policy_path, *sections))
        return LearnerPort(spawn, self.retry, self.event)

    def _measuring(self, extra: ExtraReward) -> Pool:
        return self._pool(prefix_of(extra), ExtraRewardActor, lambda name: (name, extra), "reward actor of ")

    @staticmethod
    @abstractmethod
    def _hold(made: Any) -> Any:
        """A reference to what the driver made."""

    @abstractmethod
    def _spawn(self, prefix: str, actor: type, arguments: Arguments) -> Spawn: ...

    def _pool(self, prefix: str, actor: type, arguments: Arguments, told_as: str = "") -> Pool:
        """prefix: of the actors' names, by which their role is known. told_as: goes before its name in what users read."""
        role, spawn = self.roles[prefix], self._spawn(prefix, actor, arguments)
        return Pool(told_as + role.name, spawn, role.count, self.retry, self.event)


@dataclass(frozen=True, slots=True)
class RayFactory(Factory):
    """On Ray, which restarts index actors by itself, and never another: the pool replaces what is lost, where it is safe."""

    run: str
    namespace: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def actors(self) -> ActorPorts:
        index = self.index()
        samplers, rewards, learner = self.samplers(index), self.rewards(), self.learner()
        nodes = Autoscaler(self.settings.cluster, self.roles, samplers, rewards, learner, index, self.retry, self.event)
        return ActorPorts(index, samplers, rewards, self.records(), learner, self.retry, nodes)

    @staticmethod
    def _hold(made: Any) -> Any:
        return ray.put(made)

    def _spawn(self, prefix: str, actor: type, arguments: Arguments) -> Spawn:
        role, labels = self.roles[prefix], {}
        options: dict[str, Any] = {"num_cpus": role.cpus, "num_gpus": role.gpus, "resources": dict(role.own)}
        options |= LASTING if role.kind is RoleKind.INDEX else {"max_restarts": 0}
        if role.kind in (RoleKind.INDEX, RoleKind.SAMPLER):
            options["scheduling_strategy"] = "SPREAD"
        if role.kind is RoleKind.SAMPLER:
            key, _, value = (self.settings.cluster.sampler_label or "").partition("=")
            labels = {key: value} if key else {}

        def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
            named = {"name": f"{prefix}-{name}", "namespace": f"{self.run}-{self.namespace}"}
            made = ray.remote(**options)(actor).options(**named, **_placement(labels, avoid))
            return RayHandle(made.remote(*arguments(name)), role.resources)

        return spawn


@contextlib.contextmanager
def ray_actors(settings: Settings, run: str, metadata: Mapping[str, str] = NOTHING) -> Iterator[BuildActors]:
    """What makes the actors of a run on Ray, which is up for the length of the context; the dashboard shows `metadata` with its
    job. Raises ClusterError if Ray cannot be reached or is too small."""
    retry = RetryPolicy.of(settings.cluster)
    with session(settings, run, metadata, retry.probe_s) as roles:
        yield lambda policy_path, event: RayFactory(settings, roles, retry, policy_path, event, run).actors()


def _placement(labels: dict[str, str], avoid: Collection[str]) -> dict[str, Any]:
    """Where an actor must lie, and away from some nodes as long as others have room."""
    if not avoid:
        return {"label_selector": labels} if labels else {}
    elsewhere = {**labels, NODE: f"!in({', '.join(avoid)})"}
    return {"label_selector": elsewhere, "fallback_strategy": [{"label_selector": labels}]}
