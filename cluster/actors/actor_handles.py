"""The actors of a run, as trainer and monitors hold them."""

import contextlib
from dataclasses import dataclass

from cluster.actors.autoscaler import Autoscaler
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import RecordsPort, RewardPort, SamplerPort

Port = Pool | RewardPort | LearnerPort


@dataclass(frozen=True, slots=True)
class ActorHandles:
    """The actors of a run. nodes: None in one process."""

    samplers: SamplerPort
    rewards: RewardPort
    records: RecordsPort
    learner: LearnerPort
    nodes: Autoscaler | None = None

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
