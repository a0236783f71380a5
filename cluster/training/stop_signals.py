"""Stop requests: SIGTERM, SIGINT and SIGHUP ask for a checkpoint; the second one leaves at once."""

import asyncio
import json
import math
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.actors.job import JOB_GRACE, STOP_SIGNALS, job_grace_s
from cluster.actors.tasks import cancel_quietly
from cluster.settings.tree import Settings
from rollout.errors import ClusterError

if TYPE_CHECKING:
    from rollout.policy.loading import PolicySkeleton  # and PyTorch, which a server of passages does without

Made = TypeVar("Made")
BYTES, DISK_GB_PER_S = 4, 0.2  # of float32; a network's disk


def install_stop_handlers(stop: Callable[[str], None]) -> None:
    """Call `stop` with the first signal's name, then leave the signals to Python's own handling."""
    loop = asyncio.get_running_loop()
    ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []  # by nohup
    heeded = [each for each in STOP_SIGNALS if each not in ignored]

    def handle(caught: signal.Signals) -> None:
        for each in heeded:
            loop.remove_signal_handler(each)
        stop(caught.name)

    if threading.current_thread() is threading.main_thread():  # elsewhere, as in a notebook's thread, Python allows none
        for each in heeded:
            loop.add_signal_handler(each, handle, each)


def short_grace(policy: "PolicySkeleton", settings: Settings) -> list[str]:
    """A line if a job that is stopped would be killed before its checkpoint can be written."""
    trained = sum(parameter.numel() for parameter in policy.trained_parameters().values())
    copies = 4 if settings.learner.needs_reference() else 3  # weights, AdamW's two moments, the reference
    size_gb, grace_s = copies * trained * BYTES / 1e9, job_grace_s()
    if size_gb / DISK_GB_PER_S < grace_s / 2:  # the other half is for the step
        return []
    remedy = {"env_vars": {JOB_GRACE: str(60 * math.ceil(size_gb / DISK_GB_PER_S / 30))}}
    return [
        f"a checkpoint takes about {size_gb:.1f} GB, which a job that is stopped may not write within {grace_s:g} s; "
        f"submit it with --runtime-env-json '{json.dumps(remedy)}'"
    ]


class Grace:
    """The time that a run told to stop has to save itself. place: the run's folder, for errors."""

    def __init__(self, seconds: float, place: Path):
        self._seconds, self._place = seconds, place
        self._begun, self._limit = asyncio.Event(), asyncio.Timeout(None)

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    @property
    def seconds_left(self) -> float:
        """Infinity before it has begun."""
        ends_at = self._limit.when()
        return math.inf if ends_at is None else max(0.0, ends_at - asyncio.get_running_loop().time())

    def begin(self) -> None:
        self._begun.set()
        self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def unless_begun(self, work: Coroutine[Any, Any, Made]) -> Made | None:
        """What `work` returns; None where the grace begins before that, which cancels it."""
        task, begun = asyncio.create_task(work), asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            cancel_quietly(task)
            cancel_quietly(begun)

    async def bound(self, training: Awaitable[None]) -> None:
        """Await the training, once the grace has begun no longer than it lasts. Raises ClusterError where that is over."""
        try:
            async with self._limit:
                await training
        except TimeoutError as error:
            if not self._limit.expired():
                raise
            raise ClusterError(
                f"{self._place}: was not saved within {self._seconds:g} s; go on from its newest checkpoint with --resume, "
                f"and give more time with cluster.stop_grace_s, or in a job with {JOB_GRACE}"
            ) from error
