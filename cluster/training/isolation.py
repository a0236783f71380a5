"""Prompts that fail together are tried one by one, and one that fails alone is told apart from bad luck."""

from collections import deque
from collections.abc import Sequence

from cluster.actors.retry_policy import RetryPolicy
from cluster.store.failed_prompts import FailedPrompt
from rollout.types import Prompt


class Isolation:
    """What a call of several prompts is answered in: one part, or where that fails a part for each prompt, so that none can
    spoil the others. `failed`: those that failed `prompt_attempts` times by themselves."""

    def __init__(self, prompts: Sequence[Prompt], retry: RetryPolicy):
        self.failed: list[FailedPrompt] = []
        self._retry = retry
        self._parts = deque([tuple(prompts)])
        self._errors: list[Exception] = []  # of the part that is tried now

    @property
    def part(self) -> tuple[Prompt, ...] | None:
        """What is to be tried now; None when all is answered or has failed."""
        return self._parts[0] if self._parts else None

    def answered(self) -> None:
        self._parts.popleft()
        self._errors = []

    def met(self, error: Exception) -> None:
        """The part failed, perhaps because of one of its prompts."""
        self._errors.append(error)
        prompts = self._parts[0]
        if len(prompts) > 1:
            self.answered()
            self._parts.extendleft((prompt,) for prompt in reversed(prompts))
        elif len(self._errors) == self._retry.prompt_attempts:
            self.failed.append(FailedPrompt(prompts[0], self._errors[0]))
            self.answered()
