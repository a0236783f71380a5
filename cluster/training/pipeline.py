"""The loop between dataset and learner: admit prompts, have them sampled and scored, hand over full batches.

    order ──admit──> calls of prompts ──SamplerActor──> groups ──RewardActor──> scored groups ──batch()──> learner
      ^                                                                                                      │
      └─────── (max_staleness + 1) batches, of gold answers 4, may be admitted and not yet trained on ◄──trained()

Which prompt comes next, which group is too stale or teaches nothing, and which batch is made again, is decided here.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from cluster.actors.ports import GroupRef
from cluster.actors.tasks import cancel_quietly
from cluster.store.failed_prompts import FailedPrompt
from cluster.training.rollout_client import InflightCall, Rollout, RolloutClient
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.types import Prompt

GOLD_BATCHES_AHEAD = 3  # they do not depend on the weights


@dataclass(slots=True)
class Batch:
    """What is trained on together. rollouts: calls that ended while it was filled. filtered: groups that were replaced as they
    teach nothing; requeued: groups that had become too stale, whose prompts were queued again. asked_at: when somebody began to
    wait for it, by the client's clock."""

    groups: list[GroupRef] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)
    filtered: int = 0
    requeued: int = 0
    asked_at: float = 0.0

    @property
    def prompts(self) -> list[Prompt]:
        return [group.prompt for group in self.groups]


