"""Prompts that fail: those that fail together are tried one by one, and one that fails alone is told apart from bad luck."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ray.exceptions import RayTaskError

from cluster.pool import CALL_ATTEMPTS, ReplicasLost
from rollout.types import Prompt

PROMPT_ATTEMPTS = 3
BY_THE_PROMPT = (RayTaskError, ReplicasLost)  # what a call meets that may be due to one of its prompts

Call = TypeVar("Call")


@dataclass(frozen=True, slots=True)
class FailedPrompt:
    """A prompt that failed `PROMPT_ATTEMPTS` times by itself, and what it met first."""

    prompt: Prompt
    error: Exception


@dataclass(frozen=True, slots=True)
class Made(Generic[Call]):
    """What became of prompts that were to be answered together: one call as a rule, one for each prompt where that failed."""

    calls: list[Call]
    failed: list[FailedPrompt]


async def isolating_poison(
    prompts: tuple[Prompt, ...], answer: Callable[[tuple[Prompt, ...], int], Awaitable[Call]]
) -> Made[Call]:
    """`answer` prompts, with so many attempts; those that fail together are tried one by one: none can spoil the others."""
    if len(prompts) > 1:
        try:
            return Made([await answer(prompts, CALL_ATTEMPTS)], [])
        except BY_THE_PROMPT:
            made = [await isolating_poison((prompt,), answer) for prompt in prompts]
            return Made([call for one in made for call in one.calls], [failed for one in made for failed in one.failed])
    errors: list[Exception] = []
    while len(errors) < PROMPT_ATTEMPTS:
        try:
            return Made([await answer(prompts, 1)], [])
        except BY_THE_PROMPT as error:
            errors.append(error)
    return Made([], [FailedPrompt(prompts[0], errors[0])])
