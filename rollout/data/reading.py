"""Rows of one jsonl or parquet file, validated; what looks like data and is not read is told once a file."""

import logging
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

import pydantic_core
from pydantic import BaseModel, ValidationError

from rollout.data.convert.formats import AUTO, DETECTING, Keys, format_of
from rollout.data.files import suffix_of, text_lines
from rollout.data.parquet import fields_of, parquet_rows, unread_columns
from rollout.data.problems import first_problem
from rollout.data.rows import PassageRow
from rollout.errors import DataError

Tell = Callable[[str], None]  # what takes a line for the user
warn: Tell = logging.getLogger("lapdog").warning
Kind = TypeVar("Kind", bound=BaseModel)

LOOK_LIKE_DATA = frozenset(
    "answer answers body candidates content contents context contexts ctxs docs document documents gold "
    "golden_answers input label labels negative_ctxs output paragraph paragraphs passage passages positive_ctxs "
    "prompt query question reference references response responses supporting_facts target targets".split()
)


def read_rows(path: Path, kind: type[Kind], tell: Tell = warn) -> Iterator[tuple[int, Kind]]:
    """Yield (line number, validated row) of a .jsonl or .parquet file; rows of parquet are numbered from 1, and of its columns
    only those are read that `kind` has, if it keeps no others. tell: takes what is to be said of the file, once it is read.

    Raises DataError naming file and line, and what converts them where they look like another project's.
    """
    keeps_all = kind.model_config.get("extra") == "allow"
    strangers = LOOK_LIKE_DATA - kind.model_fields.keys()
    unread: dict[str, Keys] = {}
    for line, row in _parquet_rows(path, kind, keeps_all) if suffix_of(path) == ".parquet" else _json_rows(path):
        if isinstance(row, dict) and not strangers.isdisjoint(row):
            unread = {key: row for key in row if key in strangers} | unread
        try:
            yield line, kind.model_validate(row)
        except ValidationError as error:
            raise DataError.at(path, line, _problem(error, kind, path, row)) from error
    if not keeps_all:
        in_columns = suffix_of(path) == ".parquet"
        _tell_unread(path, kind, _unread_in_parquet(path, kind, strangers) if in_columns else unread, tell)


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    if suffix_of(path) != ".jsonl":
        kinds = "a .jsonl, .jsonl.gz, .jsonl.zst or .parquet file"
        raise DataError(f"{path}: ends in {path.suffix!r}; give {kinds}, or make one of it: {_convert(AUTO, path)}")
    for number, line in text_lines(path):
        try:
            yield number, pydantic_core.from_json(line)
        except ValueError as error:
            cause = str(error).replace(" at line 1 column", " at column")
            several = f", as this writes it: {_convert(AUTO, path)}" if line.strip() in ("[", "{") else ""
            raise DataError.at(path, number, f"is not JSON ({cause}); give one JSON object a line{several}") from error


def _parquet_rows(path: Path, kind: type[BaseModel], keeps_all: bool) -> Iterator[tuple[int, Any]]:
    if path.suffix != ".parquet":
        raise DataError(f"{path}: parquet packs its columns itself; unpack the file")
    return enumerate(parquet_rows(path, fields_of(kind), keeps_all), 1)


def _problem(error: ValidationError, kind: type[BaseModel], path: Path, row: Any) -> str:
    if isinstance(row, list):
        return f"is no JSON object but an array; make objects of it: {_convert(AUTO, path)}"
    first = error.errors()[0]
    if first["type"] == "missing" and len(first["loc"]) == 1:
        whole = next(parquet_rows(path, DETECTING), {}) if suffix_of(path) == ".parquet" else row
        found = format_of(whole)
        if found is not None and (found.record.kind == "passages") != (kind is PassageRow):
            setting = "data.passages" if found.record.kind == "passages" else "data.train or data.valid"
            return f"lacks the key {first['loc'][0]!r}; it looks like one of {found.record.kind}, which belong into {setting}"
        if found is not None:
            return f"lacks the key {first['loc'][0]!r}; it looks like {found.name}: {_convert(found.name, path)}"
    return first_problem(error, kind)


def _unread_in_parquet(path: Path, kind: type[BaseModel], strangers: Set[str]) -> dict[str, Keys]:
    names = {name.partition(".")[0] for name in unread_columns(path, fields_of(kind))} & strangers
    return dict.fromkeys(sorted(names), next(parquet_rows(path, DETECTING), {})) if names else {}


def _tell_unread(path: Path, kind: type[BaseModel], unread: dict[str, Keys], tell: Tell) -> None:
    """unread: keys, each with a row that has it."""
    for key, row in unread.items():
        found = format_of(row)
        if found is not None and key in fields_of(found.record):
            remedy = f"it looks like {found.name}: {_convert(found.name, path)}"
            break
    else:
        remedy = f"the keys that are read are {', '.join(kind.model_fields)}"
    if unread:
        tell(f"{path}: not read: {', '.join(unread)}; {remedy}")


def _convert(name: str, path: Path) -> str:
    return f"python launch.py convert --from {name} --input {path} --output NEW.jsonl"
