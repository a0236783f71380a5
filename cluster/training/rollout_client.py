"""Calls of prompts under way: each is sampled by one actor and scored by another, by reference.

What is lost on the way with a node is made again, a prompt that fails by itself is told apart from its neighbours.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cluster.actors.errors import BY_THE_PROMPT, InputsLost
from cluster.actors.ports import GroupRef, RewardPort, SamplerPort, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from cluster.actors.snapshots import SnapshotStore
from cluster.store.failed_prompts import FailedPrompt
from rollout.errors import RetrievalError
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
    """Prompts that were admitted together. again: where their groups were lost, all prompts of the call that made them: it is
    repeated, for a group depends on its call. snapshot, since: what its newest sampling was given and when, None and 0 before
    the first."""

    prompts: tuple[Prompt, ...]
    again: tuple[Prompt, ...] = ()
    task: "asyncio.Task[Outcome]" = field(init=False)
    snapshot: Snapshot | None = None
    since: float = 0.0


@dataclass(eq=False)
class Trial:
    """Prompts that are tried together. errors: what they met before. losses: of what was made, since the last error."""

    prompts: tuple[Prompt, ...]
    errors: list[Exception] = field(default_factory=list)
    losses: int = 0


@dataclass
class RolloutClient:
    """Answers calls in one mode; each is sampled with what is current when a sampler is free, and all but gold are scored.

    slowest_s: what the longest call took, from its sampling on.
    """

    samplers: SamplerPort
    rewards: RewardPort
    snapshots: SnapshotStore
    mode: Mode
    retry: RetryPolicy
    clock: Callable[[], float] = time.monotonic
    slowest_s: float = 0.0

    def staleness(self, version: Version) -> int:
        """Updates since the weights of a version; gold answers have none."""
        return self.snapshots.staleness(version) if self.mode == "sample" else 0

    def age_s(self, call: InflightCall) -> float:
        return self.clock() - call.since

    def expected_s(self, call: InflightCall) -> float:
        """Until when a call that is sampled should have ended; it is presumed hung from 0 on."""
        return self.retry.hang_factor * self.slowest_s - self.age_s(call)

    async def outcome(self, call: InflightCall) -> Outcome:
        """Prompts that fail together are tried one by one, so that none can spoil the others; one that fails `prompt_attempts`
        times by itself is left out. Raises what is no prompt's fault, InputsLost where what is made is lost again and again."""
        outcome, trials = Outcome([], []), deque([Trial(call.again or call.prompts)])
        while trials:
            trial = trials.popleft()
            try:
                sampled = await self.samplers.sample(trial.prompts, self.mode, partial(self._snapshot_for, call))
                scored = await self.rewards.score(sampled.groups) if self.mode != "gold" else None
            except InputsLost:
                trial.losses += 1
                if trial.losses == self.retry.call_attempts:
                    raise
                trials.appendleft(trial)
                await asyncio.sleep(self.retry.pause_s(trial.losses - 1))
                if call.snapshot is not None:
                    await self.snapshots.restore(call.snapshot)
            except BY_THE_PROMPT as error:
                if isinstance(getattr(error, "cause", None), RetrievalError):
                    raise  # the server of passages is gone, for all prompts
                trial.errors, trial.losses = [*trial.errors, error], 0
                if len(trial.prompts) > 1:
                    trials.extend(Trial((prompt,)) for prompt in trial.prompts)
                elif len(trial.errors) < self.retry.prompt_attempts:
                    trials.appendleft(trial)
                else:
                    outcome.failed.append(FailedPrompt(trial.prompts[0], trial.errors[0]))
            else:
                self.slowest_s = max(self.slowest_s, self.age_s(call))
                groups = sampled.groups if scored is None else scored.groups
                outcome.rollouts.append(Rollout(groups, sampled.report, None if scored is None else scored.report))
        return outcome

    def _snapshot_for(self, call: InflightCall) -> Snapshot:
        """What a sampler is given that has just become free."""
        call.snapshot, call.since = self.snapshots.current, self.clock()
        return call.snapshot
