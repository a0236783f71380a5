"""Where the three kinds of actors are made, with their names, resources and threads."""

from typing import Any

import ray

from cluster.config import Settings
from cluster.pool import Pool
from cluster.session import Shares
from learner.actor import LearnerActor
from reward.actor import RewardActor
from rollout.actor import SamplerActor


def sampler_pool(settings: Settings, shares: Shares, namespace: str, policy_path: str) -> Pool:
    cluster = settings.cluster

    def spawn(name: str) -> Any:
        actor = ray.remote(SamplerActor).options(
            name=f"sampler-{name}",
            namespace=namespace,
            num_cpus=shares.sampler_cpus,
            num_gpus=shares.sampler_gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        )
        sections = settings.data, settings.policy, settings.rollout
        return actor.remote(name, policy_path, *sections, settings.seed, cluster.threads or 1)

    return Pool("sampler", spawn, cluster.samplers, cluster.start_deadline_s, cluster.call_deadline_s)


def reward_pool(settings: Settings, shares: Shares, namespace: str) -> Pool:
    def spawn(name: str) -> Any:
        actor = ray.remote(RewardActor).options(
            name=f"reward-{name}", namespace=namespace, num_cpus=shares.reward_cpus, max_restarts=0
        )
        return actor.remote(name, settings.reward)

    cluster = settings.cluster
    return Pool("reward actor", spawn, cluster.rewards, cluster.start_deadline_s, cluster.call_deadline_s)


def learner_actor(settings: Settings, shares: Shares, namespace: str, policy_path: str) -> Any:
    actor = ray.remote(LearnerActor).options(
        name="learner", namespace=namespace, num_cpus=shares.learner_cpus, num_gpus=shares.learner_gpus, max_restarts=0
    )
    sections = settings.learner, settings.rollout, settings.policy
    return actor.remote(policy_path, *sections, settings.reward.weights(), settings.cluster.threads)
