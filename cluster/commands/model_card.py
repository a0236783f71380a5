"""The README of an exported policy: what it is, how it was trained, what it reaches and what one constant reply reaches."""

import json
import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cluster.changed_settings import changed
from cluster.commands.opening import OpenedPolicy
from cluster.config import Settings
from cluster.flags import by_name
from cluster.rows import EVALUATION_COLUMNS, Row
from cluster.run_folder import RunFolder
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Policy

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
OF_TRAINING = ("seed", "data.query", "policy.", "supervised.", "rollout.", "reward.", "learner.")


def model_card(policy: Policy, opened: OpenedPolicy) -> str:
    settings = opened.settings
    fid = isinstance(policy, FidPolicy)
    run = settings.run_dir.name if opened.state is not None and settings.run_dir is not None else opened.folder.name
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["code"] = lambda value: _code(str(value))
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
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


def _changed(settings: Settings) -> list[tuple[str, str]]:
    """The settings of training that are not the defaults, as in config.yaml."""
    values = by_name(settings)
    names = [name for name in changed(settings) if name.startswith(OF_TRAINING)]
    return [(name, json.dumps(values[name], ensure_ascii=False)) for name in names]


def _code(text: str) -> str:
    """As it is, in one line of a table: in Markdown's code only a bar and the fence itself mean something."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    edge = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{edge}{' '.join(text.splitlines())}{edge}{fence}".replace("|", "\\|")


def _evaluation(opened: OpenedPolicy) -> Row | None:
    """That of the checkpoint's own step."""
    if opened.state is None:
        return None
    rows = RunFolder(opened.folder.parent.parent).evaluation_rows()
    return next((row for row in rows if row["step"] == opened.state.step), None)
