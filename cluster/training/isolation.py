"""Prompts that fail: those that fail together are tried one by one, and one that fails alone is told apart from bad luck."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ray.exceptions import RayTaskError

from cluster.actors.pool import CALL_ATTEMPTS, ReplicasLost
from rollout.types import Prompt

PROMPT_ATTEMPTS = 3
BY_THE_PROMPT = (RayTaskError, ReplicasLost)  # what a call meets that may be due to one of its prompts

Call = TypeVar("Call")


@dataclass(frozen=True, slots=True)
class FailedPrompt:
    """A prompt that failed `PROMPT_ATTEMPTS` times by itself, and what it met first."""

    prompt: Prompt
    error: Exception


async def isolate_failures(
    prompts: tuple[Prompt, ...],
    answer: Callable[[tuple[Prompt, ...], int], Awaitable[Call]],
    fail: Callable[[FailedPrompt], None],
) -> list[Call]:
    """`answer` prompts, with so many attempts: in one call, or in one for each where that fails, so that none can spoil the
    others. `fail` hears at once of those that cannot be answered."""
    if len(prompts) > 1:
        try:
            return [await answer(prompts, CALL_ATTEMPTS)]
        except BY_THE_PROMPT:
            return [call for prompt in prompts for call in await isolate_failures((prompt,), answer, fail)]
    errors: list[Exception] = []
    while len(errors) < PROMPT_ATTEMPTS:
        try:
            return [await answer(prompts, 1)]
        except BY_THE_PROMPT as error:
            errors.append(error)
    fail(FailedPrompt(prompts[0], errors[0]))
    return []
