"""The loop between dataset and learner: admit prompts, have them sampled and scored, hand over full batches.

    order ──admit──> calls of prompts ──SamplerActor──> groups ──RewardActor──> scored groups ──batch()──> learner
      ^                                                                                                      │
      └──────────── (max_staleness + 1) batches may be admitted and not yet trained on ◄──────trained()──────┘

The driver holds references to groups, never groups.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.pool import Pool, forget
from learner.config import Stage
from rollout.dataset import PromptOrder
from rollout.types import CallReport, Mode, Prompt, Version


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """references: the flat array's, or none while the samplers' own folder holds this version."""

    version: Version
    references: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """The scored groups of one call, by reference, with what making them took."""

    prompts: tuple[Prompt, ...]
    groups: list[Any]
    sampled: CallReport
    scored: CallReport | None


@dataclass(frozen=True, slots=True)
class Batch:
    calls: list[ScoredCall]
    staleness: list[int]

    @property
    def groups(self) -> list[Any]:
        return [group for made in self.calls for group in made.groups]

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for made in self.calls for prompt in made.prompts]


@dataclass
class Pipeline:
    samplers: Pool
    rewards: Pool
    weights: PublishedWeights
    stage: Stage
    order: PromptOrder
    prompts_per_call: int
    max_staleness: int
    prompts_left: int  # that the stage is still to be trained on
    queue: deque[Prompt] = field(default_factory=deque)
    requeued: int = 0

    def __post_init__(self) -> None:
        self._running: deque[tuple[tuple[Prompt, ...], asyncio.Task[ScoredCall]]] = deque()
        self._untrained = 0

    @property
    def in_admission_order(self) -> bool:
        """Gold answers do not depend on the weights, so fetching them ahead keeps the run deterministic."""
        return self.max_staleness == 0 or self.stage.mode == "gold"

    def admit(self) -> None:
        """Send prompts to the samplers while slots are free, never more than the stage still trains on."""
        ahead = 3 if self.stage.mode == "gold" else self.max_staleness
        slots = (ahead + 1) * self.stage.prompts_per_step
        size = call_size(self.stage.prompts_per_step, self.prompts_per_call)
        while self._untrained + size <= min(slots, self.prompts_left):
            prompts = tuple(self._next(size))
            self._running.append((prompts, asyncio.create_task(self._make(prompts))))
            self._untrained += size

    async def batch(self) -> Batch:
        """The next full batch; groups that became too old are counted and their prompts queued again."""
        calls: list[ScoredCall] = []
        staleness: list[int] = []
        while sum(len(made.prompts) for made in calls) < self.stage.prompts_per_step:
            made = await self._next_made()
            lag = self.weights.version.step - made.sampled.version.step if made.sampled.version else 0
            if self.stage.mode == "sample" and lag > self.max_staleness:
                self._requeue(made.prompts)
                continue
            calls.append(made)
            staleness += [lag if self.stage.mode == "sample" else 0] * len(made.prompts)
        return Batch(calls, staleness)

    def trained(self, batch: Batch, weights: PublishedWeights | None) -> None:
        """Free the batch's slots; groups admitted from now on are sampled with `weights`."""
        self.weights = weights or self.weights
        self._untrained -= len(batch.prompts)
        self.prompts_left -= len(batch.prompts)

    def unfinished(self) -> list[Prompt]:
        """Prompts taken from the order and not yet trained on, in admission order."""
        return [prompt for prompts, _ in self._running for prompt in prompts] + list(self.queue)

    def cancel(self) -> None:
        for _, task in self._running:
            forget(task)

    def _next(self, count: int) -> list[Prompt]:
        queued = [self.queue.popleft() for _ in range(min(count, len(self.queue)))]
        return queued + self.order.take(count - len(queued))

    async def _next_made(self) -> ScoredCall:
        if not self.in_admission_order:
            await asyncio.wait([task for _, task in self._running], return_when=asyncio.FIRST_COMPLETED)
            done = next(i for i, (_, task) in enumerate(self._running) if task.done())
            self._running.rotate(-done)
            prompts, task = self._running.popleft()
            self._running.rotate(done)
        else:
            prompts, task = self._running[0]
            await asyncio.wait([task])
            self._running.popleft()
        return task.result()

    def _requeue(self, prompts: Sequence[Prompt]) -> None:
        self.requeued += len(prompts)
        self.queue.extend(prompts)
        self._untrained -= len(prompts)
        self.admit()

    async def _make(self, prompts: tuple[Prompt, ...]) -> ScoredCall:
        if self.stage.mode == "gold":  # says the same under any weights, so none are sent
            version = PublishedWeights(self.weights.version)
            sampled, groups = await sample(self.samplers, prompts, self.stage.mode, lambda: version)
            return ScoredCall(prompts, groups, sampled, None)
        sampled, groups = await sample(self.samplers, prompts, self.stage.mode, lambda: self.weights)
        scored, groups = await self.rewards.call(lambda actor: actor.score.options(num_returns=1 + len(groups)).remote(*groups))
        return ScoredCall(prompts, groups, sampled, scored)


async def sample(samplers: Pool, prompts: Sequence[Prompt], mode: Mode, weights: Any) -> tuple[CallReport, list[Any]]:
    """One call to a sampler -> its report and references to its groups; `weights()` is asked when a sampler is free."""

    def invoke(actor: Any) -> list[Any]:
        current: PublishedWeights = weights()
        options = actor.groups.options(num_returns=1 + len(prompts))
        return options.remote(list(prompts), mode, current.version, current.references)

    return await samplers.call(invoke)


def call_size(prompts_per_step: int, prompts_per_call: int) -> int:
    """The largest size within the limit that divides a batch: any calls then fill one exactly, in whatever order they end."""
    return next(size for size in range(min(prompts_per_call, prompts_per_step), 0, -1) if prompts_per_step % size == 0)
