"""Queries that wait are searched together, one batch at a time, in a thread beside the event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rollout.retrieval.source import PassageSource
from rollout.types import Retrieval

MOST_QUERIES = 64  # of a batch: a request of many gives way to others in between


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Queries of one request that are searched in one batch."""

    queries: Sequence[str]
    topk: int
    found: "asyncio.Future[list[Retrieval]]"


class BatchedSearch:
    """What is found for a query does not depend on those that it is searched with."""

    def __init__(self, source: PassageSource):
        self._source = source
        self._thread = ThreadPoolExecutor(1, "search")
        self._waiting: list[Asked] = []
        self._searching: asyncio.Task[None] | None = None

    async def find(self, queries: Sequence[str], topk: int) -> list[Retrieval]:
        """Of each query its `topk` best. What is cancelled while it waits is not searched."""
        loop, found = asyncio.get_running_loop(), list[Retrieval]()
        for first in range(0, len(queries), MOST_QUERIES):  # the next ones line up behind whoever has come meanwhile
            asked = Asked(queries[first : first + MOST_QUERIES], topk, loop.create_future())
            self._waiting.append(asked)
            if self._searching is None or self._searching.done():
                self._searching = loop.create_task(self._search())
            found += await asked.found
        return found

    async def _search(self) -> None:
        """Until nothing waits."""
        while batch := self._batch():
            queries = [query for asked in batch for query in asked.queries]
            searching = asyncio.get_running_loop().run_in_executor(self._thread, self._source.find, queries, batch[0].topk)
            try:
                found = iter(await searching)
            except Exception as error:
                for asked in batch:
                    if not asked.found.done():
                        asked.found.set_exception(error)
                continue
            for asked in batch:
                own = [next(found) for _ in asked.queries]
                if not asked.found.done():
                    asked.found.set_result(own)

    def _batch(self) -> list[Asked]:
        """What has waited longest, with others that want as many passages."""
        batch: list[Asked] = []
        waiting, self._waiting = [asked for asked in self._waiting if not asked.found.done()], []
        room = MOST_QUERIES
        for asked in waiting:
            if len(asked.queries) <= room and asked.topk == (batch or waiting)[0].topk:
                batch.append(asked)
                room -= len(asked.queries)
            else:
                self._waiting.append(asked)
        return batch
