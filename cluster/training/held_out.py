"""Replies to whole files across the samplers -> the evaluation's figures, and a run's evaluations."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cluster.actors.errors import InputsLost
from cluster.actors.ports import GroupRef, RecordsPort
from cluster.actors.tasks import cancel_quietly
from cluster.settings.tree import Settings
from cluster.store.failed_prompts import FailedPrompt, FailedPrompts
from cluster.store.rows import Best, Row, best_of
from cluster.store.run_folder import RunFolder
from cluster.training.inputs import Inputs
from cluster.training.readings import open_readings, wanted_readings, with_readings
from cluster.training.rollout_client import InflightCall, RolloutClient
from reward.evaluation import Evaluation
from reward.source import source_digest
from rollout.config import Section
from rollout.digests import digest_of
from rollout.identity import code_digest
from rollout.retrieval.reading import Readings
from rollout.text import TextRules
from rollout.types import NO_DRAWS, Draws, Prompt

PROMPTS_PER_CALL = 32
MEASURING = ("rollout", "reward")  # packages
NEW_SERIES = "held-out figures are measured otherwise from here on; best and patience compare the new ones alone"


class HeldOutEvaluations:
    """Those of a run: the same prompts each time, and the same random numbers for its draws."""

    def __init__(self, settings: Settings, inputs: Inputs, folder: RunFolder, client: RolloutClient, records: RecordsPort):
        self._settings, self._inputs, self._folder = settings, inputs, folder
        self._client, self._records = client, records
        self.measure = _measure(settings, inputs)
        self._constant_reply: asyncio.Future[str] | None = None
        self._readings: Readings | None = None

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

    async def evaluate(self, step: int, stage: str, failed_prompts: FailedPrompts, patience_from: int) -> Row:
        """A row for evaluations.jsonl, without the prompts that failed before and those that fail now. The first set's figures
        are its own, by which runs are compared; those of others stand beneath their names."""
        first, *others = self._inputs.valid
        figures = {name: await self._figures(name, step, failed_prompts) for name in (first, *others)}
        told = {"step": step, "stage": stage, "measure": self.measure}
        at_the_end = step == self._settings.stages()[-1].last or self.patience_is_over(patience_from, told | figures[first])
        for name, own in figures.items():
            figures[name] = await self._with_readings(name, own, step, failed_prompts, at_the_end)
        row = told | figures[first]
        return row | ({"set": first, "others": {name: figures[name] for name in others}} if others else {})

    def best(self) -> Best:
        return best_of(self._folder.evaluation_rows())

    def patience_is_over(self, patience_from: int, *newest: Row) -> bool:
        """newest: rows that are still to be written."""
        best = best_of([*self._folder.evaluation_rows(), *newest], patience_from)
        return 0 < self._settings.patience <= best.evaluations_since

    def close(self) -> None:
        if self._constant_reply is not None:
            cancel_quietly(self._constant_reply)

    async def _figures(self, name: str, step: int, failed_prompts: FailedPrompts) -> Row:
        prompts, constant_reply = self._inputs.valid[name], await self.constant_reply()
        return await self._figures_of(prompts, name, step, failed_prompts, constant_reply, self._settings.draws)

    async def _with_readings(self, name: str, own: Row, step: int, failed_prompts: FailedPrompts, at_the_end: bool) -> Row:
        prompts = self._inputs.valid[name]
        if not (wanted := wanted_readings(self._settings, prompts, at_the_end)):
            return own
        if self._readings is None:
            self._readings = await asyncio.to_thread(open_readings, self._settings)
        measured = partial(self._figures_of, name=name, step=step, failed_prompts=failed_prompts)
        return await with_readings(own, prompts, wanted, self._readings, measured)

    async def _figures_of(
        self,
        prompts: Sequence[Prompt],
        name: str,
        step: int,
        failed_prompts: FailedPrompts,
        constant_reply: str | None = None,
        draws: Draws = NO_DRAWS,
    ) -> Row:
        """Of prompts of a set, whatever they read."""
        file = self._inputs.file_of(name)
        left_out, room = failed_prompts.ids(file), failed_prompts.room
        known = [prompt for prompt in prompts if prompt.id not in left_out]
        evaluation, failed = await evaluate(self._client, self._records, known, constant_reply, room, draws)
        failed_prompts.add(file, step, failed)
        if evaluation is None:
            raise failed[0].error
        return evaluation.figures

    async def _found_constant_reply(self, known: str | None) -> str:
        return await self._records.constant_reply(self._inputs.train, self._settings.seed) if known is None else known


def _measure(settings: Settings, inputs: Inputs) -> str:
    """A name for all that greedy held-out figures, which best and patience compare, depend on beside the policy's weights: what
    is set, what is read, the rules of texts as this process finds them, and the code that makes figures of it."""
    read: list[Section | TextRules | str | int] = [settings.reward, settings.data.query, settings.policy.n_context]
    read += [settings.rollout.max_new_tokens, settings.data.text_rules, code_digest(MEASURING)]
    read += [source_digest(extra) for extra in settings.reward.extra]
    if settings.retriever.used_mode != "lexical":
        read.append(settings.retriever.with_values(path=None, index_actors=0))  # where encoder and index lie does not count
    parts = [*map(repr, read), *(repr(prompt.id) for prompt in inputs.held_out), *map(repr, sorted(inputs.digests.items()))]
    return digest_of(parts)[:8]


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
    calls = [InflightCall(tuple(prompts[i : i + at_once])) for i in range(0, len(prompts), at_once)]
    tasks = [asyncio.create_task(client.outcome(call)) for call in calls]
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
