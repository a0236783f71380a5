"""What a run tells: terminal, files, report, curves, the dashboard's list of jobs. What only shows a run never ends it."""

import asyncio
import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from cluster.actors.ports import ActorHandles
from cluster.actors.session import in_job
from cluster.report.page import write_report
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.records import Row, best_of
from cluster.store.run_folder import RunFolder
from cluster.watch.job_entry import JobEntry
from cluster.watch.monitor import Monitor
from cluster.watch.terminal import OutputMode, Terminal, evaluation_table
from rollout.errors import first_line


class RunLog:
    """Listens from the start; `watch` comes when there are actors to look at."""

    def __init__(self, settings: Settings, folder: RunFolder, output_mode: OutputMode):
        self._settings, self._folder = settings, folder
        self._last_step = settings.stages()[-1].last
        self._terminal = Terminal(self._last_step, output_mode)
        self._monitor: Monitor | None = None
        self._job_entry: JobEntry | None = None
        self._step = 0
        self._is_local = False

    @property
    def output_lost(self) -> OSError | None:
        """What keeps the terminal's lines from being written, once that was met."""
        return self._terminal.output_lost

    def watch(self, handles: ActorHandles, queues: Callable[[], Mapping[str, int]], failed_prompts: FailedPrompts) -> None:
        self._is_local = handles.nodes is None
        self._monitor = Monitor(self._settings, self._folder, handles.roles, queues, failed_prompts, self.event)
        if in_job() and handles.nodes is not None:
            self._job_entry = JobEntry(self._settings, self.event)

    async def start(self) -> None:
        """Raises SettingsError for a tracker that cannot be reached."""
        self._terminal.event(f"run folder: {self._folder.path}")
        if self._monitor is not None:
            await self._monitor.start()

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what comes after it will be made again."""
        self._step = step
        self._folder.truncate(step)
        if self._monitor is not None:
            self._monitor.rewind(step)

    def event(self, text: str) -> None:
        """Say what happened to the run, and keep it for its report."""
        self._folder.append(self._folder.events, {"time": time.time(), "step": self._step, "text": text})
        self._terminal.event(text)

    def step(self, row: Row) -> None:
        """`row` becomes a line of metrics.jsonl."""
        self._step = row["step"]
        self._folder.append(self._folder.metrics, row)
        self._terminal.step(row)
        if self._monitor is not None:
            self._monitor.step(row)
        if self._job_entry is not None:
            self._job_entry.step(row, self._last_step)

    async def evaluation(self, row: Row) -> None:
        """`row` is a line of evaluations.jsonl."""
        self._terminal.evaluation(row)
        if self._monitor is not None:
            self._monitor.evaluation(row)
        await self._write_report()

    @contextlib.contextmanager
    def timing(self, phase: Literal["evaluate", "save"]) -> Iterator[None]:
        """What is done inside is a phase of its own, between two steps."""
        started = time.perf_counter()
        yield
        if self._monitor is not None:
            self._monitor.phase(phase, time.perf_counter() - started)

    async def finish(self, step: int, stop_reason: str | None, interrupted: bool) -> None:
        """Write the report; say what the run achieved, and where everything lies. interrupted: by somebody, who may
        resume it."""
        await self._write_report()
        if self._monitor is not None:
            self._monitor.finish(finished=not interrupted and self.output_lost is None)
        if self._job_entry is not None:
            await self._job_entry.finish()
        folder, evaluations = self._folder, self._folder.evaluation_rows()
        best = best_of(evaluations).step
        lines = [f"stopped at step {step}: {stop_reason}"] if stop_reason else []
        lines += [evaluation_table(evaluations)] if evaluations else []
        lines += [f"report:       {folder.report}", f"run folder:   {folder.path}"]
        lines += [f"best policy:  {folder.checkpoints / 'best' / 'policy'} (step {best})"] if best else []
        lines += [] if best else [f"last policy:  {folder.checkpoints / 'latest' / 'policy'}"]
        again = ["python", "launch.py", "train", *(["--local"] if self._is_local else []), "--resume", str(folder.path)]
        lines += [f"go on with:   {shlex.join(again)}"] if stop_reason else []
        row = {"run_dir": str(folder.path), "step": step, "stopped": stop_reason, "best_step": best}
        self._terminal.finish("\n".join(lines), row)

    def close(self) -> None:
        with contextlib.ExitStack() as parts:
            for part in (self._monitor, self._job_entry, self._terminal):
                if part is not None:
                    parts.callback(part.close)

    async def _write_report(self) -> None:
        written = asyncio.to_thread(write_report, [self._folder.path], self._folder.report)
        [error] = await asyncio.gather(written, return_exceptions=True)
        if isinstance(error, Exception):
            self.event(f"{self._folder.report} was not written ({type(error).__name__}: {first_line(error)}); the run goes on")
