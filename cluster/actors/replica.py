"""Actors of a kind that are ready, and how one is brought up."""

import asyncio
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from cluster.actors.errors import Meaning, cause, meaning_of
from cluster.actors.handle import Handle, Spawn, answer
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.tasks import Event, log_failure
from rollout.errors import ClusterError, LapdogError, SettingsError
from rollout.identity import PROJECT, Identity, code_digest


@dataclass(eq=False)
class Replica:
    """A ready actor. number: how many of its kind were spawned before it. calls: under way. is_open: queued for
    more calls. is_gone: discarded. is_spoilt: because of one of its calls that is known."""

    handle: Handle
    node: str
    process: int
    number: int
    calls: int = 0
    is_open: bool = False
    is_gone: bool = False
    is_spoilt: bool = False

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
    """An actor on its way up: `placed` once it has a process. handle: the one that is waited for."""

    placed: bool = False
    since: float = field(default_factory=_now)
    handle: Handle | None = None
    has_hope: bool = True  # False where it has failed so often, or in such a way, that no other may count on it

    async def without_a_place_s(self) -> float:
        """Seconds for which Ray has found no room for it."""
        lacks = not self.placed and self.handle is not None and await self.handle.lacks_a_place()
        return _now() - self.since if lacks else 0.0


class Launcher:
    """Brings up actors of one kind, each with a name of its own, away from nodes that lost one a short while ago."""

    def __init__(self, kind: str, spawn: Spawn, retry: RetryPolicy, event: Event):
        self.kind, self.spawned = kind, 0
        self._spawn, self._retry, self._event = spawn, retry, event
        self._excluded: dict[str, float] = {}  # nodes, and until when

    def exclude(self, node: str) -> None:
        if node:
            self._excluded[node] = _now() + self._retry.excluded_s

    async def _start(self, pending: Pending) -> Replica:
        """A ready actor. Raises ClusterError if none comes up, which may be tried again, and a user's mistake as it is."""
        self._excluded = {node: until for node, until in self._excluded.items() if until > _now()}
        try:
            return await self._ready_replica(pending, list(self._excluded))
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

    async def keep_starting(
        self, note: Callable[[Pending], None], ready: Collection[Replica] = (), starting: Collection[Pending] = ()
    ) -> Replica:
        """The first of several attempts that is ready; `note` is given each. Raises the first failure, or a user's mistake,
        where no other actor is ready or gives hope. ready, starting: all of the kind, as they are at any time."""
        failures: list[LapdogError] = []
        pending = Pending()
        for attempt in itertools.count(1):
            note(pending)
            try:
                return await self._start(pending)
            except LapdogError as error:
                failures = [] if ready else [*failures, error]
                is_mistake = not isinstance(error, ClusterError)
                pending.has_hope = len(failures) < self._retry.start_attempts and not (failures and is_mistake)
                if not pending.has_hope and not any(each.has_hope for each in starting):
                    raise error if is_mistake else failures[0]  # noqa: B904  # its cause is its own
                seconds = self._retry.pause_s(attempt)
                self._event(f"{str(error).partition(';')[0]}; trying again in {seconds:g} s")
                await asyncio.sleep(seconds)
            pending = Pending(has_hope=pending.has_hope) if pending.placed else pending
        raise AssertionError("unreachable")

    async def _ready_replica(self, pending: Pending, avoid: Collection[str]) -> Replica:
        """Away from nodes to avoid if others have room for it in a while. What does not come up is killed."""
        (handle, number), replica = self._next(avoid, pending), None
        reminder = asyncio.create_task(self._remind(pending))
        log_failure(reminder, f"{self.kind}: Ray does not tell whether it has a place", self._event)
        try:
            async with asyncio.timeout(self._retry.start_deadline_s):
                try:
                    identity = await answer(handle, "ping", self._retry.elsewhere_s if avoid else None)
                except TimeoutError:
                    handle.kill()
                    handle, number = self._next((), pending)
                    identity = await answer(handle, "ping", None)
                pending.placed = True
                replica = Replica(handle, identity.node, identity.process, number)
                check_code(self.kind, identity)
                await answer(handle, "ready", None)
                return replica
        except BaseException as error:
            if replica is None:
                handle.kill()
            else:
                replica.discard(frozen=meaning_of(error) is Meaning.FROZEN)
                if isinstance(error, Exception):  # not where it is no longer wanted
                    self.exclude(replica.node)
            raise
        finally:
            reminder.cancel()

    def _next(self, avoid: Collection[str], pending: Pending) -> tuple[Handle, int]:
        """An actor and its number."""
        number, self.spawned = self.spawned, self.spawned + 1
        pending.handle = self._spawn(str(number), avoid=avoid)
        return pending.handle, number

    async def _remind(self, pending: Pending) -> None:
        retry = self._retry
        await asyncio.sleep(retry.slow_start_s)
        doing = "still loading" if pending.placed else "still starting"
        if await pending.without_a_place_s() > 0:
            doing = "without a place: `ray status` tells what is lacking"
        self._event(f"{self.kind} is {doing} after {retry.slow_start_s:g} s; waiting for {retry.start_deadline_s:g} s")


def check_code(kind: str, identity: Identity) -> None:
    """Raise SettingsError for an actor that runs other code than this process."""
    if identity.code != code_digest():
        raise SettingsError(
            f"{kind}: runs other code ({identity.folder}) than this process ({PROJECT}); "
            "bring all nodes to one version, and start again"
        )
