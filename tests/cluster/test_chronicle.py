"""What only shows a run never ends it."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.chronicle import Chronicle
from cluster.config import Settings
from cluster.job import JobEntry
from cluster.run_folder import RunFolder
from cluster.session import JOB_CONFIG
from tests.cluster.runs import rows

ROW = {"step": 7, "stage": "grpo", "reward": 0.5}


def chronicle(folder: Path) -> Chronicle:
    settings = Settings(run_dir=folder).resolved()
    made = RunFolder.create(folder)
    made.write_settings(settings)
    return Chronicle(settings, made, "quiet")


def test_a_report_that_cannot_be_written_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = chronicle(tmp_path / "run")
    (tmp_path / "run" / "report.html").mkdir()
    told.go_back(3)
    asyncio.run(told.conclude(3, None))
    [event] = rows(tmp_path / "run" / "events.jsonl")
    assert event["step"] == 3 and "report.html was not written (CheckpointError: " in event["text"]
    assert "run folder:" in capsys.readouterr().out


class Storage:
    """Stands in for Ray's store of jobs, which answers, or not."""

    def __init__(self, answers: bool):
        self.answers, self.asked = answers, 0
        self.info = SimpleNamespace(message=None, metadata={"mine": "kept"})

    async def get_info(self, id: str) -> Any:
        self.asked += 1
        if not self.answers:
            raise TimeoutError("the head is slow")
        return self.info

    async def put_info(self, id: str, info: Any) -> None:
        self.info = info


@pytest.mark.parametrize("answers", [True, False])
def test_the_list_of_jobs_is_written_beside_the_run(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    monkeypatch.setattr("cluster.job.GcsClient", lambda **_: None)
    monkeypatch.setattr("cluster.job.ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="here"))
    monkeypatch.setattr("cluster.job.SECONDS_BETWEEN_MESSAGES", 0.0)
    storage, said = Storage(answers), list[str]()
    monkeypatch.setattr("cluster.job.JobInfoStorageClient", lambda _: storage)

    async def run() -> None:
        entry = JobEntry(Settings(), said.append)
        for step in (7, 8):
            entry.step(ROW | {"step": step}, 10)
            for _ in range(5):
                await asyncio.sleep(0)
        entry.close()

    asyncio.run(run())
    if answers:
        assert storage.info.message == "grpo, step 8 of 10, reward 0.500" and said == []
        assert storage.info.metadata["mine"] == "kept" and storage.info.metadata["step"] == "8"
    else:
        assert storage.asked == 1  # and given up
        assert said == ["the dashboard's list of jobs no longer tells the step: TimeoutError: the head is slow"]
