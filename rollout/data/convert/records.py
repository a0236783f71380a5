"""Rows of a JSON, jsonl, tab-separated or parquet file, told apart by what it holds and not by its name."""

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic_core

from rollout.data.files import BYTE_ORDER_MARK, check_encoding, opened, suffix_of, text_lines
from rollout.errors import DataError

NUMBERED = Iterator[tuple[int, Any]]
LISTS = ("data", "Data")  # SQuAD's and TriviaQA's, around which is their version
CHUNK, OPENING = 1 << 20, 1 << 16
HALF = "\\ud"
BLANKS = " \t\r\n"
NEXT = re.compile(f"[{BLANKS},]*")
FRACTION = re.compile(r"\d[.eE]")


def is_parquet(path: Path) -> bool:
    return suffix_of(path) == ".parquet"


def opening_of(path: Path) -> str:
    """The first characters that are not blank; empty if there are none."""
    with opened(path) as file:
        start = file.read(OPENING)
    check_encoding(path, 1, start.partition(b"\n")[0])
    return start.decode("utf-8", errors="ignore").lstrip(f"{BYTE_ORDER_MARK}{BLANKS}")


def is_json(opening: str) -> bool:
    return opening.startswith(("{", "["))


def is_table(opening: str) -> bool:
    return {"id", "text"} <= set(opening.partition("\n")[0].strip().split("\t"))


class Written(float):
    """A number of JSON whose text is what the file has: 3.50, not 3.5."""

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


DECODER = json.JSONDecoder(parse_float=Written)


def value_of(text: str) -> Any:
    """Raises ValueError for what is no JSON; half a character is none either, which Python's own decoder lets pass."""
    value = pydantic_core.from_json(text)
    return DECODER.decode(text.strip()) if FRACTION.search(text) else value


def json_records(path: Path) -> NUMBERED:
    """(number from 1, value) of a JSON array's entries, of the list in an object such as SQuAD's, or (line, value) of jsonl.

    An array is read piece by piece, an object as a whole.
    """
    if opening_of(path).startswith("["):
        return _array(path)
    lines = [line for _, line in itertools.islice(text_lines(path), 2)]
    try:
        first = value_of(lines[0])
    except ValueError:
        return _unwrapped(_whole(path)) if lines[0].strip() == "{" or len(lines) == 1 else _jsonl(path)
    return _unwrapped(first) if len(lines) == 1 and _list_in(first) is not None else _jsonl(path)


def peek(records: NUMBERED) -> tuple[Any, NUMBERED]:
    """The first value, and all of them; None where there is none."""
    first = list(itertools.islice(records, 1))
    return (first[0][1] if first else None), itertools.chain(first, records)


def _jsonl(path: Path) -> NUMBERED:
    for number, line in text_lines(path):
        try:
            yield number, value_of(line)
        except ValueError as error:
            raise DataError.at(path, number, f"is not JSON ({error}); give one JSON object a line") from error


def _whole(path: Path) -> Any:
    with opened(path) as file:
        content = file.read()
    try:
        return value_of(content.decode("utf-8").lstrip(BYTE_ORDER_MARK))
    except ValueError as error:
        raise DataError(f"{path}: is neither one JSON value nor one a line ({error}); mend it") from error


def _list_in(value: Any) -> list[Any] | None:
    lists = [value.get(name) for name in LISTS] if isinstance(value, dict) else []
    return next((each for each in lists if isinstance(each, list) and each and isinstance(each[0], dict)), None)


def _unwrapped(value: Any) -> NUMBERED:
    found = _list_in(value)
    return enumerate([value] if found is None else found, 1)


def _array(path: Path) -> NUMBERED:
    """Entries of a JSON array, of which a few are in memory at a time."""
    number, text, place = 0, "", 0
    with opened(path) as content:
        file = io.TextIOWrapper(content, encoding="utf-8")
        try:
            while "[" not in text:
                text = file.read(CHUNK)
            place = text.index("[") + 1
            while not text.startswith("]", place := _beyond(text, place)):
                try:
                    value, end = DECODER.raw_decode(text, place)
                except ValueError:
                    if not (more := file.read(max(CHUNK, len(text)))):
                        raise
                    text, place = text[place:] + more, 0
                    continue
                if HALF in text[place:end]:
                    pydantic_core.from_json(text[place:end])  # which refuses half a character, as Python's own does not
                number, place = number + 1, end
                yield number, value
        except (ValueError, RecursionError) as error:
            cause = str(error).partition(": line")[0]
            raise DataError.at(path, number + 1, f"is no entry of a JSON array ({cause}); mend it") from error


def _beyond(text: str, place: int) -> int:
    """The place of the next entry, or of the array's end."""
    found = NEXT.match(text, place)
    return found.end() if found else place
