"""The ports of samplers, reward actors and the records actor on Ray: pools whose calls return references to groups."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.actors.pool import Pool
from cluster.actors.ports import GroupRef, SampledCall, ScoredCall, Snapshot
from cluster.actors.retry_policy import RetryPolicy
from reward.evaluation import Evaluation
from rollout.types import Mode, Prompt, ScoreReport


class SamplerPool(Pool):
    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        def invoke(actor: Any) -> list[Any]:
            current = snapshot()
            weights = [] if current.weights is None else [current.weights]  # a reference in a list is not fetched
            return actor.sample.options(num_returns=1 + len(prompts)).remote(list(prompts), mode, current.version, weights)

        report, references = await self.call(invoke, self._retry.attempts(len(prompts)))
        groups = (GroupRef(prompt, reference, report.version) for prompt, reference in zip(prompts, references, strict=True))
        return SampledCall(tuple(groups), report)


class RewardPools:
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
        measured = await asyncio.gather(*(_measured(pool, references, attempts) for pool in self._own))

        def invoke(actor: Any) -> list[Any]:
            return actor.score.options(num_returns=1 + len(groups)).remote(
                len(groups), *references, *(values for _, values in measured)
            )

        report, scored = await self._scorers.call(invoke, attempts)
        report = with_seconds_of(report, [own for own, _ in measured])
        parts = zip(groups, scored, report.reward_ranges, strict=True)
        return ScoredCall(tuple(replace(group, reference=new, reward_range=range) for group, new, range in parts), report)

    def close(self) -> None:
        for pool in self._all:
            pool.close()


def with_seconds_of(report: ScoreReport, others: Sequence[ScoreReport]) -> ScoreReport:
    """The report of a call with the time that extra rewards took in actors of their own."""
    seconds = sum(each.figures["seconds_reward"] for each in (report, *others))
    return replace(report, figures=report.figures | {"seconds_reward": seconds})


async def _measured(pool: Pool, references: Sequence[Any], attempts: int) -> tuple[ScoreReport, Any]:
    """The report of one extra reward, and a reference to its values."""
    report, [values] = await pool.call(lambda actor: actor.measure.options(num_returns=2).remote(*references), attempts)
    return report, values


class RecordsPool(Pool):
    async def evaluate(self, constant_reply: str | None, groups: Sequence[GroupRef]) -> Evaluation:
        references = [group.reference for group in groups]
        evaluation, _ = await self.call(lambda actor: [actor.evaluate.remote(constant_reply, *references)])
        return evaluation

    async def constant_reply(self, prompts: Sequence[Prompt], seed: int) -> str:
        reply, _ = await self.call(lambda actor: [actor.constant_reply.remote(list(prompts), seed)])
        return reply

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None:
        references = [group.reference for group in groups]
        await self.call(lambda actor: [actor.write_groups.remote(path, *references)])

    async def read_groups(self, path: Path, count: int) -> list[Any]:
        _, references = await self.call(lambda actor: actor.read_groups.options(num_returns=1 + count).remote(path))
        return references
