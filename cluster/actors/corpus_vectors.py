"""The vectors of a corpus: embedded by samplers in slices, held where they were made, made again where they are lost."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from cluster.actors.index_port import IndexPort
from cluster.actors.ports import SamplerPort
from cluster.actors.tasks import Event, cancel_quietly
from cluster.settings.tree import Settings
from rollout.errors import RetrievalError
from rollout.retrieval.dense import OTHER_CONTENT, slice_count


class CorpusVectors:
    """A slice is a call like any other: whoever is free makes it, and it may be lost and made twice."""

    def __init__(self, samplers: SamplerPort, slices: int, event: Event):
        """slices: into how many the corpus is cut."""
        self._samplers, self._event = samplers, event
        self._slices: list[Any] = [None] * slices
        self._of: set[str] = set()  # by what content of corpus and encoder: of all nodes one
        self._together: Any = None

    async def embed(self) -> Any:
        """Make all slices. Returns what a sampler takes them by: a reference to what they are of, and the list of references.
        Raises RetrievalError where samplers have different corpora or encoders."""
        return await self._make(range(len(self._slices)))

    async def restored(self) -> Any:
        """The same, once what is gone was made again."""
        lost = await self._samplers.lost_slices(self._together)
        return await self._make(lost) if lost else self._together

    async def _make(self, numbers: Sequence[int]) -> Any:
        begun, of = time.monotonic(), f"{len(numbers)} of {len(self._slices)} slices of the corpus"
        self._event(f"embedding {of}")
        tasks = [asyncio.create_task(self._embed(number)) for number in numbers]
        bar = tqdm(total=len(tasks), desc="embedding passages", unit="slice", disable=None, leave=False, delay=1)
        try:
            for embedded in asyncio.as_completed(tasks):
                await embedded
                bar.update()
        finally:
            bar.close()
            for task in tasks:
                cancel_quietly(task)
        self._event(f"{of} embedded in {time.monotonic() - begun:.1f} s")
        [of_all] = self._of
        self._together = self._samplers.hold((of_all, list(self._slices)))
        return self._together

    async def _embed(self, number: int) -> None:
        of, self._slices[number] = await self._samplers.embed(number)
        self._of.add(of)
        if len(self._of) > 1:
            raise RetrievalError(OTHER_CONTENT)


def corpus_vectors(
    settings: Settings, passages: int, samplers: SamplerPort, index: IndexPort, event: Event
) -> CorpusVectors | None:
    """None where none of the `passages` is searched by its vector, or index actors embed them."""
    if not passages or index.size or settings.retriever.used_mode == "lexical" or not settings.policy.n_context:
        return None
    return CorpusVectors(samplers, slice_count(passages, settings.retriever.slice_passages), event)
