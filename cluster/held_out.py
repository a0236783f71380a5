"""Greedy replies to a whole file across the samplers -> the evaluation's figures."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from cluster.pipeline import FailedPrompt, PublishedWeights, isolating_poison, sample
from cluster.pool import Pool
from rollout.types import Prompt

PROMPTS_PER_CALL = 32

Result = tuple[dict[str, Any], list[dict[str, Any]]]


async def evaluate(
    samplers: Pool,
    rewards: Pool,
    prompts: Sequence[Prompt],
    weights: PublishedWeights,
    constant_reply: str | None,
    fail: Callable[[FailedPrompt], None],
) -> Result:
    """Figures as in `reward.evaluation`, and one row per prompt with reply and passages. fail: told of prompts that cannot be
    answered; the figures are those of the others. Raises what the first one met if there are none."""

    async def replies(prompts: tuple[Prompt, ...], attempts: int) -> list[Any]:
        _, groups = await sample(samplers, prompts, "greedy", lambda: weights, attempts)
        return groups

    calls = [tuple(prompts[i : i + PROMPTS_PER_CALL]) for i in range(0, len(prompts), PROMPTS_PER_CALL)]
    answered = await asyncio.gather(*(isolating_poison(call, replies) for call in calls))
    failed = [failed for made in answered for failed in made.failed]
    groups = [group for made in answered for call in made.calls for group in call]
    if failed and not groups:
        raise failed[0].error
    for each in failed:
        fail(each)
    (figures, rows), _ = await rewards.call(lambda actor: [actor.evaluate.remote(constant_reply, *groups)])
    return figures, rows
