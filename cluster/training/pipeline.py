"""The loop between dataset and learner: admit prompts, have them sampled and scored, hand over full batches.

    order ──admit──> calls of prompts ──SamplerActor──> groups ──RewardActor──> scored groups ──batch()──> learner
      ^                                                                                                      │
      └──────────── (max_staleness + 1) batches may be admitted and not yet trained on ◄──────trained()──────┘

Which prompt comes next, which group is too old or teaches nothing, and which batch is made again, is decided here.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.actors.replica import cancel_quietly
from cluster.training.isolation import FailedPrompt
from cluster.training.rollout_client import GroupRef, InflightCall, RolloutClient, ScoredCall, Snapshot
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.types import Prompt

PATIENCE = 2.0  # times the slowest call so far


@dataclass(frozen=True, slots=True)
class Batch:
    """What is trained on together; while it was filled `calls` ended, `filtered` groups were replaced as they teach nothing,
    and the prompts of `requeued` groups that had become too old were queued again."""

    groups: list[GroupRef]
    staleness: list[int]
    calls: list[ScoredCall]
    filtered: int = 0
    requeued: int = 0

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

    fail: told of prompts that cannot be answered; others take their place.
    """

    source: RolloutClient
    order: PromptOrder
    prompts_per_call: int
    max_staleness: int
    prompts_left: int  # that the stage is still to be trained on
    fail: Callable[[FailedPrompt], None]
    dynamic_sampling: int = 0
    queue: deque[Prompt] = field(default_factory=deque)
    filtered: deque[Prompt] = field(default_factory=deque)
    ready: deque[GroupRef] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._running: list[InflightCall] = []
        self._calls: list[ScoredCall] = []  # that ended since the last batch
        self._untrained = len(self.ready)
        self._given_back: Batch | None = None

    @property
    def stage(self) -> Stage:
        return self.source.stage

    @property
    def in_admission_order(self) -> bool:
        """Gold answers do not depend on the weights, so fetching them ahead keeps the run deterministic."""
        return self.max_staleness == 0 or not self.stage.sampled

    @property
    def queues(self) -> dict[str, int]:
        """Prompts that wait for a sampler, that are sampled or scored, and whose groups are ready to be trained on."""
        ended = sum(len(call.prompts) for call in self._running if call.task.done())
        running = sum(len(call.prompts) for call in self._running if call.since and not call.task.done())
        waiting = sum(len(call.prompts) for call in self._running) - ended - running + len(self.queue)
        return {"waiting": waiting, "running": running, "ready": ended + len(self.ready)}

    def admit(self) -> None:
        """Send prompts to the samplers while slots are free, never more than the stage still trains on."""
        ahead = self.max_staleness if self.stage.sampled else 3
        slots = min((ahead + 1) * self.stage.prompts_per_step, self.prompts_left)
        size = call_size(self.stage.prompts_per_step, self.prompts_per_call)
        while self._untrained < slots:
            call = self.source.begin(self._next(min(size, slots - self._untrained)))
            self._running.append(call)
            self._untrained += len(call.prompts)

    async def batch(self) -> Batch:
        """The next full batch; the prompts of groups that became too old are queued again."""
        if self._given_back is not None and (again := await self._made_again(self._given_back)) is not None:
            return again
        groups: list[GroupRef] = []
        staleness: list[int] = []
        if not self.in_admission_order:
            await self._wait_for_pressing()
        spare = self.dynamic_sampling * self.stage.prompts_per_step
        filtered = requeued = 0
        while len(groups) < self.stage.prompts_per_step:
            if not self.ready:
                self.admit()
                await self._wait_for_some()
                self._collect()
                continue
            group = self.ready.popleft()
            lag = self.source.lag(group.version)
            if lag > self.max_staleness:
                requeued += 1
                self.queue.append(group.prompt)
                self._untrained -= 1
            elif group.zero_variance and group.prompt.attempt == 0 and filtered < spare:
                filtered += 1
                self.filtered.append(replace(group.prompt, attempt=1))
                self._untrained -= 1
            else:
                groups.append(group)
                staleness.append(lag)
        calls, self._calls = self._calls, []
        return Batch(groups, staleness, calls, filtered, requeued)

    def trained(self, batch: Batch, weights: Snapshot | None) -> None:
        """Free the batch's slots; groups admitted from now on are sampled with `weights`."""
        self.source.weights = weights or self.source.weights
        self._untrained -= len(batch.groups)
        self.prompts_left -= len(batch.groups)

    def give_back(self, batch: Batch) -> None:
        """Have the groups of a batch that are lost made again: `batch()` then returns it as it was."""
        self._given_back = batch

    def made_ahead(self) -> list[GroupRef]:
        """Groups that are finished and not yet trained on."""
        if not self.in_admission_order:
            self._collect()
        return list(self.ready)

    @property
    def given_back(self) -> list[Prompt]:
        """Prompts of the batch that is made again, which comes before all others."""
        return self._given_back.prompts if self._given_back is not None else []

    def unfinished(self) -> list[Prompt]:
        """Prompts taken from the order and not yet scored, in admission order, but for those given back or set aside."""
        return [prompt for call in self._running for prompt in call.prompts] + list(self.queue)

    def cancel(self) -> None:
        for call in self._running:
            cancel_quietly(call.task)

    async def _made_again(self, batch: Batch) -> Batch | None:
        """The batch with its groups sampled and scored anew, in the calls that made them, for a group depends on its call. None
        if a prompt fails now: the others are ready for the next batch."""
        wanted = batch.prompts
        calls = [tuple(group.prompt for group in call.groups) for call in batch.calls]
        calls = [prompts for prompts in calls if not set(prompts).isdisjoint(wanted)]
        elsewhere = tuple(prompt for prompt in wanted if all(prompt not in prompts for prompts in calls))
        running = [self.source.begin(prompts) for prompts in [*calls, elsewhere] if prompts]
        try:
            made = [made for call in running for made in await call.task]
        finally:
            for call in running:
                cancel_quietly(call.task)
        self._given_back = None
        groups = {group.prompt: group for call in made for group in call.groups}
        if all(prompt in groups for prompt in wanted):
            again = [groups[prompt] for prompt in wanted]
            return replace(batch, groups=again, staleness=[self.source.lag(group.version) for group in again])
        for failed in (failed for call in running for failed in call.failed if failed.prompt in wanted):
            self._untrained -= 1
            self.fail(failed)
        self.ready.extendleft(groups[prompt] for prompt in reversed(wanted) if prompt in groups)
        return None

    def _next(self, count: int) -> list[Prompt]:
        """Queued prompts first; those set aside when their epoch is over."""
        prompts: list[Prompt] = []
        while len(prompts) < count:
            if self.queue:
                prompts.append(self.queue.popleft())
            elif self.filtered and (self.order.epoch_is_over or self.filtered[0].epoch < self.order.epoch):
                prompts.append(self.filtered.popleft())
            else:
                prompts += self.order.take(1)
        return prompts

    def _pressing(self) -> list[InflightCall]:
        """Running calls of which one must end before this batch, lest groups become too old; not those that seem to hang."""
        patience_s = PATIENCE * self.source.slowest_s
        running = [call for call in self._running if call.version is not None and call.age_s < patience_s]
        made = Counter(self.source.lag(group.version) for group in self.ready)
        to_come: Counter[int] = Counter()
        for call in running:
            to_come[self.source.lag(call.version)] += len(call.prompts)
        awaited = lag_to_wait_for(made, to_come, self.stage.prompts_per_step, self.max_staleness)
        return [call for call in running if awaited is not None and self.source.lag(call.version) >= awaited]

    async def _wait_for_pressing(self) -> None:
        self._collect()
        while pressing := self._pressing():
            patience_s = PATIENCE * self.source.slowest_s - max(call.age_s for call in pressing)
            tasks = [call.task for call in pressing]
            await asyncio.wait(tasks, timeout=max(0.0, patience_s), return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    async def _wait_for_some(self) -> None:
        awaited = self._running[:1] if self.in_admission_order else self._running
        await asyncio.wait([call.task for call in awaited], return_when=asyncio.FIRST_COMPLETED)

    def _collect(self) -> None:
        """Take in what is done, the oldest groups to the front: they can wait least. In admission order only the first call."""
        done = self._running[:1] if self.in_admission_order else [call for call in self._running if call.task.done()]
        calls = [made for call in done for made in call.task.result()]  # raises while `cancel` still knows them all
        self._running = [call for call in self._running if call not in done]
        self._calls += calls
        self.ready.extend(group for call in calls for group in call.groups)
        if not self.in_admission_order:
            self.ready = deque(sorted(self.ready, key=lambda group: -self.source.lag(group.version)))
        for failed in (failed for call in done for failed in call.failed):
            self._untrained -= 1
            self.fail(failed)


def call_size(prompts_per_step: int, prompts_per_call: int) -> int:
    """The largest size within the limit that divides a batch: any calls then fill one exactly, in whatever order they end."""
    return next(size for size in range(min(prompts_per_call, prompts_per_step), 0, -1) if prompts_per_step % size == 0)


def lag_to_wait_for(made: Mapping[int, int], to_come: Mapping[int, int], size: int, max_staleness: int) -> int | None:
    """Of groups of this lag or more the next batch of `size` must hold more than are made, or some become too old: those of
    lag L fit into it and the max_staleness - L after it. None: no group becomes too old for want of waiting.

    made, to_come: groups that are finished and that are still sampled, by their lag.
    """
    old_made = old = 0
    for later, lag in enumerate(range(max_staleness, -1, -1)):
        old_made += made.get(lag, 0)
        old += made.get(lag, 0) + to_come.get(lag, 0)
        if old_made < min(size, old - later * size):
            return lag
    return None
