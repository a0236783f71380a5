"""The errors a user can cause. `launch.py` prints their one line and exits with 2; any other exception is our bug.

LapdogError
├── SettingsError      a flag, a YAML key, a value or a combination of them
├── DataError          a data or passage file
├── PolicyError        a model folder or its tokenizer
├── CheckpointError    a run folder or a checkpoint
├── RewardError        a user's own reward function
└── ClusterError       Ray cannot be reached or lacks what was asked for

Each takes its finished message alone, so that it survives pickling between Ray processes.
"""

from pathlib import Path


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


class ClusterError(LapdogError):
    pass


def first_line(error: object) -> str:
    """What another library's error says first, to be quoted in one of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
