"""The settings as a page: `python -m cluster.settings.reference > docs/settings.md`."""

from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from cluster.settings.effects import OF_TRAINING, Condition
from cluster.settings.markdown import table
from cluster.settings.tree import Settings
from cluster.settings.values import fields
from learner.algorithm import CHOSEN_BY_PRESETS, PRESETS
from reward.config import ExtraReward

INTRODUCTION = """\
# Settings

Every setting is a flag of `train` (`--learner.lr 1e-5`) and a key of a YAML file (`learner: {lr: 1.0e-5}`) given with
`--config`; flags win. `null` (as a flag also `none`, where that is no choice of its own) empties a list, or a setting that
may be empty. A wrong name, type, bound or combination is refused in one line before anything is started. A run writes all of
them, as used, to its `config.yaml`.

A setting that was changed and that [nothing reads under the others](#settings-that-nothing-reads) is refused alike.

This page is what `python -m cluster.settings.reference` prints; a test compares the two.
"""
EFFECTS = """
## Settings that nothing reads

`train` refuses what is not its default where nothing would read it; `evaluate`, `chat` and `export` refuse such flags of their
own. A file tells of a whole experiment, and the run may be a part of it: where it may keep a setting, only the flag is refused.
What a `config.yaml` says is what a file says, also on `--resume`. A setting that equals its default counts as unset; in a file
a switch that equals its preset's does, too. The model's own files tell whether it has a chat template, without which
`policy.system_prompt`, `policy.chat_template_args` and `policy.template_date` are refused.

"""
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "path": "path", "boolean": "true or false"} | {
    "date": "date",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}
FILES = "path or a list of paths"
MEMBERS_HEADER = ["setting", "default", "takes", "meaning"]
TITLES = {
    "": "The run",
    "policy.tiny": "A policy from scratch",
    "policy.lora": "Adapters",
    "supervised": "Stage 1",
    "rollout": "Sampling",
}


def page() -> str:
    """The whole page as Markdown."""
    sections: dict[str, list[tuple[str, FieldInfo]]] = {}
    for name, field in fields(Settings):
        sections.setdefault(name.rpartition(".")[0], []).append((name, field))
    parts = [INTRODUCTION]
    for section, members in sections.items():
        parts += [f"\n## {TITLES.get(section, section.capitalize())}\n\n", table(MEMBERS_HEADER, map(_row, members))]
        if section == "reward":
            parts += ["\n### One of `reward.extra`\n\n", table(MEMBERS_HEADER, map(_row, fields(ExtraReward)))]
    parts += [EFFECTS, table(["with", "nothing reads", "a file"], map(_unread, OF_TRAINING))]
    header = ["", *(f"`{name}`" for name in CHOSEN_BY_PRESETS)]
    rows = ([f"`{loss}`", *(_default(getattr(preset, name)) for name in CHOSEN_BY_PRESETS)] for loss, preset in PRESETS.items())
    return "".join([*parts, "\n## Presets of `learner.loss`\n\n", table(header, rows)])


def _row(member: tuple[str, FieldInfo]) -> list[str]:
    name, field = member
    return [f"`{name}`", "" if field.is_required() else _default(field.default), _takes(field), _text(field.description or "")]


def _unread(condition: Condition) -> list[str]:
    names = ", ".join(f"`{name}`" for name in condition.names.split())
    return [condition.without, names, "may keep it" if condition.stays_in_files else ""]


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in ((), {}) else f"`{value}`"


def _takes(field: FieldInfo) -> str:
    """A setting's type and bounds in words."""
    annotation: Any = Annotated[field.annotation, *field.metadata, None]
    schema = TypeAdapter(annotation).json_schema()
    return " or ".join(dict.fromkeys(map(_kind, schema.get("anyOf", [schema]))))


def _kind(schema: dict[str, Any]) -> str:
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if _kind_of_values(schema) == FILES:
        return f"{FILES} or a mapping of names to such"
    if schema.get("items", {}).get("format") == "path":
        return FILES
    bounds = (f"{sign} {_bound(schema[name])}" for name, sign in BOUNDS.items() if name in schema)
    return f"{TYPES[schema.get('format', schema['type'])]} {', '.join(bounds)}".strip()


def _kind_of_values(schema: dict[str, Any]) -> str | None:
    values = schema.get("additionalProperties")
    return _kind(values) if isinstance(values, dict) and "type" in values else None


def _bound(value: float) -> str:
    return f"2^{value.bit_length() - 1}" if isinstance(value, int) and value > 1 << 20 else str(value)


def _text(description: str) -> str:
    """Bars and angles that are meant as text."""
    return description.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    print(page(), end="")
