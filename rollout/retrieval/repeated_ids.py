"""Ids that several passages have, found in bounded memory: hashes tell which ids to look at, the ids decide."""

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

HASHES = 1 << 23  # that are in memory at once


def repeated_ids(table: Path, names: Sequence[str], first_rows: Sequence[int]) -> list[str]:
    """A line if rows of the Arrow file have ids that others before them have. Ids only measure recall: all are found.

    table: with the columns `id` and `line`. names, first_rows: of each file.
    """
    doubtful = _hashes_of_several(table)
    if not doubtful.size:
        return []
    places: dict[str, tuple[str, int]] = {}
    first_told, count, start = "", 0, 0
    for batch in _read(table, "id", "line"):
        for row in np.flatnonzero(np.isin(_hashes(batch), doubtful)).tolist():
            id, line = batch["id"][row].as_py(), batch["line"][row].as_py()
            file = names[bisect.bisect_right(first_rows, start + row) - 1]
            if (first := places.setdefault(id, (file, line))) != (file, line):
                where = f"on line {first[1]}" if first[0] == file else f"in {first[0]}:{first[1]}"
                first_told = first_told or f"{file}:{line}: passage id {id!r} stands {where} already"
                count += 1
        start += batch.num_rows
    if not count:
        return []
    return [f"{first_told}; both are kept" if count == 1 else f"{first_told}, as ids of {count:,} passages do; all are kept"]


def _hashes_of_several(table: Path) -> np.ndarray:
    """Hashes that more than one row has, int64, sorted; a share of all hashes at a time."""
    shares = 1 + sum(batch.num_rows for batch in _read(table, "line")) // HASHES
    several = []
    for share in range(shares):
        hashes = np.concatenate([all[all % shares == share] for all in map(_hashes, _read(table, "id"))])
        hashes.sort()
        several.append(hashes[1:][hashes[1:] == hashes[:-1]])
    return np.unique(np.concatenate(several))


def _hashes(batch: pa.RecordBatch) -> np.ndarray:
    return np.fromiter(map(hash, batch["id"].to_pylist()), np.int64, batch.num_rows)


def _read(table: Path, *columns: str) -> Iterator[pa.RecordBatch]:
    """Without mapping it: what went by takes no memory."""
    with pa.OSFile(str(table)) as source:
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(column) for column in columns])
        with pa.ipc.open_file(source, options=options) as batches:
            for number in range(batches.num_record_batches):
                yield batches.get_batch(number)
