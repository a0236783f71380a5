"""Stop requests: SIGTERM and SIGINT ask for a last step and a checkpoint; the second one leaves at once."""

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

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
