"""What a run leaves in its folder: lines of jsonl, and the report."""

import asyncio
from pathlib import Path

from cluster.actors.tasks import Event
from cluster.report.page import write_report
from cluster.store.rows import Row
from cluster.store.run_folder import RunFolder
from cluster.watch.monitor import Ending, Monitor
from rollout.errors import CheckpointError, first_line


class Files(Monitor):
    """metrics.jsonl, evaluations.jsonl and events.jsonl. Raises CheckpointError where they cannot be written."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._lost: CheckpointError | None = None

    def step(self, row: Row) -> None:
        self._append(self._folder.metrics, row)

    async def evaluation(self, row: Row) -> None:
        self._append(self._folder.evaluations, row)

    def event(self, row: Row) -> None:
        """One that cannot be written ends the run with its next row, or at its end: events come from signals and callbacks,
        too, where nobody would catch it."""
        try:
            self._folder.append(self._folder.events, row)
        except CheckpointError as error:
            self._lost = self._lost or error

    async def finish(self, ending: Ending) -> None:
        if self._lost is not None:
            raise self._lost

    def rewind(self, step: int) -> None:
        self._folder.truncate(step)

    def _append(self, file: Path, row: Row) -> None:
        if self._lost is not None:
            raise self._lost
        self._folder.append(file, row)


class Report(Monitor):
    """report.html, in a thread of its own. One that cannot be written is an event."""

    def __init__(self, folder: RunFolder, event: Event):
        self._folder, self._event = folder, event

    async def evaluation(self, row: Row) -> None:
        await self._write()

    async def finish(self, ending: Ending) -> None:
        await self._write()

    async def _write(self) -> None:
        written = asyncio.to_thread(write_report, [self._folder.path], self._folder.report)
        [error] = await asyncio.gather(written, return_exceptions=True)
        if isinstance(error, Exception):
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._event(f"{self._folder.report} was not written ({reason}); the run goes on")
