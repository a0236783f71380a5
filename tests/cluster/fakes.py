"""Actors that are plain objects, on an event loop whose clock jumps: nothing waits, nothing depends on the machine."""

import asyncio
import selectors
from collections.abc import Callable, Collection
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from cluster.actors.pool import Pool


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


class FakeHandle:
    """An actor that is a plain object. It answers soon, unless it `is_held`, and tells its name unless `answers` holds a
    function of this method. error: what its methods raise, start_error: what `ready` does. Its references are futures."""

    def __init__(self, name: str = "0", node: str = "node", **answers: Callable[..., Any]):
        self.name, self.node, self.answers = name, node, answers
        self.actor: Any = _RemoteMethods(self)
        self.error: Exception | None = None
        self.start_error: Exception | None = None
        self.is_held = self.is_dead = self.is_frozen = False
        self.has_place = self.loads = True
        self.asked: list[tuple[str, tuple[Any, ...]]] = []  # but pings
        self.under_way: dict[asyncio.Future[Any], Any] = {}  # references and the answers to come
        self.kills = self.process_kills = 0

    def ping(self) -> "asyncio.Future[tuple[str, int]]":
        return self._reference((self.node, 1), waits=not self.has_place)

    def ready(self) -> "asyncio.Future[None]":
        return self._reference(self.start_error, waits=not self.loads)

    def kill(self) -> None:
        self.kills += 1
        self.die()

    def kill_process(self, node: str, process: int) -> None:
        assert (node, process) == (self.node, 1)
        self.process_kills += 1

    def call(self, method: str, *arguments: Any) -> "asyncio.Future[Any]":
        if method == "ping":
            return self.ping()
        self.asked.append((method, arguments))
        answer = self.answers.get(method, lambda *_: self.name)(*arguments)
        return self._reference(self.error or answer, waits=self.is_held)

    def die(self) -> None:
        """As with its process: all calls meet it, those under way and those to come."""
        self.is_dead = True
        for reference in list(self.under_way):
            _settle(reference, ActorDiedError())

    def answer(self) -> None:
        """Let go what it held back."""
        self.is_held, self.has_place, self.loads = False, True, True
        if not self.is_frozen:
            for reference, answer in list(self.under_way.items()):
                _settle(reference, answer)

    def _reference(self, answer: Any, waits: bool) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        reference: asyncio.Future[Any] = loop.create_future()
        self.under_way[reference] = answer
        reference.add_done_callback(lambda ended: self.under_way.pop(ended, None))
        if self.is_dead or not (waits or self.is_frozen):
            loop.call_soon(_settle, reference, ActorDiedError() if self.is_dead else answer)
        return reference


def _settle(reference: "asyncio.Future[Any]", answer: Any) -> None:
    if reference.done():
        return
    if not isinstance(answer, Exception):
        reference.set_result(answer)
        return
    reference.set_exception(answer)
    reference.exception()  # whoever drops the reference does not care


class _RemoteMethods:
    def __init__(self, handle: FakeHandle):
        self._handle = handle

    def __getattr__(self, method: str) -> "_RemoteMethod":
        return _RemoteMethod(self._handle, method)


class _RemoteMethod:
    def __init__(self, handle: FakeHandle, name: str, num_returns: int | None = None):
        self._handle, self._name, self._num_returns = handle, name, num_returns

    def options(self, num_returns: int) -> "_RemoteMethod":
        return _RemoteMethod(self._handle, self._name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        """A reference, or so many where options asked for some: one to each part of the answer."""
        reference = self._handle.call(self._name, *arguments)
        if self._num_returns is None:
            return reference
        parts = [reference.get_loop().create_future() for _ in range(self._num_returns)]

        def answered(whole: "asyncio.Future[Any]") -> None:
            error = whole.exception()
            for part, value in zip(parts, [error] * len(parts) if error else whole.result(), strict=True):
                _settle(part, value)

        reference.add_done_callback(answered)
        return parts


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
    name, _ = await pool.call(lambda actor: [actor.work.remote()], attempts)
    return name


def raised_by_the_task(error: Exception) -> Exception:
    """As Ray hands on what an actor's method raised."""
    return RayTaskError("method", "its traceback", error).as_instanceof_cause()
