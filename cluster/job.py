"""What the dashboard's list of jobs tells of a submitted job: run, model and data as metadata, how far it is as its message."""

import json
import os
import time
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.dashboard.modules.job.common import JobInfoStorageClient

from cluster.config import Settings
from cluster.session import JOB_CONFIG

SECONDS_BETWEEN_MESSAGES = 5.0


def job_metadata(settings: Settings) -> dict[str, str]:
    return {
        "run": settings.run_dir.name if settings.run_dir else "",
        "run_dir": str(settings.run_dir),
        "model": settings.policy.path or "small T5, from scratch",
        "data": str(settings.data.train),
    }


class JobEntry:
    """Ray has no public call for a job to describe itself, so this writes where Ray's own job supervisor does."""

    def __init__(self, settings: Settings):
        self._metadata = job_metadata(settings)
        self._id = json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
        self._client = JobInfoStorageClient(GcsClient(address=ray.get_runtime_context().gcs_address))
        self._last = float("-inf")

    async def step(self, row: dict[str, Any], last_step: int) -> None:
        """`row` is a line of metrics.jsonl."""
        if time.monotonic() - self._last < SECONDS_BETWEEN_MESSAGES:
            return
        self._last = time.monotonic()
        info = await self._client.get_info(self._id)
        if info is None:
            return
        reward = "" if row["reward"] is None else f", reward {row['reward']:.3f}"
        info.message = f"{row['stage']}, step {row['step']} of {last_step}{reward}"
        info.metadata = (info.metadata or {}) | self._metadata | {"step": str(row["step"])}
        await self._client.put_info(self._id, info)
