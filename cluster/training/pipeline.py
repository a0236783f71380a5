"""The loop between dataset and learner: admit prompts, have them sampled and scored, hand over full batches.

    order ──admit──> calls of prompts ──SamplerActor──> groups ──RewardActor──> scored groups ──batch()──> learner
      ^                                                                                                      │
      └─────── (max_staleness + 1) batches, of gold answers 4, may be admitted and not yet trained on ◄──trained()

Which prompt comes next, which group is too stale or teaches nothing, and which batch is made again, is decided here.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cluster.actors.ports import GroupRef
from cluster.actors.tasks import cancel_quietly
from cluster.store.failed_prompts import FailedPrompt
from cluster.training.rollout_client import InflightCall, Outcome, Rollout, RolloutClient
from cluster.training.staleness import expiring_calls
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.types import Prompt

GOLD_BATCHES_AHEAD = 3  # they do not depend on the weights


@dataclass(slots=True)
class Batch:
    """What is trained on together. rollouts: calls that ended while it was filled. filtered: groups that were replaced as they
    teach nothing; requeued: groups that had become too stale, whose prompts were queued again."""

    groups: list[GroupRef] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)
    filtered: int = 0
    requeued: int = 0

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
        self._given_back: Batch | None = None
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
            call = self.client.submit(self._next(min(size, slots - self._untrained)))
            self._inflight.append(call)
            self._untrained += len(call.prompts)

    async def batch(self) -> Batch | None:
        """The next full batch, or None if prompts failed: call `take_failed`, then `batch` again."""
        if self._given_back is not None:
            return await self._made_again(self._given_back)
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
        """Have the groups of a batch that are lost made again: `batch()` then returns it as it was."""
        self._given_back = batch

    def take_failed(self) -> list[FailedPrompt]:
        failed, self.failed = self.failed, []
        return failed

    def made_ahead(self) -> list[GroupRef]:
        """Groups that are finished and not yet trained on."""
        if not self.in_admission_order:
            self._collect()
        return [*self._filling.groups, *self.ready]

    @property
    def given_back(self) -> list[Prompt]:
        """Prompts of the batch that is made again, which comes before all others."""
        return self._given_back.prompts if self._given_back is not None else []

    def unfinished(self) -> list[Prompt]:
        """Prompts taken from the order and not yet scored, in admission order, but for those given back or filtered."""
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

    async def _made_again(self, batch: Batch) -> Batch | None:
        """Sample the batch again in its original calls, for a group depends on its call. None if a prompt fails; the others
        stay ready."""
        wanted = batch.prompts
        calls = [tuple(group.prompt for group in rollout.groups) for rollout in batch.rollouts]
        calls = [prompts for prompts in calls if not set(prompts).isdisjoint(wanted)]
        elsewhere = [prompt for prompt in wanted if all(prompt not in prompts for prompts in calls)]
        size = call_size(self.stage.prompts_per_step, self.prompts_per_call)
        calls += [tuple(elsewhere[i : i + size]) for i in range(0, len(elsewhere), size)]
        inflight = [self.client.submit(prompts) for prompts in calls]
        try:
            outcomes = [await call.task for call in inflight]
        finally:
            for call in inflight:
                cancel_quietly(call.task)
        self._given_back = None
        groups = {group.prompt: group for outcome in outcomes for made in outcome.rollouts for group in made.groups}
        if all(prompt in groups for prompt in wanted):
            again = [groups[prompt] for prompt in wanted]
            return replace(batch, groups=again, staleness=[self.client.staleness(group.version) for group in again])
        self._note_failed(outcomes, wanted)
        self.ready.extendleft(groups[prompt] for prompt in reversed(wanted) if prompt in groups)
        return None

    def _next(self, count: int) -> list[Prompt]:
        """Queued prompts first; those filtered when their epoch is over."""
        prompts: list[Prompt] = []
        while len(prompts) < count:
            if self.queue:
                prompts.append(self.queue.popleft())
            elif self.filtered and (self.order.epoch_is_over or self.filtered[0].epoch < self.order.epoch):
                prompts.append(self.filtered.popleft())
            else:
                prompts += self.order.take(1)
        return prompts

    async def _wait_for_expiring(self) -> None:
        """Until no call is under way that must end before this batch, lest groups become too stale."""
        self._collect()
        while expiring := expiring_calls(
            self._inflight, self.ready, self.client, self.stage.prompts_per_step, self.max_staleness
        ):
            longest_s = self.client.retry.hang_factor * self.client.slowest_s - max(map(self.client.age_s, expiring))
            tasks = [call.task for call in expiring]
            await asyncio.wait(tasks, timeout=max(0.0, longest_s), return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    def _collect(self) -> None:
        """Take in what is done, the stalest groups first: they can wait least. In admission order only the first call."""
        done = self._inflight[:1] if self.in_admission_order else [call for call in self._inflight if call.task.done()]
        outcomes = [call.task.result() for call in done]  # raises while `cancel` still knows them all
        self._inflight = [call for call in self._inflight if call not in done]
        rollouts = [rollout for outcome in outcomes for rollout in outcome.rollouts]
        self._filling.rollouts += rollouts
        self.ready.extend(group for rollout in rollouts for group in rollout.groups)
        if not self.in_admission_order:
            self.ready = deque(sorted(self.ready, key=lambda group: -self.client.staleness(group.version)))
        self._note_failed(outcomes, [prompt for call in done for prompt in call.prompts])

    def _note_failed(self, outcomes: Iterable[Outcome], wanted: list[Prompt]) -> None:
        failed = [each for outcome in outcomes for each in outcome.failed if each.prompt in wanted]
        self.failed += failed
        self._untrained -= len(failed)


def call_size(prompts_per_step: int, prompts_per_call: int) -> int:
    """The largest size within the limit that divides a batch: any calls then fill one exactly, in whatever order they end."""
    return next(size for size in range(min(prompts_per_call, prompts_per_step), 0, -1) if prompts_per_step % size == 0)
