"""Replicas of one kind of actor: calls go to whoever is free; one that dies or hangs is replaced and its call repeated."""

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from rollout.errors import ClusterError, first_line

LOST = (RayActorError, ObjectLostError, asyncio.TimeoutError)
START_ATTEMPTS = 3
CALL_ATTEMPTS = 3

Actor = Any
Invoke = Callable[[Actor], list["ray.ObjectRef[Any]"]]


class Pool:
    """Replicas take turns in the order in which they become free. `restarts` counts those that were replaced.

    Repeating a call is right because every call is a pure function of its arguments.
    """

    def __init__(self, kind: str, spawn: Callable[[str], Actor], size: int, start_deadline_s: float, call_deadline_s: float):
        self.kind, self.restarts = kind, 0
        self._spawn, self._size = spawn, size
        self._start_deadline_s, self._call_deadline_s = start_deadline_s, call_deadline_s
        self._spawned = 0
        self._actors: list[Actor] = []
        self._idle: asyncio.Queue[Actor] = asyncio.Queue()
        self._starting: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[Any] | None = None

    def start(self) -> None:
        """Begin to start all replicas; calls wait for the first that is ready."""
        self._failure = asyncio.get_running_loop().create_future()
        for _ in range(self._size):
            self._start_replica()

    async def call(self, invoke: Invoke) -> tuple[Any, list["ray.ObjectRef[Any]"]]:
        """Run `invoke` on a free replica; awaits its first result, the others stay references.

        An exception that the call itself raises is passed on; ClusterError if replicas keep dying.
        """
        for attempt in range(1, CALL_ATTEMPTS + 1):
            actor = await self._free_replica()
            references = invoke(actor)
            try:
                first = await asyncio.wait_for(awaited(references[0]), self._call_deadline_s)
            except RayTaskError as error:  # the replica answered: what it met is not its own death
                self._idle.put_nowait(actor)
                if isinstance(error, LOST):
                    raise ClusterError(f"{self.kind}: what it was given is lost ({first_line(error)})") from error
                raise
            except LOST as error:
                self._remove(actor)
                self.restarts += 1
                self._start_replica()
                if attempt == CALL_ATTEMPTS:
                    late = isinstance(error, asyncio.TimeoutError)
                    what = f"no answer in {self._call_deadline_s:g} s" if late else first_line(error)
                    raise ClusterError(f"{self.kind}: one call lost {attempt} replicas ({what}); see their logs") from error
                continue
            except BaseException:
                self._idle.put_nowait(actor)
                raise
            self._idle.put_nowait(actor)
            return first, references[1:]
        raise AssertionError("unreachable")

    async def _free_replica(self) -> Actor:
        assert self._failure is not None, "start() comes first"
        free = asyncio.ensure_future(self._idle.get())
        try:
            await asyncio.wait([free, self._failure], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not free.cancel():
                self._idle.put_nowait(free.result())
            raise
        if free.done():
            return free.result()
        free.cancel()
        return self._failure.result()

    def _start_replica(self) -> None:
        task = asyncio.create_task(self._bring_up())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _bring_up(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self._spawned += 1
            actor = self._spawn(str(self._spawned - 1))
            self._actors.append(actor)
            try:
                await asyncio.wait_for(awaited(actor.ready.remote()), self._start_deadline_s)
            except LOST as error:
                self._remove(actor)
                if attempt == START_ATTEMPTS:
                    late = isinstance(error, asyncio.TimeoutError)
                    what = f"not ready in {self._start_deadline_s:g} s" if late else first_line(error)
                    self._fail(ClusterError(f"{self.kind}: cannot be started ({what}); see its log in the dashboard"))
                await asyncio.sleep(2.0**attempt)
            except Exception as error:  # the replica's own: trying again would meet it again
                self._fail(error)
                return
            else:
                self._idle.put_nowait(actor)
                return

    def _remove(self, actor: Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor)

    def _fail(self, error: Exception) -> None:
        """Let every caller meet `error`."""
        assert self._failure is not None
        if not self._failure.done():
            self._failure.set_exception(error)

    def close(self) -> None:
        """Kill all replicas."""
        for task in self._starting:
            forget(task)
        if self._failure is not None:
            forget(self._failure)
        for actor in self._actors:
            ray.kill(actor)


def forget(future: "asyncio.Future[Any]") -> None:
    """Cancel what nobody will wait for; if it failed already, the first failure has been shown."""
    if not future.cancel() and not future.cancelled():
        future.exception()


async def awaited(reference: "ray.ObjectRef[Any]") -> Any:
    return await reference
