"""Sends rows and events to the monitors; decides which of their failures end a run."""

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from cluster.actors.actor_ports import ActorPorts
from cluster.actors.job import in_job
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.rows import Row
from cluster.store.run_folder import RunFolder
from cluster.watch.advice import Advice
from cluster.watch.files import Files, Report
from cluster.watch.job_entry import JobEntry
from cluster.watch.monitor import Ending, Monitor, Stop
from cluster.watch.prometheus import Prometheus
from cluster.watch.terminal import OutputMode, Terminal
from cluster.watch.trackers.monitor import Trackers


class RunLog:
    """Tells all monitors, in this order: files, terminal, report, advice and, once `watch` knows the actors, Prometheus,
    trackers, the list of jobs; of its end in the opposite one, so that the terminal has the last word.

    Three failures end a run: a line that the run folder does not take (CheckpointError; for an event's it comes with the next
    row), a tracker that cannot be reached at the start (SettingsError), and lost output: the trainer stops and saves at
    `output_lost`. Any other is an event, for what only shows a run must not end it: a report that is not written, series that
    are no longer exported, a tracker that fails later, a list of jobs that does not answer.
    """

    def __init__(self, settings: Settings, folder: RunFolder, output_mode: OutputMode):
        self._settings, self._folder = settings, folder
        self._last_step = settings.stages()[-1].last
        self._terminal = Terminal(folder, self._last_step, output_mode)
        advice = Advice(settings.learner.compares_within_group(), self.event)
        self._monitors: list[Monitor] = [Files(folder), self._terminal, Report(folder, self.event), advice]
        self._step = 0
        self._resume = ["python", "launch.py", "train", "--resume", str(folder.path)]

    @property
    def output_lost(self) -> OSError | None:
        """What keeps the terminal's lines from being written, once that was met."""
        return self._terminal.output_lost

    def watch(self, actors: ActorPorts, queues: Callable[[], Mapping[str, int]], failed_prompts: FailedPrompts) -> None:
        """Look at a run's actors and queues, too."""
        run, retry = self._folder.path.name, actors.retry
        self._monitors.append(Prometheus(run, actors.by_kind, queues, failed_prompts, retry.look_s, self.event))
        self._monitors.append(Trackers(self._settings, self._folder, self.event, retry))
        if actors.nodes is None:
            self._resume.insert(3, "--local")
        elif in_job():
            self._monitors.append(JobEntry(self._settings, self._last_step, self.event, retry))

    async def start(self, *told: str) -> None:
        """told: what a run says first. Raises SettingsError for a tracker that cannot be reached."""
        for monitor in self._monitors:
            await monitor.start()
        for text in told:
            self.event(text)

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what comes after it will be made again."""
        self._step = step
        for monitor in self._monitors:
            monitor.rewind(step)

    def event(self, text: str) -> None:
        """Say what happened to the run, and keep it for its report."""
        row = {"time": time.time(), "step": self._step, "text": text}
        for monitor in self._monitors:
            monitor.event(row)

    def step(self, row: Row) -> None:
        """`row` becomes a line of metrics.jsonl."""
        self._step = row["step"]
        for monitor in self._monitors:
            monitor.step(row)

    async def evaluation(self, row: Row) -> None:
        """`row` is a line of evaluations.jsonl."""
        for monitor in self._monitors:
            await monitor.evaluation(row)

    @contextlib.contextmanager
    def timing(self, phase: Literal["evaluate", "save"]) -> Iterator[None]:
        """What is done inside is a phase of its own, between two steps."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        for monitor in self._monitors:
            monitor.phase(phase, seconds)

    async def finish(self, step: int, stop: Stop | None, grace_s: float = math.inf) -> None:
        """All is done and saved. stop: why it was before the last step. grace_s: seconds that are left."""
        finished = not (stop and stop.interrupted) and self.output_lost is None
        ending = Ending(step, stop.reason if stop else None, finished, shlex.join(self._resume), grace_s)
        for monitor in reversed(self._monitors):
            await monitor.finish(ending)

    def close(self) -> None:
        with contextlib.ExitStack() as parts:  # the last first
            for monitor in self._monitors:
                parts.callback(monitor.close)
