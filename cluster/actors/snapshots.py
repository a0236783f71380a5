"""The one store of what samplers work with: published by the learner, current for all, published again where it is lost."""

import asyncio

from cluster.actors.ports import LearnerPort, Snapshot
from rollout.types import Version


class SnapshotStore:
    """learner: None where nobody learns, and the samplers' own folder holds the only version."""

    def __init__(self, learner: LearnerPort | None, first: Version):
        self.current = Snapshot(first)
        self._learner = learner
        self._publishing = asyncio.Lock()

    def staleness(self, version: Version) -> int:
        """Updates since the weights of a version."""
        return self.current.version.step - version.step

    async def publish(self, version: Version) -> None:
        """The learner's weights become current. Raises LearnerLost: samplers that wait for weights which never come would
        seem to hang."""
        assert self._learner is not None, "nobody learns"
        snapshot = self._learner.publish(version)
        await self._learner.check()
        self.current = snapshot

    async def restore(self, lost: Snapshot) -> None:
        """Publish again what a call was given and lost with a node, once however many calls lost it. Raises LearnerLost."""
        async with self._publishing:
            if self._learner is None or self.current is not lost:
                return
            if lost.weights is None:
                await self._learner.check()
            else:
                await self.publish(lost.version)
