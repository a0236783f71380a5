"""An actor as the driver sees it: how one is brought up, what it means that it is lost, how it is ended."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollout.errors import ClusterError, LapdogError, first_line

START_ATTEMPTS = 3
LONGEST_PAUSE_S = 30.0
SUSPECT_S = 60.0
ELSEWHERE_S = 30.0
SLOW_START_S = 60.0

ACTOR_LOST = (
    RayActorError,
    OutOfMemoryError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
    ActorUnschedulableError,
    RuntimeEnvSetupError,
)

Actor = Any
Spawn = Callable[[str, Collection[str]], Actor]


class InputsLost(ClusterError):
    """A call cannot be answered because an object that it was given is gone, with the node or actor that held it."""


@dataclass(eq=False)
class Replica:
    """number: how many of its kind were spawned before it."""

    actor: Actor
    node: str
    process: int
    number: int


@dataclass(eq=False)
class Pending:
    """An actor on its way up: `placed` once Ray has found room for it."""

    placed: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def pending_s(self) -> float:
        return 0.0 if self.placed else time.monotonic() - self.since


class Launcher:
    """Brings up actors of one kind, each with a name of its own, away from nodes where one was lost a short while ago.

    spawn: makes an actor of a given name, away from given nodes where that is possible.
    """

    def __init__(self, kind: str, spawn: Spawn, deadline_s: float, say: Callable[[str], None]):
        self.kind, self.spawned = kind, 0
        self._spawn, self._deadline_s, self._say = spawn, deadline_s, say
        self._suspects: dict[str, float] = {}  # nodes, and until when

    def suspect(self, node: str) -> None:
        if node:
            self._suspects[node] = time.monotonic() + SUSPECT_S

    async def start(self, starting: Pending) -> Replica:
        """A ready actor. Raises ClusterError if none comes up, which may be tried again, and a user's mistake as it is."""
        try:
            return await self._bring_up(self._suspected(), starting)
        except (RayTaskError, *ACTOR_LOST, ObjectLostError, TimeoutError) as error:
            own = getattr(error, "cause", None)
            if isinstance(own, LapdogError):
                raise own from error
            what = f"not ready in {self._deadline_s:g} s" if is_late(error) else cause(error)
            raise ClusterError(f"{self.kind}: cannot be started ({what}); see its log in the dashboard") from error

    async def pause(self, failure: LapdogError, attempt: int) -> None:
        """Wait before the next attempt, and say why."""
        self._say(f"{str(failure).partition(';')[0]}; trying again in {pause_s(attempt):g} s")
        await asyncio.sleep(pause_s(attempt))

    async def _bring_up(self, avoided: Collection[str], starting: Pending) -> Replica:
        """Away from the avoided nodes if others have room for it in a while. What does not come up is killed."""
        actor, replica = self._spawn_next(avoided), None
        reminder = asyncio.get_running_loop().call_later(SLOW_START_S, self._remind, starting)
        try:
            async with asyncio.timeout(self._deadline_s):
                try:
                    replica = await self._placed(actor, starting, ELSEWHERE_S if avoided else None)
                except TimeoutError:
                    ray.kill(actor)
                    actor = self._spawn_next(())
                    replica = await self._placed(actor, starting, None)
                await awaited(actor.ready.remote())
                return replica
        except BaseException as error:
            ray.kill(actor)
            if replica is not None and is_late(error):
                kill_process(replica)
            raise
        finally:
            reminder.cancel()

    async def _placed(self, actor: Actor, starting: Pending, deadline_s: float | None) -> Replica:
        number = self.spawned - 1
        node, process = await asyncio.wait_for(awaited(actor.ping.remote()), deadline_s)
        starting.placed = True
        return Replica(actor, node, process, number)

    def _spawn_next(self, avoided: Collection[str]) -> Actor:
        self.spawned += 1
        return self._spawn(str(self.spawned - 1), avoided)

    def _suspected(self) -> list[str]:
        now = time.monotonic()
        self._suspects = {node: until for node, until in self._suspects.items() if until > now}
        return list(self._suspects)

    def _remind(self, starting: Pending) -> None:
        doing = "still loading" if starting.placed else "without a place: `ray status` tells what is lacking"
        self._say(f"{self.kind} is {doing} after {SLOW_START_S:g} s; waiting for {self._deadline_s:g} s")


def pause_s(losses: int) -> float:
    """Seconds to wait after so many losses in a row: 0, 0.5, 1, 2, 4, ..."""
    return min(LONGEST_PAUSE_S, 0.5 * 2.0 ** (losses - 1)) if losses > 0 else 0.0


def inputs_are_lost(error: Exception) -> bool:
    """Whether an object that a call was given is gone; the call's own actor is well."""
    return isinstance(error, ObjectLostError) or (isinstance(error, RayTaskError) and isinstance(error, RayActorError))


def is_users_mistake(error: Exception) -> bool:
    return isinstance(getattr(error, "cause", None), LapdogError)


def is_late(error: BaseException) -> bool:
    """Whether our own deadline has passed: what an actor raised may be a TimeoutError, too."""
    return isinstance(error, TimeoutError) and not isinstance(error, RayTaskError)


def cause(error: Exception) -> str:
    """The first line of what an actor met, without Ray's wrapping."""
    if not isinstance(error, RayTaskError):
        return first_line(error)
    met = getattr(error, "cause", error)
    return first_line(met) if isinstance(met, LapdogError) else f"{type(met).__name__}: {first_line(met)}"


def kill_process(replica: Replica) -> None:
    """End the process of an actor that gives no answer: Ray's own kill may not reach a frozen one, and its CPUs stay taken."""
    if replica.node == ray.get_runtime_context().get_node_id():
        _kill_actor_process(replica.process)  # at once, for the run may end before a task for it has a worker
    elif replica.node:
        there = NodeAffinitySchedulingStrategy(replica.node, soft=False)
        ray.remote(_kill_actor_process).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(replica.process)


def _kill_actor_process(process: int) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(process, signal.SIGKILL)


async def awaited(reference: "ray.ObjectRef[Any]") -> Any:
    return await reference


def log_failure(task: "asyncio.Task[None]", what: str, say: Callable[[str], None]) -> None:
    """Say that `what` is no longer done, and why, where a task fails that nobody waits for."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            say(f"{what}: {type(error).__name__}: {first_line(error)}")

    task.add_done_callback(ended)


def cancel_quietly(future: "asyncio.Future[Any]") -> None:
    """Cancel what nobody will wait for; if it failed already, the first failure has been shown."""
    if not future.cancel() and not future.cancelled():
        future.exception()
