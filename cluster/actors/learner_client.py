"""The learner as the driver sees it: one actor whose loss is told apart from what its calls raise."""

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayTaskError

from cluster.actors.replica import (
    ACTOR_LOST,
    START_ATTEMPTS,
    InputsLost,
    Launcher,
    Pending,
    Replica,
    Spawn,
    awaited,
    cause,
    inputs_are_lost,
    is_users_mistake,
    kill_process,
)
from cluster.training.rollout_client import Snapshot
from rollout.errors import ClusterError, first_line
from rollout.types import Version

MOST_LOSSES = 5


class LearnerLost(ClusterError):
    """The learner died or gave no answer: what it held since the newest checkpoint is gone."""


class LearnerLosses:
    """Those since the run last came further than before: a learner that is lost again and again ends it."""

    def __init__(self) -> None:
        self._furthest = 0
        self._since: list[LearnerLost] = []

    def reached(self, step: int) -> None:
        if step > self._furthest:
            self._furthest = step
            self._since.clear()

    def add(self, error: LearnerLost) -> None:
        """Raises ClusterError if there are too many."""
        self._since.append(error)
        if len(self._since) >= MOST_LOSSES:
            places = f"{MOST_LOSSES} times without getting beyond step {self._furthest}"
            raise ClusterError(f"{self._since[0]}, {places}; see its log in the dashboard") from error


class LearnerClient:
    """One LearnerActor at a time; `restarts` counts those that were replaced. spawn and say as in `Pool`."""

    def __init__(self, spawn: Spawn, start_deadline_s: float, call_deadline_s: float, say: Callable[[str], None]):
        self.restarts = -1
        self._starter = Launcher("learner", spawn, start_deadline_s, say)
        self._call_deadline_s = call_deadline_s
        self._replica: Replica | None = None
        self._starting = Pending(placed=True)
        self._calls = 0  # under way

    @property
    def states(self) -> dict[str, int]:
        """1 for what the learner is: starting, idle or busy."""
        up, busy = self._replica is not None, self._calls > 0
        return {"starting": int(not up), "idle": int(up and not busy), "busy": int(up and busy)}

    @property
    def pending_s(self) -> float:
        """Seconds for which Ray has found no room for the learner."""
        return self._starting.pending_s

    async def start(self) -> None:
        """Bring up a learner, a new one in place of the last. Raises ClusterError if none can be had, and what it raises."""
        self._starting = Pending()
        for attempt in range(1, START_ATTEMPTS + 1):
            self.close()
            self.restarts += 1
            if self._starting.placed:
                self._starting = Pending()
            try:
                self._replica = await self._starter.start(self._starting)
                return
            except ClusterError as error:
                if attempt == START_ATTEMPTS:
                    raise
                await self._starter.pause(error, attempt)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Await one call. Raises LearnerLost, InputsLost if an argument is gone, and what the call itself raises."""
        replica = self._started()
        self._calls += 1
        try:
            call = getattr(replica.actor, method)
            return await asyncio.wait_for(awaited(call.remote(*arguments)), self._call_deadline_s)
        except (RayTaskError, ObjectLostError) as error:  # it answered: what it met is not its own death
            if inputs_are_lost(error):
                raise InputsLost(f"learner: what {method} was given is lost ({first_line(error)})") from error
            if is_users_mistake(error):
                raise
            raise self._lost(f"learner: {method} failed ({cause(error)})") from error  # a bad device is left behind
        except TimeoutError as error:
            kill_process(replica)
            raise self._lost(f"learner: {method} gave no answer in {self._call_deadline_s:g} s") from error
        except ACTOR_LOST as error:
            raise self._lost(f"learner: lost in {method} ({first_line(error)})") from error
        finally:
            self._calls -= 1

    async def check(self) -> None:
        """Raises LearnerLost unless the learner answers."""
        await self.ask("ping")

    def publish(self, version: Version) -> Snapshot:
        """The weights as they are after the calls made so far.

        They are a method result, not a `put` of the learner: the driver owns them, so they outlive the learner.
        """
        return Snapshot(version, [self._started().actor.weights.remote()])

    def close(self) -> None:
        if self._replica is not None:
            ray.kill(self._replica.actor)
            self._replica = None

    def _started(self) -> Replica:
        assert self._replica is not None, "start() comes first"
        return self._replica

    def _lost(self, what: str) -> LearnerLost:
        self._starter.suspect(self._started().node)
        return LearnerLost(what)
