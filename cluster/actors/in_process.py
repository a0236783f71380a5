"""All roles in this process, one actor of each, called in turn, so that a debugger can follow a prompt through them: no Ray."""

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

from cluster.actors.actor_handles import ActorHandles
from cluster.actors.factories import Arguments, Factory
from cluster.actors.handle import InProcessHandle, Reference, Spawn
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import roles_of
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from reward.actor import ExtraRewardActor, RewardActor
from rollout.actor import SamplerActor
from rollout.errors import RewardError
from rollout.policy.weights import FlatWeights


class _Sampler(SamplerActor):
    fetch = staticmethod(Reference.open)


class _Learner(LearnerActor):
    def weights(self) -> tuple[FlatWeights, int]:
        """A copy: the next ones are written into the same buffer."""
        weights, size = super().weights()
        return replace(weights, values=weights.values.copy()), size


KINDS: dict[type, type] = {SamplerActor: _Sampler, LearnerActor: _Learner}
OF_USERS = (RewardActor, ExtraRewardActor)


@dataclass(frozen=True, slots=True)
class InProcessFactory(Factory):
    """Rewards have a thread of their own, where a user's may run an event loop. No deadline ends a pause in a debugger."""

    thread: Executor

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(start_deadline_s=math.inf, call_deadline_s=math.inf, slow_start_s=math.inf)

    def _spawn(self, role: str, kind: type, arguments: Arguments) -> Spawn:
        def spawn(name: str, *, avoid: Collection[str]) -> InProcessHandle:
            made = KINDS.get(kind, kind)(*arguments(name))
            return InProcessHandle(made, self.thread if kind in OF_USERS else None)

        return spawn


@contextlib.contextmanager
def in_process_actors(settings: Settings) -> Iterator[Callable[[str, Event], ActorHandles]]:
    """What makes the actors of a run, of a policy's path. In the context the terminal is the run's, and what a user's reward
    raises is raised as it is."""
    roles = {name: replace(role, count=1) for name, role in roles_of(settings).items()}
    thread, log = ThreadPoolExecutor(1, "rewards"), logging.getLogger("lapdog")
    was_disabled, log.disabled = log.disabled, True
    try:
        with _users_traceback():
            yield lambda policy_path, event: InProcessFactory(settings, roles, policy_path, event, thread).actors()
    finally:
        log.disabled = was_disabled
        thread.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _users_traceback() -> Iterator[None]:
    """Raise what a user's reward raised in place of our line about it: its traceback is what a debugger is asked for. Where it
    returned something wrong, there is none."""
    try:
        yield
    except RewardError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
