"""What is built once into `data.cache`: whole or not at all, by one process at a time, on any disk."""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np

from rollout.errors import DataError, first_line

log = logging.getLogger("lapdog")


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill `folder` unless it exists; a rename at the end makes parallel builders harmless.

    Whoever comes meanwhile waits and takes what was built, where the disk has locks. What a killed builder left is removed by
    the next one. Raises DataError for a disk that is full or cannot be written.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _turn(folder) as is_alone, _stop_signals_raised():
            prefix = f".{folder.name}.draft-"
            for draft in folder.parent.glob(f"{prefix}*") if is_alone else ():
                shutil.rmtree(draft, ignore_errors=True)
            if not folder.is_dir():
                draft = folder.parent / f"{prefix}{secrets.token_hex(4)}"
                draft.mkdir()  # as the umask has it: a cache may be shared
                _fill(folder, draft, build)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else first_line(error)
        remedy = "make room there, or let data.cache name a folder that can be written"
        raise DataError(f"{folder.parent}: {cause}; {remedy}") from error


def write_array(path: Path, blocks: Iterable[np.ndarray], dtype: type[np.generic], length: int) -> None:
    """A .npy file of one axis, block by block. Written, never mapped: a full disk is an OSError then, and no SIGBUS."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)


def mapped_array(path: Path) -> np.ndarray:
    """As a plain array: a memmap's own indexing is slow."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _fill(folder: Path, draft: Path, build: Callable[[Path], None]) -> None:
    try:
        build(draft)
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.is_dir():  # built elsewhere meanwhile, on a disk without locks
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Held while no other process builds `folder`; false where the disk has no locks."""
    path = folder.parent / f".{folder.name}.lock"
    while True:
        with path.open("wb") as lock:
            is_alone = _locked(lock.fileno(), folder)
            if not is_alone or _is_at(path, lock.fileno()):  # otherwise who held it has removed it
                try:
                    yield is_alone
                finally:
                    path.unlink(missing_ok=True)
                return


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _locked(lock: int, folder: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s: is built by another process; waiting for it", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # ENOLCK, ENOSYS
        return False
    return True


@contextlib.contextmanager
def _stop_signals_raised() -> Iterator[None]:
    """A signal that would end the process at once ends it by SystemExit, after what is half built was removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    in_main = threading.current_thread() is threading.main_thread()
    deadly = [each for each in (signal.SIGTERM, signal.SIGHUP) if in_main and signal.getsignal(each) is signal.SIG_DFL]
    for each in deadly:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in deadly:
            signal.signal(each, signal.SIG_DFL)
