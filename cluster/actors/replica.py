"""An actor as the driver holds it, and how one is brought up."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.errors import Meaning, cause, meaning_of
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event
from rollout.errors import ClusterError, LapdogError


class Handle(Protocol):
    """One actor. `actor` has its remote methods, which return references that can be awaited."""

    actor: Any

    def ping(self) -> Awaitable[tuple[str, int]]:
        """Its node and process."""
        ...

    def ready(self) -> Awaitable[None]: ...

    def kill(self) -> None: ...

    def kill_process(self, node: str, process: int) -> None:
        """End one that gives no answer."""
        ...


class RayHandle:
    def __init__(self, actor: Any):
        self.actor = actor

    def ping(self) -> Awaitable[tuple[str, int]]:
        return self.actor.ping.remote()

    def ready(self) -> Awaitable[None]:
        return self.actor.ready.remote()

    def kill(self) -> None:
        ray.kill(self.actor)

    def kill_process(self, node: str, process: int) -> None:
        """Ray's own kill may not reach a frozen one, and its CPUs stay taken."""
        if node == ray.get_runtime_context().get_node_id():
            _kill_actor_process(process)  # at once, for the run may end before a task for it has a worker
        elif node:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(_kill_actor_process).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(process)


def _kill_actor_process(process: int) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(process, signal.SIGKILL)


class Spawn(Protocol):
    def __call__(self, name: str, *, avoid: Collection[str]) -> Handle:
        """An actor of this name, away from the nodes `avoid` as long as others have room."""
        ...


@dataclass(eq=False)
class Replica:
    """A ready actor. number: how many of its kind were spawned before it. calls: under way. is_open: queued for
    more calls. is_gone: discarded."""

    handle: Handle
    node: str
    process: int
    number: int
    calls: int = 0
    is_open: bool = False
    is_gone: bool = False

    def discard(self, frozen: bool = False) -> None:
        self.is_gone, self.is_open = True, False
        self.handle.kill()
        if frozen:
            self.handle.kill_process(self.node, self.process)


def _now() -> float:
    """Seconds, by the clock of the event loop that pauses and deadlines go by."""
    return asyncio.get_running_loop().time()


@dataclass(eq=False)
class Pending:
    """An actor on its way up: `placed` once it has a process."""

    placed: bool = False
    since: float = field(default_factory=_now)

    @property
    def pending_s(self) -> float:
        """Seconds for which it has had no place."""
        return 0.0 if self.placed else _now() - self.since


class Launcher:
    """Brings up actors of one kind, each with a name of its own, away from nodes that lost one a short while ago."""

    def __init__(self, kind: str, spawn: Spawn, retry: RetryPolicy, event: Event):
        self.kind, self.spawned = kind, 0
        self._spawn, self._retry, self._event = spawn, retry, event
        self._excluded: dict[str, float] = {}  # nodes, and until when

    def exclude(self, node: str) -> None:
        if node:
            self._excluded[node] = _now() + self._retry.excluded_s

    async def start(self, pending: Pending) -> Replica:
        """A ready actor. Raises ClusterError if none comes up, which may be tried again, and a user's mistake as it is."""
        self._excluded = {node: until for node, until in self._excluded.items() if until > _now()}
        try:
            return await self._bring_up(pending, list(self._excluded))
        except Exception as error:
            match meaning_of(error):
                case Meaning.OTHER:
                    raise
                case Meaning.REFUSED:
                    raise getattr(error, "cause", error) from error
                case Meaning.FROZEN:
                    what = f"not ready in {self._retry.start_deadline_s:g} s"
                case _:
                    what = cause(error)
            raise ClusterError(f"{self.kind}: cannot be started ({what}); see its log in the dashboard") from error

    async def keep_starting(self, note: Callable[[Pending], None], has_others: Callable[[], bool]) -> Replica:
        """The first of several attempts that is ready; `note` is given each. Raises what it met where there is no other actor
        and little hope for one."""
        attempt = failures = 0
        while True:
            attempt += 1
            pending = Pending()
            note(pending)
            try:
                return await self.start(pending)
            except LapdogError as error:
                failures = 0 if has_others() else failures + 1
                if failures >= self._retry.start_attempts or (failures and not isinstance(error, ClusterError)):
                    raise
                await self.pause(error, attempt)

    async def pause(self, failure: LapdogError, attempt: int) -> None:
        """Wait before the next attempt, and tell why."""
        seconds = self._retry.pause_s(attempt)
        self._event(f"{str(failure).partition(';')[0]}; trying again in {seconds:g} s")
        await asyncio.sleep(seconds)

    async def _bring_up(self, pending: Pending, avoid: Collection[str]) -> Replica:
        """Away from nodes to avoid if others have room for it in a while. What does not come up is killed."""
        handle, replica = self._next(avoid), None
        reminder = asyncio.get_running_loop().call_later(self._retry.slow_start_s, self._remind, pending)
        try:
            async with asyncio.timeout(self._retry.start_deadline_s):
                try:
                    replica = await self._placed(handle, pending, self._retry.elsewhere_s if avoid else None)
                except TimeoutError:
                    handle.kill()
                    handle = self._next(())
                    replica = await self._placed(handle, pending, None)
                await handle.ready()
                return replica
        except BaseException as error:
            if replica is None:
                handle.kill()
            else:
                replica.discard(frozen=meaning_of(error) is Meaning.FROZEN)
            raise
        finally:
            reminder.cancel()

    def _next(self, avoid: Collection[str]) -> Handle:
        self.spawned += 1
        return self._spawn(str(self.spawned - 1), avoid=avoid)

    async def _placed(self, handle: Handle, pending: Pending, deadline_s: float | None) -> Replica:
        number = self.spawned - 1
        node, process = await within(handle.ping(), deadline_s)
        pending.placed = True
        return Replica(handle, node, process, number)

    def _remind(self, pending: Pending) -> None:
        doing = "still loading" if pending.placed else "without a place: `ray status` tells what is lacking"
        retry = self._retry
        self._event(f"{self.kind} is {doing} after {retry.slow_start_s:g} s; waiting for {retry.start_deadline_s:g} s")


async def within(reference: Awaitable[Any], deadline_s: float | None) -> Any:
    """What a remote method returns. Raises TimeoutError after the deadline, and what the method raises."""
    async with asyncio.timeout(deadline_s):
        return await reference
