"""Everybody who listens is told, and what only shows a run never ends it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors.job import JOB_CONFIG
from cluster.actors.job_info import JobInfo
from cluster.actors.learner_port import LearnerPort
from cluster.actors.ports import PooledPort, RecordsPort, RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.commands.train import train_request, training
from cluster.settings.tree import Settings
from cluster.store.run_folder import RunFolder
from cluster.watch.job_entry import JobEntry
from cluster.watch.monitor import Ending, Monitor, Stop
from cluster.watch.prometheus import Prometheus
from cluster.watch.run_log import RunLog
from cluster.watch.terminal import Terminal
from cluster.watch.trackers.monitor import Trackers
from rollout.errors import CheckpointError
from tests.cluster.runs import rows

ROW = {"step": 7, "stage": "rl", "reward": 0.5}
ENDING = Ending(10, None, finished=True, resume="")


def run_log(folder: Path) -> RunLog:
    settings = Settings(run_dir=folder).as_used()
    made = RunFolder.create(folder)
    made.write_settings(settings)
    return RunLog(settings, made, "quiet")


async def test_a_report_that_cannot_be_written_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run_log(tmp_path / "run")
    (tmp_path / "run" / "report.html").mkdir()
    told.rewind(3)
    await told.finish(3, None)
    [event] = rows(tmp_path / "run" / "events.jsonl")
    assert event["step"] == 3 and "report.html was not written (CheckpointError: " in event["text"]
    assert "run folder:" in capsys.readouterr().out


def test_what_fails_to_close_keeps_nothing_else_open(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def failing(part: object) -> None:
        closed.append(type(part))
        raise RuntimeError("stuck")

    for part in (PooledPort, LearnerPort, Trackers, Prometheus, Terminal):
        monkeypatch.setattr(part, "close", failing)
    flags = ["--local", *tiny_flags, "--run_dir", str(tmp_path / "run")]
    with pytest.raises(RuntimeError, match="stuck"), training(train_request(flags, None)):
        pass
    assert closed == [LearnerPort, RecordsPort, RewardPort, SamplerPort, Trackers, Prometheus, Terminal]


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


async def said_of_two_steps(own: Callable[[], JobInfo]) -> list[str]:
    said: list[str] = []
    entry = JobEntry(Settings(), 10, said.append, RetryPolicy(message_s=0), own)
    for step in (7, 8):
        entry.step(ROW | {"step": step})
        for _ in range(5):
            await asyncio.sleep(0)
    entry.close()
    return said


async def test_a_run_goes_on_where_its_job_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": {}}))
    expected = "the dashboard's list of jobs no longer tells the step: KeyError: 'job_submission_id'"
    assert await said_of_two_steps(JobInfo.own) == [expected]


@pytest.mark.parametrize("answers", [True, False])
async def test_the_list_of_jobs_is_written_beside_the_run(answers: bool) -> None:
    storage = Storage(answers)
    said = await said_of_two_steps(lambda: JobInfo(storage, "raysubmit_1"))
    if answers:
        assert storage.info.message == "rl 8/10, reward 0.50" and said == []
        assert storage.info.metadata["mine"] == "kept" and storage.info.metadata["step"] == "8"
    else:
        assert storage.asked == 1  # and given up
        assert said == ["the dashboard's list of jobs no longer tells the step: TimeoutError: the head is slow"]


async def test_the_list_of_jobs_ends_with_the_last_step() -> None:
    storage = Storage(answers=True)
    entry = JobEntry(Settings(), 10, print, RetryPolicy(), lambda: JobInfo(storage, "raysubmit_1"))
    for step in (8, 9, 10):  # at once, so that the first alone is told meanwhile
        entry.step(ROW | {"step": step})
    await entry.finish(ENDING)
    assert storage.info.message == "rl 10/10, reward 0.50" and storage.info.metadata["step"] == "10"


async def test_monitors_are_told_in_order_and_of_the_end_in_the_opposite_one(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    class Listener(Monitor):
        def __init__(self, name: str):
            self.name = name

        def event(self, row: dict[str, Any]) -> None:
            told.append((self.name, row["text"]))

        async def finish(self, ending: Ending) -> None:
            told.append((self.name, f"finished: {ending.finished}"))

    log = run_log(tmp_path / "run")
    log._monitors = [Listener("first"), Listener("last")]
    log.event("one")
    await log.finish(3, Stop("SIGTERM came", interrupted=True))
    assert told == [("first", "one"), ("last", "one"), ("last", "finished: False"), ("first", "finished: False")]


async def test_an_event_that_cannot_be_written_ends_the_run_with_its_next_row_or_at_its_end(tmp_path: Path) -> None:
    """It may come in a signal's handler or a timer, where an error would be a traceback and the run would go on."""
    log = run_log(tmp_path / "run")
    (tmp_path / "run" / "events.jsonl").mkdir()
    asyncio.get_running_loop().call_soon(log.event, "a sampler was lost")
    met: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: met.append(context))
    await asyncio.sleep(0)
    assert met == []
    with pytest.raises(CheckpointError, match="events.jsonl: cannot be written"):
        log.step(ROW)
    with pytest.raises(CheckpointError, match="events.jsonl: cannot be written"):
        await log.evaluation(ROW)
    with pytest.raises(CheckpointError, match="events.jsonl: cannot be written"):
        await log.finish(7, None)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