@dataclass
class Pipeline:
    """dynamic_sampling: so many times a batch's prompts may be sampled in addition, in place of groups whose rewards, as they
    were scored, are all equal (DAPO, arXiv:2503.14476). Their prompts are tried once more at the end of their epoch, and then
    trained on as they are.

    failed: prompts that could not be answered, until somebody takes note of them; others take their place.
    """

    client: RolloutClient
    stage: Stage
    order: PromptOrder
    prompts_per_call: int
    max_staleness: int
    prompts_left: int  # that the stage is still to be trained on
    dynamic_sampling: int = 0
    queue: deque[Prompt] = field(default_factory=deque)
    filtered: deque[Prompt] = field(default_factory=deque)
    ready: deque[GroupRef] = field(default_factory=deque)
    failed: list[FailedPrompt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._inflight: list[InflightCall] = []
        self._filling = Batch()
        self._untrained = len(self.ready)

    @property
    def in_admission_order(self) -> bool:
        """Gold answers do not depend on the weights, so fetching them ahead keeps the run deterministic."""
        return self.max_staleness == 0 or not self.stage.sampled

    @property
    def queues(self) -> dict[str, int]:
        """Prompts that wait for a sampler, that are sampled or scored, and whose groups are ready to be trained on."""
        ended = sum(len(call.prompts) for call in self._inflight if call.task.done())
        running = sum(len(call.prompts) for call in self._inflight if call.since and not call.task.done())
        waiting = sum(len(call.prompts) for call in self._inflight) - ended - running + len(self.queue)
        return {"waiting": waiting, "running": running, "ready": ended + len(self.ready)}

    def admit(self) -> None:
        """Send prompts to the samplers while slots are free, never more than the stage still trains on."""
        ahead = self.max_staleness if self.stage.sampled else GOLD_BATCHES_AHEAD
        slots = min((ahead + 1) * self.stage.prompts_per_step, self.prompts_left)
        size = call_size(self.stage.prompts_per_step, self.prompts_per_call)
        while self._untrained < slots:
            call = InflightCall(self._next(min(size, slots - self._untrained)))
            call.task = asyncio.create_task(self.client.outcome(call))
            self._inflight.append(call)
            self._untrained += len(call.prompts)

    async def batch(self) -> Batch | None:
        """The next full batch, or None if prompts failed: call `take_failed`, then `batch` again."""
        self._filling.asked_at = self._filling.asked_at or self.client.clock()
        self.admit()
        if not self.in_admission_order and not self._filling.groups:
            await self._wait_for_expiring()
        while len(self._filling.groups) < self.stage.prompts_per_step:
            if self.failed:
                return None
            if self.ready:
                self._fill(self.ready.popleft())
                continue
            self.admit()
            awaited = self._inflight[:1] if self.in_admission_order else self._inflight
            await asyncio.wait([call.task for call in awaited], return_when=asyncio.FIRST_COMPLETED)
            self._collect()
        full, self._filling = self._filling, Batch()
        return full

    def trained(self, batch: Batch) -> None:
        """Free the batch's slots."""
        self._untrained -= len(batch.groups)
        self.prompts_left -= len(batch.groups)

    def give_back(self, batch: Batch) -> None:
        """Have the groups of a batch that are lost made again in their original calls, for a group depends on its call.

        In admission order `batch()` then returns the batch as it was: what was ready for the next comes from these calls, too.
        """
        lost = batch.prompts
        if self.in_admission_order:
            lost += [group.prompt for group in self.ready]
            self.ready.clear()
        made = [tuple(group.prompt for group in rollout.groups) for rollout in batch.rollouts]
        call_of = {prompt: prompts for prompts in made for prompt in prompts}
        repeated = dict.fromkeys(call_of.get(prompt, (prompt,)) for prompt in lost)
        calls = [InflightCall(tuple(prompt for prompt in whole if prompt in lost), again=whole) for whole in repeated]
        for call in calls:
            call.task = asyncio.create_task(self.client.outcome(call))
        self._inflight[:0] = calls
        self._filling = replace(batch, groups=[], staleness=[])

    def take_failed(self) -> list[FailedPrompt]:
        failed, self.failed = self.failed, []
        return failed

    def made_ahead(self) -> list[GroupRef]:
        """Groups that are finished and not yet trained on."""
        if not self.in_admission_order:
            self._collect()
        return [*self._filling.groups, *self.ready]

    def unfinished(self) -> list[Prompt]:
        """Prompts taken from the order and not yet scored, in admission order, but for those filtered."""
        return [prompt for call in self._inflight for prompt in call.prompts] + list(self.queue)

    def cancel(self) -> None:
        for call in self._inflight:
            cancel_quietly(call.task)

    def _fill(self, group: GroupRef) -> None:
        """Put a group into the batch, or its prompt back."""
        batch, staleness = self._filling, self.client.staleness(group.version)
        spare = self.dynamic_sampling * self.stage.prompts_per_step
        if staleness > self.max_staleness:
            batch.requeued += 1
            self.queue.append(group.prompt)
            self._untrained -= 1
        elif group.zero_variance and group.prompt.attempt == 0 and batch.filtered < spare:
            batch.filtered += 1
            self.filtered.append(replace(group.prompt, attempt=1))
            self._untrained -= 1
        else:
            batch.groups.append(group)
            batch.staleness.append(staleness)

    def _next(self, count: int) -> tuple[Prompt, ...]:
        """Queued prompts first; those filtered when their epoch is over."""
        prompts: list[Prompt] = []
        while len(prompts) < count:
            if self.queue:
                prompts.append(self.queue.popleft())
            elif self.filtered and (self.order.epoch_is_over or self.filtered[0].epoch < self.order.epoch):
                prompts.append(self.filtered.popleft())
            else:
                prompts += self.order.take(1)
        return tuple(prompts)

    async def _wait_for_expiring(self) -> None:
        """Until no call is under way that must end before this batch, lest groups become too stale."""
        self._collect()
        while calls := self._expiring():
            timeout = max(0.0, min(map(self.client.expected_s, calls)))
            await asyncio.wait([call.task for call in calls], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    def _expiring(self) -> list[InflightCall]:
        running = {
            call: self.client.staleness(call.snapshot.version)
            for call in self._inflight
            if call.snapshot is not None and self.client.expected_s(call) > 0
        }
        ready = [self.client.staleness(group.version) for group in self.ready]
        return expiring(running, ready, self.stage.prompts_per_step, self.max_staleness)

    def _collect(self) -> None:
        """Take in what is done, the stalest groups first: they can wait least. In admission order only the first call."""
        done = self._inflight[:1] if self.in_admission_order else [call for call in self._inflight if call.task.done()]
        outcomes = [call.task.result() for call in done]  # raises while `cancel` still knows them all
        self._inflight = [call for call in self._inflight if call not in done]
        for call, outcome in zip(done, outcomes, strict=True):
            self._filling.rollouts += [] if call.again else outcome.rollouts
            groups = [group for rollout in outcome.rollouts for group in rollout.groups]
            self.ready.extend(group for group in groups if group.prompt in call.prompts)
            failed = [each for each in outcome.failed if each.prompt in call.prompts]
            self.failed += failed
            self._untrained -= len(failed)
        if not self.in_admission_order:
            self.ready = deque(sorted(self.ready, key=lambda group: -self.client.staleness(group.version)))


def call_size(prompts_per_step: int, prompts_per_call: int) -> int:
    """The largest size within the limit that divides a batch: any calls then fill one exactly, in whatever order they end."""
    return next(size for size in range(min(prompts_per_call, prompts_per_step), 0, -1) if prompts_per_step % size == 0)


def expiring(running: Mapping[InflightCall, int], ready: Collection[int], size: int, max_staleness: int) -> list[InflightCall]:
    """Calls of which one must end before the next batch of `size`, lest groups become too stale.

    Of groups of a staleness or more that batch must hold more than are ready, or some of them become too stale: those of
    staleness L fit into it and the max_staleness - L after it.

    running, ready: staleness of the calls that are sampled, and of the groups that are finished.
    """
    for later, least in enumerate(range(max_staleness, -1, -1)):
        calls = [call for call, staleness in running.items() if least <= staleness <= max_staleness]
        made = sum(least <= staleness <= max_staleness for staleness in ready)
        to_come = sum(len(call.prompts) for call in calls)
        if made < min(size, made + to_come - later * size):
            return calls
    return []
