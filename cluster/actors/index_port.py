"""The port of an index that lies in parts, each in an actor, which samplers ask without the driver.

Ray itself starts a part that is lost again, on whatever node has room, and repeats what it was asked. The driver waits until
all are open, tells of those that come again, and ends processes that are frozen.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from cluster.actors.errors import Meaning, cause, meaning_of
from cluster.actors.handle import Handle, Spawn
from cluster.actors.replica import check_code
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event, cancel_quietly, log_failure
from rollout.errors import ClusterError, LapdogError
from rollout.identity import Identity


class IndexPort:
    """size: parts; with none of them nothing is done. restarts: those that Ray started again."""

    def __init__(self, size: int, spawn: Spawn, retry: RetryPolicy, event: Event):
        self.size, self.restarts = size, 0
        self._spawn, self._retry, self._event = spawn, retry, event
        self._handles: list[Handle] = []
        self._open: set[int] = set()
        self._unanswered: dict[int, float] = {}  # parts that were asked whether they are alive, and since when
        self._watches: list[asyncio.Task[None]] = []

    @property
    def actors(self) -> list[Any]:
        """What samplers ask, once they were started."""
        return [handle.actor for handle in self._handles]

    @property
    def states(self) -> dict[str, int]:
        """How many are starting and idle; whether they are busy samplers know alone."""
        return {"starting": self.size - len(self._open), "idle": len(self._open), "busy": 0}

    async def without_a_place_s(self) -> float:
        """Seconds for which a part has given no answer that Ray finds no room for."""
        waiting = list(self._unanswered.items())
        return max([_now() - since for number, since in waiting if await self._handles[number].lacks_a_place()], default=0.0)

    def start(self) -> None:
        self._handles = [self._spawn(str(number), avoid=()) for number in range(self.size)]
        self._watches = [asyncio.create_task(self._watch(number)) for number in range(self.size)]

    async def opened(self) -> None:
        """Wait until every part is open; each makes what its `data.cache` lacks. Raises what one meets, ClusterError where one
        does not start."""
        if not self.size:
            return
        begun = time.monotonic()
        self._event(f"opening the index in {self.size} parts")
        opening = asyncio.create_task(self._open_all())
        try:
            await asyncio.wait([opening, *self._watches], return_when=asyncio.FIRST_COMPLETED)
            for task in (*self._watches, opening):
                if task.done():
                    task.result()
        finally:
            cancel_quietly(opening)
        for number, watch in enumerate(self._watches):
            log_failure(watch, f"{self._name(number)} is no longer watched", self._event)
        self._event(f"the index is open after {time.monotonic() - begun:.1f} s")

    def close(self) -> None:
        """Kill all."""
        for watch in self._watches:
            cancel_quietly(watch)
        for handle in self._handles:
            handle.kill()

    async def _open_all(self) -> None:
        slices = await asyncio.gather(*(self._ask(number, "slices") for number in range(self.size)))
        total = sum(map(len, slices))
        bar = tqdm(total=total, desc="embedding passages", unit="slice", disable=None if total else True, leave=False, delay=1)
        with bar:
            await asyncio.gather(*(self._open_part(number, own, bar) for number, own in enumerate(slices)))

    async def _open_part(self, number: int, slices: Sequence[int], bar: "tqdm[Any]") -> None:
        for each in slices:
            await self._ask(number, "embed", each)
            bar.update()
        await self._ask(number, "ready")
        identity: Identity = await self._ask(number, "ping")
        self._open.add(number)
        self._event(f"{self._name(number)} ready on node {identity.node[:8]}")

    async def _ask(self, number: int, method: str, *arguments: Any) -> Any:
        """Without a deadline: an index may take hours, and a frozen process is ended meanwhile. Raises a user's mistake
        as it is, ClusterError for any other error."""
        [reference] = self._handles[number].call(method, *arguments)
        try:
            return await reference
        except Exception as error:
            if meaning_of(error) is Meaning.OTHER:
                raise
            if isinstance(met := getattr(error, "cause", None), LapdogError):
                raise met from error
            what = f"{method} failed ({cause(error)}); see its log in the dashboard"
            raise ClusterError(f"{self._name(number)}: {what}") from error

    async def _watch(self, number: int) -> None:
        """Ask again and again which process a part is. Raises ClusterError for one that does not start, or is lost as often as
        a start may fail before it is open."""
        name, handle, lost = self._name(number), self._handles[number], 0
        identity = await self._first(number)
        while True:
            await asyncio.sleep(self._retry.look_s)
            try:
                now = await self._identity(number, self._retry.call_deadline_s)
            except TimeoutError:
                self._event(f"{name}: no answer in {self._retry.call_deadline_s:g} s; ending its process")
                handle.kill_process(identity.node, identity.process)
                continue
            if now != identity:
                self.restarts, lost, identity = self.restarts + 1, lost + 1, now
                self._event(f"{name} was lost; Ray has started it again on node {now.node[:8]}")
            if lost == self._retry.start_attempts and number not in self._open:
                raise ClusterError(f"{name}: lost {lost} times before it was open; see its log in the dashboard")

    async def _first(self, number: int) -> Identity:
        name, deadline_s = self._name(number), self._retry.start_deadline_s
        try:
            identity = await self._identity(number, deadline_s)
        except TimeoutError as error:
            remedy = "`ray status` tells what is lacking"
            raise ClusterError(f"{name}: not started in {deadline_s:g} s; {remedy}") from error
        check_code(name, identity)
        return identity

    async def _identity(self, number: int, deadline_s: float) -> Identity:
        """Also who is opening or searching answers at once."""
        self._unanswered.setdefault(number, _now())
        async with asyncio.timeout(deadline_s):
            identity: Identity = await self._ask(number, "ping")
        del self._unanswered[number]
        return identity

    def _name(self, number: int) -> str:
        return f"index part {number + 1} of {self.size}"


def _now() -> float:
    """Seconds, by the clock of the event loop that pauses and deadlines go by."""
    return asyncio.get_running_loop().time()
