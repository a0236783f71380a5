"""What lies between a prompt that is next and the remote call, in simulated time."""

import asyncio
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cluster
from cluster.actors.handle import RayHandle
from cluster.actors.pool import Pool
from cluster.actors.ports import RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.training.pipeline import Pipeline
from cluster.training.rollout_client import InflightCall, RolloutClient
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.errors import RetrievalError
from rollout.identity import Identity, code_digest
from rollout.types import Prompt, SampleReport, Version
from tests.cluster.fakes import FakeCluster, FakeHandle, raised_by_the_task

pytestmark = pytest.mark.simulated_time

FIRST = Version(0, 0)
OURS = str(Path(cluster.__file__).parent)


def frames(frame: FrameType | None) -> list[str]:
    """Our functions and coroutines under way, the outermost first: a coroutine's frame lies on that of whoever awaits it."""
    found: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            found.insert(0, frame.f_code.co_qualname)
        frame = frame.f_back
    return found


class Task(asyncio.Task[Any]):
    """Knows the frames in which it was made."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.made_in = frames(sys._getframe(1))


def answered(answer: Any) -> "asyncio.Future[Any]":
    reference = asyncio.get_running_loop().create_future()
    reference.set_result(answer)
    return reference


class Method:
    """Is called as a method of Ray's actors."""

    def __init__(self, answer: Callable[[], list[Any]]):
        self.answer = answer

    def options(self, num_returns: int) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        references = [answered(answer) for answer in self.answer()]
        return references if len(references) > 1 else references[0]


class Sampler:
    """Keeps the frames between the making of a task and the remote call in it."""

    def __init__(self, calls: list[list[str]]):
        self.calls = calls
        self.ping, self.ready = Method(lambda: [Identity("", 0, code_digest(), "")]), Method(lambda: [None])
        self.sample = Method(self.sampled)

    def sampled(self) -> list[Any]:
        task = asyncio.current_task()
        assert isinstance(task, Task)
        self.calls.append(task.made_in + frames(sys._getframe(1)))
        return [SampleReport(version=FIRST, figures={}), "group"]


async def test_four_frames_lie_between_the_next_prompt_and_the_remote_call() -> None:
    calls: list[list[str]] = []

    def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
        return RayHandle(Sampler(calls), {})

    asyncio.get_running_loop().set_task_factory(lambda loop, made, **named: Task(made, loop=loop, **named))
    samplers = SamplerPort(Pool("sampler", spawn, 1, RetryPolicy(), print))
    samplers.start()
    rewards = RewardPort(Pool("reward actor", spawn, 1, RetryPolicy(), print))
    client = RolloutClient(samplers, rewards, SnapshotStore(None, FIRST), "gold", RetryPolicy())
    stage = Stage(name="supervised", mode="gold", first=1, steps=1, prompts_per_step=1, lr=1.0, lr_warmup_steps=0)
    order = PromptOrder([Prompt(id="0", question="q", answers=("a",))], seed=0)
    pipeline = Pipeline(client, stage, order, prompts_per_call=1, max_staleness=0, prompts_left=1)
    pipeline.admit()
    [prompt] = pipeline.unfinished()
    batch = await pipeline.batch()
    assert batch is not None and batch.prompts == [prompt]
    between = ["RolloutClient.outcome", "SamplerPort.sample", "Pool.call", "RayHandle.call"]
    assert calls == [["Pipeline.admit", *between]]


async def test_a_server_of_passages_that_is_gone_ends_the_run_and_is_no_prompts_fault() -> None:
    asked: list[int] = []

    def prepare(handle: FakeHandle) -> None:
        def sample(prompts: list[Prompt], *_: object) -> Exception:
            asked.append(len(prompts))
            return raised_by_the_task(RetrievalError("http://host/retrieve: gives no answer; start the server"))

        handle.answers["sample"] = sample

    samplers = SamplerPort(Pool("sampler", FakeCluster(prepare).spawn, 1, RetryPolicy(), print))
    samplers.start()
    rewards = RewardPort(Pool("reward actor", FakeCluster().spawn, 1, RetryPolicy(), print))
    client = RolloutClient(samplers, rewards, SnapshotStore(None, FIRST), "gold", RetryPolicy())
    prompts = tuple(Prompt(id=str(n), question="q", answers=("a",)) for n in range(3))
    with pytest.raises(RetrievalError):
        await client.outcome(InflightCall(prompts))
    assert asked == [3]
