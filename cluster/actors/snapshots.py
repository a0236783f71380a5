"""The one store of what samplers work with: published by the learner, current for all, published again where it is lost."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from cluster.actors.corpus_vectors import CorpusVectors
from cluster.actors.learner_port import LearnerPort
from cluster.actors.ports import Snapshot
from rollout.types import Version

Made = TypeVar("Made")


class SnapshotStore:
    """learner: None in `evaluate`, where samplers keep the weights of their folder. vectors: None where nothing is searched by
    them."""

    def __init__(self, learner: LearnerPort | None, first: Version, vectors: CorpusVectors | None = None):
        self.current, self._vectors = Snapshot(first), vectors
        self._learner, self._learnt = learner, first  # what the learner holds
        self._changing = asyncio.Lock()  # held while the learner's weights or the current snapshot change

    def staleness(self, version: Version) -> int:
        """Updates since the weights of a version."""
        return self.current.version.step - version.step

    async def embed_corpus(self) -> None:
        """Before the first call, where passages are searched by their vectors."""
        if self._vectors is not None:
            vectors = await self._vectors.embed()
            async with self._changing:
                self.current = replace(self.current, vectors=vectors)

    async def publish(self, version: Version) -> None:
        """The learner's weights become current. Raises LearnerLost: samplers that wait for weights which never come would
        seem to hang."""
        async with self._changing:
            await self._publish(version)

    async def after(self, update: Awaitable[Made], version: Version, publish: bool) -> Made:
        """Await what brings the learner's weights to a version, and `publish` them, or not where only gold answers are asked
        for. Nothing is restored meanwhile: it would bear the version before and hold the weights after. Raises LearnerLost, and
        what the update raises."""
        async with self._changing:
            made = await update
            self._learnt = version
            if publish:
                await self._publish(version)
            return made

    async def restore(self, lost: Snapshot) -> None:
        """Publish again what a call was given and lost with a node, once however many calls lost it, or what the learner holds
        by now where gold answers are trained on. Raises LearnerLost."""
        async with self._changing:
            if self.current is not lost:
                return
            if self._vectors is not None and lost.vectors is not None:
                self.current = replace(lost, vectors=await self._vectors.restored())
            if self._learner is None:
                return
            if lost.weights is None:
                await self._learner.check()
            else:
                await self._publish(self._learnt)

    async def _publish(self, version: Version) -> None:
        assert self._learner is not None, "nobody learns"
        published, self._learnt = await self._learner.publish(version), version
        self.current = replace(published, vectors=self.current.vectors)
