"""A plain object in this process is called as an actor on Ray is."""

import asyncio
import threading
from pathlib import Path

import pytest
import torch

from cluster.actors.handle import InProcessHandle, Reference, SideThread, answer
from cluster.actors.pool import Pool
from cluster.actors.retry_policy import RetryPolicy


class Worker:
    def ready(self) -> None:
        torch.set_num_threads(3)

    def threads(self) -> int:
        return torch.get_num_threads()

    def split(self, text: str) -> tuple[str, ...]:
        return tuple(text)

    def joined(self, *parts: str) -> str:
        return "".join(parts)

    def opened(self, references: list[Reference]) -> list[str]:
        return [reference.open() for reference in references]

    def fail(self) -> None:
        raise ZeroDivisionError("no")

    def run_a_loop(self) -> str:
        return asyncio.run(asyncio.sleep(0, "ran"))


async def test_references_are_opened_where_they_are_arguments_by_themselves() -> None:
    handle = InProcessHandle(Worker())
    first, second = handle.call("split", "ab", parts=2)
    assert [await first, await second] == ["a", "b"]
    [joined], [opened] = handle.call("joined", second, first, "c"), handle.call("opened", [second])
    assert (await joined, await opened) == ("bac", ["b"])


async def test_what_a_method_raises_is_met_with_its_traceback_where_a_reference_is_awaited_or_opened() -> None:
    handle = InProcessHandle(Worker())
    first, second = handle.call("fail", parts=2)
    with pytest.raises(ZeroDivisionError) as raised:
        await first
    assert Path(raised.traceback[-1].path) == Path(__file__) and raised.traceback[-1].name == "fail"
    with pytest.raises(ZeroDivisionError):
        handle.call("joined", second)


async def test_each_object_keeps_its_own_number_of_torch_threads() -> None:
    before = torch.get_num_threads()
    three, other = InProcessHandle(Worker()), InProcessHandle(Worker())
    try:
        await answer(three, "ready", None)
        assert [await answer(each, "threads", None) for each in (other, three, other)] == [before, 3, before]
    finally:
        torch.set_num_threads(before)


async def test_a_method_in_a_thread_of_its_own_may_run_an_event_loop() -> None:
    handle = InProcessHandle(Worker(), SideThread("side"))
    assert await answer(handle, "run_a_loop", None) == "ran"


class Scorer:
    """Scores once it may."""

    def __init__(self, done: list[str]):
        self.may, self.done = threading.Event(), done

    def ready(self) -> None:
        pass

    def score(self) -> None:
        self.may.wait()
        self.done.append("scored")


class Sampler:
    def __init__(self, done: list[str]):
        self.done = done

    def ready(self) -> None:
        pass

    def sample(self) -> None:
        self.done.append("sampled")


async def test_nothing_is_sampled_while_a_thread_scores() -> None:
    done, thread = list[str](), SideThread("side")
    scorer = Scorer(done)
    handles = InProcessHandle(Sampler(done), after=thread), InProcessHandle(scorer, thread)
    samplers, scorers = (Pool("actor", lambda name, *, avoid, handle=each: handle, 1, RetryPolicy(), print) for each in handles)
    samplers.start()
    scorers.start()
    await samplers.call("sample")
    scoring = asyncio.create_task(scorers.call("score"))
    while scorers.states["busy"] == 0:
        await asyncio.sleep(0)
    sampling = asyncio.create_task(samplers.call("sample"))
    for _ in range(9):
        await asyncio.sleep(0)
    assert done == ["sampled"] and samplers.states["busy"] == 1
    scorer.may.set()
    await asyncio.gather(scoring, sampling)
    assert done == ["sampled", "scored", "sampled"]


async def test_who_no_longer_awaits_a_reference_does_not_end_the_work() -> None:
    reference = Reference(asyncio.get_running_loop().create_future())
    waiting = asyncio.ensure_future(reference)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    reference.whole.set_result("done")
    assert waiting.cancelled() and await reference == "done"
