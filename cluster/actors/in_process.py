"""All roles in this process, one actor of each, so that a debugger can follow a prompt through them: no Ray.

They are called in turn: a call is sampled when nothing is scored, so neither runs, or takes memory, beside the other.
"""

import contextlib
import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cluster.actors.factories import Arguments, BuildActors, Factory
from cluster.actors.handle import InProcessHandle, Reference, SideThread, Spawn
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import RoleKind, roles_of
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
NO_DEADLINES = RetryPolicy(start_deadline_s=math.inf, call_deadline_s=math.inf, slow_start_s=math.inf)  # none ends a pause


@dataclass(frozen=True, slots=True)
class InProcessFactory(Factory):
    """thread: of the rewards, where a user's may run an event loop; whoever samples waits for it. Whoever saves does not: a
    reward that hangs keeps nothing from being saved."""

    thread: SideThread

    @staticmethod
    def _hold(made: Any) -> Any:
        return Reference.to(made)

    def _spawn(self, prefix: str, actor: type, arguments: Arguments) -> Spawn:
        def spawn(name: str, *, avoid: Collection[str]) -> InProcessHandle:
            made = KINDS.get(actor, actor)(*arguments(name))
            if actor in OF_USERS:
                return InProcessHandle(made, self.thread)
            return InProcessHandle(made, after=self.thread if actor is SamplerActor else None)

        return spawn


@contextlib.contextmanager
def in_process_actors(settings: Settings) -> Iterator[BuildActors]:
    """What makes the actors of a run. In the context the terminal is the run's, and what a user's reward
    raises is raised as it is."""
    roles = {name: replace(role, count=int(role.kind is not RoleKind.INDEX)) for name, role in roles_of(settings).items()}
    thread, log = SideThread("rewards"), logging.getLogger("lapdog")
    was_disabled, log.disabled = log.disabled, True
    try:
        with _users_traceback():
            yield lambda path, event: InProcessFactory(settings, roles, NO_DEADLINES, path, event, thread).actors()
    finally:
        log.disabled = was_disabled
        thread.close()


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
