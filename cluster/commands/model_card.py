"""The README of an exported policy: what it is, how it was trained, what it reaches and what one constant reply reaches."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from cluster.commands.opening import OpenedPolicy
from cluster.config import Settings
from cluster.flags import fields
from cluster.run_folder import Row, RunFolder
from cluster.terminal import EVALUATION_COLUMNS
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Policy

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
OF_TRAINING = ("seed", "data.query", "policy.", "supervised.", "rollout.", "reward.", "learner.")


def model_card(policy: Policy, opened: OpenedPolicy) -> str:
    settings = opened.settings
    fid = isinstance(policy, FidPolicy)
    run = settings.run_dir.name if opened.state is not None and settings.run_dir is not None else opened.folder.name
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE.read_text("utf-8"))
    return template.render(
        name=run,
        kind=type(policy.model).__name__,
        parameters=sum(parameter.numel() for parameter in policy.model.parameters()),
        auto="AutoModelForSeq2SeqLM" if fid else "AutoModelForCausalLM",
        fid=fid,
        chat=not fid and policy.tokenizer.chat_template is not None,
        state=opened.state,
        policy=settings.policy,
        data=settings.data,
        changed=_changed(settings),
        evaluation=_evaluation(opened),
        columns=EVALUATION_COLUMNS,
        figure=lambda value: "" if value is None else f"{value:.2f}",
    )


def _changed(settings: Settings) -> list[tuple[str, Any]]:
    """The settings of training that are not the defaults."""
    names = [name for name, _ in fields(Settings) if name.startswith(OF_TRAINING)]
    used = [(name, _value(settings, name)) for name in names]
    return [(name, value) for name, value in used if value != _value(Settings(), name)]


def _value(settings: Settings, name: str) -> Any:
    place: Any = settings
    for part in name.split("."):
        place = getattr(place, part)
    return place


def _evaluation(opened: OpenedPolicy) -> Row | None:
    """That of the checkpoint's own step."""
    if opened.state is None:
        return None
    rows = RunFolder(opened.folder.parent.parent).evaluation_rows()
    return next((row for row in rows if row["step"] == opened.state.step), None)
