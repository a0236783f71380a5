"""The driver's side of the LearnerActor: calls with a deadline, weights by reference."""

import asyncio
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError

from cluster.pipeline import PublishedWeights
from cluster.pool import Actor, awaited
from rollout.errors import ClusterError, first_line
from rollout.types import Version


class LearnerClient:
    """remedy: what the user can do when the learner is lost."""

    def __init__(self, actor: Actor, start_deadline_s: float, call_deadline_s: float, remedy: str):
        self._actor, self._remedy = actor, remedy
        self._start_deadline_s, self._call_deadline_s = start_deadline_s, call_deadline_s

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Await one call. Raises ClusterError if the learner dies or does not answer, and what the call itself raises."""
        deadline = self._start_deadline_s if method == "ready" else self._call_deadline_s
        try:
            return await asyncio.wait_for(awaited(getattr(self._actor, method).remote(*arguments)), deadline)
        except TimeoutError as error:
            raise ClusterError(f"learner: {method} gave no answer in {deadline:g} s; {self._remedy}") from error
        except (RayActorError, ObjectLostError) as error:
            raise ClusterError(f"learner: lost in {method} ({first_line(error)}); {self._remedy}") from error

    def publish(self, version: Version) -> PublishedWeights:
        """The weights as they are after the calls made so far.

        They are a method result, not a `put` of the learner: the driver owns them, so they outlive the learner.
        """
        return PublishedWeights(version, [self._actor.weights.remote()])

    def close(self) -> None:
        ray.kill(self._actor)
