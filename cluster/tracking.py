"""A run's numbers on their way to TensorBoard and to the trackers that the settings name, which keep nobody waiting."""

import asyncio
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from cluster.trackers import Tracker
from rollout.errors import SettingsError, first_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Scalars = Mapping[str, float]
LONGEST_CLOSE_S = 60.0
# of the names of variables that hold one
SECRET = re.compile(r"(KEY(_ID)?|TOKEN|PASS(WORD|WD|PHRASE)?|_PWD|SECRET|CREDENTIALS?|CONNECTION_STRING)$", re.IGNORECASE)
SHORTEST_SECRET = 6


def scalars(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """A row's finite numbers but step and time, under names that every tracker takes: train/kl, held_out/recall_at_1."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value) and key not in ("step", "time"):
            found[re.sub(r"[^\w/. -]", "_", f"{prefix}{key}".replace("@", "_at_"))] = float(value)
    return found


class TensorBoard(Tracker):
    """Event files in a folder; each call is on disk when it returns."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._purged_from: int | None = None

    def open(self, id: str | None) -> str:
        """A folder needs none."""
        return ""

    def go_back(self, step: int) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            time.sleep(1 - time.time() % 1)  # files are read in the order of their names, which tell the second
        self._purged_from = step + 1

    def log(self, step: int, values: Scalars) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes half a second

        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._purged_from)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class Background:
    """A tracker in a thread of its own, which keeps nobody waiting. One that fails is told of once and given up: a run outlives
    its tracker's server."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]):
        self.name = name
        self._tracker, self._say = tracker, say
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None ends them
        self._thread = threading.Thread(target=self._pass_on, name=name, daemon=True)  # the end of Python does not wait for it
        self._is_open = self._is_given_up = False
        self._failure: Exception | None = None

    async def open(self, id: str | None) -> str:
        """The id of the tracker's run, the one given or that of a new one. Raises SettingsError if it cannot be had."""
        [opened] = await asyncio.gather(asyncio.to_thread(self._tracker.open, id), return_exceptions=True)
        if isinstance(opened, BaseException):
            raise SettingsError(f"trackers: {self.name} cannot be reached ({_told(opened)}); check its login, or leave it out")
        self._is_open = True
        self._thread.start()
        if self._tracker.place:
            self._say(f"{self.name}: {without_secrets(self._tracker.place)}")
        return opened

    def go_back(self, step: int) -> None:
        """The run goes on from `step`."""
        self._send(partial(self._tracker.go_back, step))

    def log(self, step: int, values: Scalars) -> None:
        self._send(partial(self._tracker.log, step, values))

    def close(self, finished: bool) -> None:
        """Wait until all is sent, but no longer than a run may be held."""
        if not self._is_open:
            return
        self._send(partial(self._tracker.close, finished))
        self._send(None)
        self._thread.join(LONGEST_CLOSE_S)
        self._notice_failure()
        if self._thread.is_alive():
            self._say(f"{self.name} has not taken all within {LONGEST_CLOSE_S:g} s and is left; a resume tries it again")

    def _pass_on(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                call()
        except Exception as error:  # whatever another's library raises
            self._failure = error

    def _send(self, call: Callable[[], None] | None) -> None:
        self._notice_failure()
        if not self._is_given_up:
            self._calls.put(call)

    def _notice_failure(self) -> None:
        if self._failure is not None and not self._is_given_up:
            self._is_given_up = True
            self._say(f"{self.name} fails and is given up ({_told(self._failure)}); a resume tries it again")


def _told(error: BaseException) -> str:
    return without_secrets(f"{type(error).__name__}: {first_line(error)}")


def without_secrets(text: str) -> str:
    """What is told lands in the run folder: no keys, and of addresses no passwords and no queries."""
    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST_SECRET}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "***")
    return re.sub(r"(://\S*?\?)[^\s)'\"]+", r"\1***", re.sub(r"//[^\s?]+@", "//***@", text))
