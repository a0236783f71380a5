"""Calls of prompts under way: each is sampled by one actor and scored by another, by reference.

What is lost on the way with a node is made again, a prompt that fails by itself is told apart from its neighbours.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from cluster.actors.errors import BY_THE_PROMPT, InputsLost
from cluster.actors.ports import GroupRef, RewardPort, SamplerPort, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.store.failed_prompts import FailedPrompt
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
    """Prompts that were admitted together. again: their groups were lost and are made again, in a call that may hold others.
    snapshot, since: what its newest sampling was given and when, None and 0 before the first."""

    prompts: tuple[Prompt, ...]
    again: bool = False
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

    def submit(self, prompts: Sequence[Prompt], wanted: Collection[Prompt] | None = None) -> InflightCall:
        """wanted: of a call that is made again, the prompts whose groups are."""
        own = tuple(prompt for prompt in prompts if wanted is None or prompt in wanted)
        call = InflightCall(own, again=wanted is not None)
        call.task = asyncio.create_task(self._outcome(call, prompts))
        return call

    def staleness(self, version: Version) -> int:
        """Updates since the weights of a version; gold answers have none."""
        return self.snapshots.staleness(version) if self.mode == "sample" else 0

    def age_s(self, call: InflightCall) -> float:
        return self.clock() - call.since

    def expected_s(self, call: InflightCall) -> float:
        """Until when a call that is sampled should have ended; it is presumed hung from 0 on."""
        return self.retry.hang_factor * self.slowest_s - self.age_s(call)

    async def _outcome(self, call: InflightCall, prompts: Sequence[Prompt]) -> Outcome:
        """Prompts that fail together are tried one by one, so that none can spoil the others; one that fails `prompt_attempts`
        times by itself is left out. Raises what is no prompt's fault."""
        try:
            return Outcome([await self._sampled_and_scored(call, prompts)], [])
        except BY_THE_PROMPT as error:
            first = error
        if len(prompts) > 1:
            alone = [await self._outcome(call, [prompt]) for prompt in prompts]
            return Outcome([one for each in alone for one in each.rollouts], [one for each in alone for one in each.failed])
        for _ in range(1, self.retry.prompt_attempts):
            with contextlib.suppress(*BY_THE_PROMPT):
                return Outcome([await self._sampled_and_scored(call, prompts)], [])
        return Outcome([], [FailedPrompt(prompts[0], first)])

    async def _sampled_and_scored(self, call: InflightCall, prompts: Sequence[Prompt]) -> Rollout:
        """Raises InputsLost where what is made is lost again and again."""

        def snapshot() -> Snapshot:
            call.snapshot, call.since = self.snapshots.current, self.clock()
            return call.snapshot

        losses = 0
        while True:
            try:
                sampled = await self.samplers.sample(prompts, self.mode, snapshot)
                scored = await self.rewards.score(sampled.groups) if self.mode != "gold" else None
            except InputsLost:
                losses += 1
                if losses == self.retry.call_attempts:
                    raise
                await asyncio.sleep(self.retry.pause_s(losses - 1))
                if call.snapshot is not None:
                    await self.snapshots.restore(call.snapshot)
            else:
                self.slowest_s = max(self.slowest_s, self.age_s(call))
                groups = sampled.groups if scored is None else scored.groups
                return Rollout(groups, sampled.report, None if scored is None else scored.report)
