"""A run's numbers on their way to TensorBoard and to the trackers that the settings name, which keep nobody waiting."""

import asyncio
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cluster.watch.trackers import Tracker
from rollout.errors import SettingsError, first_line

Scalars = Mapping[str, float]
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
    """Event files in a folder; each call is on disk when it returns, or raises what it met, which SummaryWriter leaves to a
    thread of its own and its traceback."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._events: RecordWriter | None = None
        self._purged_from: int | None = None

    def open(self, id: str | None) -> str:
        """A folder needs none."""
        return ""

    def rewind(self, step: int) -> None:
        self.close(finished=False)
        self._purged_from = step + 1

    def log(self, step: int, values: Scalars) -> None:
        if self._events is None:
            self._begin()
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(step=step, summary=summary))

    def close(self, finished: bool) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _begin(self) -> None:
        self._folder.mkdir(exist_ok=True)
        began = f"{time.time():017.6f}"  # files are read in the order of their names
        file = self._folder / f"events.out.tfevents.{began}.{socket.gethostname()}.{os.getpid()}"
        self._events = RecordWriter(file.open("wb"))
        self._write(Event(file_version="brain.Event:2"))
        if self._purged_from is not None:
            self._write(Event(step=self._purged_from, session_log=SessionLog(status=SessionLog.START)))

    def _write(self, event: Event) -> None:
        assert self._events is not None
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())
        self._events.flush()


class Background:
    """A tracker in a thread of its own, which keeps nobody waiting, not even the end of Python. One that fails is told of once
    and given up: a run outlives its tracker's server."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]):
        self.name = name
        self._tracker, self._say = tracker, say
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None ends them
        self._thread = threading.Thread(target=self._pass_on, name=name, daemon=True)
        self._is_open = self._is_given_up = False
        self._failure: BaseException | None = None

    async def open(self, id: str | None) -> str:
        """The id of the tracker's run, the one given or that of a new one. Raises SettingsError if it cannot be had."""
        opening: Future[str | BaseException] = Future()
        self._calls.put(partial(self._open, id, opening))
        self._thread.start()
        opened = await asyncio.wrap_future(opening)
        if isinstance(opened, BaseException):
            self._calls.put(None)
            raise SettingsError(f"trackers: {self.name} cannot be reached ({_told(opened)}); check its login, or leave it out")
        self._is_open = True
        if self._tracker.place:
            self._say(f"{self.name}: {without_secrets(self._tracker.place)}")
        return opened

    def rewind(self, step: int) -> None:
        """The run goes on from `step`."""
        self._send(partial(self._tracker.rewind, step))

    def log(self, step: int, values: Scalars) -> None:
        self._send(partial(self._tracker.log, step, values))

    def end(self, finished: bool) -> None:
        """Nothing comes after this."""
        self._send(partial(self._tracker.close, finished))
        self._send(None)

    def wait(self, deadline: float) -> None:
        """Until all is sent, or `time.monotonic()` is the deadline."""
        if not self._is_open:
            return
        self._thread.join(max(0, deadline - time.monotonic()))
        self._notice_failure()
        if self._thread.is_alive():
            self._say(f"{self.name} has not taken all at the end of the run and is left; a resume tries it again")

    def _open(self, id: str | None, opening: Future[str | BaseException]) -> None:
        try:
            opened: str | BaseException = self._tracker.open(id)
        except BaseException as error:  # whatever another's library raises
            opened = error
        opening.set_result(opened)

    def _pass_on(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                call()
        except BaseException as error:  # whatever another's library raises
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
