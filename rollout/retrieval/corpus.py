"""A passage file as an Arrow table that all processes of a node map into memory, stored once under its content's hash."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from rollout.data.dataset import PassageRow, read_rows
from rollout.errors import DataError
from rollout.types import Passage

log = logging.getLogger("lapdog")

ROWS_PER_CHUNK = 10_000
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.large_string())])


class Corpus:
    """Passages by position; `folder` is where what belongs to this very content (its index) is kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        with pa.memory_map(str(folder / "passages.arrow")) as source:
            self._table = pa.ipc.open_file(source).read_all()

    @classmethod
    def open(cls, path: Path, cache: Path) -> "Corpus":
        """The corpus of a passage file, converted on first use. Raises DataError for what `read_rows` refuses."""
        if not path.is_file():
            raise DataError(f"{path}: no such file; check data.passages")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:20]
        folder = Path(os.path.expanduser(cache)) / digest
        build_once(folder, lambda target: _write_arrow(path, target / "passages.arrow"))
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


def _write_arrow(path: Path, target: Path) -> None:
    lines: dict[str, int] = {}
    chunk: list[dict[str, str]] = []
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for line, row in read_rows(path, PassageRow):
            if (first := lines.setdefault(row.id, line)) != line:  # ids only measure recall, so both can be found
                log.warning("%s:%d: passage id %r stands on line %d already; both are kept", path, line, row.id, first)
            chunk.append(row.model_dump())
            if len(chunk) == ROWS_PER_CHUNK:
                writer.write(pa.RecordBatch.from_pylist(chunk, SCHEMA))
                chunk = []
        if not lines:
            raise DataError(f"{path}: holds no passage; give a file with at least one line")
        writer.write(pa.RecordBatch.from_pylist(chunk, SCHEMA))
