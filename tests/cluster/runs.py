"""Runs in a process of their own, and what tests read of a run's folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster import metrics

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 240


class Process(subprocess.Popen[str]):
    """launch.py with some arguments."""

    def __init__(self, *arguments: object, stdin: int | None = None):
        command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
        super().__init__(command, cwd=ROOT, text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def until(self, text: str) -> None:
        """Read on until a line holds `text`."""
        assert self.stdout is not None and self.stderr is not None
        seen = []
        for line in self.stdout:
            seen.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} never came:\n{''.join(seen[-20:])}\n{self.stderr.read()}")

    def succeed(self) -> str:
        """What it printed from here to its end."""
        output, errors = self.communicate(timeout=DEADLINE_S)
        assert self.returncode == 0 and "Traceback" not in errors, output + errors
        return output


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_clock(file: Path) -> list[dict[str, Any]]:
    return [metrics.without_clock(row) for row in rows(file)]
