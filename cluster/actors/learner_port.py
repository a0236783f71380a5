"""The learner's port: one actor whose loss is told apart from what its calls raise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.actors.errors import InputsLost, LearnerLost, Meaning, cause, meaning_of
from cluster.actors.handle import Spawn, within
from cluster.actors.ports import GroupRef, Snapshot, UpdateCall
from cluster.actors.replica import Launcher, Pending, Replica
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event
from learner.config import Stage
from rollout.errors import ClusterError, first_line
from rollout.types import Version


class LearnerLosses:
    """Counts losses that came without a step beyond the furthest; `most` of them end the run."""

    def __init__(self, most: int):
        self._most, self._furthest = most, 0
        self._since: list[LearnerLost] = []

    def add(self, error: LearnerLost, step: int) -> None:
        """Raises ClusterError if there are too many. step: the newest that was trained."""
        if step > self._furthest:
            self._furthest, self._since = step, []
        self._since.append(error)
        if len(self._since) == self._most:
            times = f"{self._most} times without getting beyond step {self._furthest}"
            raise ClusterError(f"{self._since[0]}, {times}; see its log in the dashboard") from error


class LearnerPort:
    """One LearnerActor at a time; `restarts` counts those that took the place of another. Whatever asks it raises LearnerLost
    where it is lost."""

    def __init__(self, spawn: Spawn, retry: RetryPolicy, event: Event):
        self._starts = 0
        self._launcher, self._retry = Launcher("learner", spawn, retry, event), retry
        self._replica: Replica | None = None
        self._pending = Pending(placed=True, since=0.0)
        self._calls = 0  # under way

    @property
    def restarts(self) -> int:
        return max(0, self._starts - 1)

    @property
    def states(self) -> dict[str, int]:
        """1 for what the learner is: starting, idle or busy."""
        up, busy = self._replica is not None, self._calls > 0
        return {"starting": int(not up), "idle": int(up and not busy), "busy": int(up and busy)}

    async def without_a_place_s(self) -> float:
        """Seconds for which Ray has found no room for the learner."""
        return await self._pending.without_a_place_s()

    async def start(self) -> None:
        """A learner, a new one in place of the last. Raises ClusterError if none can be had, and what it raises."""
        self.close()
        self._replica = await self._launcher.keep_starting(self._note)
        self._starts += 1

    async def begin(self, stage: Stage) -> None:
        await self._call("begin", stage)

    async def update(self, step: int, samples: Path | None, groups: Sequence[GroupRef]) -> UpdateCall:
        """Raises InputsLost if a group is gone."""
        return UpdateCall(*await self._call("update", step, samples, *(group.reference for group in groups)))

    async def save(self, folder: Path) -> None:
        await self._call("save", folder)

    async def restore(self, folder: Path, stage: Stage) -> None:
        await self._call("restore", folder, stage)

    async def check(self) -> None:
        """Raises LearnerLost unless it answers."""
        await self._call("ping")

    async def publish(self, version: Version) -> Snapshot:
        """The weights as they are after the calls made so far, once they are stored. They are a method's result, not a `put` of
        the learner: the driver owns them, so they outlive it; what travels to it is their size."""
        weights, _ = await self._call("weights", parts=2)
        return Snapshot(version, weights)

    def close(self) -> None:
        if self._replica is not None:
            self._replica.discard()
            self._replica = None

    def _note(self, pending: Pending) -> None:
        self._pending = pending

    async def _call(self, method: str, *arguments: Any, parts: int = 1) -> Any:
        """What a method returns; the last of several parts, and those before it as references."""
        replica = self._started()
        self._calls += 1
        try:
            *references, last = replica.handle.call(method, *arguments, parts=parts)
            answer = await within(last, self._retry.call_deadline_s)
            return (*references, answer) if references else answer
        except Exception as error:
            match meaning_of(error):
                case Meaning.INPUTS_LOST:
                    raise InputsLost(f"learner: what {method} was given is lost ({first_line(error)})") from error
                case Meaning.FAILED:  # a bad device is left behind
                    what = f"{method} failed ({cause(error)})"
                case Meaning.DIED:
                    what = f"lost in {method} ({first_line(error)})"
                case Meaning.FROZEN:
                    replica.handle.kill_process(replica.node, replica.process)
                    what = f"{method} gave no answer in {self._retry.call_deadline_s:g} s"
                case _:
                    raise
            self._launcher.exclude(replica.node)
            raise LearnerLost(f"learner: {what}") from error
        finally:
            self._calls -= 1

    def _started(self) -> Replica:
        assert self._replica is not None, "start() comes first"
        return self._replica
