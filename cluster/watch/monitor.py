"""What listens to a run: files, terminal, report, Prometheus, trackers, the dashboard's list of jobs."""

import math
from dataclasses import dataclass

from cluster.store.rows import Row


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends before its last step. interrupted: by somebody, who may resume it."""

    reason: str
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """step: the last. stop_reason: what came before all steps were done. finished: nobody will resume the run. resume: the
    command that would. grace_s: seconds that are left."""

    step: int
    stop_reason: str | None
    finished: bool
    resume: str
    grace_s: float = math.inf


class Monitor:
    """`RunLog` calls it in the driver's loop, which it must not hold up. It does nothing of what it does not override."""

    async def start(self) -> None:
        """All actors are about to start."""

    def step(self, row: Row) -> None:
        """`row` is a line of metrics.jsonl."""

    async def evaluation(self, row: Row) -> None:
        """`row` is a line of evaluations.jsonl."""

    def event(self, row: Row) -> None:
        """`row` is a line of events.jsonl."""

    def phase(self, name: str, seconds: float) -> None:
        """What was done between two steps, in seconds of wall time."""

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what comes after it will be made again."""

    async def finish(self, ending: Ending) -> None:
        """All is done and saved."""

    def close(self) -> None:
        """Nothing comes after this, whether the run has finished or broken off."""
