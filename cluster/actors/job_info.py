"""What Ray's list of submitted jobs says of one of them."""

import json
import os
from collections.abc import Mapping
from typing import Any

import ray

from cluster.actors.job import JOB_CONFIG


class JobInfo:
    """An entry of that list. Ray has no public call for a job to describe itself, so this writes where its supervisor does."""

    def __init__(self, client: Any, id: str):
        self._client, self._id = client, id

    @classmethod
    def own(cls) -> "JobInfo":
        """Of the job that this process is the driver of. Raises KeyError outside of one."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
        from ray.dashboard.modules.job.common import JobInfoStorageClient

        id = json.loads(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
        return cls(JobInfoStorageClient(GcsClient(address=ray.get_runtime_context().gcs_address)), id)

    async def describe(self, message: str, metadata: Mapping[str, str]) -> None:
        """Replace the status message, add to the metadata; nothing where the list has no such job."""
        info = await self._client.get_info(self._id)
        if info is not None:
            info.message, info.metadata = message, {**(info.metadata or {}), **metadata}
            await self._client.put_info(self._id, info)
