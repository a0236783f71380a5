"""Runs in a process of their own, and what tests read of a run's folder."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cluster.store.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 240
CLOCK = ("time", "seconds_", "tokens_per_s", "groups_per_s", "bytes_sync", "peak_memory_mb", "incarnation", "restarts")


class Process(subprocess.Popen[str]):
    """launch.py with some arguments, in a process group of its own."""

    def __init__(self, *arguments: object, python: str = sys.executable, stdin: int | None = None, cwd: Path = ROOT):
        command = [python, str(ROOT / "launch.py"), *map(str, arguments)]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        super().__init__(command, cwd=cwd, text=True, start_new_session=True, **pipes)

    def until(self, text: str) -> None:
        """Read on until a line holds `text`; one that never comes ends the process."""
        assert self.stdout is not None and self.stderr is not None
        seen = []
        with self._at_the_deadline():
            for line in self.stdout:
                seen.append(line)
                if text in line:
                    return
        raise AssertionError(f"{text!r} never came:\n{''.join(seen[-20:])}\n{self.stderr.read()}")

    @contextlib.contextmanager
    def _at_the_deadline(self) -> Iterator[None]:
        watchdog = threading.Timer(DEADLINE_S, self.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def succeed(self) -> str:
        """What it printed from here to its end."""
        output, errors = self.communicate(timeout=DEADLINE_S)
        assert self.returncode == 0 and "Traceback" not in errors, output + errors
        return output


def without_tiny(flags: list[str]) -> list[str]:
    """Of a run with a model of its own."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [word for pair in pairs if not pair[0].startswith("--policy.tiny") for word in pair]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_clock(file: Path) -> list[dict[str, Any]]:
    """What two runs have in common that differ in their clock and in what happened to their actors alone."""
    return [{key: value for key, value in row.items() if not key.startswith(CLOCK)} for row in rows(file)]


def policy_weights(run: Path, checkpoint: str = "latest") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / checkpoint / "policy" / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    for (name, a), (other_name, b) in zip(policy_weights(one).items(), policy_weights(other).items(), strict=True):
        assert name == other_name and torch.equal(a, b)


def copy_as_of(run: Path, target: Path, step: int) -> Path:
    """The run as a kill at `step` could have left it: the newest checkpoint is older than the files."""
    shutil.copytree(run, target, symlinks=True)
    (target / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(run), str(target)))
    Checkpoints(target / "checkpoints", keep=9).discard_after(step)
    latest = target / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to(f"step-{step}")
    return target
