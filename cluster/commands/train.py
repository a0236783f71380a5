"""`train`: from flags, YAML or a run folder to a trainer whose actors may start."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import Field

from cluster.actors.factories import BuildActors, ray_actors
from cluster.actors.in_process import in_process_actors
from cluster.actors.job import in_job
from cluster.actors.session import surroundings
from cluster.commands.dry_run import plan
from cluster.output import print_err, stdout_kept
from cluster.settings import lapdog_flags
from cluster.settings.effects import check_effects
from cluster.settings.flags import Flag, flags_of, parse_flags
from cluster.settings.places import FILES, check_absolute, check_absolute_path, check_there
from cluster.settings.tree import Settings
from cluster.settings.values import Values, build, split
from cluster.settings.yaml_file import read_yaml
from cluster.store import checkpoint
from cluster.store.checkpoint import RunState
from cluster.store.run_folder import RunFolder, choose_run_dir
from cluster.training.data_fit import fitted
from cluster.training.inputs import (
    Inputs,
    check_models_rewards_and_trackers,
    is_demo,
    load_inputs,
    make_demo,
    model_digests,
    of_language,
    policy_folder,
    tiny_policy,
    with_demo,
)
from cluster.training.resume_checks import check_fixed, check_inputs, check_models, check_resumable
from cluster.training.stop_signals import short_grace
from cluster.training.trainer import Trainer
from cluster.watch.job_entry import job_metadata
from cluster.watch.terminal import OutputMode
from learner.config import without_preset
from rollout.config import Section
from rollout.data import demo
from rollout.errors import LapdogError, SettingsError
from rollout.policy.loading import skeleton, with_family_templates

Checkpoint = tuple[Path, RunState]

OUTPUT_MODES = {
    "quiet": "say nothing but the end",
    "json": "say everything as JSON, one object a line: rows of metrics.jsonl and evaluations.jsonl, events, where it lies",
}


class TrainOptions(Section):
    config: Path | None = Field(None, description="YAML file of settings; flags win over it")
    resume: Path | None = Field(None, description="folder of a run to go on with, from its newest checkpoint")
    dry_run: bool = Field(False, description="print settings, actors, memory and tokens of the run, and stop")
    local: bool = Field(False, description="all roles in this process, one of each, without Ray: for a debugger")


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """values: settings by dotted name, those of the file under those of the flags. flags: names of the latter."""

    options: TrainOptions
    values: Values
    flags: frozenset[str]
    output_mode: OutputMode


def train_request(argv: Sequence[str], about: str | None) -> TrainRequest:
    output = [Flag(name, text, is_switch=True) for name, text in OUTPUT_MODES.items()]
    known = [*flags_of(TrainOptions), *flags_of(Settings)]
    given = parse_flags("train", about, argv, known, beside=[*output, *lapdog_flags.FLAGS])
    output_modes: list[OutputMode] = [output_mode for output_mode in ("quiet", "json") if given.pop(output_mode, False)]
    if len(output_modes) > 1:
        raise SettingsError("--quiet: does not go with --json; give one of them")
    options, values = split(TrainOptions, lapdog_flags.translated(given))
    if options.dry_run and output_modes:
        raise SettingsError(f"--{output_modes[0]}: changes nothing about a dry run; leave it out")
    flags = frozenset(values)
    if options.config is not None:
        values = without_preset(read_yaml(options.config, Settings)) | values
    return TrainRequest(options, values, flags, output_modes[0] if output_modes else "lines")


@contextlib.contextmanager
def training(request: TrainRequest) -> Iterator[Trainer]:
    """A new run or one that goes on, with Ray up for the length of the context."""
    with contextlib.ExitStack() as parts:
        if request.output_mode == "json":
            parts.enter_context(stdout_kept())
        trainer = parts.enter_context(_resumed_run(request) if request.options.resume else _new_run(request))
        parts.callback(trainer.close)
        yield trainer


def planned(request: TrainRequest) -> str:
    """The plan of a run that is neither started nor written."""
    options = request.options
    if options.resume is not None:
        settings, inputs, *_ = _resumption(_begun(options.resume), request)
    else:
        settings, inputs = _new_settings(request)
    with tempfile.TemporaryDirectory() as folder:
        read = settings
        if inputs is None:
            read = with_demo(settings, Path(folder))
            inputs = make_demo(read, Path(folder))
        path = settings.policy.path
        policy = tiny_policy(read, inputs.train) if path is None else skeleton(path, settings.policy)
        inputs = inputs if path is not None else fitted(read, inputs, policy)
        return plan(settings, inputs, policy, read.data, options.local)


def _check_effects(settings: Settings, request: TrainRequest) -> None:
    check_effects(settings, request.flags, (*surroundings(), *(["--local"] if request.options.local else [])))


def _new_settings(request: TrainRequest) -> tuple[Settings, Inputs | None]:
    """Settings and inputs of a new run, checked; no inputs where those of the demo are still to be made."""
    options, values = request.options, request.values
    on_demo = "data.train" not in values
    settings = build(Settings, demo.SETTINGS | values if on_demo else values)
    _check_effects(settings, request)
    if in_job():
        check_absolute(settings)
    path = choose_run_dir(settings, options.config.stem if options.config else "demo" if on_demo else "run", in_job())
    settings = settings.with_values(run_dir=path).as_used()
    check_models_rewards_and_trackers(settings)
    policy = with_family_templates(settings.policy.path, settings.policy)
    settings = settings.with_values(policy=policy)
    if on_demo:
        return with_demo(settings, RunFolder(path).data), None
    inputs = load_inputs(settings)
    settings = of_language(settings, inputs.language)
    return settings, _fitted(settings, inputs)


def _fitted(settings: Settings, inputs: Inputs) -> Inputs:
    """Held against the model, unless that is the small one, which is made of them."""
    path = settings.policy.path
    return inputs if path is None else fitted(settings, inputs, skeleton(path, settings.policy))


@contextlib.contextmanager
def _new_run(request: TrainRequest) -> Iterator[Trainer]:
    settings, inputs = _new_settings(request)
    path = settings.run_dir
    assert path is not None
    models = model_digests(settings)
    with _actor_builder(settings, path.name, request.options.local) as build_actors:
        folder = RunFolder.create(path)
        with folder.locked():
            folder.check_new()
            folder.write_settings(settings)  # from its first instant it can be resumed
            try:
                yield _trainer(settings, inputs, models, folder, build_actors, request.output_mode)
            except LapdogError:
                folder.remove_if_nothing_was_done()
                raise


@contextlib.contextmanager
def _resumed_run(request: TrainRequest) -> Iterator[Trainer]:
    assert request.options.resume is not None
    folder = _begun(request.options.resume)
    with folder.locked():
        settings, inputs, models, newest = _resumption(folder, request)
        with _actor_builder(settings, folder.path.name, request.options.local) as build_actors:
            folder.write_settings(settings)
            trainer = _trainer(settings, inputs, models, folder, build_actors, request.output_mode)
            trainer.resume(newest)
            yield trainer


def _begun(run: Path) -> RunFolder:
    if in_job():
        check_absolute_path("resume", run)
    return RunFolder.existing(run)


def _resumption(folder: RunFolder, request: TrainRequest) -> tuple[Settings, Inputs | None, dict[str, str], Checkpoint | None]:
    """Settings and inputs as `_new_settings` returns them, for a run that goes on: what config.yaml says, under what is said
    now; the digests of its models, and its newest whole checkpoint, if there is one."""
    before, settings = folder.settings().as_used(), resumed_settings(folder.told(), request.values)
    check_fixed(before, settings)
    _check_effects(settings, request)
    newest = checkpoint.newest(folder.checkpoints, print_err)
    is_unmade = newest is None and is_demo(settings, folder.data)
    check_there(settings, [] if is_unmade else FILES)
    check_models_rewards_and_trackers(settings)
    models = model_digests(settings)
    check_models(folder.digests(), settings, models, newest[1].stage if newest is not None else "")
    inputs = None if is_unmade else load_inputs(settings)
    if inputs is not None:
        settings = of_language(settings, inputs.language)
        check_inputs(folder.digests(), settings, inputs)
        inputs = _fitted(settings, inputs)
    if newest is not None:
        check_resumable(before, settings, *newest)
    return settings, inputs, models, newest


def resumed_settings(told: Values, values: Values) -> Settings:
    """What config.yaml says, under what is said now."""
    settings = build(Settings, without_preset(told) | values)
    if in_job():
        check_absolute(settings)
    return settings.as_used()


@contextlib.contextmanager
def _actor_builder(settings: Settings, run: str, local: bool) -> Iterator[BuildActors]:
    """What makes the actors for a policy: on Ray, which is up for the length of the context, or in this process."""
    with in_process_actors(settings) if local else ray_actors(settings, run, job_metadata(settings)) as build_actors:
        yield build_actors


def _trainer(
    settings: Settings,
    inputs: Inputs | None,
    models: dict[str, str],
    folder: RunFolder,
    build_actors: BuildActors,
    output_mode: OutputMode,
) -> Trainer:
    """inputs: None for those of the demo, which are made in the folder, as the small policy is. models: their digests."""
    inputs = inputs or make_demo(settings, folder.data)
    folder.write_digests(inputs.digests | models)
    path = policy_folder(settings, inputs.train, folder.policy)
    policy = skeleton(path, settings.policy)
    if settings.policy.path is None:
        inputs = fitted(settings, inputs, policy)
    said = {row.get("text") for row in folder.event_rows()}
    told = [text for text in (settings.data.text_rules.told(), *inputs.told) if text not in said]
    told += short_grace(policy, settings) if in_job() else []
    return Trainer(settings, replace(inputs, told=tuple(told)), folder, partial(build_actors, path), output_mode)
