"""The time that a run told to stop has to save itself."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cluster.actors.job import job_grace_s
from cluster.training.stop_signals import Grace, install_stop_handlers
from rollout.errors import ClusterError

pytestmark = pytest.mark.simulated_time


async def test_what_is_awaited_gives_way_to_a_stop() -> None:
    grace, ended = Grace(10, Path("run")), []

    async def work(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(seconds)
        return "done"

    async def training() -> None:
        assert await grace.unless_begun(work(1)) == "done" and grace.seconds_left == float("inf")
        asyncio.get_running_loop().call_later(2, grace.begin)
        assert await grace.unless_begun(work(100)) is None
        assert grace.has_begun and grace.seconds_left == 10
        await asyncio.sleep(9)

    await grace.bound(training())
    assert ended == [1, 100] and asyncio.get_running_loop().time() == 12


async def test_what_outlives_the_grace_is_left() -> None:
    grace = Grace(10, Path("run"))
    asyncio.get_running_loop().call_later(5, grace.begin)
    with pytest.raises(ClusterError, match=r"^run: was not saved within 10 s; go on from its newest checkpoint with --resume"):
        await grace.bound(asyncio.sleep(1000))
    assert asyncio.get_running_loop().time() == 15


async def test_a_timeout_of_the_training_itself_stays_what_it_is() -> None:
    with pytest.raises(TimeoutError):
        await Grace(10, Path("run")).bound(asyncio.wait_for(asyncio.sleep(9), 1))


@pytest.mark.parametrize("told", ["abc", "", "3.5", "-1", "nan", "１２"])
def test_a_grace_that_ray_itself_cannot_read_is_refused_in_one_line(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", told)
    expected = f"RAY_JOB_STOP_WAIT_TIME_S={told}: is no whole number of seconds; submit the job with one, such as 120"
    with pytest.raises(ClusterError) as refusal:
        job_grace_s()
    assert str(refusal.value) == expected


def test_a_job_has_the_grace_that_it_was_submitted_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    assert job_grace_s() == 3
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "120")
    assert job_grace_s() == 120


async def first_stop(*sent: signal.Signals) -> str:
    """Of these signals, the name of the one that asks for a checkpoint."""
    told = asyncio.get_running_loop().create_future()
    install_stop_handlers(told.set_result)  # which takes one result
    for each in sent:
        os.kill(os.getpid(), each)
    return str(await told)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_of_three_signals_asks_for_a_checkpoint_and_the_second_leaves_at_once(first: signal.Signals) -> None:
    async def two() -> None:
        assert await first_stop(first) == first.name
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(two())


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert asyncio.run(first_stop(signal.SIGHUP, signal.SIGTERM)) == "SIGTERM"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
