"""A run's numbers on their way to TensorBoard and to the trackers that the settings name."""

import contextlib
import math
import re
import time
from collections.abc import Mapping

from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from cluster.store.rows import Row
from cluster.store.run_folder import RunFolder
from cluster.watch.monitor import Ending, Monitor
from cluster.watch.trackers.background import Background
from cluster.watch.trackers.services import TRACKERS, TensorBoard, Tracker


class Trackers(Monitor):
    """One that cannot be reached at the start raises SettingsError; one that fails later is an event, and given up."""

    def __init__(self, settings: Settings, folder: RunFolder, event: Event, retry: RetryPolicy):
        self._folder, self._has_ids = folder, bool(settings.trackers)
        trackers: dict[str, Tracker] = {"tensorboard": TensorBoard(folder.path / "tensorboard")}
        trackers |= {name: TRACKERS[name](settings, folder.path) for name in settings.trackers}
        self._trackers = [Background(name, tracker, event) for name, tracker in trackers.items()]
        self._finished, self._retry = False, retry
        self._longest_close_s = self._retry.broken_close_s

    async def start(self) -> None:
        ids = self._folder.tracker_ids() if self._has_ids else {}
        for tracker in self._trackers:
            if id := await tracker.open(ids.get(tracker.name)):
                ids[tracker.name] = id
                self._folder.write_tracker_ids(ids)

    def rewind(self, step: int) -> None:
        for tracker in self._trackers:
            tracker.rewind(step)

    def step(self, row: Row) -> None:
        self._log(row["step"], scalars(row, "train/"))

    async def evaluation(self, row: Row) -> None:
        self._log(row["step"], scalars(row, "held_out/"))

    async def finish(self, ending: Ending) -> None:
        self._finished, self._longest_close_s = ending.finished, min(self._retry.tracker_close_s, ending.grace_s)

    def close(self) -> None:
        """Wait until the trackers have sent everything, or until the deadline."""
        deadline = time.monotonic() + self._longest_close_s
        with contextlib.ExitStack() as parts:  # the last first
            for tracker in self._trackers:
                parts.callback(tracker.wait, deadline)
            for tracker in self._trackers:
                parts.callback(tracker.end, self._finished)

    def _log(self, step: int, numbers: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(step, numbers)


def scalars(row: Row, prefix: str) -> dict[str, float]:
    """A row's finite numbers but step and time, under names that every tracker takes: train/kl, held_out/recall_at_1."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= scalars(dict(value), f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value) and key not in ("step", "time"):
            found[re.sub(r"[^\w/. -]", "_", f"{prefix}{key}".replace("@", "_at_"))] = float(value)
    return found
