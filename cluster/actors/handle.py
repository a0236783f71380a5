"""An actor as the driver holds it: on Ray, or a plain object in this process. Nothing else knows how a method is called."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray._private.state import actors
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.roles import Resources
from rollout.identity import PROJECT, Identity, code_digest


class Handle(Protocol):
    """One actor. Every kind has the methods `ping` -> Identity and `ready`, which loads what it works with. actor: what others
    call it by."""

    actor: Any

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Awaitable[Any]]:
        """References to what a method returns, or to each part of the tuple where it has several. A reference among the
        arguments is opened before the method sees it, one inside of them is not."""
        ...

    async def turn(self) -> None:
        """Wait until it may be called. Only in this process has another method to end before."""
        ...

    async def lacks_a_place(self) -> bool:
        """Whether Ray finds no room for it; one whose process is there, if not ready, has its place."""
        ...

    def kill(self) -> None: ...

    def kill_process(self, node: str, process: int) -> None:
        """End one that gives no answer."""
        ...


class Spawn(Protocol):
    def __call__(self, name: str, *, avoid: Collection[str]) -> Handle:
        """An actor of this name, away from the nodes `avoid` as long as others have room."""
        ...


async def answer(handle: Handle, method: str, deadline_s: float | None) -> Any:
    """What a method without arguments returns."""
    [reference] = handle.call(method)
    return await within(reference, deadline_s)


async def within(reference: Awaitable[Any], deadline_s: float | None) -> Any:
    """What a method returns. Raises TimeoutError after the deadline, and what the method raises."""
    async with asyncio.timeout(deadline_s):
        return await reference


class RayHandle:
    """share: what Ray sets aside for it."""

    def __init__(self, actor: Any, share: Resources):
        self.actor, self._share = actor, share

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Awaitable[Any]]:
        references = getattr(self.actor, method).options(num_returns=parts).remote(*arguments)
        return [references] if parts == 1 else references

    async def turn(self) -> None:
        return

    async def lacks_a_place(self) -> bool:
        return await asyncio.to_thread(self._lacks_a_place)

    def _lacks_a_place(self) -> bool:
        """Raises RayError where Ray does not answer."""
        about = actors(self.actor._actor_id.hex())
        match about.get("State"):  # a process is its own from where room was found
            case "PENDING_CREATION":
                has_process = about["Pid"] != 0
            case "RESTARTING":
                has_process = about["Address"]["Port"] != 0  # the process's number is that of the last one
            case _:
                has_process = True
        if has_process:
            return False
        share = {resource: amount for resource, amount in self._share.items() if amount}
        return share in _demands_without_a_place()  # or else its process is being started

    def kill(self) -> None:
        ray.kill(self.actor)

    def kill_process(self, node: str, process: int) -> None:
        """Ray's own kill may not reach a frozen one, and its CPUs stay taken."""
        if node == ray.get_runtime_context().get_node_id():
            _kill_actor_process(process)  # at once, for the run may end before a task for it has a worker
        elif node:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(_kill_actor_process).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(process)


def _demands_without_a_place() -> list[Resources]:
    """What Ray would have to set aside for tasks and actors, of any job, that it finds no room for."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    return [each.bundle for demand in status.resource_demands.ray_task_actor_demand for each in demand.bundles_by_count]


def _kill_actor_process(process: int) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(process, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a method returns, or one part of it. As with Ray's, who no longer awaits it does not end the work.

    whole: holds what the method raised as its result, so that asyncio does not complain where nobody asks for it.
    """

    whole: "asyncio.Future[Any]"
    part: int | None = None

    @classmethod
    def to(cls, made: Any) -> "Reference":
        whole: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        whole.set_result(made)
        return cls(whole)

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.shield(self.whole)
        return self.open()

    def open(self) -> Any:
        """What it refers to, which is there. Raises what the method raised."""
        returned = self.whole.result()
        if isinstance(returned, Exception):
            raise returned
        return returned if self.part is None else returned[self.part]


class SideThread:
    """A thread beside the event loop's, for methods that may run a loop of their own, one after the other."""

    def __init__(self, name: str):
        self._executor = ThreadPoolExecutor(1, name)
        self._newest: asyncio.Future[Any] | None = None

    def begin(self, method: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        self._newest = asyncio.get_running_loop().run_in_executor(self._executor, method, *arguments)
        return self._newest

    async def until_idle(self) -> None:
        """Wait until all that has begun is over."""
        while self._newest is not None and not self._newest.done():
            await asyncio.wait([self._newest])

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class InProcessHandle:
    """A plain object whose methods are run at once, in this thread, or in a `thread` of their own. after: a thread that must be
    idle before it is this object's turn. It keeps its own number of torch threads."""

    def __init__(self, made: Any, thread: SideThread | None = None, after: SideThread | None = None):
        self.actor, self._thread, self._after, self._torch_threads = made, thread, after, torch.get_num_threads()

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Reference]:
        whole = self._begin(method, [each.open() if isinstance(each, Reference) else each for each in arguments])
        return [Reference(whole)] if parts == 1 else [Reference(whole, part) for part in range(parts)]

    async def turn(self) -> None:
        if self._after is not None:
            await self._after.until_idle()

    async def lacks_a_place(self) -> bool:
        return False

    def kill(self) -> None:
        """Nothing of it outlives this process."""

    def kill_process(self, node: str, process: int) -> None:
        """It is this one."""

    def _begin(self, method: str, arguments: Sequence[Any]) -> "asyncio.Future[Any]":
        if self._thread is not None:
            return self._thread.begin(self._run, method, arguments)
        return Reference.to(self._run(method, arguments)).whole

    def _run(self, method: str, arguments: Sequence[Any]) -> Any:
        if method == "ping":  # an actor's own asks Ray
            return Identity("", os.getpid(), code_digest(), str(PROJECT))
        torch.set_num_threads(self._torch_threads)
        try:
            return getattr(self.actor, method)(*arguments)
        except Exception as error:
            return error
        finally:
            self._torch_threads = torch.get_num_threads()
