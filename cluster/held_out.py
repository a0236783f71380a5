"""Greedy replies to a whole file across the samplers -> the evaluation's figures."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cluster.pipeline import PublishedWeights, sample
from cluster.pool import Pool
from rollout.types import Prompt

PROMPTS_PER_CALL = 32

Result = tuple[dict[str, Any], list[dict[str, Any]]]


async def evaluate(
    samplers: Pool, rewards: Pool, prompts: Sequence[Prompt], weights: PublishedWeights, constant_reply: str | None
) -> Result:
    """Figures as in `reward.evaluation`, and one row per prompt with reply and passages."""
    calls = [prompts[i : i + PROMPTS_PER_CALL] for i in range(0, len(prompts), PROMPTS_PER_CALL)]
    answered = await asyncio.gather(*(sample(samplers, call, "greedy", lambda: weights) for call in calls))
    groups = [group for _, groups in answered for group in groups]
    (figures, rows), _ = await rewards.call(lambda actor: [actor.evaluate.remote(constant_reply, *groups)])
    return figures, rows
