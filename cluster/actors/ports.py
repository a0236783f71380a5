"""What trainer and pipeline know of actors: four ports, and what comes back through them. On Ray or in this process.

A group stays where it was made; the driver holds a `GroupRef` and passes it on. A port's `states` and `restarts` are what
monitors show of its role.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from learner.advantage import SAME_REWARD
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from reward.evaluation import Evaluation
from rollout.types import Mode, Prompt, SampleReport, ScoreReport, Version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What samplers work with: a version of the policy. weights: how the learner's port hands them over, None while the
    samplers' own folder holds this version."""

    version: Version
    weights: Any = None


@dataclass(frozen=True, slots=True)
class GroupRef:
    """A group by reference, which only ports open. reward_range: highest minus lowest reward, None if it is not rewarded."""

    prompt: Prompt
    reference: Any
    version: Version
    reward_range: float | None = None

    @property
    def zero_variance(self) -> bool:
        return self.reward_range is not None and self.reward_range < SAME_REWARD


@dataclass(frozen=True, slots=True)
class SampledCall:
    groups: tuple[GroupRef, ...]
    report: SampleReport


@dataclass(frozen=True, slots=True)
class ScoredCall:
    groups: tuple[GroupRef, ...]
    report: ScoreReport


@dataclass(frozen=True, slots=True)
class UpdateCall:
    """seconds: of the update alone, without the sample log."""

    metrics: UpdateMetrics
    seconds: float


class Port(Protocol):
    """Actors of one role. states: how many are starting, idle and busy. restarts: how many were replaced."""

    @property
    def restarts(self) -> int: ...

    @property
    def states(self) -> dict[str, int]: ...

    def close(self) -> None: ...


class SamplerPort(Port, Protocol):
    def start(self) -> None: ...

    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        """One call; `snapshot` is asked when a sampler is free. Raises InputsLost, ReplicasLost, and what the call raises."""
        ...


class RewardPort(Port, Protocol):
    def start(self) -> None: ...

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall: ...


class RecordsPort(Port, Protocol):
    """Work on groups and examples that neither samples nor scores."""

    def start(self) -> None: ...

    async def evaluate(self, constant_reply: str | None, groups: Sequence[GroupRef]) -> Evaluation: ...

    async def constant_reply(self, prompts: Sequence[Prompt], seed: int) -> str: ...

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None: ...

    async def read_groups(self, path: Path, count: int) -> list[Any]:
        """References to the groups of a file that holds `count` of them."""
        ...


class LearnerPort(Port, Protocol):
    """Every method but close raises LearnerLost where the learner is."""

    async def start(self) -> None:
        """A learner, a new one in place of the last. Raises ClusterError if none can be had, and what it raises."""
        ...

    async def begin(self, stage: Stage) -> None: ...

    async def update(self, step: int, samples: Path | None, groups: Sequence[GroupRef]) -> UpdateCall:
        """Raises InputsLost if a group is gone."""
        ...

    async def save(self, folder: Path) -> None: ...

    async def restore(self, folder: Path, stage: Stage) -> None: ...

    async def check(self) -> None:
        """Raises LearnerLost unless it answers."""
        ...

    def publish(self, version: Version) -> Snapshot:
        """The weights as they are after the calls made so far."""
        ...


class NodePort(Protocol):
    """Watches what the actors live on."""

    def start(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ActorHandles:
    """The actors of a run. nodes: None in one process."""

    samplers: SamplerPort
    rewards: RewardPort
    records: RecordsPort
    learner: LearnerPort
    nodes: NodePort | None

    @property
    def roles(self) -> dict[str, Port]:
        """By the names that monitors show."""
        return {"sampler": self.samplers, "reward": self.rewards, "records": self.records, "learner": self.learner}

    @property
    def restarts(self) -> int:
        return sum(port.restarts for port in self.roles.values())

    def start(self) -> None:
        """All but the learner, which is awaited."""
        for port in (self.samplers, self.rewards, self.records, self.nodes):
            if port is not None:
                port.start()

    def close(self) -> None:
        """The watch first: it would replace what is closed."""
        with contextlib.ExitStack() as parts:  # the last first
            for port in (self.samplers, self.rewards, self.records, self.learner, self.nodes):
                if port is not None:
                    parts.callback(port.close)
