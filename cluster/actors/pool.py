"""Replicas of one kind of actor: calls go to whoever is free; one that dies or hangs is replaced and its call repeated."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayTaskError

from cluster.actors.replica import (
    ACTOR_LOST,
    START_ATTEMPTS,
    Actor,
    InputsLost,
    Launcher,
    Pending,
    Replica,
    Spawn,
    awaited,
    cancel_quietly,
    cause,
    inputs_are_lost,
    is_users_mistake,
    kill_process,
    pause_s,
)
from rollout.errors import ClusterError, LapdogError, first_line

CALL_ATTEMPTS = 3

Invoke = Callable[[Actor], list["ray.ObjectRef[Any]"]]


class ReplicasLost(ClusterError):
    """Every replica that was given a call died or gave no answer."""


class Pool:
    """Replicas take turns in the order in which they become free. `restarts` counts those that were replaced.

    spawn: makes an actor of a given name, away from given nodes where that is possible; its `ping` returns node and process.
    say: told of what is lost. Repeating a call is right because every call is a pure function of its arguments.
    """

    def __init__(
        self,
        kind: str,
        spawn: Spawn,
        size: int,
        start_deadline_s: float,
        call_deadline_s: float,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.kind, self.restarts = kind, 0
        self._starter = Launcher(kind, spawn, start_deadline_s, say)
        self._size, self._call_deadline_s, self._say = size, call_deadline_s, say
        self._replicas: set[Replica] = set()
        self._idle: deque[Replica] = deque()
        self._waiting: deque[asyncio.Future[Replica]] = deque()
        self._starting: dict[asyncio.Task[None], Pending] = {}
        self._losses = 0  # in a row, since the last call that was answered
        self._spawned_at_loss = 0
        self._failure: Exception | None = None

    def start(self) -> None:
        """Begin to start all replicas; calls wait for the first that is ready."""
        self.resize(self._size)

    def resize(self, size: int) -> None:
        """Start more replicas, or let some go: those that are starting, then idle ones, then busy ones after their call."""
        self._size = size
        for _ in range(-self._surplus()):
            self._start_replica()
        starting = [task for task in self._starting if not task.cancelling()]
        for task in starting[: max(0, self._surplus())]:
            task.cancel()
        while self._surplus() > 0 and self._idle:
            self._discard(self._idle.popleft())

    @property
    def size(self) -> int:
        """Replicas that are wanted."""
        return self._size

    @property
    def idle(self) -> int:
        """Replicas that wait for a call."""
        return len(self._idle)

    @property
    def states(self) -> dict[str, int]:
        """How many replicas are starting, idle and busy."""
        return {"starting": len(self._starting), "idle": self.idle, "busy": len(self._replicas) - self.idle}

    @property
    def pending_s(self) -> float:
        """Seconds for which there has been no replica because Ray finds no room for one."""
        return 0.0 if self._replicas else max((starting.pending_s for starting in self._starting.values()), default=0.0)

    async def call(self, invoke: Invoke, attempts: int = CALL_ATTEMPTS) -> tuple[Any, list["ray.ObjectRef[Any]"]]:
        """Run `invoke` on a free replica; awaits its first result, the others stay references.

        An exception that the call itself raises is passed on. Raises ReplicasLost if `attempts` replicas were lost with it
        that had answered just before, InputsLost if what it was given is gone.
        """
        for attempt in range(1, attempts + 1):
            blamable = attempt > 1 or attempts == 1
            replica = await (self._answering_replica() if blamable else self._free_replica())
            references = invoke(replica.actor)
            try:
                first = await asyncio.wait_for(awaited(references[0]), self._call_deadline_s)
            except (RayTaskError, ObjectLostError) as error:  # the replica answered: what it met is not its own death
                if inputs_are_lost(error):
                    self._release(replica)
                    raise InputsLost(f"{self.kind}: what it was given is lost ({first_line(error)})") from error
                if is_users_mistake(error):
                    self._release(replica)
                    raise
                self._replace(replica, cause(error))  # it may be broken: a bad device, a full disk
                if attempt == attempts:
                    raise
            except (*ACTOR_LOST, TimeoutError) as error:
                what = self._what_happened(error)
                self._replace(replica, what, frozen=isinstance(error, TimeoutError))
                if attempt == attempts:
                    lost = "one call lost its replica" if attempts == 1 else f"one call lost {attempts} replicas"
                    raise ReplicasLost(f"{self.kind}: {lost} ({what}); see their logs") from error
            except BaseException:
                self._release(replica)
                raise
            else:
                self._losses = 0
                self._release(replica)
                return first, references[1:]
        raise AssertionError("unreachable")

    def forget_nodes(self, alive: Collection[str]) -> None:
        """Drop the idle replicas of nodes that have left the cluster; busy ones are noticed by their calls."""
        for replica in [replica for replica in self._idle if replica.node and replica.node not in alive]:
            self._idle.remove(replica)
            self._replace(replica, f"its node {replica.node[:8]} has left the cluster")

    def close(self) -> None:
        """Kill all replicas."""
        self._size = 0
        for task in self._starting:
            cancel_quietly(task)
        for replica in self._replicas:
            ray.kill(replica.actor)

    def _surplus(self) -> int:
        return len(self._replicas) + sum(not task.cancelling() for task in self._starting) - self._size

    async def _free_replica(self) -> Replica:
        if self._failure is not None:
            raise self._failure
        if self._idle:
            return self._idle.popleft()
        free: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()
        self._waiting.append(free)
        try:
            return await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled() and free.exception() is None:
                self._release(free.result())
            raise

    async def _answering_replica(self) -> Replica:
        """One that is alive: a call is not to blame for those that died with their node unnoticed."""
        while True:
            replica = await self._free_replica()
            try:
                await asyncio.wait_for(awaited(replica.actor.ping.remote()), self._call_deadline_s)
            except (*ACTOR_LOST, ObjectLostError, TimeoutError) as error:
                what = self._what_happened(error)
                self._replace(replica, what, frozen=isinstance(error, TimeoutError))
            except BaseException:
                self._release(replica)
                raise
            else:
                return replica

    def _release(self, replica: Replica) -> None:
        """Hand a replica to whoever waits longest for one."""
        if self._surplus() > 0:
            self._discard(replica)
            return
        while self._waiting:
            free = self._waiting.popleft()
            if not free.done():
                free.set_result(replica)
                return
        self._idle.append(replica)

    def _replace(self, replica: Replica, what: str, frozen: bool = False) -> None:
        self._say(f"{self.kind} lost: {what}")
        self._discard(replica)
        if frozen:
            kill_process(replica)
        self.restarts += 1
        if not frozen and replica.number >= self._spawned_at_loss:  # a deadline is pause enough; a node's actors go as one
            self._losses += 1
            self._spawned_at_loss = self._starter.spawned
        self._starter.suspect(replica.node)
        if self._surplus() < 0:
            self._start_replica(pause_s(self._losses - 1))

    def _what_happened(self, error: Exception) -> str:
        return f"no answer in {self._call_deadline_s:g} s" if isinstance(error, TimeoutError) else cause(error)

    def _discard(self, replica: Replica) -> None:
        self._replicas.remove(replica)
        ray.kill(replica.actor)

    def _start_replica(self, after_s: float = 0.0) -> None:
        task = asyncio.create_task(self._bring_up(after_s))
        self._starting[task] = Pending()
        task.add_done_callback(self._start_ended)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting.pop(task, None)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)

    async def _bring_up(self, after_s: float) -> None:
        """Try until a replica is ready. It is everybody's failure if there is none and little hope for one."""
        task = asyncio.current_task()
        assert task is not None
        attempt = failures = 0
        await asyncio.sleep(after_s)
        while True:
            attempt += 1
            self._starting[task] = Pending()
            try:
                replica = await self._starter.start(self._starting[task])
            except LapdogError as error:
                failures = 0 if self._replicas else failures + 1
                if failures >= START_ATTEMPTS or (failures and not isinstance(error, ClusterError)):
                    self._fail(error)
                    return
                await self._starter.pause(error, attempt)
            else:
                self._starting.pop(task)
                self._replicas.add(replica)
                self._release(replica)
                return

    def _fail(self, error: Exception) -> None:
        """Let every caller meet `error`, the first one of its kind."""
        self._failure = self._failure or error
        for free in self._waiting:
            if not free.done():
                free.set_exception(self._failure)
        self._waiting.clear()
