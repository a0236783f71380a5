"""Where the three kinds of actors are made, with their names, resources and threads."""

import uuid
from collections.abc import Callable, Collection
from typing import Any

import ray

from cluster.actors.autoscaler import Autoscaler
from cluster.actors.learner_client import LearnerClient
from cluster.actors.pool import Pool
from cluster.actors.ports import ActorHandles
from cluster.actors.session import Resources, Shares
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from reward.actor import RecordsActor
from reward.actor import RewardActor as ScoringActor
from rollout.actor import SamplerActor
from rollout.types import Group, ScoreReport

NODE = "ray.io/node-id"
Say = Callable[[str], None]


class RewardActor(ScoringActor, RecordsActor):
    """Both in one, as long as records have no actor of their own."""

    def ready(self) -> None:
        ScoringActor.ready(self)
        RecordsActor.ready(self)

    def score(self, *groups: Group) -> tuple[ScoreReport | Group, ...]:  # type: ignore[override]
        return super().score(len(groups), *groups)


def ray_actors(settings: Settings, shares: Shares, run: str, policy_path: str, say: Say) -> ActorHandles:
    """Actors on Ray, in a namespace of this run's own."""
    namespace = f"{run}-{uuid.uuid4().hex[:8]}"
    samplers = sampler_pool(settings, shares, namespace, policy_path, say)
    rewards = reward_pool(settings, shares, namespace, say)
    learner = learner_client(settings, shares, namespace, policy_path, say)
    return ActorHandles(samplers, rewards, learner, Autoscaler(settings.cluster, shares, samplers, rewards, learner, say))


def sampler_pool(settings: Settings, shares: Shares, namespace: str, policy_path: str, say: Say) -> Pool:
    cluster = settings.cluster
    key, _, value = (cluster.sampler_label or "").partition("=")
    labels = {key: value} if key else {}

    def spawn(name: str, avoided: Collection[str]) -> Any:
        options = {"name": f"sampler-{name}", "namespace": namespace, "scheduling_strategy": "SPREAD"}
        actor = _actor(SamplerActor, shares.sampler, labels, avoided, options)
        return actor.remote(*sampler_arguments(name, settings, policy_path))

    return Pool("sampler", spawn, cluster.fewest_samplers, cluster.start_deadline_s, cluster.call_deadline_s, say)


def reward_pool(settings: Settings, shares: Shares, namespace: str, say: Say) -> Pool:
    def spawn(name: str, avoided: Collection[str]) -> Any:
        actor = _actor(RewardActor, shares.reward, {}, avoided, {"name": f"reward-{name}", "namespace": namespace})
        return actor.remote(*reward_arguments(name, settings))

    cluster = settings.cluster
    return Pool("reward actor", spawn, cluster.rewards, cluster.start_deadline_s, cluster.call_deadline_s, say)


def learner_client(settings: Settings, shares: Shares, namespace: str, policy_path: str, say: Say) -> LearnerClient:
    def spawn(name: str, avoided: Collection[str]) -> Any:
        actor = _actor(LearnerActor, shares.learner, {}, avoided, {"name": f"learner-{name}", "namespace": namespace})
        return actor.remote(*learner_arguments(settings, policy_path))

    return LearnerClient(spawn, settings.cluster.start_deadline_s, settings.cluster.call_deadline_s, say)


def sampler_arguments(name: str, settings: Settings, policy_path: str) -> tuple[Any, ...]:
    sections = settings.data, settings.policy, settings.rollout
    return name, policy_path, *sections, settings.seed, settings.cluster.threads or 1


def reward_arguments(name: str, settings: Settings) -> tuple[Any, ...]:
    return name, settings.reward


def learner_arguments(settings: Settings, policy_path: str) -> tuple[Any, ...]:
    sections = settings.learner, settings.rollout, settings.policy
    return policy_path, *sections, settings.reward.weights(), settings.cluster.threads


def _actor(kind: type, wanted: Resources, labels: dict[str, str], avoided: Collection[str], options: dict[str, Any]) -> Any:
    """Never restarted by Ray: the pool replaces what is lost, where it is safe."""
    own = {name: amount for name, amount in wanted.items() if name not in ("CPU", "GPU")}
    resources = {"num_cpus": wanted["CPU"], "num_gpus": wanted.get("GPU", 0.0), "resources": own}
    return ray.remote(kind).options(max_restarts=0, **options, **resources, **_placement(labels, avoided))


def _placement(labels: dict[str, str], avoided: Collection[str]) -> dict[str, Any]:
    """Where an actor must lie, and away from suspect nodes as long as others have room."""
    if not avoided:
        return {"label_selector": labels} if labels else {}
    elsewhere = labels | {NODE: f"!in({', '.join(avoided)})"}
    return {"label_selector": elsewhere, "fallback_strategy": [{"label_selector": labels}]}
