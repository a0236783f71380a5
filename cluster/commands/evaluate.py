"""`evaluate`: greedy replies of a checkpoint, or of a plain model folder, to a whole file."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from cluster.actors.autoscaler import start_what_fits
from cluster.actors.factories import reward_pool, sampler_pool
from cluster.actors.session import Shares, session
from cluster.commands.policy_source import CHECKPOINT, READ_BY_A_POLICY, flags_of_a_policy, open_policy
from cluster.output import print_err, print_out
from cluster.settings.flags import split
from cluster.settings.tree import Settings
from cluster.store.checkpoint import TrainState
from cluster.store.run_folder import check_writable
from cluster.training import held_out
from cluster.training.inputs import check_retrieval
from cluster.training.isolation import FailedPrompt
from cluster.training.rollout_client import Snapshot
from cluster.watch.terminal import evaluation_table
from rollout.config import Positive, Section
from rollout.data.dataset import read_prompts
from rollout.errors import DISK_REMEDY, writing
from rollout.types import Prompt, Version


class EvaluateOptions(Section):
    checkpoint: Path = Field(description=CHECKPOINT)
    data: Path = Field(description="examples, .jsonl or .parquet")
    passages: Path | None = Field(None, description="passages to retrieve from; default: those of the run")
    output: Path | None = Field(None, description="JSON file for the figures; without it they are printed")
    predictions: Path | None = Field(None, description="jsonl file for every reply with its passages")
    limit: Positive | None = Field(None, description="evaluate the first examples only")
    config: Path | None = Field(None, description="YAML file of settings; default: the checkpoint's own")


USED_IN_EVALUATION = (
    "data.query",
    "data.cache",
    *READ_BY_A_POLICY,
    "rollout.max_new_tokens",
    "reward.",
    "cluster.samplers",
    "cluster.min_samplers",
    "cluster.max_samplers",
    "cluster.rewards",
    "cluster.threads",
    "cluster.sampler_",
    "cluster.reward_",
    "cluster.start_deadline_s",
    "cluster.call_deadline_s",
    "cluster.dashboard_port",
)


def evaluate(argv: Sequence[str]) -> None:
    """Greedy replies of a checkpoint, or of a plain model folder, to a whole file."""
    given = flags_of_a_policy("evaluate", evaluate.__doc__, EvaluateOptions, argv, USED_IN_EVALUATION)
    options, values = split(EvaluateOptions, given)
    for path, other in ((options.output, options.predictions), (options.predictions, None)):
        if path is not None:
            check_writable(path, (options.data, options.passages, other))
    opened = open_policy(options.checkpoint, values, options.config, options.passages)
    settings, state = opened.settings, opened.state
    cluster = settings.cluster.model_copy(update={"learner_cpus": 0.0, "learner_gpus": 0.0})  # nobody learns here
    settings = settings.model_copy(update={"cluster": cluster})
    prompts = read_prompts(options.data, keep_extra=bool(settings.reward.extra))[: options.limit]
    check_retrieval(settings, prompts)
    with session(settings.cluster, "evaluate") as shares:
        figures, rows = asyncio.run(_figures_and_rows(settings, shares, opened.path, prompts, state))
    if options.predictions is not None:
        with writing(options.predictions, DISK_REMEDY):
            options.predictions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if options.output is not None:
        with writing(options.output, DISK_REMEDY):
            options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print_out(
            evaluation_table([{"step": state.step if state else 0, "stage": state.stage if state else "folder", **figures}])
        )
    else:
        print_out(json.dumps(figures))


async def _figures_and_rows(
    settings: Settings, shares: Shares, policy_path: str, prompts: Sequence[Prompt], state: TrainState | None
) -> held_out.Result:
    def raise_its_error(failed: FailedPrompt) -> None:
        raise failed.error

    namespace = f"evaluate-{uuid.uuid4().hex[:8]}"
    samplers = sampler_pool(settings, shares, namespace, policy_path, print_err)
    rewards = reward_pool(settings, shares, namespace, print_err)
    try:
        start_what_fits(samplers, settings.cluster, shares)
        rewards.start()
        constant_reply = state.constant_reply if state is not None else None
        weights = Snapshot(Version(0, state.step if state is not None else 0))
        return await held_out.evaluate(samplers, rewards, prompts, weights, constant_reply, raise_its_error)
    finally:
        samplers.close()
        rewards.close()
