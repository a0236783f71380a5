"""Where a pipeline stands, in a checkpoint and out of it: prompts by key, finished groups by file."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.actors.errors import InputsLost
from cluster.actors.ports import GroupRef, RecordsPort
from cluster.settings.tree import Settings
from cluster.store.checkpoint import GROUPS, RunState, SavedGroup, SavedPrompt
from cluster.store.run_folder import read_settings
from cluster.training.pipeline import Pipeline
from cluster.training.rollout_client import RolloutClient
from learner.config import Stage
from rollout.data.dataset import PromptOrder
from rollout.types import Prompt


def note_position(pipeline: Pipeline, state: RunState) -> list[GroupRef]:
    """Write into `state` what the pipeline has taken and not yet handed over -> the groups whose content belongs beside it."""
    made = pipeline.made_ahead()
    ready, again = (made, []) if pipeline.stage.sampled else ([], [group.prompt for group in made])
    state.order = pipeline.order.state()
    state.pending = [_saved(prompt) for prompt in again + pipeline.unfinished()]
    state.filtered = [_saved(prompt) for prompt in pipeline.filtered]
    state.ready = [SavedGroup(_saved(group.prompt), group.reward_range, group.version) for group in ready]
    return ready


def requeue_what_was_sampled_otherwise(state: RunState, checkpoint: Path, settings: Settings) -> None:
    """Have the finished groups made again where a resume changes how prompts are sampled or rewarded."""
    before = read_settings(checkpoint / "config.yaml")
    if (before.rollout, before.reward) != (settings.rollout, settings.reward):
        state.requeue_ready()


async def write_groups(records: RecordsPort, ready: Sequence[GroupRef], folder: Path, state: RunState) -> None:
    """Those that are lost are queued again in `state`."""
    if not ready:
        return
    path = folder / GROUPS
    try:
        await records.write_groups(path, ready)
    except InputsLost:
        path.unlink(missing_ok=True)
        state.requeue_ready()


async def restored(
    state: RunState,
    checkpoint: Path | None,
    client: RolloutClient,
    stage: Stage,
    records: RecordsPort,
    prompts: list[Prompt],
    settings: Settings,
) -> Pipeline:
    """The pipeline of a stage as `state` and the checkpoint's groups describe it."""
    by_id = {prompt.id: prompt for prompt in prompts}

    def prompt(saved: SavedPrompt) -> Prompt:
        return replace(by_id[saved.id], epoch=saved.epoch, attempt=saved.attempt)

    references: Sequence[Any] = ()
    if state.ready:
        assert checkpoint is not None, "the start has no groups"
        references = await records.read_groups(checkpoint / GROUPS, len(state.ready))
    ready = [
        GroupRef(prompt(saved.prompt), reference, saved.version, saved.reward_range)
        for saved, reference in zip(state.ready, references, strict=True)
    ]
    return Pipeline(
        client=client,
        stage=stage,
        order=PromptOrder(prompts, settings.seed, **state.order),
        prompts_per_call=settings.rollout.prompts_per_call,
        max_staleness=settings.cluster.max_staleness,
        prompts_left=(stage.last - state.step) * stage.prompts_per_step,
        dynamic_sampling=settings.rollout.dynamic_sampling if stage.sampled else 0,
        queue=deque(map(prompt, state.pending)),
        filtered=deque(map(prompt, state.filtered)),
        ready=deque(ready),
    )


def _saved(prompt: Prompt) -> SavedPrompt:
    return SavedPrompt(prompt.epoch, prompt.id, prompt.attempt)
