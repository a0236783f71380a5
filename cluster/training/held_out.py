"""Replies to whole files across the samplers -> the evaluation's figures, and a run's evaluations."""

import asyncio
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

from cluster.actors.errors import InputsLost
from cluster.actors.ports import GroupRef, RecordsPort
from cluster.actors.tasks import cancel_quietly
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompt, FailedPrompts
from cluster.store.rows import Best, Row, best_of
from cluster.store.run_folder import RunFolder
from cluster.training.inputs import Inputs
from cluster.training.rollout_client import RolloutClient
from reward.evaluation import Evaluation
from rollout.types import Draws, Prompt

PROMPTS_PER_CALL = 32
NEW_SERIES = "held-out figures are measured otherwise from here on; best and patience compare the new ones alone"


class HeldOutEvaluations:
    """Those of a run: the same prompts each time, and the same random numbers for its draws."""

    def __init__(self, settings: Settings, inputs: Inputs, folder: RunFolder, client: RolloutClient, records: RecordsPort):
        self._settings, self._inputs, self._folder = settings, inputs, folder
        self._client, self._records = client, records
        self.measure = _measure(settings, inputs)
        self._constant_reply: asyncio.Future[str] | None = None

    def find_constant_reply(self, known: str | None) -> None:
        """Begin to search the training answer that scores best when said to everything, unless it is known."""
        self._constant_reply = asyncio.ensure_future(self._found_constant_reply(known))

    async def constant_reply(self) -> str:
        assert self._constant_reply is not None, "find_constant_reply() comes first"
        return await self._constant_reply

    def is_due(self, step: int, at_the_end_of_a_stage: bool) -> bool:
        """Before, between and after the stages and every `eval_every` steps, once a step."""
        every = self._settings.eval_every
        due = step == 0 or at_the_end_of_a_stage or (every > 0 and step % every == 0)
        known = [row["step"] for row in self._folder.evaluation_rows() if row.get("measure") == self.measure]
        return due and bool(self._inputs.valid) and step not in known

    def told(self) -> list[str]:
        """What a run is told at its start: whether it was evaluated by another measure."""
        rows = self._folder.evaluation_rows()
        return [NEW_SERIES] if rows and rows[-1].get("measure") != self.measure else []

    async def evaluate(self, step: int, stage: str, failed_prompts: FailedPrompts) -> Row:
        """A row for evaluations.jsonl, without the prompts that failed before and those that fail now. The first set's figures
        are its own, by which runs are compared; those of others stand beneath their names."""
        first, *others = self._inputs.valid
        row = {"step": step, "stage": stage, "measure": self.measure, **await self._figures(first, step, failed_prompts)}
        if others:
            row |= {"set": first, "others": {name: await self._figures(name, step, failed_prompts) for name in others}}
        return row

    def best(self, patience_from: int = 0) -> Best:
        return best_of(self._folder.evaluation_rows(), patience_from)

    def close(self) -> None:
        if self._constant_reply is not None:
            cancel_quietly(self._constant_reply)

    async def _figures(self, name: str, step: int, failed_prompts: FailedPrompts) -> Row:
        file = self._inputs.file_of(name)
        left_out = failed_prompts.ids(file)
        prompts = [prompt for prompt in self._inputs.valid[name] if prompt.id not in left_out]
        constant_reply, room = await self.constant_reply(), failed_prompts.room
        evaluation, failed = await evaluate(self._client, self._records, prompts, constant_reply, room, self._settings.draws)
        failed_prompts.add(file, step, failed)
        if evaluation is None:
            raise failed[0].error
        return evaluation.figures

    async def _found_constant_reply(self, known: str | None) -> str:
        return await self._records.constant_reply(self._inputs.train, self._settings.seed) if known is None else known


def _measure(settings: Settings, inputs: Inputs) -> str:
    """A name for all that greedy held-out figures, which best and patience compare, depend on beside the policy's weights."""
    read = [settings.reward, settings.data.query, settings.policy.n_context, settings.rollout.max_new_tokens]
    parts = [*map(repr, read), *(repr(prompt.id) for prompt in inputs.held_out), *map(repr, sorted(inputs.digests.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


async def evaluate(
    client: RolloutClient,
    records: RecordsPort,
    prompts: Sequence[Prompt],
    constant_reply: str | None,
    most_failed: int,
    draws: Draws,
) -> tuple[Evaluation | None, list[FailedPrompt]]:
    """The evaluation of the prompts that were answered and rewarded, and those that were not; None where none is left, or more
    than `most_failed` failed. Draws follow the greedy replies of `client`. What is lost on the way is made again."""
    for losses in itertools.count(1):
        greedy, failed = await _replies(client, prompts, most_failed, PROMPTS_PER_CALL)
        answered = [group.prompt for group in greedy]
        drawn: list[GroupRef] = []
        if draws.samples and answered and len(failed) <= most_failed:
            drawing, at_once = replace(client, mode="draw"), _prompts_per_call(draws.samples)
            drawn, undrawn = await _replies(drawing, answered, most_failed - len(failed), at_once)
            failed += undrawn
        if len(failed) > most_failed or not greedy or (draws.samples and not drawn):
            break
        try:
            return await records.evaluate(constant_reply, draws.temperature, greedy, drawn), failed
        except InputsLost:
            if losses == client.retry.call_attempts:
                raise
            await asyncio.sleep(client.retry.pause_s(losses - 1))
    return None, failed


def largest_call(draws: int, context: int, response: int) -> int:
    """Tokens of prompts that are evaluated together, of so many tokens each."""
    greedy = PROMPTS_PER_CALL * (context + response)
    return max(greedy, _prompts_per_call(draws) * (context + draws * response) if draws else 0)


def _prompts_per_call(draws: int) -> int:
    """Of so many draws each: together as many replies as greedy ones."""
    return max(1, PROMPTS_PER_CALL // draws)


async def _replies(
    client: RolloutClient, prompts: Sequence[Prompt], most_failed: int, at_once: int
) -> tuple[list[GroupRef], list[FailedPrompt]]:
    """Groups in the order of the prompts, and those that failed; only those of answered calls if too many prompts failed."""
    tasks = [client.submit(prompts[i : i + at_once]).task for i in range(0, len(prompts), at_once)]
    try:
        for ended in asyncio.as_completed(tasks):
            most_failed -= len((await ended).failed)
            if most_failed < 0:
                break
    finally:
        outcomes = [task.result() for task in tasks if task.done() and not task.cancelled() and not task.exception()]
        for task in tasks:
            cancel_quietly(task)
    groups = [group for outcome in outcomes for rollout in outcome.rollouts for group in rollout.groups]
    return groups, [each for outcome in outcomes for each in outcome.failed]
