"""`evaluate`: greedy replies, and draws, of a checkpoint, or of a plain model folder, to a whole file."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from cluster.actors.actor_ports import ActorPorts
from cluster.actors.corpus_vectors import corpus_vectors
from cluster.actors.errors import cause
from cluster.actors.factories import ray_actors
from cluster.actors.session import surroundings
from cluster.actors.snapshots import SnapshotStore
from cluster.commands.policy_source import CHECKPOINT, flags_of_a_policy, open_policy
from cluster.output import print_err, print_out
from cluster.settings.tree import Settings
from cluster.settings.values import split
from cluster.store.checkpoint import RunState
from cluster.store.rows import Row
from cluster.store.run_folder import check_writable
from cluster.training import held_out
from cluster.training.data_fit import fitted_prompts
from cluster.training.inputs import check_retrieval, tell_absent_gold, with_language
from cluster.training.readings import open_readings, wanted_readings, with_readings
from cluster.training.rollout_client import RolloutClient
from cluster.watch.terminal import evaluation_table
from reward.evaluation import Evaluation
from rollout.config import Positive, Section
from rollout.data.dataset import read_prompts
from rollout.data.file_settings import Files
from rollout.data.files import shown
from rollout.errors import DISK_REMEDY, ClusterError, writing
from rollout.policy.loading import skeleton
from rollout.retrieval.corpus import Corpus
from rollout.text import AUTO
from rollout.types import NO_DRAWS, Draws, Prompt, Version


class EvaluateOptions(Section):
    checkpoint: Path = Field(description=CHECKPOINT)
    data: Files = Field(description="examples: .jsonl or .parquet files, patterns, folders")
    passages: Files | None = Field(None, description="passages to retrieve from; default: those of the run")
    output: Path | None = Field(None, description="JSON file for the figures; without it they are printed")
    predictions: Path | None = Field(None, description="jsonl file for every reply with its passages")
    limit: Positive | None = Field(None, description="evaluate the first examples only")
    config: Path | None = Field(None, description="YAML file of settings; default: the checkpoint's own")


def evaluate(argv: Sequence[str]) -> None:
    """Greedy replies of a checkpoint, or of a plain model folder, to a whole file."""
    given = flags_of_a_policy("evaluate", evaluate.__doc__, EvaluateOptions, argv)
    options, values = split(EvaluateOptions, given)
    for path, other in ((options.output, options.predictions), (options.predictions, None)):
        if path is not None:
            check_writable(path, (*options.data, *(options.passages or ()), other))
    opened = open_policy(options.checkpoint, values, options.config, options.passages, surroundings())
    settings, state = opened.settings, opened.state
    without_learner = settings.cluster.with_values(learner_cpus=0.0, learner_gpus=0.0)
    settings = settings.model_copy(update={"cluster": without_learner})
    prompts = read_prompts(options.data, bool(settings.reward.extra), print_err)[: options.limit]
    if settings.data.language == AUTO:
        settings = with_language(settings, prompts)
        print_err(settings.data.text_rules.told())
    corpus = check_retrieval(settings, prompts, print_err)
    prompts = tell_absent_gold(shown(options.data), prompts, corpus, print_err)
    prompts, told = fitted_prompts(settings, shown(options.data), prompts, skeleton(opened.path, settings.policy), 1.0)
    for text in told:
        print_err(text)
    with ray_actors(settings, "evaluate") as build_actors:
        actors, passages = build_actors(opened.path, print_err), len(corpus) if isinstance(corpus, Corpus) else 0
        evaluation = asyncio.run(_evaluated(settings, actors, prompts, passages, state))
    if options.predictions is not None:
        with writing(options.predictions, DISK_REMEDY):
            options.predictions.write_text("".join(json.dumps(row) + "\n" for row in evaluation.predictions), encoding="utf-8")
    if options.output is not None:
        with writing(options.output, DISK_REMEDY):
            options.output.write_text(json.dumps(evaluation.figures, indent=1) + "\n", encoding="utf-8")
        step, stage = (state.step, state.stage) if state else (0, "folder")
        print_out(evaluation_table([{"step": step, "stage": stage, **evaluation.figures}]))
    else:
        print_out(json.dumps(evaluation.figures))


async def _evaluated(
    settings: Settings, actors: ActorPorts, prompts: Sequence[Prompt], passages: int, state: RunState | None
) -> Evaluation:
    """passages: how many are searched. Raises what the first prompt met that cannot be answered."""
    vectors = corpus_vectors(settings, passages, actors.samplers, actors.index, print_err)
    snapshots = SnapshotStore(None, Version(0, state.step if state is not None else 0), vectors)
    client = RolloutClient(actors.samplers, actors.rewards, snapshots, "greedy", actors.retry)

    async def of(prompts: Sequence[Prompt], floor: str | None = None, draws: Draws = NO_DRAWS) -> Evaluation:
        evaluation, failed = await held_out.evaluate(client, actors.records, prompts, floor, 0, draws)
        if evaluation is None:
            raise ClusterError(f"prompt {failed[0].prompt.id!r}: {cause(failed[0].error)}") from failed[0].error
        return evaluation

    async def figures_of(prompts: Sequence[Prompt]) -> Row:
        return (await of(prompts)).figures

    try:
        actors.start()
        await actors.index.opened()
        await snapshots.embed_corpus()
        evaluation = await of(prompts, state.constant_reply if state is not None else None, settings.draws)
        if not (wanted := wanted_readings(settings, prompts, at_the_end=False)):
            return evaluation
        readings = await asyncio.to_thread(open_readings, settings)
        figures = await with_readings(evaluation.figures, prompts, wanted, readings, figures_of)
        return replace(evaluation, figures=figures)
    finally:
        actors.close()
