"""Dotted flags and YAML over the pydantic settings; every mistake is one line that names the setting and the remedy."""

import argparse
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cluster.output import print_out
from rollout.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)
Values = dict[str, Any]
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # the last two: a date that is none, endless nesting
NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan).*")


class _OneOfEachName(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal names win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            names |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, field) of every setting in the tree."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def by_name(model: BaseModel) -> Values:
    """{dotted name: value as JSON holds it} of every setting."""
    tree = model.model_dump(mode="json")
    return {name: reduce(getitem, name.split("."), tree) for name, _ in fields(type(model))}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see --help")

    def print_help(self, file: Any = None) -> None:
        """argparse's own hides that there was no room for it."""
        print_out(self.format_help().rstrip())


def parse_flags(
    command: str,
    about: str | None,
    models: Sequence[type[BaseModel]],
    argv: Sequence[str],
    only: tuple[str, ...] = ("",),
    switches: Mapping[str, str] = MappingProxyType({}),
    others: Mapping[str, str] = MappingProxyType({}),
    default: str | None = None,
) -> Values:
    """Flags of one command -> {dotted name: text}; of the last model only settings that begin as in `only`.

    A command's own yes-or-no options are flags without a value, as switches are; these and others stand beside the settings,
    with their help. default: what help shows as that of each setting of the last model, where it is not the model's own.
    Raises SettingsError for an unknown or incomplete flag.
    """
    usage = f"python launch.py {command} [--name value ...]"
    parser = _Parser(usage=usage, description=about, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    options = [pair for model in models[:-1] for pair in fields(model)]
    settings = {name: field for name, field in fields(models[-1]) if name.startswith(only)}
    for name, field in [*options, *settings.items()]:
        value = default if default and name in settings else "none" if field.default == () else field.default
        shown = "" if value is None or field.is_required() else f" [{value}]"
        text = f"{field.description}{shown}".replace("%", "%%")
        if field.annotation is bool and "." not in name:
            spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
            parser.add_argument(*spellings, action="store_true", help=field.description)
        else:
            parser.add_argument(f"--{name}", metavar=name.rsplit(".")[-1].upper(), help=text)
    for name, text in switches.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    for name, text in others.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=text)
    names = [name for name, _ in options] + [*settings]
    known, unknown = parser.parse_known_args(_with_negative_numbers(argv))
    if unknown:
        given = unknown[0].split("=")[0]
        if not given.startswith("--"):
            raise SettingsError(f"{given!r}: stands alone; give settings as --name value")
        raise SettingsError(f"{given}: unknown setting{_nearest(given.removeprefix('--'), names, [*switches, *others])}")
    return vars(known)


def _with_negative_numbers(argv: Sequence[str]) -> list[str]:
    """argparse takes -1e-5 for a flag unless it is joined to the one before."""
    joined: list[str] = []
    for text in argv:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and NEGATIVE.fullmatch(text):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def split(options: type[Model], values: Values) -> tuple[Model, Values]:
    """The options of a command, and what remains for the settings."""
    own = {name: value for name, value in values.items() if name in options.model_fields}
    return build(options, own), {name: value for name, value in values.items() if name not in own}


def read_yaml(path: Path, model: type[BaseModel]) -> Values:
    """A file of `model`'s settings -> {dotted name: value}. Raises SettingsError naming file, line or unknown name."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _OneOfEachName)
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such settings file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}:{line}: is not YAML ({error.problem}); correct the line") from error
    except NOT_YAML as error:
        raise SettingsError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct it") from error
    if tree is not None and not isinstance(tree, dict):
        raise SettingsError(f"{path}: holds {type(tree).__name__}, not settings; write one 'name: value' a line")
    known = [name for name, _ in fields(model)]
    values = {name: value for name, value in _flatten(tree or {}, known) if not (value is None and _is_section(name, known))}
    for name in values:
        if name not in known:
            raise SettingsError(f"{path}: {name}: unknown setting{_nearest(name, known)}")
    return values


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


def dump(model: BaseModel) -> str:
    """The settings as YAML that `read_yaml` and `build` read back."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _flatten(tree: Values, known: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in known:
            yield from _flatten(value, known, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_section(name: str, known: Sequence[str]) -> bool:
    """A section whose settings are all commented out reads as null."""
    return any(other.startswith(f"{name}.") for other in known)


def _value(field: FieldInfo, value: Any, name: str) -> Any:
    """null empties a setting that may be empty, a list too, as a flag also `none`, unless that is a choice; a list's text is
    YAML; the rest is left to pydantic."""
    kinds = (field.annotation, *get_args(field.annotation))
    is_list = any(get_origin(kind) is tuple for kind in kinds)
    is_choice = any(value in get_args(kind) for kind in kinds)
    if value is None or (isinstance(value, str) and value.lower() in ("null", "none") and not is_choice):
        if is_list:
            return ()
        if type(None) in kinds:
            return None
    if value == "" and Path in kinds:
        raise SettingsError(f"{name}: '' is refused: names no path; give one")
    if isinstance(value, str) and is_list:
        try:
            return yaml.safe_load(value)
        except NOT_YAML as error:
            raise SettingsError(f"{name}: {value!r} is not YAML; give a list such as [{{function: 'module:name'}}]") from error
    return value


def _nearest(name: str, known: Sequence[str], beside: Sequence[str] = ()) -> str:
    """beside: what is meant only where nothing known is."""
    leaves = {other.rsplit(".", 1)[-1]: other for other in reversed(known)}
    near = difflib.get_close_matches(name, known, 1, 0.6) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(leaves), 1, 0.7)
    ]
    near = near or difflib.get_close_matches(name, beside, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else "; see --help for all"


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
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # settings of a section do not go together
        return f"{place}.{message}"
    return f"{place}: {problem['input']!r} is refused: {message[0].lower()}{message[1:]}"
