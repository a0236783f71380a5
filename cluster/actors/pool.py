"""Replicas of one kind of actor: calls go to whoever is free; one that dies or hangs is replaced and its call repeated."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from cluster.actors.errors import InputsLost, Meaning, ReplicasLost, cause, meaning_of
from cluster.actors.handle import Spawn, answer, within
from cluster.actors.replica import Launcher, Pending, Replica
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event, cancel_quietly
from rollout.errors import first_line

Late = Callable[[], tuple[Any, ...]]


class Pool:
    """Replicas take turns in the order in which they become free. `restarts` counts those that were replaced.

    slots: calls that one replica may have under way; more than one for an engine that batches by itself.
    Repeating a call is right because every call is a pure function of its arguments.
    """

    def __init__(self, kind: str, spawn: Spawn, size: int, retry: RetryPolicy, event: Event, slots: int = 1):
        self.kind, self.restarts = kind, 0
        self._launcher = Launcher(kind, spawn, retry, event)
        self._size, self._slots, self.retry, self._event = size, slots, retry, event
        self._replicas: list[Replica] = []
        self._open: deque[Replica] = deque()  # those with a free slot
        self._waiting: deque[asyncio.Future[Replica]] = deque()
        self._starting: dict[asyncio.Task[None], Pending] = {}
        self._losses = self._spawned_at_loss = 0  # in a row, since the last call that was answered
        self._failure: Exception | None = None

    def start(self) -> None:
        """Begin to start all replicas; calls wait for the first that is ready."""
        self.resize(self._size)

    def resize(self, size: int) -> None:
        """Start more replicas, or let some go: the last to start, then idle ones, then busy ones after their calls."""
        self._size = size
        for _ in range(-self._surplus()):
            self._start_replica()
        newest_first = [task for task in reversed(self._starting) if not task.cancelling()]
        for task in newest_first[: max(0, self._surplus())]:
            task.cancel()
        idle = [replica for replica in self._open if replica.calls == 0]
        for replica in idle[: max(0, self._surplus())]:
            self._discard(replica)
        self._offer_what_stays()

    @property
    def size(self) -> int:
        """Replicas that are wanted."""
        return self._size

    @property
    def states(self) -> dict[str, int]:
        """How many replicas are starting, idle and busy."""
        busy = sum(replica.calls > 0 for replica in self._replicas)
        return {"starting": len(self._starting), "idle": len(self._replicas) - busy, "busy": busy}

    async def without_a_place_s(self) -> float:
        """Seconds for which there has been no replica because Ray finds no room for one."""
        starting = () if self._replicas else self._starting.values()
        return max(await asyncio.gather(*(pending.without_a_place_s() for pending in starting)), default=0.0)

    async def call(
        self, method: str, *arguments: Any, parts: int = 1, attempts: int | None = None, late: Late = tuple
    ) -> tuple[Any, list[Any]]:
        """Ask a free replica; awaits the first part of what it returns, the others stay references. `late` gives further
        arguments once a replica is free. If it is cancelled, the slot is free when the actor is done. Raises what the call
        itself raises, InputsLost if what it was given is gone, ReplicasLost if it has lost as many replicas as there are
        `attempts`, those aside that another call is known to have spoilt.
        """
        left = attempts = attempts or self.retry.call_attempts
        replica = await (self._free_replica() if attempts > 1 else self._answering_replica())
        while True:
            asked: asyncio.Task[Any] | None = None
            try:
                await replica.handle.turn()
                first, *others = replica.handle.call(method, *arguments, *late(), parts=parts)
                asked = asyncio.create_task(within(first, self.retry.call_deadline_s))
                answered = await asyncio.shield(asked)
            except BaseException as error:
                meaning, is_innocent = meaning_of(error), replica.is_spoilt
                if meaning is Meaning.OTHER and asked is not None:
                    asked.add_done_callback(partial(self._drained, replica))
                    raise
                what = self._end(replica, error)
                left -= 0 if meaning is Meaning.DIED and is_innocent else 1
                if meaning is Meaning.INPUTS_LOST:
                    raise InputsLost(f"{self.kind}: what it was given is lost ({first_line(error)})") from error
                if what is None or (meaning is Meaning.FAILED and not left):
                    raise
                if not left:
                    lost = "its replica" if attempts == 1 else f"{attempts} replicas"
                    raise ReplicasLost(f"{self.kind}: one call lost {lost} ({what}); see their logs") from error
            else:
                self._losses = 0
                self._release(replica)
                return answered, others
            replica = await self._answering_replica()

    def drop_nodes(self, alive: Collection[str]) -> None:
        """Replace the idle replicas of nodes that have left the cluster; busy ones are noticed by their calls."""
        for replica in [each for each in self._open if each.calls == 0 and each.node and each.node not in alive]:
            replica.calls += 1  # as if a call had met its loss
            self._lose(replica, f"its node {replica.node[:8]} has left the cluster")

    def close(self) -> None:
        """Kill all replicas."""
        self._size = 0
        for task in self._starting:
            cancel_quietly(task)
        for replica in list(self._replicas):
            self._discard(replica)

    def _surplus(self) -> int:
        return len(self._replicas) + sum(not task.cancelling() for task in self._starting) - self._size

    async def _free_replica(self) -> Replica:
        if self._failure is not None:
            raise self._failure
        if self._open:
            replica = self._open.popleft()
            replica.is_open, replica.calls = False, replica.calls + 1
            self._reopen(replica)
            return replica
        free: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()
        self._waiting.append(free)
        try:
            replica = await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled() and free.exception() is None:
                self._release(free.result())
            raise
        return await self._free_replica() if replica.is_gone else replica  # another call has just met its loss

    async def _answering_replica(self) -> Replica:
        """A free replica that answered a ping, so that silent deaths do not count against the call."""
        while True:
            replica = await self._free_replica()
            try:
                await answer(replica.handle, "ping", self.retry.call_deadline_s)
                if not replica.is_gone:
                    return replica
            except BaseException as error:
                if self._end(replica, error, by_call=False) is None:
                    raise

    def _release(self, replica: Replica) -> None:
        """End a call of a replica and hand the slot to whoever waits longest for one."""
        replica.calls -= 1
        if replica.is_gone:
            return
        if self._surplus() <= 0:
            self._offer(replica)
        elif replica.calls == 0:
            self._discard(replica)

    def _end(self, replica: Replica, error: BaseException | None, by_call: bool = True) -> str | None:
        """End a call, or a ping, which met `error`, if any: a replica that is lost or broken is replaced, once however many
        tell of it, any other has a free slot. Returns what is wrong with the replica."""
        if error is None or (meaning := meaning_of(error)) not in (Meaning.DIED, Meaning.FROZEN, Meaning.FAILED):
            self._release(replica)
            return None
        what = f"no answer in {self.retry.call_deadline_s:g} s" if meaning is Meaning.FROZEN else cause(error)
        replica.is_spoilt |= by_call and not replica.is_gone and meaning is not Meaning.DIED
        self._lose(replica, what, frozen=meaning is Meaning.FROZEN)
        return what

    def _drained(self, replica: Replica, asked: "asyncio.Task[Any]") -> None:
        """A call that was cancelled occupies its actor until here: the next one would have seemed to hang."""
        self._end(replica, None if asked.cancelled() else asked.exception())

    def _offer_what_stays(self) -> None:
        """Hold all replicas back while some are to go, and offer them again afterwards."""
        while self._open and self._surplus() > 0:
            self._open.popleft().is_open = False
        for replica in self._replicas if self._surplus() <= 0 else ():
            self._offer(replica)

    def _offer(self, replica: Replica) -> None:
        """Fill free slots with calls that wait; what stays free is open to the next."""
        while self._waiting and replica.calls < self._slots:
            free = self._waiting.popleft()
            if not free.done():
                replica.calls += 1
                free.set_result(replica)
        self._reopen(replica)

    def _reopen(self, replica: Replica) -> None:
        """At the end of the queue, if it has a free slot."""
        if replica.calls < self._slots and not replica.is_open:
            replica.is_open = True
            self._open.append(replica)

    def _lose(self, replica: Replica, what: str, frozen: bool = False) -> None:
        replica.calls -= 1
        if replica.is_gone:
            return
        self._discard(replica, frozen)
        self._event(f"{self.kind} lost: {what}")
        self.restarts += 1
        if not frozen and replica.number >= self._spawned_at_loss:  # a deadline is pause enough; a node's actors go as one
            self._losses += 1
            self._spawned_at_loss = self._launcher.spawned
        self._launcher.exclude(replica.node)
        if self._surplus() < 0:
            self._start_replica(self.retry.pause_s(self._losses - 1))

    def _discard(self, replica: Replica, frozen: bool = False) -> None:
        self._replicas.remove(replica)
        if replica.is_open:
            self._open.remove(replica)
        replica.discard(frozen)
        self._offer_what_stays()

    def _start_replica(self, after_s: float = 0.0) -> None:
        task = asyncio.create_task(self._grow(after_s))
        self._starting[task] = Pending()
        task.add_done_callback(self._start_ended)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting.pop(task, None)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)

    async def _grow(self, after_s: float) -> None:
        """Try until a replica is ready. It is everybody's failure, until one is, if there is none and no hope for one."""
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(after_s)
        note, starting = partial(self._starting.__setitem__, task), self._starting.values()
        replica = await self._launcher.keep_starting(note, self._replicas, starting)
        self._starting.pop(task)
        self._replicas.append(replica)
        self._failure = None
        self.resize(self._size)  # others, too, in place of starts that were given up

    def _fail(self, error: Exception) -> None:
        """Let every caller meet `error`, the first one of its kind."""
        self._failure = self._failure or error
        for free in self._waiting:
            if not free.done():
                free.set_exception(self._failure)
        self._waiting.clear()
