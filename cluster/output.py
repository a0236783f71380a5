"""Standard output and error, which may be closed, on a full disk, or read by nobody."""

import contextlib
import io
import os
import sys
from typing import TextIO

from tqdm import tqdm

STDOUT = "standard output"


def print_out(text: str) -> None:
    """A line on stdout, above the bar if there is one. An OSError names stdout; after one all that is said is dropped."""
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        error.filename = STDOUT
        _drop(sys.stdout)
        raise


def print_err(text: str) -> None:
    """A line on stderr, apart from what a program may read; dropped where it finds no room."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def reopen_closed_streams() -> None:
    """Those that a caller closed (`>&-`): the next file to be opened would take their number, and what others print."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _lead_nowhere(number)
            setattr(sys, name, os.fdopen(number, mode))


def write_what_cannot_be_encoded() -> None:
    """As its escape: a terminal without Unicode ends no run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null, so that Python's exit does not fail on it again."""
    with contextlib.suppress(ValueError):  # a stream of Python's own has no number
        _lead_nowhere(stream.fileno())


def _lead_nowhere(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    os.dup2(opened, number)
    os.set_inheritable(number, True)  # which dup2 leaves undone where they are one
    if opened != number:
        os.close(opened)
