"""A command's flags, dotted as the settings are; every mistake is one line that names the flag and the remedy."""

import argparse
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel

from cluster.output import print_out
from cluster.settings.values import Values, fields, nearest, takes_files
from rollout.errors import SettingsError

NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan).*")


@dataclass(frozen=True, slots=True)
class Flag:
    """A switch takes no value; several values may follow one flag. A dashed one may be written with dashes for
    its underscores, and help shows both."""

    name: str
    help: str
    is_switch: bool = False
    is_dashed: bool = False
    is_several: bool = False


def flags_of(model: type[BaseModel], only: Collection[str] | None = None, default: str | None = None) -> list[Flag]:
    """Flags of all settings of a model, or of those named in `only`; a command's own yes-or-no options are switches.

    default: what help shows as that of each setting, where it is not the model's own.
    """
    flags = []
    for name, field in fields(model):
        if only is not None and name not in only:
            continue
        value = default or ("none" if field.default in ((), {}) else field.default)
        shown = "" if value is None or field.is_required() else f" [{value}]"
        if field.annotation is bool and "." not in name:
            flags.append(Flag(name, field.description or "", is_switch=True, is_dashed=True))
        else:
            flags.append(Flag(name, f"{field.description}{shown}", is_several=takes_files(field)))
    return flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see --help")

    def print_help(self, file: Any = None) -> None:
        """argparse's own hides that there was no room for it."""
        print_out(self.format_help().rstrip())


def parse_flags(
    command: str,
    about: str | None,
    argv: Sequence[str],
    known: Sequence[Flag],
    beside: Sequence[Flag] = (),
    alone: str | None = None,
) -> Values:
    """Flags of one command -> {name: text, True for a switch, or a list of texts}.

    beside: flags that are no settings, which come last in the help and are proposed for a misspelt one where nothing known is
    near. alone: the name under which words that stand alone are returned, where they may. Raises SettingsError for an unknown
    or incomplete flag.
    """
    usage = f"python launch.py {command} [--name value ...]"
    parser = _Parser(usage=usage, description=about, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser._negative_number_matcher = NEGATIVE  # argparse's own takes -1e-5 for a flag
    for flag in (*known, *beside):
        text = flag.help.replace("%", "%%")
        if flag.is_switch:
            spellings = dict.fromkeys([flag.name.replace("_", "-"), flag.name] if flag.is_dashed else [flag.name])
            parser.add_argument(*(f"--{spelling}" for spelling in spellings), action="store_true", help=text)
        else:
            several: Values = {"nargs": "+"} if flag.is_several else {}
            parser.add_argument(f"--{flag.name}", metavar=flag.name.rsplit(".")[-1].upper(), help=text, **several)
    values, rest = parser.parse_known_args(argv)
    words = [] if alone is None else [word for word in rest if not word.startswith("-")]
    if unknown := [word for word in rest if word not in words]:
        given = unknown[0].split("=")[0]
        if not given.startswith("--"):
            raise SettingsError(f"{given!r}: stands alone; give settings as --name value")
        remedy = nearest(given.removeprefix("--"), [flag.name for flag in known], [flag.name for flag in beside])
        raise SettingsError(f"{given}: unknown setting{remedy}")
    single = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in vars(values).items()}
    return single | ({} if alone is None else {alone: words})
