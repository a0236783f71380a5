"""A passage file as an Arrow table that all processes of a node map into memory, stored once under its content's hash."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from rollout.data.files import data_files, shown
from rollout.data.reading import read_rows
from rollout.data.rows import PassageRow
from rollout.errors import DataError
from rollout.types import Passage, Prompt

log = logging.getLogger("lapdog")

ROWS_PER_CHUNK = 10_000
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.large_string())])


class Holder(Protocol):
    """Of passages, here or elsewhere."""

    def absent(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that it knows no passage of its own to have."""
        ...


class Corpus:
    """Passages by position; `folder` is where what belongs to this very content (its index) is kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        with pa.memory_map(str(folder / "passages.arrow")) as source:
            self._table = pa.ipc.open_file(source).read_all()

    @classmethod
    def open(cls, passages: Path | Sequence[Path], cache: Path) -> "Corpus":
        """The corpus of passage files, converted on first use. Raises DataError for what cannot be read."""
        files = data_files(passages)
        folder = Path(os.path.expanduser(cache)) / _digest(files)
        build_once(folder, lambda target: _write_arrow(files, target / "passages.arrow"))
        return cls(folder)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, position: int) -> Passage:
        row = self._table.slice(position, 1).to_pylist()[0]
        return Passage(id=row["id"], title=row["title"], text=row["text"])

    def texts(self) -> list[str]:
        """Title and text of every passage, in order: what is indexed."""
        titles, texts = self._table["title"].to_pylist(), self._table["text"].to_pylist()
        return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]

    def ids(self, positions: list[int]) -> tuple[str, ...]:
        return tuple(self._table["id"][position].as_py() for position in positions)

    def positions(self, ids: Collection[str]) -> dict[str, int]:
        """Where the passages with these ids stand; the first of several that share one."""
        found = pc.is_in(self._table["id"], pa.array(sorted(ids), pa.string())).to_numpy().nonzero()[0][::-1].tolist()
        return dict(zip(self.ids(found), found, strict=True))

    def absent(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that no passage has."""
        wanted = pa.array(sorted(ids), pa.string())
        found = pc.unique(self._table["id"].filter(pc.is_in(self._table["id"], wanted)))
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


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill `folder` unless it exists; a rename at the end makes parallel builders harmless."""
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise DataError(f"{folder.parent}: {error.strerror}; let data.cache name a folder that can be written") from error
    try:
        build(draft)
        os.rename(draft, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digest(files: Sequence[Path]) -> str:
    """Of the content of all files, in their order."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return (digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())[:20]


def _write_arrow(files: Sequence[Path], target: Path) -> None:
    places: dict[str, tuple[Path, int]] = {}
    chunk: list[dict[str, str]] = []
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for path in files:
            for line, row in read_rows(path, PassageRow):
                if (first := places.setdefault(row.id, (path, line))) != (
                    path,
                    line,
                ):  # ids only measure recall: both are found
                    where = f"on line {first[1]}" if first[0] == path else f"in {first[0]}:{first[1]}"
                    log.warning("%s:%d: passage id %r stands %s already; both are kept", path, line, row.id, where)
                chunk.append(row.model_dump())
                if len(chunk) == ROWS_PER_CHUNK:
                    writer.write(pa.RecordBatch.from_pylist(chunk, SCHEMA))
                    chunk = []
        if not places:
            raise DataError(f"{shown(files)}: holds no passage; give a file with at least one line")
        writer.write(pa.RecordBatch.from_pylist(chunk, SCHEMA))
