"""The loop between dataset and learner: admit prompts, have them sampled and scored, hand over full batches.

    order ──admit──> calls of prompts ──SamplerActor──> groups ──RewardActor──> scored groups ──batch()──> learner
      ^                                                                                                      │
      └──────────── (max_staleness + 1) batches may be admitted and not yet trained on ◄──────trained()──────┘

The driver holds references to groups, never groups.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.pool import Pool, forget
from learner.advantage import SAME_REWARD
from learner.config import Stage
from rollout.dataset import PromptOrder
from rollout.types import CallReport, Mode, Prompt, Version


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """references: the flat array's, or none while the samplers' own folder holds this version."""

    version: Version
    references: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group by reference. spread: highest minus lowest reward, None where nothing is rewarded."""

    prompt: Prompt
    reference: Any
    version: Version | None
    spread: float | None

    @property
    def teaches_nothing(self) -> bool:
        return self.spread is not None and self.spread < SAME_REWARD


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """The scored groups of one call, with what making them took."""

    groups: tuple[ScoredGroup, ...]
    sampled: CallReport
    scored: CallReport | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What is trained on together; `calls` ended while it was filled, `set_aside` groups were replaced meanwhile."""

    groups: list[ScoredGroup]
    staleness: list[int]
    calls: list[ScoredCall]
    set_aside: int = 0

    @property
    def prompts(self) -> list[Prompt]:
        return [group.prompt for group in self.groups]

    @property
    def references(self) -> list[Any]:
        return [group.reference for group in self.groups]


@dataclass
class Pipeline:
    """dynamic_sampling: so many times a batch's prompts may be sampled in addition, in place of groups whose rewards, as they
    were scored, are all equal (DAPO, arXiv:2503.14476). Their prompts are tried once more at the end of their epoch, and then
    trained on as they are.
    """

    samplers: Pool
    rewards: Pool
    weights: PublishedWeights
    stage: Stage
    order: PromptOrder
    prompts_per_call: int
    max_staleness: int
    prompts_left: int  # that the stage is still to be trained on
    dynamic_sampling: int = 0
    queue: deque[Prompt] = field(default_factory=deque)
    set_aside: deque[Prompt] = field(default_factory=deque)
    requeued: int = 0

    def __post_init__(self) -> None:
        self._running: deque[tuple[tuple[Prompt, ...], asyncio.Task[ScoredCall]]] = deque()
        self._ready: deque[ScoredGroup] = deque()
        self._untrained = 0

    @property
    def in_admission_order(self) -> bool:
        """Gold answers do not depend on the weights, so fetching them ahead keeps the run deterministic."""
        return self.max_staleness == 0 or not self.stage.sampled

    def admit(self) -> None:
        """Send prompts to the samplers while slots are free, never more than the stage still trains on."""
        ahead = self.max_staleness if self.stage.sampled else 3
        slots = min((ahead + 1) * self.stage.prompts_per_step, self.prompts_left)
        size = call_size(self.stage.prompts_per_step, self.prompts_per_call)
        while self._untrained < slots:
            prompts = tuple(self._next(min(size, slots - self._untrained)))
            self._running.append((prompts, asyncio.create_task(self._make(prompts))))
            self._untrained += len(prompts)

    async def batch(self) -> Batch:
        """The next full batch; groups that became too old are counted and their prompts queued again."""
        groups: list[ScoredGroup] = []
        staleness: list[int] = []
        calls: list[ScoredCall] = []
        spare = self.dynamic_sampling * self.stage.prompts_per_step
        set_aside = 0
        while len(groups) < self.stage.prompts_per_step:
            if not self._ready:
                self.admit()
                calls.append(await self._next_call())
                self._ready.extend(calls[-1].groups)
            group = self._ready.popleft()
            lag = self.weights.version.step - group.version.step if self.stage.sampled and group.version else 0
            if lag > self.max_staleness:
                self.requeued += 1
                self.queue.append(group.prompt)
                self._untrained -= 1
            elif group.teaches_nothing and group.prompt.attempt == 0 and set_aside < spare:
                set_aside += 1
                self.set_aside.append(replace(group.prompt, attempt=1))
                self._untrained -= 1
            else:
                groups.append(group)
                staleness.append(lag)
        return Batch(groups, staleness, calls, set_aside)

    def trained(self, batch: Batch, weights: PublishedWeights | None) -> None:
        """Free the batch's slots; groups admitted from now on are sampled with `weights`."""
        self.weights = weights or self.weights
        self._untrained -= len(batch.groups)
        self.prompts_left -= len(batch.groups)

    def unfinished(self) -> list[Prompt]:
        """Prompts taken from the order and not yet trained on, in admission order; those set aside are not among them."""
        running = [prompt for prompts, _ in self._running for prompt in prompts]
        return [group.prompt for group in self._ready] + running + list(self.queue)

    def cancel(self) -> None:
        for _, task in self._running:
            forget(task)

    def _next(self, count: int) -> list[Prompt]:
        """Queued prompts first; those set aside when their epoch is over."""
        prompts: list[Prompt] = []
        while len(prompts) < count:
            if self.queue:
                prompts.append(self.queue.popleft())
            elif self.set_aside and (self.order.epoch_is_over or self.set_aside[0].epoch < self.order.epoch):
                prompts.append(self.set_aside.popleft())
            else:
                prompts += self.order.take(1)
        return prompts

    async def _next_call(self) -> ScoredCall:
        if not self.in_admission_order:
            await asyncio.wait([task for _, task in self._running], return_when=asyncio.FIRST_COMPLETED)
            done = next(i for i, (_, task) in enumerate(self._running) if task.done())
            self._running.rotate(-done)
            _, task = self._running.popleft()
            self._running.rotate(done)
        else:
            _, task = self._running[0]
            await asyncio.wait([task])
            self._running.popleft()
        return task.result()

    async def _make(self, prompts: tuple[Prompt, ...]) -> ScoredCall:
        if not self.stage.sampled:  # says the same under any weights, so none are sent
            version = PublishedWeights(self.weights.version)
            sampled, references = await sample(self.samplers, prompts, self.stage.mode, lambda: version)
            return _scored_call(prompts, references, sampled, None)
        sampled, references = await sample(self.samplers, prompts, self.stage.mode, lambda: self.weights)
        scored, references = await self.rewards.call(
            lambda actor: actor.score.options(num_returns=1 + len(references)).remote(*references)
        )
        return _scored_call(prompts, references, sampled, scored)


def _scored_call(
    prompts: Sequence[Prompt], references: Sequence[Any], sampled: CallReport, scored: CallReport | None
) -> ScoredCall:
    spreads: Sequence[float | None] = [None] * len(prompts) if scored is None else scored.spreads
    groups = zip(prompts, references, spreads, strict=True)
    return ScoredCall(tuple(ScoredGroup(p, r, sampled.version, spread) for p, r, spread in groups), sampled, scored)


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
