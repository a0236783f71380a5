"""Rows of ours to a file: jsonl, packed or not, or parquet, as its suffix says."""

import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.data.convert.record import Row
from rollout.data.files import COMPRESSIONS
from rollout.errors import DISK_REMEDY, writing

PASSAGE = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
EXAMPLE = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("passages", pa.list_(pa.struct(PASSAGE))),
        ("gold", pa.list_(pa.string())),
    ]
)
ROWS_AT_ONCE = 256


class Writer(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    def __init__(self, path: Path, compression: str | None):
        self._file: BinaryIO = path.open("wb")
        if compression is not None:
            self._file = io.BufferedWriter(pa.CompressedOutputStream(self._file, compression))

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    def close(self) -> None:
        self._file.close()


class Parquet:
    def __init__(self, path: Path, schema: pa.Schema):
        self._schema, self._writer = schema, pq.ParquetWriter(path, schema)

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.write_table(pa.Table.from_pylist(list(rows), self._schema))

    def close(self) -> None:
        self._writer.close()


def write_rows(target: Path, rows: Iterator[Row]) -> int:
    """Write them and return their number; of none there will be no file. A plain file changes when all are written, not before.

    Raises CheckpointError where it cannot be written; what `rows` raises leaves it as it was.
    """
    batches = iter(lambda: list(itertools.islice(rows, ROWS_AT_ONCE)), [])
    if not (first := next(batches, [])):
        return 0
    draft, count = _draft(target), 0
    try:
        with writing(target, DISK_REMEDY):
            writer = _writer(draft, target, first[0])
        for batch in itertools.chain([first], batches):
            with writing(target, DISK_REMEDY):
                writer.write(batch)
            count += len(batch)
        with writing(target, DISK_REMEDY):
            writer.close()
            if draft != target:
                os.replace(draft, target.resolve())
    finally:
        if draft != target:
            draft.unlink(missing_ok=True)
    return count


def _writer(draft: Path, target: Path, row: Row) -> Writer:
    if target.suffix == ".parquet":
        return Parquet(draft, EXAMPLE if "question" in row else PASSAGE)
    return JsonLines(draft, COMPRESSIONS.get(target.suffix))


def _draft(target: Path) -> Path:
    """A file beside a plain one, if one can be made there; else the target itself."""
    file = target.resolve()
    is_plain = file.is_file() or not file.exists()
    return file.with_name(f".{file.name}.tmp") if is_plain and os.access(file.parent, os.W_OK) else target
