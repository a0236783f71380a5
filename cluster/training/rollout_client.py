"""Scored groups for prompts: sampled by one actor, scored by another, by reference.

The driver holds references to groups, never groups: those that are lost with the node that held them are made again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from cluster.actors.pool import CALL_ATTEMPTS, Invoke
from cluster.actors.replica import InputsLost, pause_s
from cluster.training.isolation import FailedPrompt, isolate_failures
from learner.advantage import SAME_REWARD
from learner.config import Stage
from rollout.types import Mode, Prompt, SampleReport, ScoreReport, Version

Made = TypeVar("Made")


class Actors(Protocol):
    """A `Pool`, or what answers as one does."""

    restarts: int

    @property
    def states(self) -> dict[str, int]: ...

    def start(self) -> None: ...

    async def call(self, invoke: Invoke, attempts: int = CALL_ATTEMPTS) -> tuple[Any, list[Any]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """references: the flat array's, or none while the samplers' own folder holds this version."""

    version: Version
    references: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GroupRef:
    """A group by reference. reward_range: highest minus lowest reward, None where nothing is rewarded."""

    prompt: Prompt
    reference: Any
    version: Version | None
    reward_range: float | None

    @property
    def zero_variance(self) -> bool:
        return self.reward_range is not None and self.reward_range < SAME_REWARD


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """The scored groups of one call, with what making them took."""

    groups: tuple[GroupRef, ...]
    sampled: SampleReport
    scored: ScoreReport | None


@dataclass(eq=False)
class InflightCall:
    """Prompts that were admitted together; `version` and `since` are of the sampling that is under way, if one is."""

    prompts: tuple[Prompt, ...]
    task: "asyncio.Task[list[ScoredCall]]" = field(init=False)
    failed: list[FailedPrompt] = field(default_factory=list)
    version: Version | None = None
    since: float = 0.0

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.since


@dataclass
class RolloutClient:
    """Begins calls for a stage; each is sampled with the weights that are published when a sampler is free.

    republish: makes lost weights available again. slowest_s: what the longest call took, from its sampling on.
    """

    samplers: Actors
    rewards: Actors
    stage: Stage
    weights: Snapshot
    republish: Callable[[], Awaitable[Snapshot]]
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._publishing = asyncio.Lock()

    def begin(self, prompts: Sequence[Prompt]) -> InflightCall:
        call = InflightCall(tuple(prompts))
        call.task = asyncio.create_task(isolate_failures(call.prompts, partial(self._scored, call), call.failed.append))
        return call

    def lag(self, version: Version | None) -> int:
        """Updates since the weights of a version; gold answers have none."""
        return self.weights.version.step - version.step if self.stage.sampled and version is not None else 0

    async def _scored(self, call: InflightCall, prompts: tuple[Prompt, ...], attempts: int) -> ScoredCall:
        """Sample and score; what is lost on the way is made again."""
        weights = self.weights

        async def scored() -> ScoredCall:
            nonlocal weights
            weights = self.weights
            return await self._sampled_and_scored(call, prompts, attempts)

        async def republish() -> None:
            async with self._publishing:
                if self.weights is weights:
                    self.weights = await self.republish()

        return await again_where_inputs_are_lost(scored, republish)

    async def _sampled_and_scored(self, call: InflightCall, prompts: tuple[Prompt, ...], attempts: int) -> ScoredCall:
        def weights() -> Snapshot:
            call.version, call.since = self.weights.version, time.monotonic()
            return self.weights if self.stage.sampled else Snapshot(self.weights.version)  # gold answers need none

        sampled, references = await sample(self.samplers, prompts, self.stage.mode, weights, attempts)
        scored = None
        if self.stage.sampled:
            scored, references = await score(self.rewards, references, attempts)
        self.slowest_s = max(self.slowest_s, call.age_s)
        return _scored_call(prompts, references, sampled, scored)


async def again_where_inputs_are_lost(make: Callable[[], Awaitable[Made]], restore: Callable[[], Awaitable[None]]) -> Made:
    """What `make` makes; where objects that it was given are lost with their node, `restore` them and try again."""
    for losses in range(CALL_ATTEMPTS - 1):
        try:
            return await make()
        except InputsLost:
            await asyncio.sleep(pause_s(losses))
            await restore()
    return await make()


async def sample(
    samplers: Actors,
    prompts: Sequence[Prompt],
    mode: Mode,
    weights: Callable[[], Snapshot],
    attempts: int = CALL_ATTEMPTS,
) -> tuple[SampleReport, list[Any]]:
    """One call to a sampler -> its report and references to its groups; `weights()` is asked when a sampler is free."""

    def invoke(actor: Any) -> list[Any]:
        current = weights()
        options = actor.sample.options(num_returns=1 + len(prompts))
        return options.remote(list(prompts), mode, current.version, current.references)

    return await samplers.call(invoke, attempts)


async def score(rewards: Actors, groups: Sequence[Any], attempts: int = CALL_ATTEMPTS) -> tuple[ScoreReport, list[Any]]:
    """One call to a reward actor -> its report and references to the groups with their rewards."""
    return await rewards.call(lambda actor: actor.score.options(num_returns=1 + len(groups)).remote(*groups), attempts)


def _scored_call(
    prompts: Sequence[Prompt], references: Sequence[Any], sampled: SampleReport, scored: ScoreReport | None
) -> ScoredCall:
    ranges: Sequence[float | None] = [None] * len(prompts) if scored is None else scored.reward_ranges
    groups = zip(prompts, references, ranges, strict=True)
    return ScoredCall(tuple(GroupRef(p, r, sampled.version, reward_range) for p, r, reward_range in groups), sampled, scored)
