"""The actors of a run, as trainer and monitors hold them."""

import contextlib
from dataclasses import dataclass

from cluster.actors.autoscaler import Autoscaler
from cluster.actors.index_port import IndexPort
from cluster.actors.learner_port import LearnerPort
from cluster.actors.ports import Port, RecordsPort, RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.roles import RoleKind


@dataclass(frozen=True, slots=True)
class ActorPorts:
    """The actors of a run, and the policy by which they, and whoever asks them, try again. nodes: None in one process."""

    index: IndexPort
    samplers: SamplerPort
    rewards: RewardPort
    records: RecordsPort
    learner: LearnerPort
    retry: RetryPolicy
    nodes: Autoscaler | None = None

    @property
    def by_kind(self) -> dict[RoleKind, Port]:
        """In the order of their kinds; without the index where no actors hold it."""
        ports: tuple[Port, ...] = self.index, self.samplers, self.rewards, self.records, self.learner
        return {kind: port for kind, port in zip(RoleKind, ports, strict=True) if port is not self.index or self.index.size}

    @property
    def restarts(self) -> int:
        return sum(port.restarts for port in self.by_kind.values())

    def start(self) -> None:
        """All but the learner, which is awaited."""
        for port in (self.index, self.samplers, self.rewards, self.records, self.nodes):
            if port is not None:
                port.start()

    def close(self) -> None:
        """The watch first: it would replace what is closed."""
        with contextlib.ExitStack() as parts:  # the last first
            for port in (*self.by_kind.values(), self.nodes):
                if port is not None:
                    parts.callback(port.close)
