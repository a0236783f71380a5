"""The driver's side of the LearnerActor: calls with a deadline, weights by reference, a new actor where one is lost."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from cluster.pipeline import PublishedWeights
from cluster.pool import (
    ACTOR_LOST,
    SUSPECT_S,
    Actor,
    InputsLost,
    Replica,
    Spawn,
    Starting,
    awaited,
    bring_up,
    cause,
    kill_process,
    pause_s,
    start_failure,
)
from rollout.errors import ClusterError, LapdogError, first_line
from rollout.types import Version

START_ATTEMPTS = 3


class LearnerLost(ClusterError):
    """The learner died or gave no answer: what it held since the newest checkpoint is gone."""


class LearnerClient:
    """One LearnerActor at a time; `restarts` counts those that were replaced. spawn and say as in `Pool`."""

    def __init__(self, spawn: Spawn, start_deadline_s: float, call_deadline_s: float, say: Callable[[str], None]):
        self.restarts = -1
        self._spawn, self._say = spawn, say
        self._start_deadline_s, self._call_deadline_s = start_deadline_s, call_deadline_s
        self._replica: Replica | None = None
        self._spawned = 0
        self._starting = Starting(placed=True)
        self._suspects: dict[str, float] = {}

    @property
    def without_place_s(self) -> float:
        """Seconds for which Ray has found no room for the learner."""
        return self._starting.without_place_s

    async def start(self) -> None:
        """Bring up a learner, a new one in place of the last. Raises ClusterError if none can be had, and what it raises."""
        self._starting = Starting()
        for attempt in range(1, START_ATTEMPTS + 1):
            self.close()
            self.restarts += 1
            self._starting.placed = False
            suspects = [node for node, until in self._suspects.items() if until > time.monotonic()]
            try:
                spawn, starting = self._spawn_next, self._starting
                self._replica = await bring_up(spawn, suspects, "learner", starting, self._start_deadline_s, self._say)
                return
            except (RayTaskError, *ACTOR_LOST, ObjectLostError, TimeoutError) as error:
                late = f"not ready in {self._start_deadline_s:g} s"
                what = late if isinstance(error, TimeoutError) else cause(error)
                failure = start_failure("learner", error, what)
                if attempt == START_ATTEMPTS or not isinstance(failure, ClusterError):
                    raise failure from error
            self._say(f"learner does not start: {what}; trying again in {pause_s(attempt):g} s")
            await asyncio.sleep(pause_s(attempt))

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Await one call. Raises LearnerLost, InputsLost if an argument is gone, and what the call itself raises."""
        replica = self._started()
        try:
            call = getattr(replica.actor, method)
            return await asyncio.wait_for(awaited(call.remote(*arguments)), self._call_deadline_s)
        except RayTaskError as error:  # it answered: what it met is not its own death
            if isinstance(error, (ObjectLostError, RayActorError)):
                raise InputsLost(f"learner: what {method} was given is lost ({first_line(error)})") from error
            if isinstance(getattr(error, "cause", None), LapdogError):
                raise
            raise self._lost(f"learner: {method} failed ({cause(error)})") from error  # a bad device is left behind
        except ObjectLostError as error:
            raise InputsLost(f"learner: what {method} was given is lost ({first_line(error)})") from error
        except TimeoutError as error:
            kill_process(replica)
            raise self._lost(f"learner: {method} gave no answer in {self._call_deadline_s:g} s") from error
        except ACTOR_LOST as error:
            raise self._lost(f"learner: lost in {method} ({first_line(error)})") from error

    async def check(self) -> None:
        """Raises LearnerLost unless the learner answers."""
        await self.ask("ping")

    def publish(self, version: Version) -> PublishedWeights:
        """The weights as they are after the calls made so far.

        They are a method result, not a `put` of the learner: the driver owns them, so they outlive the learner.
        """
        return PublishedWeights(version, [self._started().actor.weights.remote()])

    def close(self) -> None:
        if self._replica is not None:
            ray.kill(self._replica.actor)
            self._replica = None

    def _started(self) -> Replica:
        assert self._replica is not None, "start() comes first"
        return self._replica

    def _spawn_next(self, avoided: Collection[str]) -> Actor:
        name, self._spawned = str(self._spawned), self._spawned + 1
        return self._spawn(name, avoided)

    def _lost(self, what: str) -> LearnerLost:
        self._suspects[self._started().node] = time.monotonic() + SUSPECT_S
        return LearnerLost(what)
