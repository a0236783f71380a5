"""The pool on a real Ray, with actors that die or fail on command."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.actors.pool import Pool
from rollout.errors import ClusterError, DataError


class Worker:
    def __init__(self, crashes: Path | None = None, start_error: bool = False):
        self.crashes, self.start_error = crashes, start_error

    def ping(self) -> tuple[str, int]:
        return "", os.getpid()

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

    def refuse(self) -> None:
        raise DataError("b.jsonl:7: is empty; fill it in")

    def die(self) -> None:
        os._exit(1)


def with_pool(use: Callable[[Pool], Awaitable[Any]], size: int = 2, **worker: Any) -> Any:
    async def run() -> Any:
        pool = Pool("worker", lambda *_: ray.remote(Worker).options(num_cpus=0.1).remote(**worker), size, 60.0, 60.0)
        try:
            pool.start()
            return await use(pool)
        finally:
            pool.close()

    return asyncio.run(run())


def test_calls_are_spread_over_the_replicas(ray_session: None) -> None:
    async def use(pool: Pool) -> list[tuple[int, int]]:
        async with asyncio.timeout(60):
            while pool.states["idle"] < 2:
                await asyncio.sleep(0)
        answers = await asyncio.gather(*(pool.call(lambda a, n=n: [a.doubled_by.remote(n)]) for n in range(10)))
        return [answer for answer, _ in answers]

    doubled, processes = zip(*with_pool(use), strict=True)
    assert list(doubled) == [2 * n for n in range(10)] and len(set(processes)) == 2


def test_a_replica_that_dies_is_replaced_and_its_call_repeated(ray_session: None, tmp_path: Path) -> None:
    async def use(pool: Pool) -> tuple[int, int]:
        answer, _ = await pool.call(lambda actor: [actor.double.remote(21)])
        return answer, pool.restarts

    assert with_pool(use, size=1, crashes=tmp_path / "crashed") == (42, 1)


def test_what_a_call_raises_reaches_the_caller_and_the_replica_lives_on(ray_session: None) -> None:
    async def use(pool: Pool) -> int:
        with pytest.raises(DataError, match="b.jsonl:7"):
            await pool.call(lambda actor: [actor.refuse.remote()])
        answer, _ = await pool.call(lambda actor: [actor.double.remote(1)])
        return answer + pool.restarts

    assert with_pool(use, size=1) == 2


def test_an_error_at_the_start_reaches_every_caller(ray_session: None) -> None:
    async def use(pool: Pool) -> None:
        for _ in range(2):
            with pytest.raises(DataError, match="a.jsonl:3"):
                await pool.call(lambda actor: [actor.double.remote(1)])

    with_pool(use, size=1, start_error=True)


def test_a_call_that_kills_every_replica_ends_in_one_error(ray_session: None) -> None:
    async def use(pool: Pool) -> None:
        with pytest.raises(ClusterError, match="one call lost 3 replicas"):
            await pool.call(lambda actor: [actor.die.remote()])

    with_pool(use, size=1)
