"""Dotted names and values of the pydantic settings; every mistake is one line that names the setting and the remedy."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rollout.data.file_settings import Files, HeldOutFiles
from rollout.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)
Values = dict[str, Any]
MANY = {tuple: "a list such as [{function: 'module:name'}]", dict: "a mapping such as {name: value}"}
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # the last two: a date that is none, endless nesting


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, field) of every setting in the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}", field


def takes_files(field: FieldInfo) -> bool:
    """Whether a setting is one path or several."""
    return field.annotation == tuple[Path, ...] or any(kind in (Files, HeldOutFiles) for kind in get_args(field.annotation))


def by_name(model: BaseModel) -> Values:
    """{dotted name: value as JSON holds it} of every setting."""
    tree = model.model_dump(mode="json")
    return {name: reduce(getitem, name.split("."), tree) for name, _ in fields(type(model))}


def split(options: type[Model], values: Values) -> tuple[Model, Values]:
    """The options of a command, and what remains for the settings."""
    own = {name: value for name, value in values.items() if name in options.model_fields}
    return build(options, own), {name: value for name, value in values.items() if name not in own}


def build(model: type[Model], values: Values) -> Model:
    """Validate {dotted name: value}; text is read by each setting's own type. Raises SettingsError for the first mistake."""
    known = dict(fields(model))
    tree: Values = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = _value(known[name], value, name)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_problem(error, known)) from error


def nearest(name: str, known: Sequence[str], beside: Sequence[str] = ()) -> str:
    """The end of an error that tells of an unknown name. beside: what is meant only where nothing known is."""
    leaves = {other.rsplit(".", 1)[-1]: other for other in reversed(known)}
    near = difflib.get_close_matches(name, known, 1, 0.6) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(leaves), 1, 0.7)
    ]
    near = near or difflib.get_close_matches(name, beside, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else "; see --help for all"


def _value(field: FieldInfo, value: Any, name: str) -> Any:
    """null empties a setting that may be empty, a list and a mapping too, as a flag also `none`, unless that is a choice; their
    text is YAML; the rest is left to pydantic."""
    kinds = (field.annotation, *get_args(field.annotation))
    of_many = {get_origin(kind) for kind in kinds} & set(MANY)
    if value is None or (isinstance(value, str) and value.lower() in ("null", "none") and value not in _choices(kinds)):
        if type(None) in kinds:
            return None
        if of_many:
            return of_many.pop()()
    if value == "" and Path in kinds:
        raise SettingsError(f"{name}: '' is refused: names no path; give one")
    if isinstance(value, str) and value.startswith("{") and HeldOutFiles in kinds:
        of_many = {dict}
    if isinstance(value, str) and of_many:
        try:
            return yaml.safe_load(value)
        except NOT_YAML as error:
            raise SettingsError(f"{name}: {value!r} is not YAML; give {MANY[of_many.pop()]}") from error
    return value


def _choices(kinds: Iterable[Any]) -> Iterator[Any]:
    """What `Literal`s among the types allow, however deep."""
    for kind in kinds:
        yield from get_args(kind) if get_origin(kind) is Literal else _choices(get_args(kind))


def _problem(error: ValidationError, known: Collection[str]) -> str:
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    if ".".join(parts[:-1]) in known:  # the last names one of several types that the setting may have
        parts.pop()
    place, message = ".".join(parts), problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if problem["type"] == "missing":
        return f"{place}: is missing; give it"
    if problem["type"] == "tuple_type":
        return f"{place}: {problem['input']!r} is refused: give a list, in brackets"
    if (
        problem["type"] == "value_error" and isinstance(problem["input"], dict) and place not in known
    ):  # settings of a section do not go together
        return f"{place}.{message}"
    return f"{place}: {problem['input']!r} is refused: {message[0].lower()}{message[1:]}"
