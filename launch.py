"""Train and evaluate retrieval-augmented generators with GRPO on Ray.

    python launch.py                                   train on the embedded demo
    python launch.py train --config FILE [--learner.lr 1e-5 ...]
    python launch.py train --resume RUN_DIR [--learner.steps 200 ...]
    python launch.py evaluate --checkpoint DIR --data FILE [--passages FILE] [--output FILE.json]
    python launch.py convert --input FILE --output FILE.jsonl

`python launch.py COMMAND --help` lists every setting.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from cluster import checkpoint, held_out, seed_flags
from cluster.actors import reward_pool, sampler_pool
from cluster.config import USED_IN_EVALUATION, ConvertOptions, EvaluateOptions, Settings, TrainOptions, absolute
from cluster.elastic import start_what_fits
from cluster.flags import Values, build, parse_flags, read_yaml, split
from cluster.inputs import (
    Inputs,
    check_models_and_rewards,
    check_retrieval,
    is_demo,
    load_inputs,
    make_demo,
    policy_folder,
    with_demo,
    with_templates_of_its_family,
)
from cluster.pipeline import PublishedWeights
from cluster.poison import FailedPrompt
from cluster.resume import check_fixed, check_resumable
from cluster.run_folder import RunFolder, choose_run_dir, read_settings, writable
from cluster.session import Shares, session
from cluster.terminal import evaluation_table
from cluster.trainer import Trainer
from learner.config import without_preset
from rollout import demo
from rollout.convert import convert_parlai
from rollout.dataset import read_prompts
from rollout.errors import LapdogError, SettingsError, writing
from rollout.policy.loading import resolved
from rollout.types import Version


async def train(trainer: Trainer) -> None:
    """Supervised steps, then GRPO: the whole algorithm."""
    await trainer.start()
    for stage in trainer.stages():
        async with trainer.surviving_the_learner():
            await trainer.begin(stage)
            while trainer.goes_on(stage):
                batch = await trainer.batch()  # retrieve K passages, sample G responses, score them
                await trainer.update(batch)  # advantages, clipped ratio, KL to the reference, one step, fresh weights
    print(trainer.report())


def train_command(argv: Sequence[str]) -> None:
    """Supervised training, then GRPO; without data on the embedded demo."""
    seeds = seed_flags.SWITCHES_HELP, seed_flags.HELP
    given = parse_flags("train", train_command.__doc__, [TrainOptions, Settings], argv, ("",), *seeds)
    options, values = split(TrainOptions, seed_flags.translated(given))
    if options.config is not None:
        values = without_preset(read_yaml(options.config, Settings)) | values
    if options.resume is not None:
        resume_run(options.resume, values)
        return
    on_demo = "data.train" not in values
    settings = build(Settings, demo.SETTINGS | values if on_demo else values)
    path = choose_run_dir(settings, options.config.stem if options.config else "demo" if on_demo else "run")
    settings = settings.model_copy(update={"run_dir": path}).resolved()
    check_models_and_rewards(settings)
    settings = with_templates_of_its_family(settings)
    if on_demo:
        settings = with_demo(settings, RunFolder(path).data)
    inputs = None if on_demo else load_inputs(settings)
    with session(settings.cluster, path.name) as shares:
        folder = RunFolder.create(path)
        with folder.held():
            folder.write_settings(settings)  # from its first instant it can be resumed
            try:
                run(new_trainer(settings, inputs, folder, shares))
            except LapdogError:
                folder.remove_if_nothing_was_done()
                raise


def resume_run(path: Path, values: Values) -> None:
    """Go on with the run in `path`; what it was told stays, but for `values`."""
    folder = RunFolder.existing(path)
    with folder.held():
        before = read_settings(folder.path / "config.yaml").resolved()
        settings = resumed_settings(read_yaml(folder.path / "config.yaml", Settings), values)
        check_fixed(before, settings)
        newest = checkpoint.newest(folder.checkpoints, print)
        check_models_and_rewards(settings)
        inputs = None if newest is None and is_demo(settings, folder.data) else load_inputs(settings)
        if newest is not None and inputs is not None:
            check_resumable(before, settings, inputs, *newest)
        with session(settings.cluster, folder.path.name) as shares:
            folder.write_settings(settings)
            trainer = new_trainer(settings, inputs, folder, shares)
            trainer.resume(newest)
            run(trainer)


def new_trainer(settings: Settings, inputs: Inputs | None, folder: RunFolder, shares: Shares) -> Trainer:
    """inputs: None for those of the demo, which are made in the folder, as the small policy is."""
    inputs = inputs or make_demo(settings, folder.data)
    return Trainer(settings, inputs, folder, policy_folder(settings, inputs.train, folder.policy), shares)


def resumed_settings(told: Values, values: Values) -> Settings:
    """What config.yaml says, under what is said now."""
    return build(Settings, without_preset(told) | values).resolved()


def run(trainer: Trainer) -> None:
    async def with_cleanup() -> None:
        try:
            await train(trainer)
        finally:
            trainer.close()

    asyncio.run(with_cleanup())


def evaluate_command(argv: Sequence[str]) -> None:
    """Greedy replies of a checkpoint, or of a plain model folder, to a whole file."""
    given = parse_flags("evaluate", evaluate_command.__doc__, [EvaluateOptions, Settings], argv, only=USED_IN_EVALUATION)
    options, values = split(EvaluateOptions, given)
    for path in (options.output, options.predictions):
        if path is not None:
            writable(path)
    folder, state = checkpoint.open_for_evaluation(options.checkpoint)
    if options.config is not None:
        values = read_yaml(options.config, Settings) | values
    elif state is not None:
        values = read_yaml(folder / "config.yaml", Settings) | values
    settings = build(Settings, values).resolved()
    cluster = settings.cluster.model_copy(update={"learner_cpus": 0.0, "learner_gpus": 0.0})  # nobody learns here
    passages = settings.data.passages if options.passages is None else absolute(options.passages)
    data = settings.data.model_copy(update={"passages": passages})
    settings = settings.model_copy(update={"cluster": cluster, "data": data})
    prompts = read_prompts(options.data)[: options.limit]
    check_retrieval(settings, prompts)
    policy_path = str(folder / "policy") if state is not None else str(folder)
    settings = settings.model_copy(update={"policy": resolved(policy_path, settings.policy)})

    def raise_its_error(failed: FailedPrompt) -> None:
        raise failed.error

    async def figures_and_rows() -> held_out.Result:
        namespace = f"evaluate-{uuid.uuid4().hex[:8]}"
        samplers = sampler_pool(settings, shares, namespace, policy_path, print)
        rewards = reward_pool(settings, shares, namespace, print)
        try:
            start_what_fits(samplers, settings.cluster, shares)
            rewards.start()
            constant_reply = state.constant_reply if state is not None else None
            weights = PublishedWeights(Version(0, 0))
            return await held_out.evaluate(samplers, rewards, prompts, weights, constant_reply, raise_its_error)
        finally:
            samplers.close()
            rewards.close()

    with session(settings.cluster, "evaluate") as shares:
        figures, rows = asyncio.run(figures_and_rows())
    if options.predictions is not None:
        with writing(options.predictions):
            options.predictions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if options.output is not None:
        with writing(options.output):
            options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(evaluation_table([{"step": state.step if state else 0, "stage": state.stage if state else "folder", **figures}]))
    else:
        print(json.dumps(figures))


def convert_command(argv: Sequence[str]) -> None:
    """ConvAI2 / ParlAI text -> examples, one for every reply of the agent, with both speakers' turns."""
    options = build(ConvertOptions, parse_flags("convert", convert_command.__doc__, [ConvertOptions], argv))
    writable(options.output)
    count = convert_parlai(options.input, options.output, options.history)
    print(f"wrote {count} examples to {options.output}")


COMMANDS = {"train": train_command, "evaluate": evaluate_command, "convert": convert_command}


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, or 2 after one line on stderr that names place, value and remedy."""
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command, rest = ("train", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    try:
        if command not in COMMANDS:
            raise SettingsError(f"{command}: no such command; the commands are {', '.join(COMMANDS)}")
        COMMANDS[command](rest)
    except LapdogError as error:
        cause = getattr(error, "cause", error)  # Ray wraps what an actor raises in its traceback
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the newest checkpoint of the run, if there is one, is whole", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; check the path, its rights and the disk", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
