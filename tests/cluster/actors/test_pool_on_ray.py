"""The pool on a real Ray, with actors that die or fail on command."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.actors.handle import RayHandle, answer
from cluster.actors.pool import Pool
from cluster.actors.retry_policy import RetryPolicy
from rollout.errors import ClusterError, DataError
from rollout.identity import Identity, code_digest


class Unstorable:
    def __reduce__(self) -> str:
        raise OSError("the store is full")


class Worker:
    def __init__(self, crashes: Path | None = None, start_error: bool = False):
        self.crashes, self.start_error = crashes, start_error

    def ping(self) -> Identity:
        return Identity("", os.getpid(), code_digest(), "")

    def ready(self) -> None:
        if self.start_error:
            raise DataError("a.jsonl:3: is not JSON; correct it")

    def double(self, number: int) -> int:
        if self.crashes is not None and not self.crashes.exists():
            self.crashes.touch()
            os._exit(1)
        return 2 * number

    def doubled_by(self, number: int) -> tuple[int, int]:
        return 2 * number, os.getpid()

    def unstorable(self) -> tuple[Unstorable, int]:
        return Unstorable(), 1

    def refuse(self) -> None:
        raise DataError("b.jsonl:7: is empty; fill it in")

    def die(self) -> None:
        os._exit(1)


class Slow:
    """Is being made as long as a file is missing, and tells of it."""

    def __init__(self, begun: Path, end: Path):
        begun.touch()
        while not end.exists():
            time.sleep(0.01)

    def ping(self) -> None:
        pass


@pytest.fixture
def new_pool(ray_session: None) -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def new(size: int, **worker: Any) -> Pool:
        def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
            return RayHandle(ray.remote(Worker).options(num_cpus=0.1).remote(**worker), {})

        policy = RetryPolicy(start_deadline_s=60, call_deadline_s=60, first_pause_s=0)
        pools.append(Pool("worker", spawn, size, policy, print))
        pools[-1].start()
        return pools[-1]

    yield new
    for pool in pools:
        pool.close()


async def test_calls_are_spread_over_the_replicas(new_pool: Callable[..., Pool]) -> None:
    pool = new_pool(2)
    async with asyncio.timeout(60):
        while pool.states["idle"] < 2:
            await asyncio.sleep(0)

    async def doubled_by(number: int) -> tuple[int, int]:
        answer, _ = await pool.call("doubled_by", number)
        return answer

    doubled, processes = zip(*await asyncio.gather(*map(doubled_by, range(10))), strict=True)
    assert list(doubled) == [2 * n for n in range(10)] and len(set(processes)) == 2


async def test_a_replica_that_dies_is_replaced_and_its_call_repeated(new_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = new_pool(1, crashes=tmp_path / "crashed")
    answer, _ = await pool.call("double", 21)
    assert (answer, pool.restarts) == (42, 1)


async def test_what_a_call_raises_reaches_the_caller_and_the_replica_lives_on(new_pool: Callable[..., Pool]) -> None:
    pool = new_pool(1)
    with pytest.raises(DataError, match="b.jsonl:7"):
        await pool.call("refuse")
    answer, _ = await pool.call("double", 1)
    assert (answer, pool.restarts) == (2, 0)


async def test_an_error_at_the_start_reaches_every_caller(new_pool: Callable[..., Pool]) -> None:
    pool = new_pool(1, start_error=True)
    for _ in range(2):
        with pytest.raises(DataError, match="a.jsonl:3"):
            await pool.call("double", 1)


async def test_a_call_that_kills_every_replica_ends_in_one_error(new_pool: Callable[..., Pool]) -> None:
    with pytest.raises(ClusterError, match="one call lost 3 replicas"):
        await new_pool(1).call("die")


async def test_what_cannot_be_stored_is_met_at_the_part_that_is_stored_after_it(ray_session: None) -> None:
    """The learner's port relies on it: it awaits the size of the weights, which comes after them."""
    actor = ray.remote(Worker).options(num_cpus=0.1).remote()
    _, last = RayHandle(actor, {}).call("unstorable", parts=2)
    with pytest.raises(OSError, match="the store is full"):
        await last
    ray.kill(actor)


async def test_an_actor_that_is_being_made_has_its_place_whoever_waits_for_one_of_the_same_size(
    ray_session: None, tmp_path: Path
) -> None:
    """The second, which waits for a share that the first has, may be any job's."""
    begun, end = tmp_path / "begun", tmp_path / "end"
    share = {next(name for name in ray.cluster_resources() if name.startswith("node:") and "internal" not in name): 0.6}
    made = ray.remote(Slow).options(num_cpus=0, resources=share)

    first = RayHandle(made.remote(begun, end), share | {"CPU": 0.0})
    async with asyncio.timeout(60):
        while not begun.exists():
            await asyncio.sleep(0.01)
        second = RayHandle(made.remote(tmp_path / "other", end), share)
        while not await second.lacks_a_place():
            await asyncio.sleep(0.01)
        assert not await first.lacks_a_place()
        end.touch()
        await answer(first, "ping", None)
        assert not await first.lacks_a_place() and await second.lacks_a_place()
        first.kill()
        await answer(second, "ping", None)
        assert not await second.lacks_a_place()
    second.kill()


async def test_an_actor_that_ray_starts_again_lacks_a_place_where_another_took_its_own(ray_session: None) -> None:
    share = {next(name for name in ray.cluster_resources() if name.startswith("node:") and "internal" not in name): 0.6}
    made = ray.remote(Worker).options(num_cpus=0, resources=share, max_restarts=-1, max_task_retries=-1)
    first = RayHandle(made.remote(), share)
    async with asyncio.timeout(60):
        before = await answer(first, "ping", None)
        second = RayHandle(made.remote(), share)
        while not await second.lacks_a_place():
            await asyncio.sleep(0.01)
        os.kill(before.process, signal.SIGKILL)
        await answer(second, "ping", None)
        while not await first.lacks_a_place():
            await asyncio.sleep(0.01)
        second.kill()
        after = await answer(first, "ping", None)
        assert after.process != before.process and not await first.lacks_a_place()
    first.kill()
