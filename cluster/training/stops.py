"""What ends a run before its last step: a signal, which asks for this step's end and a checkpoint, the second for no more; or a
learner that is lost again and again."""

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cluster.actors.errors import LearnerLost
from rollout.errors import ClusterError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends before its last step. interrupted: by somebody, who may resume it."""

    reason: str
    interrupted: bool = False


def install_stop_handlers(stop: Callable[[str], None]) -> None:
    """Call `stop` with the first signal's name, then leave the signals to Python's own handling."""
    loop = asyncio.get_running_loop()

    def handle(caught: signal.Signals) -> None:
        for each in STOP_SIGNALS:
            loop.remove_signal_handler(each)
        stop(caught.name)

    if threading.current_thread() is threading.main_thread():  # elsewhere, as in a notebook's thread, Python allows none
        for each in STOP_SIGNALS:
            loop.add_signal_handler(each, handle, each)


class LearnerLosses:
    """Counts losses since the last new step; `most` of them end the run."""

    def __init__(self, most: int) -> None:
        self._most, self._furthest = most, 0
        self._since: list[LearnerLost] = []

    def reached(self, step: int) -> None:
        if step > self._furthest:
            self._furthest = step
            self._since.clear()

    def add(self, error: LearnerLost) -> None:
        """Raises ClusterError if there are too many."""
        self._since.append(error)
        if len(self._since) >= self._most:
            times = f"{self._most} times without getting beyond step {self._furthest}"
            raise ClusterError(f"{self._since[0]}, {times}; see its log in the dashboard") from error
