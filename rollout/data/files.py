"""Paths as users give them (a file, several, a pattern, a folder of shards) -> files, and lines of their text."""

import contextlib
import glob
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from rollout.errors import DataError, first_line

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # as packed files begin, whatever their names
NO_TEXT = {
    **MAGIC,  # in a packed file
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
    b"PAR1\x15": "parquet",
    b"ARROW1\0": "Arrow",
    b"SQLite format 3\0": "SQLite",
}
READABLE = (".jsonl", ".parquet")
BYTE_ORDER_MARK = "\ufeff"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def data_files(given: Path | Sequence[Path], readable: Sequence[str] = READABLE) -> list[Path]:
    """The files that are meant, in the order given; those of a folder or a pattern by name.

    readable: suffixes that a folder's shards have. Raises DataError for a path that leads to no file, or to one a second time.
    """
    files: dict[tuple[int, int], Path] = {}
    for path in [given] if isinstance(given, Path) else given:
        for file in _meant(path, readable):
            about = file.stat()  # one file whatever its names: links, and ways to its folder
            if (first := files.setdefault((about.st_dev, about.st_ino), file)) is not file:
                other = "" if str(first) == str(file) else f", the other time as {first}"
                raise DataError(f"{file}: is named twice{other}; leave one out")
    return list(files.values())


def shown(given: Path | Sequence[Path]) -> str:
    """Paths in an error or a notice: the first, and how many more."""
    paths = [given] if isinstance(given, Path) else list(given)
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}" if paths else "none"


def unpacked(path: Path) -> Path:
    """The name of the content: `x.jsonl` of `x.jsonl.gz`."""
    return path.with_suffix("") if path.suffix in COMPRESSIONS else path


def suffix_of(path: Path) -> str:
    """The suffix of the content: `.jsonl` of `x.jsonl.gz`."""
    return unpacked(path).suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The content, unpacked, whether the name or the first bytes say that it is packed. Raises DataError unless it is a file
    that can be read to its end."""
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder; name a file' if path.is_dir() else 'no such file; check the path'}")
    with path.open("rb") as file:
        compression = _magic(file.peek(), MAGIC) or COMPRESSIONS.get(path.suffix)
        try:
            yield file if compression is None else io.BufferedReader(pa.CompressedInputStream(file, compression))
        except OSError as error:
            remedy = "check the disk" if compression is None else "pack it anew"
            raise DataError(f"{path}: cannot be read to its end ({first_line(error)}); {remedy}") from error


def text_lines(path: Path, with_blank: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the lines, unless they are blank, without byte-order marks, which joined files have inside.

    Raises DataError naming a line that is not UTF-8, or a file that cannot be unpacked.
    """
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            line = _decoded(path, number, raw).lstrip(BYTE_ORDER_MARK)
            if with_blank or line.strip():
                yield number, line.rstrip("\r\n")


def check_encoding(path: Path, number: int, raw: bytes) -> None:
    """Raise DataError for the beginning of a line that is no text, or text as UTF-16 has it."""
    if number == 1 and (kind := _magic(raw, NO_TEXT)):
        remedy = f"name it .{kind}" if kind == "parquet" else "unpack it, or export its rows as jsonl"
        raise DataError.at(path, number, f"begins as {kind} does, and not as text; {remedy}")
    if number == 1 and raw.startswith(UTF16):
        raise DataError.at(path, number, "begins with the byte-order mark of UTF-16; save the file as UTF-8")
    if b"\0" in raw:
        raise DataError.at(path, number, "holds zero bytes, as UTF-16 does; save the file as UTF-8")


def _decoded(path: Path, number: int, raw: bytes) -> str:
    check_encoding(path, number, raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError.at(path, number, f"byte {error.start} is not UTF-8; save the file as UTF-8") from error


def _magic(start: bytes, kinds: Mapping[bytes, str]) -> str | None:
    return next((kind for magic, kind in kinds.items() if start.startswith(magic)), None)


def _meant(path: Path, readable: Sequence[str]) -> list[Path]:
    if path.is_dir():
        return _shards(path, readable)
    if path.exists() or not glob.has_magic(str(path)):
        if not path.is_file():
            raise DataError(f"{path}: no such file; check the path")
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise DataError(f"{path}: no such file, and none that this pattern matches; check it")
    return [file for each in found for file in (_shards(each, readable) if each.is_dir() else [each])]


def _shards(folder: Path, readable: Sequence[str]) -> list[Path]:
    visible = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    shards = [path for path in visible if suffix_of(path) in readable]
    if not shards:
        raise DataError(f"{folder}: is a folder without {' or '.join(readable)} files; name a file, or a folder of them")
    return shards
