"""An actor as the driver holds it: on Ray, or a plain object in this process. Nothing else knows how a method is called."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Collection, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Handle(Protocol):
    """One actor. Every kind has the methods `ping` -> (its node, its process) and `ready`, which loads what it works with."""

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Awaitable[Any]]:
        """References to what a method returns, or to each part of the tuple where it has several. A reference among the
        arguments is opened before the method sees it, one inside of them is not."""
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
    def __init__(self, actor: Any):
        self._actor = actor

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Awaitable[Any]]:
        references = getattr(self._actor, method).options(num_returns=parts).remote(*arguments)
        return [references] if parts == 1 else references

    def kill(self) -> None:
        ray.kill(self._actor)

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


@dataclass(frozen=True, slots=True)
class Reference:
    """What a method returns, or one part of it. As with Ray's, who no longer awaits it does not end the work.

    whole: holds what the method raised as its result, so that asyncio does not complain where nobody asks for it.
    """

    whole: "asyncio.Future[Any]"
    part: int | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.shield(self.whole)
        return self.open()

    def open(self) -> Any:
        """What it refers to, which is there. Raises what the method raised."""
        returned = self.whole.result()
        if isinstance(returned, Exception):
            raise returned
        return returned if self.part is None else returned[self.part]


class InProcessHandle:
    """A plain object whose methods are run at once, in this thread, or in turn in a `thread` of their own. It keeps its own
    number of torch threads."""

    def __init__(self, made: Any, thread: Executor | None = None):
        self._made, self._thread, self._torch_threads = made, thread, torch.get_num_threads()

    def call(self, method: str, *arguments: Any, parts: int = 1) -> Sequence[Reference]:
        whole = self._begin(method, [each.open() if isinstance(each, Reference) else each for each in arguments])
        return [Reference(whole)] if parts == 1 else [Reference(whole, part) for part in range(parts)]

    def kill(self) -> None:
        """Nothing of it outlives this process."""

    def kill_process(self, node: str, process: int) -> None:
        """It is this one."""

    def _begin(self, method: str, arguments: Sequence[Any]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        if self._thread is not None:
            return loop.run_in_executor(self._thread, self._run, method, arguments)
        whole: asyncio.Future[Any] = loop.create_future()
        whole.set_result(self._run(method, arguments))
        return whole

    def _run(self, method: str, arguments: Sequence[Any]) -> Any:
        if method == "ping":  # an actor's own asks Ray
            return "", os.getpid()
        torch.set_num_threads(self._torch_threads)
        try:
            return getattr(self._made, method)(*arguments)
        except Exception as error:
            return error
        finally:
            self._torch_threads = torch.get_num_threads()
