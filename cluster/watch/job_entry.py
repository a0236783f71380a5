"""What the dashboard's list of jobs tells of a submitted job: run, model and data as metadata, how far it is as its message."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

import ray

from cluster.actors.session import JOB_CONFIG
from cluster.actors.tasks import cancel_quietly, log_failure
from cluster.settings.tree import Settings
from cluster.store.records import Row

SECONDS_BETWEEN_MESSAGES = 5.0


def job_metadata(settings: Settings) -> dict[str, str]:
    return {
        "run": settings.run_dir.name if settings.run_dir else "",
        "run_dir": str(settings.run_dir),
        "model": settings.policy.name,
        "data": str(settings.data.train),
    }


class JobEntry:
    def __init__(self, settings: Settings, say: Callable[[str], None]):
        self._metadata, self._say = job_metadata(settings), say
        self._entry: tuple[Any, str] | None = None
        self._last = float("-inf")
        self._untold: tuple[Row, int] | None = None
        self._writing: asyncio.Task[None] | None = None

    def step(self, row: Row, last_step: int) -> None:
        """`row` is a line of metrics.jsonl."""
        self._untold = row, last_step
        if time.monotonic() - self._last >= SECONDS_BETWEEN_MESSAGES:
            self._tell()

    async def finish(self) -> None:
        """The last step, too, is told."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=SECONDS_BETWEEN_MESSAGES)
        self._tell()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=SECONDS_BETWEEN_MESSAGES)

    def close(self) -> None:
        if self._writing is not None:
            cancel_quietly(self._writing)

    def _tell(self) -> None:
        free = self._writing is None or (self._writing.done() and not self._writing.exception())
        if not free or self._untold is None:
            return
        self._last = time.monotonic()
        self._writing = asyncio.create_task(self._write(*self._untold))
        self._untold = None
        log_failure(self._writing, "the dashboard's list of jobs no longer tells the step", self._say)

    async def _write(self, row: Row, last_step: int) -> None:
        client, id = self._entry = self._entry or _own_entry()
        info = await client.get_info(id)
        if info is None:
            return
        reward = "" if row["reward"] is None else f", reward {row['reward']:.2f}"
        info.message = f"{row['stage']} {row['step']}/{last_step}{reward}"  # the dashboard shows some thirty characters
        info.metadata = (info.metadata or {}) | self._metadata | {"step": str(row["step"])}
        await client.put_info(id, info)


def _own_entry() -> tuple[Any, str]:
    """Client and id. Ray has no public call for a job to describe itself, so this is where its own job supervisor writes."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
    from ray.dashboard.modules.job.common import JobInfoStorageClient

    id = json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
    return JobInfoStorageClient(GcsClient(address=ray.get_runtime_context().gcs_address)), id
