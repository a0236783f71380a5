"""What the driver costs and how well it keeps its actors busy: real ports, client and pipeline, actors that only wait.

    python -m benchmarks.pipeline [--samplers 8 32 128 256] [--rounds 4]

throughput  each simulated sampler answers calls of 8 prompts; ideal is that none ever waits for the driver. Samplers live many
            to an async actor and wait long enough that the machine is mostly idle. CPU is the driver process's own, Ray's
            threads in it included.
overlap     8 samplers and a learner that take equally long for a batch, max_staleness 1: wall time over that of either alone.

The last line is JSON: the worst of the sizes; flat: the dearest size over the cheapest.
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Collection
from typing import Any

import numpy as np
import ray

from cluster.actors.handle import RayHandle, Spawn
from cluster.actors.learner_port import LearnerPort
from cluster.actors.pool import Pool
from cluster.actors.ports import RewardPort, SamplerPort
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.training.pipeline import Pipeline
from cluster.training.rollout_client import RolloutClient
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.identity import Identity, code_digest
from rollout.types import Prompt, SampleReport, ScoreReport, Version

PROMPTS_A_CALL, PROMPTS_A_STEP = 8, 64
GROUPS_PER_SECOND = 80  # of all samplers together, however many
FEWEST_GROUPS = 1024  # that a cost is averaged over
SAMPLERS_AN_ACTOR = 64
POLICY = RetryPolicy(start_deadline_s=600.0, call_deadline_s=600.0)
GROUP = np.zeros(1024, np.int32)  # about what eight short responses take


class Waiting:
    """Stands in for many samplers, reward actors or a learner: answers after a while."""

    def __init__(self, seconds: float):
        self._seconds = seconds

    async def ping(self) -> Identity:
        return Identity("", 0, code_digest(), "")

    async def ready(self) -> None:
        pass

    async def sample(
        self, prompts: list[Prompt], mode: str, version: Version, weights: list[Any], vectors: list[Any]
    ) -> tuple[Any, ...]:
        await asyncio.sleep(self._seconds)
        return SampleReport(version=version, figures={}), *[GROUP for _ in prompts]

    async def score(self, count: int, *groups: Any) -> tuple[Any, ...]:
        return ScoreReport(reward_ranges=(1.0,) * count, figures={"seconds_reward": 0.0}), *groups

    async def update(self, step: int, samples: None, *groups: Any) -> tuple[None, float]:
        await asyncio.sleep(self._seconds)
        return None, self._seconds

    async def weights(self) -> tuple[np.ndarray, int]:
        return GROUP, GROUP.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", type=int, nargs="+", default=[8, 32, 128, 256])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--overlap_steps", type=int, default=30)
    options = parser.parse_args()
    ray.init(address="local", num_cpus=8, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        asyncio.run(flow(8, 0.1, 0.0, FEWEST_GROUPS, 2))  # what is paid once
        costs, shares = [], []
        print(f"{'samplers':>8} {'a call':>8} {'groups':>7} {'wall':>8} {'ideal':>8} {'share':>6} {'driver CPU a group':>19}")
        for samplers in options.samplers:
            seconds = samplers * PROMPTS_A_CALL / GROUPS_PER_SECOND
            rounds = max(options.rounds, FEWEST_GROUPS // (samplers * PROMPTS_A_CALL))
            groups = rounds * samplers * PROMPTS_A_CALL
            ahead = math.ceil(samplers * PROMPTS_A_CALL / PROMPTS_A_STEP) + 2
            wall, cpu = asyncio.run(flow(samplers, seconds, 0.0, groups, ahead))
            costs.append(1000 * cpu / groups)
            shares.append(rounds * seconds / wall)
            figures = f"{seconds:6.1f} s {groups:7} {wall:6.1f} s {rounds * seconds:6.1f} s {shares[-1]:6.3f}"
            print(f"{samplers:8} {figures} {costs[-1]:16.2f} ms", flush=True)
        wall, _ = asyncio.run(flow(8, 1.0, 1.0, options.overlap_steps * PROMPTS_A_STEP, 1))
        ratio = wall / options.overlap_steps
        print(f"{options.overlap_steps} steps of 1 s sampling and 1 s learning: {wall:.1f} s")
    finally:
        ray.shutdown()
    result = {
        "driver_ms_per_group": max(costs),
        "flat": max(costs) / min(costs),
        "ideal_share": min(shares),
        "overlap_ratio": ratio,
    }
    print(json.dumps({"bench": "pipeline"} | {name: round(value, 3) for name, value in result.items()}))


async def flow(
    samplers: int, sampler_seconds: float, learner_seconds: float, groups: int, max_staleness: int
) -> tuple[float, float]:
    """Wall and driver CPU seconds from the first prompt admitted to the last group trained on."""
    sampling = SamplerPort(Pool("sampler", waiting(sampler_seconds), samplers, POLICY, print))
    rewards = RewardPort(Pool("reward actor", waiting(0.0), 2, POLICY, print))
    learner = LearnerPort(waiting(learner_seconds), POLICY, print)
    sampling.start()
    rewards.start()
    await learner.start()
    while sampling.states["idle"] < samplers or rewards.states["idle"] < 2:
        await asyncio.sleep(0.01)
    steps = math.ceil(groups / PROMPTS_A_STEP)
    prompts = [Prompt(id=str(i), question="q", answers=("a",)) for i in range(1000)]
    snapshots = SnapshotStore(learner, Version(0, 0))
    pipeline = Pipeline(
        client=RolloutClient(sampling, rewards, snapshots, "sample", POLICY),
        stage=Stage(name="rl", mode="sample", first=1, steps=steps, prompts_per_step=PROMPTS_A_STEP, lr=1.0, lr_warmup_steps=0),
        order=PromptOrder(prompts, seed=0),
        prompts_per_call=PROMPTS_A_CALL,
        max_staleness=max_staleness,
        prompts_left=groups,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(1, steps + 1):
        pipeline.admit()
        batch = await pipeline.batch()
        assert batch is not None, pipeline.failed
        await learner.update(step, None, batch.groups)
        await snapshots.publish(Version(0, step))
        pipeline.trained(batch)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    for port in (sampling, rewards, learner):
        port.close()
    return taken


def waiting(seconds: float) -> Spawn:
    """Many replicas to an actor."""
    actors: list[Any] = []

    def spawn(name: str, *, avoid: Collection[str]) -> RayHandle:
        if int(name) % SAMPLERS_AN_ACTOR == 0:
            actors.append(ray.remote(Waiting).options(num_cpus=0).remote(seconds))
        return RayHandle(actors[-1], {})

    return spawn


if __name__ == "__main__":
    main()
