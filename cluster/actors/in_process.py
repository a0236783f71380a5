"""All roles in this process, called directly and in turn, so that a debugger can follow a prompt through them: no Ray."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cluster.actors.factories import learner_arguments, sampler_arguments
from cluster.actors.pools import with_seconds_of
from cluster.actors.ports import ActorHandles, GroupRef, SampledCall, ScoredCall, Snapshot, UpdateCall
from cluster.settings.tree import Settings
from learner.actor import LearnerActor
from learner.config import Stage
from reward.actor import ExtraRewardActor, RecordsActor, RewardActor
from reward.evaluation import Evaluation
from rollout.actor import SamplerActor
from rollout.errors import RewardError, SettingsError
from rollout.types import Mode, Prompt, Version


class InProcess:
    """One actor's plain object, made by `make` when it is started, which keeps its own number of torch threads."""

    restarts = 0

    def __init__(self, make: Callable[[], Any]):
        self._make = make
        self.states = {"starting": 0, "idle": 1, "busy": 0}

    def start(self) -> None:
        self._made = self._make()
        self._made.ready()
        self._threads = torch.get_num_threads()

    @property
    def actor(self) -> Any:
        torch.set_num_threads(self._threads)
        return self._made

    def close(self) -> None:
        """Nothing of it outlives this process."""


class InProcessSampler(InProcess):
    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        current = snapshot()
        weights = [] if current.weights is None else [current.weights]
        report, *groups = self.actor.sample(list(prompts), mode, current.version, weights)
        refs = (GroupRef(group.prompt, group, report.version) for group in groups)
        return SampledCall(tuple(refs), report)


class InProcessRewards(InProcess):
    """In a thread of its own, where a user's reward may run an event loop. What it raises keeps its traceback, which ends the
    run: it is what a debugger is asked for. own: actors of those extra rewards that would have a pool of their own."""

    def __init__(self, make: Callable[[], Any], own: Sequence[InProcess] = ()):
        super().__init__(make)
        self._own, self._thread = own, ThreadPoolExecutor(1, "rewards")

    def start(self) -> None:
        with users_traceback():
            for start in (super().start, *(each.start for each in self._own)):
                self._thread.submit(start).result()

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        with users_traceback():
            made = [group.reference for group in groups]
            report, *scored = await asyncio.get_running_loop().run_in_executor(self._thread, self._score, made)
        parts = zip(groups, scored, report.reward_ranges, strict=True)
        return ScoredCall(tuple(replace(group, reference=new, reward_range=range) for group, new, range in parts), report)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _score(self, groups: Sequence[Any]) -> Any:
        measured = [each.actor.measure(*groups) for each in self._own]
        report, *scored = self.actor.score(len(groups), *groups, *(values for _, values in measured))
        return with_seconds_of(report, [own for own, _ in measured]), *scored


@contextlib.contextmanager
def users_traceback() -> Iterator[None]:
    """Raise what a user's reward raised in place of our line about it; where it returned something wrong, there is none."""
    try:
        yield
    except RewardError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


class InProcessRecords(InProcess):
    async def evaluate(self, constant_reply: str | None, groups: Sequence[GroupRef]) -> Evaluation:
        return self.actor.evaluate(constant_reply, *(group.reference for group in groups))

    async def constant_reply(self, prompts: Sequence[Prompt], seed: int) -> str:
        return self.actor.constant_reply(list(prompts), seed)

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None:
        self.actor.write_groups(path, *(group.reference for group in groups))

    async def read_groups(self, path: Path, count: int) -> list[Any]:
        return list(self.actor.read_groups(path)[1:])


class InProcessLearner(InProcess):
    async def start(self) -> None:  # type: ignore[override]  # a learner is awaited
        super().start()

    async def begin(self, stage: Stage) -> None:
        self.actor.begin(stage)

    async def update(self, step: int, samples: Path | None, groups: Sequence[GroupRef]) -> UpdateCall:
        return UpdateCall(*self.actor.update(step, samples, *(group.reference for group in groups)))

    async def save(self, folder: Path) -> None:
        self.actor.save(folder)

    async def restore(self, folder: Path, stage: Stage) -> None:
        self.actor.restore(folder, stage)

    async def check(self) -> None:
        """It answers as long as this process does."""

    def publish(self, version: Version) -> Snapshot:
        """A copy: the learner writes its next weights into the same buffer."""
        weights = self.actor.weights()
        return Snapshot(version, replace(weights, values=weights.values.copy()))


class _Sampler(SamplerActor):
    fetch = staticmethod(lambda weights: weights)


def check_in_process(settings: Settings) -> None:
    """Raises SettingsError for what needs several processes."""
    if staleness := settings.cluster.max_staleness:
        raise SettingsError(f"cluster.max_staleness: {staleness} has no meaning with --local: nothing overlaps; give 0")


def in_process_actors(settings: Settings, policy_path: str) -> ActorHandles:
    logging.getLogger("lapdog").disabled = True  # the terminal is the run's
    reward = settings.reward
    own = [InProcess(partial(ExtraRewardActor, "0", extra)) for extra in reward.extra if extra.own_pool]
    return ActorHandles(
        samplers=InProcessSampler(lambda: _Sampler(*sampler_arguments("0", settings, policy_path))),
        rewards=InProcessRewards(lambda: RewardActor("0", reward), own),
        records=InProcessRecords(lambda: RecordsActor(reward)),
        learner=InProcessLearner(lambda: LearnerActor(*learner_arguments(settings, policy_path))),
        nodes=None,
    )
