"""Standard output and error, which may be closed, on a full disk, or read by nobody."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

STDOUT = "standard output"


_ours: TextIO | None = None  # stdout, while it is kept for what `print_out` says


def print_out(text: str) -> None:
    """A line on stdout, above the bar if there is one. An OSError names stdout; after one all that is said is dropped."""
    stdout = _ours or sys.stdout
    try:
        tqdm.write(text, file=stdout)
        stdout.flush()
    except OSError as error:
        error.filename = STDOUT
        _drop(stdout)
        raise


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Inside, what a user's reward, a library or their children print goes to stderr: whoever reads JSON gets nothing else."""
    global _ours
    stdout, copy = sys.stdout, -1
    with contextlib.suppress(OSError, ValueError):  # a stream of Python's own has no number
        sys.stdout.flush()
        copy, number, stderr = os.dup(stdout.fileno()), stdout.fileno(), sys.stderr.fileno()
    _ours = stdout if copy < 0 else open(copy, "w", encoding=stdout.encoding, errors="backslashreplace")
    try:
        if copy >= 0:
            os.dup2(stderr, number)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if copy >= 0:
            _ours.flush()
            os.dup2(copy, number)
            _ours.close()
        _ours = None


def print_err(text: str) -> None:
    """A line on stderr, apart from what a program may read; dropped where it finds no room."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def prepare_streams() -> None:
    """Before any file is opened, which would take the number of a stream that the caller closed (`>&-`), and what others print.
    What a terminal cannot encode is written as its escape, and so is read what is no text: it ends no run."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name) or open(os.devnull, mode)
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null, so that Python's exit does not fail on it again."""
    with contextlib.suppress(ValueError), open(os.devnull, "w") as nowhere:  # a stream of Python's own has no number
        os.dup2(nowhere.fileno(), stream.fileno())
