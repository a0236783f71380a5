"""The folder a run lives in: settings, metrics, evaluations, samples, checkpoints."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster.config import Settings
from cluster.flags import build, dump, read_yaml
from cluster.session import in_job
from rollout.errors import CheckpointError, SettingsError

Row = dict[str, Any]


def choose_run_dir(settings: Settings, name: str) -> Path:
    """The absolute folder of a new run. Raises SettingsError where it would be lost, CheckpointError if it is taken."""
    given = settings.run_dir
    if in_job() and (given is None or not given.is_absolute()):
        raise SettingsError(f"run_dir: {given} lies in the job's temporary copy; give an absolute path that all nodes see")
    path = (given or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}").expanduser().resolve()
    if path.is_file() or (path / "config.yaml").exists():
        raise CheckpointError(f"{path}: holds a run already; go on with --resume {path} or choose another --run_dir")
    if path.is_dir() and any(path.iterdir()):
        raise CheckpointError(f"{path}: is not empty; choose another --run_dir")
    return path


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.metrics, self.evaluations = path / "metrics.jsonl", path / "evaluations.jsonl"
        self.failed_prompts = path / "failed_prompts.jsonl"
        self.checkpoints, self.policy, self.data = path / "checkpoints", path / "policy", path / "data"

    @classmethod
    def create(cls, path: Path, settings: Settings) -> "RunFolder":
        """A folder that can be resumed from its first instant."""
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.write_settings(settings)
        except OSError as error:
            raise SettingsError(f"run_dir: {path} cannot be made ({error.strerror}); choose another") from error
        return folder

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        if not (path / "config.yaml").is_file():
            raise CheckpointError(f"{path}: holds no run (no config.yaml); give the folder of a run")
        return cls(path.resolve())

    def remove_if_nothing_was_trained(self) -> None:
        if not self.metrics.exists():
            shutil.rmtree(self.path)

    def write_settings(self, settings: Settings) -> None:
        _replace(self.path / "config.yaml", dump(settings))

    def sample_log(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step}.parquet"

    def append(self, file: Path, row: Row) -> None:
        """Add one line; JSON knows no NaN and no infinity, so they are written as null."""
        finite = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in row.items()}
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(finite, allow_nan=False) + "\n")

    def cut_back(self, step: int) -> None:
        """Remove what the per-step files hold of steps after `step`."""
        for file in (self.metrics, self.evaluations, self.failed_prompts):
            if file.is_file():
                kept = [row for row in _rows(file) if row["step"] <= step]
                _replace(file, "".join(json.dumps(row) + "\n" for row in kept))
        for log in (self.path / "samples").glob("step-*.parquet"):
            if int(log.stem.removeprefix("step-")) > step:
                log.unlink()

    def evaluation_rows(self) -> list[Row]:
        return list(_rows(self.evaluations))

    def failed_prompt_rows(self) -> list[Row]:
        return list(_rows(self.failed_prompts))

    def incarnations(self) -> set[int]:
        """Those of the learners that have trained here."""
        return {row["incarnation"] for row in _rows(self.metrics)}


def writable(path: Path) -> None:
    """Raise SettingsError unless a file can be written at `path`."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingsError(f"{path}: cannot be written; name a file in a folder that exists and is yours")


def read_settings(file: Path) -> Settings:
    return build(Settings, read_yaml(file, Settings))


def _rows(file: Path) -> Iterator[Row]:
    """Rows of a jsonl file, if there is one; a last line that was cut short by a kill is left out."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _replace(file: Path, text: str) -> None:
    draft = file.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
