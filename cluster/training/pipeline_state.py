"""Where a pipeline stands, in a checkpoint and out of it: prompts by key, finished groups by file."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.actors.replica import InputsLost
from cluster.settings.tree import Settings
from cluster.store.checkpoint import GROUPS, TrainState
from cluster.training.isolation import FailedPrompt
from cluster.training.pipeline import Pipeline
from cluster.training.rollout_client import Actors, GroupRef, RolloutClient
from rollout.data.dataset import PromptOrder
from rollout.types import Prompt, Version


def note(pipeline: Pipeline, state: TrainState) -> list[GroupRef]:
    """Write into `state` what the pipeline has taken and not yet handed over -> the groups whose content belongs beside it."""
    made = pipeline.made_ahead()
    ready, again = (made, []) if pipeline.stage.sampled else ([], [group.prompt for group in made])
    state.order = pipeline.order.state()
    state.pending = [_saved(prompt) for prompt in pipeline.given_back + again + pipeline.unfinished()]
    state.filtered = [_saved(prompt) for prompt in pipeline.filtered]
    state.ready = [[*_saved(group.prompt), group.reward_range, group.version] for group in ready]
    return ready


async def write_groups(rewards: Actors, ready: Sequence[GroupRef], folder: Path, state: TrainState) -> None:
    """Those that are lost are queued again in `state`."""
    if not ready:
        return
    path, references = folder / GROUPS, [group.reference for group in ready]
    try:
        await rewards.call(lambda actor: [actor.write_groups.remote(path, *references)])
    except InputsLost:
        path.unlink(missing_ok=True)
        state.requeue_ready()


async def restored(
    state: TrainState,
    checkpoint: Path | None,
    source: RolloutClient,
    prompts: list[Prompt],
    settings: Settings,
    fail: Callable[[FailedPrompt], None],
) -> Pipeline:
    """The pipeline of the source's stage as `state` and the checkpoint's groups describe it."""
    by_id = {prompt.id: prompt for prompt in prompts}

    def prompt(epoch: int, id: str, attempt: int) -> Prompt:
        return replace(by_id[id], epoch=epoch, attempt=attempt)

    stage = source.stage
    references: Sequence[Any] = []
    if state.ready:
        assert checkpoint is not None, "the start has no groups"
        path, count = checkpoint / GROUPS, len(state.ready)
        _, references = await source.rewards.call(lambda actor: actor.read_groups.options(num_returns=1 + count).remote(path))
    ready = [
        GroupRef(prompt(*key), reference, Version(*version), reward_range)
        for (*key, reward_range, version), reference in zip(state.ready, references, strict=True)
    ]
    return Pipeline(
        source=source,
        order=PromptOrder(prompts, settings.seed, **state.order),
        prompts_per_call=settings.rollout.prompts_per_call,
        max_staleness=settings.cluster.max_staleness,
        prompts_left=(stage.last - state.step) * stage.prompts_per_step,
        fail=fail,
        dynamic_sampling=settings.rollout.dynamic_sampling if stage.sampled else 0,
        queue=deque(prompt(*key) for key in state.pending),
        filtered=deque(prompt(*key) for key in state.filtered),
        ready=deque(ready),
    )


def _saved(prompt: Prompt) -> list[Any]:
    return [prompt.epoch, prompt.id, prompt.attempt]
