"""What the dashboard's list of jobs tells of a submitted job: run, model and data as metadata, how far it is as its message."""

import asyncio
import contextlib
from collections.abc import Callable

from cluster.actors.job_info import JobInfo
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event, cancel_quietly, log_failure
from cluster.settings.tree import Settings
from cluster.store.rows import Row
from cluster.watch.monitor import Ending, Monitor
from rollout.data.files import shown


def job_metadata(settings: Settings) -> dict[str, str]:
    return {
        "run": settings.run_dir.name if settings.run_dir else "",
        "run_dir": str(settings.run_dir),
        "model": settings.policy.name,
        "data": shown(settings.data.train or ()),
    }


class JobEntry(Monitor):
    """One that cannot be written is an event, after which it is left alone."""

    def __init__(
        self, settings: Settings, last_step: int, event: Event, retry: RetryPolicy, own: Callable[[], JobInfo] = JobInfo.own
    ):
        self._metadata, self._last_step, self._event, self._own = job_metadata(settings), last_step, event, own
        self._pause_s = retry.message_s
        self._info: JobInfo | None = None
        self._unwritten: Row | None = None
        self._ended = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def step(self, row: Row) -> None:
        self._unwritten = row
        if self._writing is None or (self._writing.done() and not self._writing.exception()):
            self._writing = asyncio.create_task(self._write_on())
            log_failure(self._writing, "the dashboard's list of jobs no longer tells the step", self._event)

    async def finish(self, ending: Ending) -> None:
        """The last step is written, too."""
        self._ended.set()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=2 * self._pause_s)

    def close(self) -> None:
        if self._writing is not None:
            cancel_quietly(self._writing)

    async def _write_on(self) -> None:
        """As long as there is something new, with pauses."""
        while row := self._unwritten:
            self._unwritten = None
            await self._write(row)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._pause_s)

    async def _write(self, row: Row) -> None:
        self._info = self._info or self._own()
        reward = "" if row["reward"] is None else f", reward {row['reward']:.2f}"
        message = f"{row['stage']} {row['step']}/{self._last_step}{reward}"  # the dashboard shows some thirty characters
        await self._info.describe(message, self._metadata | {"step": str(row["step"])})
