"""What trainer and pipeline know of actors: their ports, and what comes back through them.

A group stays where it was made; the driver holds a `GroupRef` and passes it on. A port's `states` and `restarts` are what
monitors show of its role. All raise InputsLost, ReplicasLost, and what a call raises.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.actors.pool import Pool
from cluster.actors.retry_policy import RetryPolicy
from learner.advantage import SAME_REWARD
from learner.update_metrics import UpdateMetrics
from reward.evaluation import Evaluation
from rollout.types import Mode, Prompt, SampleReport, ScoreReport, Version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What samplers work with: a version of the policy. weights: how the learner's port hands them over, None while the
    samplers' own folder holds this version."""

    version: Version
    weights: Any = None


@dataclass(frozen=True, slots=True)
class GroupRef:
    """A group by reference, which only ports open. reward_range: highest minus lowest reward, None if it is not rewarded."""

    prompt: Prompt
    reference: Any
    version: Version
    reward_range: float | None = None

    @property
    def zero_variance(self) -> bool:
        return self.reward_range is not None and self.reward_range < SAME_REWARD


@dataclass(frozen=True, slots=True)
class SampledCall:
    groups: tuple[GroupRef, ...]
    report: SampleReport


@dataclass(frozen=True, slots=True)
class ScoredCall:
    groups: tuple[GroupRef, ...]
    report: ScoreReport


@dataclass(frozen=True, slots=True)
class UpdateCall:
    """seconds: of the update alone, without the sample log."""

    metrics: UpdateMetrics
    seconds: float


class SamplerPort(Pool):
    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        """One call; `snapshot` is asked when a sampler is free."""

        def current() -> tuple[Version, list[Any]]:
            now = snapshot()
            return now.version, [] if now.weights is None else [now.weights]  # a reference in a list is not opened

        attempts = self._retry.attempts(len(prompts))
        report, made = await self.call("sample", list(prompts), mode, parts=1 + len(prompts), attempts=attempts, late=current)
        groups = (GroupRef(prompt, reference, report.version) for prompt, reference in zip(prompts, made, strict=True))
        return SampledCall(tuple(groups), report)


class RewardPort:
    """scorers: the reward actors. own: pools of extra rewards that have actors of their own, whose values the scorers add."""

    def __init__(self, scorers: Pool, own: Sequence[Pool], retry: RetryPolicy):
        self._scorers, self._own, self._retry = scorers, own, retry
        self._all = [scorers, *own]

    @property
    def restarts(self) -> int:
        return sum(pool.restarts for pool in self._all)

    @property
    def states(self) -> dict[str, int]:
        return {state: sum(pool.states[state] for pool in self._all) for state in self._scorers.states}

    @property
    def pending_s(self) -> float:
        """Seconds for which Ray has found no room for any of one kind."""
        return max(pool.pending_s for pool in self._all)

    def start(self) -> None:
        for pool in self._all:
            pool.start()

    def drop_nodes(self, alive: Collection[str]) -> None:
        for pool in self._all:
            pool.drop_nodes(alive)

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        references, attempts = [group.reference for group in groups], self._retry.attempts(len(groups))
        measured = await asyncio.gather(*(pool.call("measure", *references, parts=2, attempts=attempts) for pool in self._own))
        given = *references, *(values for _, [values] in measured)
        report, scored = await self._scorers.call("score", len(groups), *given, parts=1 + len(groups), attempts=attempts)
        seconds = sum(each.figures["seconds_reward"] for each in (report, *(own for own, _ in measured)))
        report = replace(report, figures=report.figures | {"seconds_reward": seconds})
        parts = zip(groups, scored, report.reward_ranges, strict=True)
        return ScoredCall(tuple(replace(group, reference=new, reward_range=range) for group, new, range in parts), report)

    def close(self) -> None:
        for pool in self._all:
            pool.close()


class RecordsPort(Pool):
    """Work on groups and examples that neither samples nor scores."""

    async def evaluate(
        self, constant_reply: str | None, temperature: float, greedy: Sequence[GroupRef], drawn: Sequence[GroupRef]
    ) -> Evaluation:
        references = (group.reference for group in (*greedy, *drawn))
        evaluation, _ = await self.call("evaluate", constant_reply, temperature, len(greedy), *references)
        return evaluation

    async def constant_reply(self, prompts: Sequence[Prompt], seed: int) -> str:
        reply, _ = await self.call("constant_reply", list(prompts), seed)
        return reply

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None:
        await self.call("write_groups", path, *(group.reference for group in groups))

    async def read_groups(self, path: Path, count: int) -> Sequence[Any]:
        """References to the groups of a file that holds `count` of them."""
        _, references = await self.call("read_groups", path, parts=1 + count)
        return references
