"""A tracker that keeps nobody waiting, and tells no secrets."""

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue

from cluster.actors.tasks import Event
from cluster.watch.trackers.services import Tracker
from rollout.errors import SettingsError, first_line

# of the names of variables that hold one
SECRET = re.compile(r"(KEY(_ID)?|TOKEN|PASS(WORD|WD|PHRASE)?|_PWD|SECRET|CREDENTIALS?|CONNECTION_STRING)$", re.IGNORECASE)
SHORTEST_SECRET = 6


class Background:
    """A tracker in a thread of its own, which keeps nobody waiting, not even the end of Python. One that fails is told of once
    and given up: a run outlives its tracker's server."""

    def __init__(self, name: str, tracker: Tracker, event: Event):
        self.name = name
        self._tracker, self._event = tracker, event
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
            raise SettingsError(
                f"trackers: {self.name} cannot be reached ({_reason(opened)}); check its login, or leave it out"
            )
        self._is_open = True
        if self._tracker.place:
            self._event(f"{self.name}: {without_secrets(self._tracker.place)}")
        return opened

    def rewind(self, step: int) -> None:
        """The run goes on from `step`."""
        self._send(partial(self._tracker.rewind, step))

    def log(self, step: int, values: Mapping[str, float]) -> None:
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
            self._event(f"{self.name} has not taken all at the end of the run and is left; a resume tries it again")

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
            self._event(f"{self.name} fails and is given up ({_reason(self._failure)}); a resume tries it again")


def _reason(error: BaseException) -> str:
    return without_secrets(f"{type(error).__name__}: {first_line(error)}")


def without_secrets(text: str) -> str:
    """What is told lands in the run folder: no keys, and of addresses no passwords and no queries."""
    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST_SECRET}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "***")
    return re.sub(r"(://\S*?\?)[^\s)'\"]+", r"\1***", re.sub(r"//[^\s?]+@", "//***@", text))
