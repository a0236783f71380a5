"""All roles in this process, called directly and in turn, so that a debugger can follow a prompt through them: no Ray."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from cluster.actors.factories import RewardActor, learner_arguments, reward_arguments, sampler_arguments
from cluster.actors.pool import CALL_ATTEMPTS, Invoke
from cluster.actors.ports import ActorHandles
from cluster.settings.tree import Settings
from cluster.training.rollout_client import Snapshot
from learner.actor import LearnerActor
from rollout.actor import SamplerActor
from rollout.errors import RewardError, SettingsError
from rollout.policy.weights import FlatWeights
from rollout.types import Group, ScoreReport, Version


@dataclass(frozen=True, slots=True)
class Held:
    """Stands for what Ray would hold in its object store."""

    value: Any


@dataclass(frozen=True, slots=True)
class LocalMethod:
    """Answers `.options(num_returns=n).remote(...)` at once, with the actor's own number of torch threads."""

    method: Callable[..., Any]
    threads: int
    num_returns: int = 1

    def options(self, num_returns: int) -> "LocalMethod":
        return replace(self, num_returns=num_returns)

    def remote(self, *arguments: Any) -> Any:
        torch.set_num_threads(self.threads)
        result = self.method(*(argument.value if isinstance(argument, Held) else argument for argument in arguments))
        return [Held(part) for part in result] if self.num_returns > 1 else Held(result)


class LocalActor:
    def __init__(self, actor: Any):
        self._actor = actor
        actor.ready()
        self._threads = torch.get_num_threads()

    def __getattr__(self, name: str) -> LocalMethod:
        return LocalMethod(getattr(self._actor, name), self._threads)


class LocalSampler(SamplerActor):
    def _fetched(self, reference: Any) -> FlatWeights:
        return reference.value


class LocalReward(RewardActor):
    """What a user's own reward raises keeps its traceback, which ends the run: it is what a debugger is asked for."""

    def score(self, *groups: Group) -> tuple[ScoreReport | Group, ...]:  # type: ignore[override]
        try:
            return super().score(*groups)
        except RewardError as error:
            if error.__cause__ is None:  # it returned something else than numbers
                raise
            raise error.__cause__ from None


class LocalPool:
    """One actor in place of a pool of them; what its calls raise is raised at once."""

    restarts = 0

    def __init__(self, make: Callable[[], Any]):
        self._make = make
        self.states = {"starting": 0, "idle": 1, "busy": 0}

    def start(self) -> None:
        self._actor = LocalActor(self._make())

    async def call(self, invoke: Invoke, attempts: int = CALL_ATTEMPTS) -> tuple[Any, list[Any]]:
        first, *others = invoke(self._actor)
        return first.value, others

    def close(self) -> None:
        """Nothing of it outlives this process."""


class LocalLearner:
    restarts = 0

    def __init__(self, make: Callable[[], LearnerActor]):
        self._make = make
        self.states = {"starting": 0, "idle": 1, "busy": 0}

    async def start(self) -> None:
        self._actor = LocalActor(self._make())

    async def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._actor, method).remote(*arguments).value

    async def check(self) -> None:
        """It answers as long as this process does."""

    def publish(self, version: Version) -> Snapshot:
        """A copy: the learner writes its next weights into the same buffer."""
        weights: FlatWeights = self._actor.weights.remote().value
        return Snapshot(version, [Held(replace(weights, values=weights.values.copy()))])

    def close(self) -> None:
        """Nothing of it outlives this process."""


def check_local(settings: Settings) -> None:
    """Raises SettingsError for what needs several processes."""
    if staleness := settings.cluster.max_staleness:
        raise SettingsError(f"cluster.max_staleness: {staleness} has no meaning with --local: nothing overlaps; give 0")


def in_process_actors(settings: Settings, policy_path: str) -> ActorHandles:
    logging.getLogger("lapdog").disabled = True  # the terminal is the run's
    return ActorHandles(
        samplers=LocalPool(lambda: LocalSampler(*sampler_arguments("0", settings, policy_path))),
        rewards=LocalPool(lambda: LocalReward(*reward_arguments("0", settings))),
        learner=LocalLearner(lambda: LearnerActor(*learner_arguments(settings, policy_path))),
        nodes=None,
    )
