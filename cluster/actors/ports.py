"""What trainer and pipeline know of actors: their ports, and what comes back through them.

A group stays where it was made; the driver holds a `GroupRef` and passes it on. All raise InputsLost, ReplicasLost, and what a
call raises.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cluster.actors.handle import Reference
from cluster.actors.pool import Pool
from learner.advantage import SAME_REWARD
from learner.update_metrics import UpdateMetrics
from reward.evaluation import Evaluation
from rollout.types import Mode, Prompt, SampleReport, ScoreReport, Version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What samplers work with: a version of the policy, and the vectors of the corpus. weights: how the learner's port hands
    them over, None while the samplers' own folder holds this version. vectors: None where nothing is searched by them."""

    version: Version
    weights: Any = None
    vectors: Any = None


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


class Port(Protocol):
    """What monitors see of a kind of actor. restarts: those that were replaced. states: how many are starting, idle, busy."""

    @property
    def restarts(self) -> int: ...

    @property
    def states(self) -> dict[str, int]: ...

    def close(self) -> None:
        """Kill all."""
        ...


class PooledPort:
    """One of actors that are replaced as they are lost, in a pool or several."""

    def __init__(self, *pools: Pool):
        self._pools = pools

    @property
    def restarts(self) -> int:
        return sum(pool.restarts for pool in self._pools)

    @property
    def states(self) -> dict[str, int]:
        return {state: sum(pool.states[state] for pool in self._pools) for state in self._pools[0].states}

    async def without_a_place_s(self) -> float:
        """Seconds for which Ray has found no room for any of one pool."""
        return max([await pool.without_a_place_s() for pool in self._pools])

    def start(self) -> None:
        for pool in self._pools:
            pool.start()

    def drop_nodes(self, alive: Collection[str]) -> None:
        for pool in self._pools:
            pool.drop_nodes(alive)

    def close(self) -> None:
        for pool in self._pools:
            pool.close()


class SamplerPort(PooledPort):
    """hold: keeps what the driver made, and gives a reference to it."""

    def __init__(self, pool: Pool, hold: Callable[[Any], Any] = Reference.to):
        super().__init__(pool)
        self._pool, self.hold = pool, hold

    @property
    def size(self) -> int:
        """Samplers that are wanted."""
        return self._pool.size

    def resize(self, size: int) -> None:
        self._pool.resize(size)

    async def sample(self, prompts: Sequence[Prompt], mode: Mode, snapshot: Callable[[], Snapshot]) -> SampledCall:
        """One call; `snapshot` is asked when a sampler is free."""

        def current() -> tuple[Version, list[Any], list[Any]]:
            now = snapshot()
            weights, vectors = ([] if each is None else [each] for each in (now.weights, now.vectors))
            return now.version, weights, vectors  # a reference in a list is not opened

        parts, attempts = 1 + len(prompts), self._pool.retry.attempts(len(prompts))
        report, made = await self._pool.call("sample", list(prompts), mode, parts=parts, attempts=attempts, late=current)
        groups = (GroupRef(prompt, reference, report.version) for prompt, reference in zip(prompts, made, strict=True))
        return SampledCall(tuple(groups), report)

    async def embed(self, number: int) -> tuple[str, Any]:
        """Of which corpus and encoder, and a reference to the vectors of a slice."""
        of, [vectors] = await self._pool.call("embed", number, parts=2)
        return of, vectors

    async def lost_slices(self, vectors: Any) -> list[int]:
        """The numbers of those that are gone."""
        lost, _ = await self._pool.call("lost_slices", [vectors])
        return list(lost)


class RewardPort(PooledPort):
    """scorers: the reward actors. own: pools of extra rewards that have actors of their own, whose values the scorers add."""

    def __init__(self, scorers: Pool, own: Sequence[Pool] = ()):
        super().__init__(scorers, *own)
        self._scorers, self._own = scorers, own

    async def score(self, groups: Sequence[GroupRef]) -> ScoredCall:
        references, attempts = [group.reference for group in groups], self._scorers.retry.attempts(len(groups))
        measured = await asyncio.gather(*(pool.call("measure", *references, parts=2, attempts=attempts) for pool in self._own))
        given = *references, *(values for _, [values] in measured)
        report, scored = await self._scorers.call("score", len(groups), *given, parts=1 + len(groups), attempts=attempts)
        seconds = sum(each.figures["seconds_reward"] for each in (report, *(own for own, _ in measured)))
        report = replace(report, figures=report.figures | {"seconds_reward": seconds})
        parts = zip(groups, scored, report.reward_ranges, strict=True)
        return ScoredCall(tuple(replace(group, reference=new, reward_range=range) for group, new, range in parts), report)


class RecordsPort(PooledPort):
    """Work on groups and examples that neither samples nor scores."""

    def __init__(self, pool: Pool):
        super().__init__(pool)
        self._pool = pool

    async def evaluate(
        self, constant_reply: str | None, temperature: float, greedy: Sequence[GroupRef], drawn: Sequence[GroupRef]
    ) -> Evaluation:
        references = (group.reference for group in (*greedy, *drawn))
        evaluation, _ = await self._pool.call("evaluate", constant_reply, temperature, len(greedy), *references)
        return evaluation

    async def constant_reply(self, prompts: Sequence[Prompt], seed: int) -> str:
        reply, _ = await self._pool.call("constant_reply", list(prompts), seed)
        return reply

    async def write_groups(self, path: Path, groups: Sequence[GroupRef]) -> None:
        await self._pool.call("write_groups", path, *(group.reference for group in groups))

    async def read_groups(self, path: Path, count: int) -> Sequence[Any]:
        """References to the groups of a file that holds `count` of them."""
        _, references = await self._pool.call("read_groups", path, parts=1 + count)
        return references
