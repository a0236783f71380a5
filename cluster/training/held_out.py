"""Greedy replies to a whole file across the samplers -> the evaluation's figures, and a run's evaluations."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cluster.actors.replica import cancel_quietly
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.records import Best, Row, best_of
from cluster.store.run_folder import RunFolder
from cluster.training.inputs import Inputs
from cluster.training.isolation import FailedPrompt, isolate_failures
from cluster.training.rollout_client import Actors, Snapshot, again_where_inputs_are_lost, sample, score
from rollout.types import Prompt

PROMPTS_PER_CALL = 32

Result = tuple[dict[str, Any], list[dict[str, Any]]]


class HeldOut:
    """The evaluations of a run: the same prompts each time, all figures in its evaluations.jsonl."""

    def __init__(
        self,
        settings: Settings,
        inputs: Inputs,
        folder: RunFolder,
        samplers: Actors,
        rewards: Actors,
        failed_prompts: FailedPrompts,
    ):
        self._settings, self._inputs, self._folder = settings, inputs, folder
        self._samplers, self._rewards, self._failed_prompts = samplers, rewards, failed_prompts
        self._constant_reply: asyncio.Future[str] | None = None

    def find_constant_reply(self, known: str | None) -> None:
        """Begin to search the training answer that scores best when said to everything, unless it is known."""
        self._constant_reply = asyncio.ensure_future(self._found_constant_reply(known))

    async def constant_reply(self) -> str:
        found = self._constant_reply
        if found is None or (found.done() and found.exception() is not None):
            found = self._constant_reply = asyncio.ensure_future(self._found_constant_reply(None))
        return await found

    def is_due(self, step: int, at_the_end_of_a_stage: bool) -> bool:
        """Before, between and after the stages and every `eval_every` steps, once a step."""
        every = self._settings.eval_every
        due = step == 0 or at_the_end_of_a_stage or (every > 0 and step % every == 0)
        return due and bool(self._inputs.valid) and all(row["step"] != step for row in self._folder.evaluation_rows())

    async def evaluate(self, step: int, stage: str, weights: Snapshot, republish: Callable[[], Awaitable[Snapshot]]) -> Row:
        """One more row of evaluations.jsonl; what is lost on the way is made again."""
        constant_reply = await self.constant_reply()

        async def evaluated() -> Result:
            left_out = self._failed_prompts.ids("valid")
            prompts = [prompt for prompt in self._inputs.valid if prompt.id not in left_out]
            return await evaluate(self._samplers, self._rewards, prompts, weights, constant_reply, leave_out)

        def leave_out(failed: FailedPrompt) -> None:
            self._failed_prompts.add("valid", step, failed)

        async def restore() -> None:
            nonlocal weights
            weights = await republish()

        figures, _ = await again_where_inputs_are_lost(evaluated, restore)
        row = {"step": step, "stage": stage, **figures}
        self._folder.append(self._folder.evaluations, row)
        return row

    def best(self) -> Best:
        return best_of(self._folder.evaluation_rows())

    def close(self) -> None:
        if self._constant_reply is not None:
            cancel_quietly(self._constant_reply)

    async def _found_constant_reply(self, known: str | None) -> str:
        if known is not None:
            return known
        prompts, seed = self._inputs.train, self._settings.seed
        reply, _ = await self._rewards.call(lambda actor: [actor.constant_reply.remote(prompts, seed)])
        return reply


async def evaluate(
    samplers: Actors,
    rewards: Actors,
    prompts: Sequence[Prompt],
    weights: Snapshot,
    constant_reply: str | None,
    fail: Callable[[FailedPrompt], None],
) -> Result:
    """Figures as in `reward.evaluation`, and one row per prompt with reply and passages. fail: told of prompts that cannot be
    answered or rewarded; the figures are those of the others. Raises what the first one met if there are none."""

    async def replies(prompts: tuple[Prompt, ...], attempts: int) -> list[Any]:
        _, groups = await sample(samplers, prompts, "greedy", lambda: weights, attempts)
        _, scored = await score(rewards, groups, attempts)
        return scored

    calls = [tuple(prompts[i : i + PROMPTS_PER_CALL]) for i in range(0, len(prompts), PROMPTS_PER_CALL)]
    failed: list[FailedPrompt] = []

    def note(one: FailedPrompt) -> None:
        failed.append(one)
        fail(one)

    answers = [asyncio.ensure_future(isolate_failures(call, replies, note)) for call in calls]
    try:
        answered = await asyncio.gather(*answers)
    finally:
        for answer in answers:
            cancel_quietly(answer)
    groups = [group for made in answered for call in made for group in call]
    if failed and not groups:
        raise failed[0].error
    evaluation, _ = await rewards.call(lambda actor: [actor.evaluate.remote(constant_reply, *groups)])
    return evaluation.figures, evaluation.predictions
