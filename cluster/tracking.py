"""A run's numbers on their way to TensorBoard and to the trackers that the settings name, which keep nobody waiting."""

import asyncio
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.trackers import Tracker
from rollout.errors import SettingsError, first_line, writing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Scalars = Mapping[str, float]
SECRET = re.compile("(KEY|TOKEN|PASSWORD|SECRET)$")  # so end the names of variables that hold one
SHORTEST_SECRET = 8


def scalars(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """A row's finite numbers but step and time, under names that every tracker takes: train/kl, held_out/recall_at_1."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value) and key not in ("step", "time"):
            found[re.sub(r"[^\w/. -]", "_", f"{prefix}{key}".replace("@", "_at_"))] = float(value)
    return found


class TensorBoard:
    """Event files in a folder; each call is on disk when it returns."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._purged_from: int | None = None

    def go_back(self, step: int) -> None:
        """TensorBoard shall forget what was logged of steps after `step`."""
        if self._writer is not None:
            self.close()
            time.sleep(1 - time.time() % 1)  # files are read in the order of their names, which tell the second
        self._purged_from = step + 1

    def log(self, step: int, values: Scalars) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes half a second

        with writing(self._folder):
            if self._writer is None:
                self._writer = SummaryWriter(str(self._folder), purge_step=self._purged_from)
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Background:
    """A tracker in a thread of its own. One that fails is reported and given up: a run outlives its tracker's server."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]):
        self.name = name
        self._tracker, self._say = tracker, say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._sent: deque[Future[None]] = deque()
        self._is_open = False

    async def open(self, id: str | None) -> str:
        """The id of the tracker's run, the one given or that of a new one. Raises SettingsError if it cannot be had."""
        opening = asyncio.wrap_future(self._thread.submit(self._tracker.open, id))
        await asyncio.wait([opening])
        if (error := opening.exception()) is not None:
            raise SettingsError(f"trackers: {self.name} cannot be reached ({_told(error)}); check its login, or leave it out")
        self._is_open = True
        self._say(f"{self.name}: {without_secrets(self._tracker.place)}")
        return opening.result()

    def log(self, step: int, values: Scalars) -> None:
        self._notice_failures()
        if self._is_open:
            self._sent.append(self._thread.submit(self._tracker.log, step, values))

    def close(self, finished: bool) -> None:
        """Wait until all is sent."""
        if self._is_open:
            self._sent.append(self._thread.submit(self._tracker.close, finished))
        self._thread.shutdown()
        self._notice_failures()

    def _notice_failures(self) -> None:
        while self._is_open and self._sent and self._sent[0].done():
            if (error := self._sent.popleft().exception()) is not None:
                self._say(f"{self.name} fails and is given up ({_told(error)}); a resume tries it again")
                self._is_open = False
                self._thread.shutdown(wait=False, cancel_futures=True)


def _told(error: BaseException) -> str:
    return without_secrets(f"{type(error).__name__}: {first_line(error)}")


def without_secrets(text: str) -> str:
    """What is told lands in the run folder: no keys, and of addresses no passwords and no queries."""
    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST_SECRET}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "***")
    return re.sub(r"(://\S*?\?)[^\s)'\"]+", r"\1***", re.sub(r"//[^\s?]+@", "//***@", text))
