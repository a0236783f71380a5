"""Calls of prompts under way: each is sampled by one actor and scored by another, by reference.

What is lost on the way with a node is made again, a prompt that fails by itself is told apart from its neighbours.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.actors.errors import BY_THE_PROMPT, InputsLost
from cluster.actors.ports import GroupRef, RewardPort, SamplerPort, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.store.failed_prompts import FailedPrompt
from cluster.training.isolation import Isolation
from rollout.types import Mode, Prompt, SampleReport, ScoreReport, Version


@dataclass(frozen=True, slots=True)
class Rollout:
    """The groups that one call to a sampler made, and what making and scoring them took. scored: None for gold answers."""

    groups: tuple[GroupRef, ...]
    sampled: SampleReport
    scored: ScoreReport | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the prompts of a call."""

    rollouts: list[Rollout]
    failed: list[FailedPrompt]


@dataclass(eq=False)
class InflightCall:
    """Prompts that were admitted together. snapshot, since: of the sampling that is under way, if one is."""

    prompts: tuple[Prompt, ...]
    task: "asyncio.Task[Outcome]" = field(init=False)
    snapshot: Snapshot | None = None
    since: float = 0.0


@dataclass
class RolloutClient:
    """Submits calls of one mode; each is sampled with what is current when a sampler is free, and all but gold are scored.

    slowest_s: what the longest call took, from its sampling on.
    """

    samplers: SamplerPort
    rewards: RewardPort
    snapshots: SnapshotStore
    mode: Mode
    retry: RetryPolicy
    clock: Callable[[], float] = time.monotonic
    slowest_s: float = 0.0

    def submit(self, prompts: Sequence[Prompt]) -> InflightCall:
        call = InflightCall(tuple(prompts))
        call.task = asyncio.create_task(self._roll_out(call))
        return call

    def staleness(self, version: Version) -> int:
        """Updates since the weights of a version; gold answers have none."""
        return self.snapshots.staleness(version) if self.mode == "sample" else 0

    def age_s(self, call: InflightCall) -> float:
        return self.clock() - call.since

    async def _roll_out(self, call: InflightCall) -> Outcome:
        """Raises InputsLost where what is made is lost again and again, and what is no prompt's fault."""

        def snapshot() -> Snapshot:
            call.snapshot, call.since = self.snapshots.current, self.clock()
            return call.snapshot

        rollouts, isolation, losses = list[Rollout](), Isolation(call.prompts, self.retry), 0
        while (part := isolation.part) is not None:
            try:
                sampled = await self.samplers.sample(part, self.mode, snapshot)
                scored = await self.rewards.score(sampled.groups) if self.mode != "gold" else None
            except InputsLost:
                losses += 1
                if losses == self.retry.call_attempts:
                    raise
                await asyncio.sleep(self.retry.pause_s(losses - 1))
                if call.snapshot is not None:
                    await self.snapshots.restore(call.snapshot)
            except BY_THE_PROMPT as error:
                isolation.met(error)
            else:
                groups = sampled.groups if scored is None else scored.groups
                rollouts.append(Rollout(groups, sampled.report, None if scored is None else scored.report))
                self.slowest_s = max(self.slowest_s, self.age_s(call))
                isolation.answered()
                losses = 0
        return Outcome(rollouts, isolation.failed)
