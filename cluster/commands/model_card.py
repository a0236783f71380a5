"""The README of an exported policy: what it is, how it was trained, what it reaches and what one constant reply reaches."""

import json
from pathlib import Path

import torch
import transformers
from jinja2 import Environment, StrictUndefined

from cluster.commands.policy_source import PolicySource, told_by
from cluster.settings.tree import Settings, changed
from cluster.settings.values import build, by_name
from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.store.rows import Row, held_out_figures, measured_alike
from cluster.store.run_folder import RunFolder
from cluster.training.inputs import is_demo
from rollout.policy.base import Policy
from rollout.policy.families import family_of
from rollout.setting_tags import ModelCard, tagged

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"


def model_card(policy: Policy, opened: PolicySource) -> str:
    settings, trained = opened.settings, _trained_with(opened)
    family = family_of(policy.model.config)
    run = settings.run_dir.name if opened.state is not None and settings.run_dir is not None else opened.folder.name
    evaluation = _evaluation(opened)
    held_out, every = ([] if evaluation is None else held_out_figures(evaluation, readings=both) for both in (False, True))
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["code"] = lambda value: _code(str(value))
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(
        name=run,
        kind=type(policy.model).__name__,
        parameters=sum(parameter.numel() for parameter in policy.model.parameters()),
        auto=family.auto_model.__name__,
        fused=family.fuses_passages,
        chat=family.chats(policy.tokenizer),
        decoder_only=policy.start_token is None,
        state=opened.state,
        policy=settings.policy,
        base_model=_hub_name(trained.policy.path),
        trained=trained,
        stages=_stages(trained, opened.state.step) if opened.state is not None else "",
        synthetic=trained.run_dir is not None and is_demo(trained, RunFolder(trained.run_dir).data),
        told=_told(trained),
        versions={library.__name__: library.__version__ for library in (transformers, torch)},
        evaluation=evaluation,
        held_out=held_out,
        readings=[each for each in every if each not in held_out],
        interval=lambda bounds: " – ".join(f"{bound:.2f}" for bound in bounds) if bounds else "",
        columns=EVALUATION_COLUMNS,
        figure=lambda value: "" if value is None else f"{value:.2f}",
    )


def _trained_with(opened: PolicySource) -> Settings:
    """The run's settings, whatever the export is told."""
    return opened.settings if opened.state is None else build(Settings, told_by(opened.folder)).as_used()


def _hub_name(path: str | None) -> str | None:
    """Of the model that training began with, if it has one: a run's settings name folders by absolute paths."""
    return None if path is None or Path(path).is_absolute() else path


def _stages(settings: Settings, step: int) -> str:
    """How the policy of a step was trained, in words."""
    sampled = "REINFORCE" if settings.learner.loss == "reinforce" else "Group Relative Policy Optimization"
    begun = [stage for stage in settings.stages() if stage.first <= step]
    methods = [(sampled if stage.sampled else "supervised learning", min(step, stage.last)) for stage in begun]
    return ", ".join(f"by {method} to step {last}" for method, last in methods) or "no step yet"


def _told(settings: Settings) -> list[tuple[str, str]]:
    """Settings of training as in config.yaml, in Markdown: those that are told always, and what is not the default."""
    not_default = set(changed(settings))
    names = {name for name, tag in tagged(Settings, ModelCard) if tag.always or name in not_default}
    told = {name: value for name, value in by_name(settings).items() if name in names}
    return [(name, _shown(name, value)) for name, value in told.items()]


def _shown(name: str, value: object) -> str:
    if value is None:
        return "from scratch" if name == "policy.path" else "no effect"
    return _code(json.dumps(value, ensure_ascii=False))


def _code(text: str) -> str:
    """As it is, in one line of a table."""
    return f"`{' '.join(text.splitlines())}`".replace("|", "\\|")


def _evaluation(opened: PolicySource) -> Row | None:
    """The newest one of the checkpoint's own step, of the run's newest measure if there is one."""
    if opened.state is None:
        return None
    rows = RunFolder(opened.folder.parent.parent).evaluation_rows()
    newest = reversed([*rows, *measured_alike(rows)])
    return next((row for row in newest if row["step"] == opened.state.step), None)
