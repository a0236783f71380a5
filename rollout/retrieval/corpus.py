"""Passage files as an Arrow table that all processes of a node map into memory, stored once under their content's hash."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from rollout.data.files import data_files, shown
from rollout.data.reading import read_rows
from rollout.data.rows import PassageRow
from rollout.digests import digest_of, digest_of_file
from rollout.errors import DataError
from rollout.retrieval.build import build_once
from rollout.retrieval.repeated_ids import repeated_ids
from rollout.types import Passage, Prompt

ROWS_PER_BATCH = 10_000
CHARACTERS_PER_BATCH = 16_000_000
_VERSION = 2  # of what is stored: another one is stored anew
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.large_string()), ("line", pa.int64())])


class Holder(Protocol):
    """Of passages, here or elsewhere."""

    def absent(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that it knows no passage of its own to have."""
        ...


class Corpus:
    """Passages by position.

    folder: where what belongs to these very files (their index) is kept. digest: of ids, titles and texts in their order,
    however they are spread over files and packed. told: what is to be said of the files, a line each.
    """

    def __init__(self, folder: Path, files: Sequence[Path]):
        self.folder = folder
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.digest: str = about["digest"]
        self.told = tuple(_with_paths(text, files) for text in about["told"])
        with pa.memory_map(str(folder / "passages.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        self._ids, self._titles, self._texts = (table[name] for name in ("id", "title", "text"))

    @classmethod
    def open(cls, passages: Path | Sequence[Path], cache: Path) -> "Corpus":
        """The corpus of passage files, converted on first use. Raises DataError for what cannot be read."""
        files = data_files(passages)
        content = [digest_of_file(file) for file in files]
        folder = Path(os.path.expanduser(cache)) / f"{digest_of(content)[:20]}-{_VERSION}"
        build_once(folder, lambda target: _store(files, target))
        return cls(folder, files)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, position: int) -> Passage:
        id, title, text = (column[position].as_py() for column in (self._ids, self._titles, self._texts))
        return Passage(id=id, title=title, text=text)

    def texts(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Title and text of every passage, or of those from `start` to `stop`, in order: what is indexed. They are read, not
        mapped: what went by takes no memory."""
        wanted = range(start, len(self) if stop is None else stop)
        first = 0
        with pa.OSFile(str(self.folder / "passages.arrow")) as source, pa.ipc.open_file(source) as batches:
            for number, chunk in enumerate(self._ids.chunks):
                rows = range(max(wanted.start - first, 0), min(wanted.stop - first, len(chunk)))
                first += len(chunk)
                if rows:
                    batch = batches.get_batch(number).slice(rows.start, len(rows))
                    for title, text in zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True):
                        yield f"{title} {text}".strip()

    def ids(self, positions: list[int]) -> tuple[str, ...]:
        return tuple(self._ids[position].as_py() for position in positions)

    def positions(self, ids: Collection[str]) -> dict[str, int]:
        """Where the passages with these ids stand; the first of several that share one."""
        found = pc.is_in(self._ids, pa.array(sorted(ids), pa.string())).to_numpy().nonzero()[0][::-1].tolist()
        return dict(zip(self.ids(found), found, strict=True))

    def absent(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that no passage has."""
        wanted = pa.array(sorted(ids), pa.string())
        found = pc.unique(self._ids.filter(pc.is_in(self._ids, wanted)))
        return set(wanted.to_pylist()) - set(found.to_pylist())


def with_absent_gold(prompts: Sequence[Prompt], corpus: Holder | None) -> list[Prompt]:
    """The prompts, each marked with its gold ids that no passage has; passages that it brings are the only ones it reads."""
    searched = {id for prompt in prompts if prompt.passages is None for id in prompt.gold}
    absent = searched if corpus is None else corpus.absent(searched) if searched else set()

    def marked(prompt: Prompt) -> Prompt:
        own = None if prompt.passages is None else {passage.id for passage in prompt.passages}
        lacking = tuple(id for id in prompt.gold if (id in absent if own is None else id not in own))
        return replace(prompt, absent_gold=lacking) if lacking else prompt

    return [marked(prompt) for prompt in prompts]


def _store(files: Sequence[Path], folder: Path) -> None:
    target, told = folder / "passages.arrow", list[str]()
    first_rows = []
    written, rows = 0, hashlib.sha256()
    with (
        tqdm(desc="passages read", unit="", disable=None, leave=False, delay=1) as bar,
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):
        for number, path in enumerate(files):
            first_rows.append(written)
            tell = partial(_tell_without_path, told, number, path)
            for batch in _batches(_hashed(read_rows(path, PassageRow, tell), rows)):
                writer.write(batch)
                written += batch.num_rows
                bar.update(batch.num_rows)
    if not written:
        raise DataError(f"{shown(files)}: holds no passage; give a file with at least one line")
    told += repeated_ids(target, [_mark(number) for number in range(len(files))], first_rows)
    (folder / "about.json").write_text(json.dumps({"digest": rows.hexdigest(), "told": told}), encoding="utf-8")


def _mark(number: int) -> str:
    """What stands in kept texts for the path of a file, which may be another one when they are told."""
    return f"\0{number}\0"


def _tell_without_path(told: list[str], number: int, path: Path, text: str) -> None:
    told.append(text.replace(str(path), _mark(number)))


def _with_paths(text: str, files: Sequence[Path]) -> str:
    return reduce(lambda text, file: text.replace(_mark(file[0]), str(file[1])), enumerate(files), text)


def _hashed(rows: Iterable[tuple[int, PassageRow]], into: "hashlib._Hash") -> Iterator[tuple[int, PassageRow]]:
    """The same rows, with lengths between what is hashed, so that no other rows run together into the same."""
    for line, row in rows:
        into.update(f"{len(row.id)} {len(row.title)} {len(row.text)} {row.id}{row.title}{row.text}".encode())
        yield line, row


def _batches(rows: Iterable[tuple[int, PassageRow]]) -> Iterator[pa.RecordBatch]:
    """rows: each with its line."""
    together: list[tuple[int, PassageRow]] = []
    characters = 0
    for line, row in rows:
        together.append((line, row))
        characters += len(row.text)
        if len(together) == ROWS_PER_BATCH or characters > CHARACTERS_PER_BATCH:
            yield _batch(together)
            together, characters = [], 0
    if together:
        yield _batch(together)


def _batch(rows: Sequence[tuple[int, PassageRow]]) -> pa.RecordBatch:
    columns = zip(*((row.id, row.title, row.text, line) for line, row in rows), strict=True)
    return pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], SCHEMA)
