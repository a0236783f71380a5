"""The actors of a run as its trainer, pipeline and monitor see them, wherever they live."""

from dataclasses import dataclass
from typing import Any, Protocol

from cluster.actors.autoscaler import Autoscaler
from cluster.training.rollout_client import Actors, Snapshot
from rollout.types import Version


class Learner(Protocol):
    """`LearnerClient`, or what answers as it does."""

    restarts: int

    @property
    def states(self) -> dict[str, int]: ...

    async def start(self) -> None: ...

    async def ask(self, method: str, *arguments: Any) -> Any: ...

    async def check(self) -> None: ...

    def publish(self, version: Version) -> Snapshot: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ActorHandles:
    """nodes: watches those that the actors live on, None in one process."""

    samplers: Actors
    rewards: Actors
    learner: Learner
    nodes: Autoscaler | None
