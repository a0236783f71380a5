"""Actors that are plain objects, on an event loop whose clock jumps: nothing waits, nothing depends on the machine."""

import asyncio
import selectors
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from cluster.actors.handle import InProcessHandle
from cluster.actors.pool import Pool
from rollout.identity import Identity, code_digest


class SimulatedTimeLoop(asyncio.SelectorEventLoop):
    """Its time stands still while there is something to do, then jumps to the next timer.

    Raises RuntimeError where there is none: all would wait for ever.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if not (events := super().select(0)):
            if timeout is None:
                raise RuntimeError("every task waits, and nothing will happen any more")
            self.now += max(0.0, timeout)
        return events


class FakeHandle(InProcessHandle):
    """An actor in this process that has faults. It answers soon, unless it `is_held`, and tells its name unless `answers` holds
    a function of this method. error: what its methods raise, start_error: what `ready` does."""

    def __init__(self, name: str = "0", node: str = "node", **answers: Callable[..., Any]):
        super().__init__(None)
        self.name, self.node, self.answers = name, node, answers
        self.error: Exception | None = None
        self.start_error: Exception | None = None
        self.is_held = self.is_dead = self.is_frozen = False
        self.has_place = self.has_worker = self.loads = True
        self.code = code_digest()
        self.asked: list[tuple[str, tuple[Any, ...]]] = []  # but pings and loading
        self.under_way: dict[asyncio.Future[Any], Any] = {}  # what is awaited and the answers to come
        self.askers: dict[asyncio.Future[Any], asyncio.Task[Any]] = {}  # in which task it was asked for what is awaited
        self.kills = self.process_kills = 0

    async def lacks_a_place(self) -> bool:
        return not self.has_place

    def kill(self) -> None:
        self.kills += 1
        self.die()

    def kill_process(self, node: str, process: int) -> None:
        assert (node, process) == (self.node, 1)
        self.process_kills += 1

    def die(self) -> None:
        """As with its process: all calls meet it, those under way and those to come."""
        self.is_dead = True
        for whole in list(self.under_way):
            _settle(whole, ActorDiedError())

    def answer(self) -> None:
        """Let go what it held back."""
        self.is_held, self.has_place, self.has_worker, self.loads = False, True, True, True
        if not self.is_frozen:
            for whole, answer in list(self.under_way.items()):
                _settle(whole, answer)

    def _begin(self, method: str, arguments: Sequence[Any]) -> "asyncio.Future[Any]":
        answer, waits = self._answer(method, arguments)
        loop = asyncio.get_running_loop()
        whole: asyncio.Future[Any] = loop.create_future()
        self.under_way[whole] = answer
        if (task := asyncio.current_task()) is not None:
            self.askers[whole] = task
        whole.add_done_callback(lambda ended: self.under_way.pop(ended, None))
        if self.is_dead or not (waits or self.is_frozen):
            loop.call_soon(_settle, whole, ActorDiedError() if self.is_dead else answer)
        return whole

    def _answer(self, method: str, arguments: Sequence[Any]) -> tuple[Any, bool]:
        """What it will be, and whether it is to wait for it."""
        if method == "ping":
            return Identity(self.node, 1, self.code, "/elsewhere"), not (self.has_place and self.has_worker)
        if method == "ready":
            return self.start_error, not self.loads
        self.asked.append((method, tuple(arguments)))
        return self.error or self.answers.get(method, lambda *_: self.name)(*arguments), self.is_held


def _settle(whole: "asyncio.Future[Any]", answer: Any) -> None:
    if not whole.done():
        whole.set_result(answer)


class FakeCluster:
    """Places fakes on the nodes a, b, a, b, ..., or where `nodes` says. prepare: what is done to each before it is asked."""

    def __init__(self, prepare: Callable[[FakeHandle], None] = lambda handle: None):
        self.handles: list[FakeHandle] = []
        self.avoided: list[list[str]] = []
        self.spawned_at: list[float] = []
        self.events: list[str] = []
        self.prepare = prepare

    def spawn(self, name: str, *, avoid: Collection[str]) -> FakeHandle:
        handle = FakeHandle(name, "ab"[len(self.handles) % 2])
        self.avoided.append(list(avoid))
        self.handles.append(handle)
        self.spawned_at.append(asyncio.get_running_loop().time())
        self.prepare(handle)
        return handle

    @property
    def living(self) -> list[str]:
        return [handle.name for handle in self.handles if not handle.kills]

    def pauses_s(self, first: int = 1) -> list[float]:
        """Between one spawn and the next, from this one on, where there was one."""
        times = self.spawned_at[first - 1 :]
        return [later - earlier for earlier, later in zip(times, times[1:], strict=False) if later > earlier]


async def work(pool: Pool, attempts: int | None = None) -> str:
    """The name of the actor that did it."""
    name, _ = await pool.call("work", attempts=attempts)
    return name


def raised_by_the_task(error: Exception) -> Exception:
    """As Ray hands on what an actor's method raised."""
    return RayTaskError("method", "its traceback", error).as_instanceof_cause()
