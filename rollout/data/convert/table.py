"""Rows of a tab-separated file, with or without quotes as csv has them."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from rollout.data.files import text_lines
from rollout.errors import DataError

CLOSED = re.compile(r'([^"]*+(?:""[^"]*+)*+)"(?![^\t])')  # what stands behind a field's first quote, to the quote that ends it
OPEN = re.compile(r'[^"]*+(?:""[^"]*+)*+\Z')  # or to the end of the line, where another line goes on with it
LONGEST = 1 << 20  # characters of a field in quotes
KEPT = "kept with the quotes that they begin with, for csv would end them sooner"
Note = Callable[[str, str], None]  # takes a reason and a place


def table_records(path: Path, note: Note) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row by the header's names). A field is in quotes as csv has them, the quotes in it doubled, where the last one
    ends the field; or else its quotes are its text, and noted where it begins with one."""
    table = _Table(path, note)
    header = next(table)[1]
    for number, row in table:
        if len(row) != len(header):
            raise DataError.at(path, number, f"has {len(row)} columns, the header {len(header)}; give each row all of them")
        if any("\n" in cell and "\t" in cell for cell in row):
            raise DataError.at(path, number, "opens a quote that is not closed before other rows; double the quotes in texts")
        yield number, dict(zip(header, row, strict=True))


class _Table:
    """(line, fields) of all rows but blank ones."""

    def __init__(self, path: Path, note: Note):
        self._path, self._note = path, note
        self._lines = text_lines(path, with_blank=True)
        self._ahead: deque[tuple[int, str]] = deque()  # read in search of a quote that ends a field

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        number, line = self._next()
        while not line:
            number, line = self._next()
        field, rest = self._field(number, line)
        fields = [field]
        while rest:
            field, rest = self._field(number, rest[1:])
            fields.append(field)
        return number, fields

    def _next(self) -> tuple[int, str]:
        return self._ahead.popleft() if self._ahead else next(self._lines)

    def _field(self, number: int, text: str) -> tuple[str, str]:
        """The first field, and what stands behind it: nothing, or a tab and the next ones."""
        if text.startswith('"'):
            if (found := self._quoted(text[1:])) is not None:
                return found
            self._note(KEPT, f"{self._path}:{number}")
        field, tab, rest = text.partition("\t")
        return field, tab + rest

    def _quoted(self, text: str) -> tuple[str, str] | None:
        """None where no quote ends the field."""
        parts, size, read = list[str](), 0, list[tuple[int, str]]()
        while size < LONGEST:
            if closed := CLOSED.match(text):
                return "\n".join([*parts, closed[1]]).replace('""', '"'), text[closed.end() :]
            if not OPEN.match(text):
                break
            parts.append(text)
            size += len(text) + 1
            try:
                read.append(self._next())
            except StopIteration:
                break
            text = read[-1][1]
        self._ahead.extendleft(reversed(read))
        return None
