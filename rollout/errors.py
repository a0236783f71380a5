"""The errors a user can cause. `launch.py` prints their one line and exits with 2; any other exception is our bug.

LapdogError
├── SettingsError      a flag, a YAML key, a value or a combination of them
├── DataError          a data or passage file
├── PolicyError        a model folder or its tokenizer
├── CheckpointError    a run folder, a checkpoint or another file that cannot be written
├── RewardError        a user's own reward function
├── RetrievalError     a server that passages are asked of
└── ClusterError       Ray cannot be reached or lacks what was asked for

Each takes its finished message alone, so that it survives pickling between Ray processes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError


class LapdogError(Exception):
    """Base of all errors that end in one line naming place, value and remedy."""


class SettingsError(LapdogError):
    pass


class DataError(LapdogError):
    @classmethod
    def at(cls, path: str | Path, line: int, problem: str) -> "DataError":
        return cls(f"{path}:{line}: {problem}")


class PolicyError(LapdogError):
    pass


class CheckpointError(LapdogError):
    pass


class RewardError(LapdogError):
    pass


class RetrievalError(LapdogError):
    pass


class ClusterError(LapdogError):
    pass


DISK_REMEDY = "make room or mend the rights"


@contextlib.contextmanager
def writing(path: Path, remedy: str = f"{DISK_REMEDY}; a run goes on with --resume") -> Iterator[None]:
    """Raise CheckpointError for what keeps `path` from being written: a full disk, missing rights."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise CheckpointError(f"{path}: cannot be written ({cause}); {remedy}") from error


def first_line(error: object) -> str:
    """What another library's error says first, to be quoted in one of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
