"""Example files (jsonl, parquet) -> prompts, and the seeded order in which a run takes them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollout.errors import DataError
from rollout.types import Passage, Prompt

Row = TypeVar("Row", bound=BaseModel)
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Line(BaseModel):
    """A null stands for an absent key, as parquet has it."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, row: Any) -> Any:
        return {key: value for key, value in row.items() if value is not None} if isinstance(row, dict) else row


class PassageRow(Line):
    id: Text
    title: str = ""
    text: Text

    def passage(self) -> Passage:
        return Passage(id=self.id, title=self.title, text=self.text)


class ExampleRow(Line):
    """One line of an example file."""

    question: Text
    answers: Annotated[list[Text], Field(min_length=1)]
    id: Text | None = None
    passages: list[PassageRow] | None = None
    gold: list[str] = []


class FullExampleRow(ExampleRow):
    """The same with all its other columns."""

    model_config = ConfigDict(extra="allow")


def read_prompts(path: Path, keep_extra: bool = False) -> list[Prompt]:
    """Read a .jsonl or .parquet file of examples; an example without an id is named after its line.

    keep_extra: whether columns that are not ours become the prompt's `extra`, without nulls; what JSON lacks (times, decimals)
    becomes text. Raises DataError naming file and line for what cannot be read, is malformed, comes twice, or is empty.
    """
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    for line, row in read_rows(path, FullExampleRow if keep_extra else ExampleRow):
        id = row.id if row.id is not None else f"line-{line}"
        if id in lines:
            raise DataError.at(path, line, f"id {id!r} stands on line {lines[id]} already; give every example its own")
        lines[id] = line
        passages = tuple(p.passage() for p in row.passages) if row.passages is not None else None
        prompts.append(
            Prompt(
                id=id,
                question=row.question,
                answers=tuple(row.answers),
                passages=passages,
                gold=tuple(row.gold),
                extra=json.loads(json.dumps(row.model_extra or {}, default=_text)),
            )
        )
    if not prompts:
        raise DataError(f"{path}: holds no example; give a file with at least one line")
    return prompts


def read_rows(path: Path, kind: type[Row]) -> Iterator[tuple[int, Row]]:
    """Yield (line number, validated row) of a .jsonl or .parquet file; rows of parquet are numbered from 1, and of its columns
    only those are read that `kind` has."""
    _check_file(path)
    rows: Iterator[tuple[int, str]] | Iterator[tuple[int, dict[str, Any]]]
    match path.suffix:
        case ".jsonl":
            rows = text_lines(path)
        case ".parquet":
            rows = _parquet_rows(path, kind)
        case other:
            raise DataError(f"{path}: ends in {other!r}; give a .jsonl or a .parquet file")
    for line, value in rows:
        try:
            yield line, kind.model_validate_json(value) if isinstance(value, str) else kind.model_validate(value)
        except ValidationError as error:
            raise DataError.at(path, line, _first_problem(error)) from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the lines that are not blank. Raises DataError naming a line that is not UTF-8."""
    _check_file(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError.at(path, number, f"byte {error.start} is not UTF-8; save the file as UTF-8") from error
            if line.strip():
                yield number, line.rstrip("\r\n")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder; name a file' if path.is_dir() else 'no such file; check the path'}")


def _parquet_rows(path: Path, kind: type[BaseModel]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the columns that `kind` takes, a batch of them in memory at a time."""
    own = list(kind.model_fields)
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(columns=None if kind.model_config.get("extra") == "allow" else own):
            for i, column in enumerate(batch.schema):
                if column.name not in own and pa.types.is_temporal(column.type):  # Python has no nanoseconds
                    batch = batch.set_column(i, column.name, batch.column(i).cast(pa.string()))
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: is no parquet file ({str(error).splitlines()[0]}); write it anew") from error


def _text(value: Any) -> str:
    """What JSON lacks, as text: bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "json_invalid":
        cause = problem["ctx"]["error"].replace(" at line 1 column", " at column")
        return f"is not JSON ({cause}); give one JSON object a line"
    if problem["type"] == "missing":
        return f"lacks the key {place!r}; the keys are {', '.join(_keys(error))}"
    if problem["type"] in ("string_pattern_mismatch", "string_too_short", "too_short"):
        return f"{place!r} is empty; fill it in or remove the line"
    return (
        f"{place!r} is {problem['input']!r:.60}: {problem['msg'].lower()}; correct it"
        if place
        else "is no JSON object; put keys and values in braces"
    )


def _keys(error: ValidationError) -> list[str]:
    nested = len(error.errors()[0]["loc"]) > 1  # passages.0.text
    kind = PassageRow if nested or error.title == "PassageRow" else ExampleRow
    return list(kind.model_fields)


class PromptOrder:
    """An endless, seeded order of prompts: each epoch is a fresh permutation, the position is two numbers.

    The permutation depends on (seed, epoch) alone, so a restored position goes on exactly where it was.
    """

    def __init__(self, prompts: list[Prompt], seed: int, epoch: int = 0, position: int = 0):
        self.prompts, self.seed, self.epoch, self.position = prompts, seed, epoch, position
        self._permutation = self._shuffled()

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts, each stamped with its epoch."""
        taken: list[Prompt] = []
        while len(taken) < count:
            if self.position >= len(self.prompts):
                self.epoch, self.position = self.epoch + 1, 0
                self._permutation = self._shuffled()
            chosen = self._permutation[self.position : self.position + count - len(taken)]
            taken += [replace(self.prompts[i], epoch=self.epoch) for i in chosen]
            self.position += len(chosen)
        return taken

    @property
    def epoch_is_over(self) -> bool:
        """Whether the next prompt begins a new epoch."""
        return self.position >= len(self.prompts)

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.prompts))
