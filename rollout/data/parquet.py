"""Parquet by wanted columns, a few rows at a time: what nobody asks for takes no memory and raises nothing."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AliasChoices, BaseModel

from rollout.errors import DataError, first_line

ROWS = 256  # that are decoded together, whatever the size of a row group
BYTES = 8_000_000  # of them that are Python objects at once
READ_AHEAD = 1 << 20
Fields = Mapping[str, Any]  # {name: annotation} of what is asked for; a pydantic model in it names the fields of a struct
LEVELS = re.compile(r"\.(list|bag)\.(element|item|array_element|array)\b")
STRUCTURE = 3  # levels between a list's name and a field of its elements, at most: list, element, or bag, array_element
FAILURES = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError)


def parquet_rows(path: Path, fields: Fields, all_columns: bool = False) -> Iterator[dict[str, Any]]:
    """Rows with the columns, and of structs the fields, that are asked for; or with all, where what Python lacks is text.

    Raises DataError for what is no parquet file, and naming the row where one cannot be read.
    """
    number = 0
    with _opened(path) as file:
        wanted = None if all_columns else _wanted(file.schema, fields)
        if wanted == []:
            yield from ({} for _ in range(file.metadata.num_rows))
            return
        try:
            for batch in file.iter_batches(ROWS, columns=wanted):
                for rows in _slices(_readable(batch, fields) if all_columns else batch):
                    yield from rows
                    number += len(rows)
        except FAILURES as error:
            raise DataError.at(path, number + 1, f"cannot be read ({first_line(error)}); {_remedy(error)}") from error


def unread_columns(path: Path, fields: Fields) -> dict[str, int]:
    """{dotted name: number of rows} of what `parquet_rows` leaves out."""
    with _opened(path) as file:
        left = set(_leaves(file.schema)) - set(_wanted(file.schema, fields))
        return dict.fromkeys((LEVELS.sub("", leaf) for leaf in left), file.metadata.num_rows)


def fields_of(kind: type[BaseModel]) -> Fields:
    """Those of a model, by their names in a file."""
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        fields |= {str(each): field.annotation for each in names}
    return fields


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=READ_AHEAD, pre_buffer=False)
    except FAILURES as error:
        raise DataError(f"{path}: is no parquet file ({first_line(error)}); write it anew") from error


def _remedy(error: BaseException) -> str:
    unsafe = "safely convertible" in str(error) or isinstance(error, OverflowError)
    return "write that time as text" if unsafe else "write the file anew"


def _leaves(schema: pq.ParquetSchema) -> list[str]:
    return [schema.column(i).path for i in range(len(schema))]


def _wanted(schema: pq.ParquetSchema, fields: Fields) -> list[str]:
    """Dotted names of the leaf columns to read; of a struct that has none of its fields one, so that it is seen."""
    leaves: dict[str, list[str]] = {}
    firsts: dict[str, str] = {}
    for leaf in _leaves(schema):
        top, *parts = leaf.split(".")
        if top in fields:
            model = _model_in(fields[top])
            if model is None or not parts or not fields_of(model).keys().isdisjoint(parts[: STRUCTURE + 1]):
                leaves.setdefault(top, []).append(leaf)
            firsts.setdefault(top, leaf)
    return [leaf for top, first in firsts.items() for leaf in leaves.get(top, [first])]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one that a field holds, if all it may hold is models, lists of them, and nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [each for each in get_args(annotation) if each is not type(None)]
    return _model_in(inner[0]) if len(inner) == 1 else None


def _slices(batch: pa.RecordBatch) -> Iterator[list[dict[str, Any]]]:
    size = max(1, int(BYTES * batch.num_rows / max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size).to_pylist()


def _readable(batch: pa.RecordBatch, fields: Fields) -> pa.RecordBatch:
    """The same with times of other columns as text, where Python has none so fine or so far."""
    for i, column in enumerate(batch.schema):
        if column.name not in fields and (target := _target(column.type)) != column.type:
            batch = batch.set_column(i, column.name, batch.column(i).cast(target))
    return batch


def _target(kind: pa.DataType, nested: bool = False) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return kind if nested and getattr(kind, "unit", "us") != "ns" else pa.string()
    if pa.types.is_dictionary(kind):
        return _target(kind.value_type, nested)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_target(kind.value_type, True)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_target(field.type, True)) for field in kind])
    return kind
