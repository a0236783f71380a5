"""Asyncio tasks that nobody awaits, and what they meet."""

import asyncio
from collections.abc import Callable
from typing import Any

from rollout.errors import first_line

Event = Callable[[str], None]  # told what happened to a run, in one line


def log_failure(task: "asyncio.Task[None]", what: str, event: Event) -> None:
    """Report the failure of a background task as an event."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            event(f"{what}: {type(error).__name__}: {first_line(error)}")

    task.add_done_callback(ended)


def cancel_quietly(future: "asyncio.Future[Any]") -> None:
    """Cancel what nobody will await; if it failed already, the first failure has been shown."""
    if not future.cancel() and not future.cancelled():
        future.exception()
