"""What others see of a run while it goes on: Prometheus through Ray, TensorBoard, trackers."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from cluster.actors.ports import Port
from cluster.actors.tasks import cancel_quietly, log_failure
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.run_folder import RunFolder
from cluster.watch.series import PREFIX, SERIES, Value, of_evaluation, of_step
from cluster.watch.trackers import TRACKERS, Tracker
from cluster.watch.tracking import Background, TensorBoard, scalars

SECONDS_BETWEEN_LOOKS = 2.0
LONGEST_CLOSE_S = 60.0
LONGEST_CLOSE_OF_A_BROKEN_RUN_S = 2.0


class Gauges:
    """The series of a run, exported through Ray by the driver alone: what actors count would outlive them on their node.

    run: the label that tells this run's series from those of others on the same cluster.
    """

    def __init__(self, run: str):
        self._metrics: dict[str, Gauge | Counter] = {}
        for series in SERIES:
            kind = Counter if series.is_counter else Gauge
            metric = kind(PREFIX + series.name, series.meaning, (*series.labels, "run"))
            self._metrics[series.name] = metric.set_default_tags({"run": run})

    def show(self, values: Iterable[Value]) -> None:
        """Set gauges, add to counters; what has no value, or none that is finite, is left as it was."""
        for name, labels, value in values:
            if value is None or not math.isfinite(value):
                continue
            metric = self._metrics[name]
            if isinstance(metric, Gauge):
                metric.set(value, labels)
            else:
                metric._record(value, labels)  # inc() refuses 0, without which a first increase goes unseen


class Monitor:
    """roles: what has `states` and `restarts`, by the role's name. queues: prompts by the queue they are in, as of now."""

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        roles: Mapping[str, Port],
        queues: Callable[[], Mapping[str, int]],
        failed_prompts: FailedPrompts,
        say: Callable[[str], None],
    ):
        self._settings, self._folder, self._say = settings, folder, say
        self._roles, self._queues, self._failed_prompts = roles, queues, failed_prompts
        self._gauges = Gauges(folder.path.name)
        trackers: dict[str, Tracker] = {"tensorboard": TensorBoard(folder.path / "tensorboard")}
        trackers |= {name: TRACKERS[name](settings, folder.path) for name in settings.trackers}
        self._trackers = [Background(name, tracker, say) for name, tracker in trackers.items()]
        self._counted = dict.fromkeys(roles, 0)  # restarts
        self._looking: asyncio.Task[None] | None = None
        self._finished, self._longest_close_s = False, LONGEST_CLOSE_OF_A_BROKEN_RUN_S

    async def start(self) -> None:
        """Begin to look at queues and actors. Raises SettingsError for a tracker that cannot be reached."""
        self._looking = asyncio.create_task(self._look())
        log_failure(self._looking, "queues and actors are no longer exported", self._say)
        self._gauges.show([("last_step_timestamp_seconds", {}, time.time()), ("ends_total", {}, 0)])
        ids = self._folder.tracker_ids() if self._settings.trackers else {}
        for tracker in self._trackers:
            if id := await tracker.open(ids.get(tracker.name)):
                ids[tracker.name] = id
                self._folder.write_tracker_ids(ids)

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what comes after it will be made again."""
        for tracker in self._trackers:
            tracker.rewind(step)

    def step(self, row: Mapping[str, Any]) -> None:
        """`row` is a line of metrics.jsonl."""
        self._show(of_step(row), row["step"], scalars(row, "train/"))
        self._gauges.show(self._now())

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """`row` is a line of evaluations.jsonl."""
        self._show(of_evaluation(row), row["step"], scalars(row, "held_out/"))

    def phase(self, name: str, seconds: float) -> None:
        """What was done between two steps, in seconds of wall time."""
        self._gauges.show([("phase_seconds_total", {"phase": name}, seconds)])

    def finish(self, finished: bool) -> None:
        """All is done and saved. finished: the run is not to be resumed."""
        self._finished, self._longest_close_s = finished, LONGEST_CLOSE_S
        self._gauges.show([("ends_total", {}, 1)])

    def close(self) -> None:
        """Wait until trackers have all, but no longer than a run may be held."""
        deadline = time.monotonic() + self._longest_close_s
        with contextlib.ExitStack() as parts:  # the last first
            for tracker in self._trackers:
                parts.callback(tracker.wait, deadline)
            for tracker in self._trackers:
                parts.callback(tracker.end, self._finished)
            if self._looking is not None:
                parts.callback(cancel_quietly, self._looking)

    def _show(self, values: Iterator[Value], step: int, numbers: Mapping[str, float]) -> None:
        self._gauges.show(values)
        for tracker in self._trackers:
            tracker.log(step, numbers)

    async def _look(self) -> None:
        while True:
            self._gauges.show(self._now())
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def _now(self) -> Iterator[Value]:
        for role, actors in self._roles.items():
            restarts = max(0, actors.restarts)
            yield "restarts_total", {"role": role}, restarts - self._counted[role]
            self._counted[role] = restarts
            yield from (("actors", {"role": role, "state": state}, count) for state, count in actors.states.items())
        yield from (("queue_prompts", {"queue": queue}, count) for queue, count in self._queues().items())
        yield from (("failed_prompts", {"file": file}, len(self._failed_prompts.ids(file))) for file in ("train", "valid"))
