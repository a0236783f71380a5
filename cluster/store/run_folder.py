"""The folder a run lives in: settings, metrics, evaluations, samples, checkpoints."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from cluster.settings.places import relocated
from cluster.settings.tree import Settings, absolute
from cluster.settings.values import Values, build
from cluster.settings.yaml_file import dump, read_yaml
from cluster.store.checkpoint import MANIFEST, STATE
from cluster.store.rows import Row, json_line
from rollout.errors import CheckpointError, SettingsError, first_line, writing

LOCK = ".lock"
BY_NAMES = ("draws", "others", "readings")  # hold figures by names of their own
NESTED = ("constant_reply", "intervals", *BY_NAMES)
TEXTS = ("stage", "measure", "set", "text")


def choose_run_dir(settings: Settings, name: str, in_job: bool) -> Path:
    """The absolute folder of a new run. Raises SettingsError where it would be lost, CheckpointError if it is taken."""
    given = settings.run_dir
    if in_job and (given is None or not given.is_absolute()):
        raise SettingsError(
            f"run_dir: {given or 'its default'} lies in the job's temporary copy; give an absolute path that all nodes see"
        )
    # runs that begin in the same second, as those of a job array do, differ in the last four letters
    path = absolute(given or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}")
    _check_free(path)
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise SettingsError(f"run_dir: {path} cannot be made, {above} is no folder of yours; choose another")
    return path


def _check_free(path: Path) -> None:
    if path.is_file() or (path / "config.yaml").exists():
        raise CheckpointError(f"{path}: holds a run already; go on with --resume {path} or choose another --run_dir")
    if path.is_dir() and any(file.name != LOCK for file in path.iterdir()):
        raise CheckpointError(f"{path}: is not empty; choose another --run_dir")


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.metrics, self.evaluations = path / "metrics.jsonl", path / "evaluations.jsonl"
        self.failed_prompts, self.events = path / "failed_prompts.jsonl", path / "events.jsonl"
        self.report, self.inputs, self.trackers = path / "report.html", path / "inputs.json", path / "trackers.json"
        self.checkpoints, self.policy, self.data = path / "checkpoints", path / "policy", path / "data"
        self._evaluations: tuple[tuple[int, ...], list[Row]] = (), []  # as which file was read, what it held

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"run_dir: {path} cannot be made ({error.strerror}); choose another") from error
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        if not (path / "config.yaml").is_file():
            raise CheckpointError(f"{path}: holds no run (no config.yaml); give the folder of a run")
        if (path / STATE).exists() or (path / MANIFEST).exists():
            run = absolute(path).resolve().parent.parent
            raise CheckpointError(f"{path}: is a checkpoint; give the folder of its run, {run}")
        return cls(absolute(path))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here. Raises CheckpointError if one does, or if none can be kept."""
        with writing(self.path / LOCK):
            lock = (self.path / LOCK).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(f"{self.path}: another process trains it; wait for its end, or stop it") from error
            except OSError as error:
                remedy = "mount it with them (Lustre: -o flock), or name another folder"
                raise CheckpointError(f"{self.path}: its file system has no locks ({error.strerror}); {remedy}") from error
            if not (self.path / LOCK).exists() or (self.path / LOCK).stat().st_ino != os.fstat(lock.fileno()).st_ino:
                raise CheckpointError(f"{self.path}: another process has just removed it; start again")
            yield

    def check_new(self) -> None:
        """Raise CheckpointError for a run that was begun here while this one waited for its lock."""
        _check_free(self.path)

    def remove_if_nothing_was_done(self) -> None:
        """What was trained, evaluated or found to fail stays."""
        if not any(file.exists() for file in (self.metrics, self.evaluations, self.failed_prompts)):
            shutil.rmtree(self.path, ignore_errors=True)  # a mount point, or NFS that keeps the lock's file, may stay

    def write_digests(self, digests: dict[str, str]) -> None:
        _replace(self.inputs, json.dumps(self.digests() | digests, indent=1) + "\n")

    def digests(self) -> dict[str, str]:
        """Of what the run has read; none before."""
        return json.loads(self.inputs.read_text(encoding="utf-8")) if self.inputs.is_file() else {}

    def write_tracker_ids(self, ids: dict[str, str]) -> None:
        _replace(self.trackers, json.dumps(ids))

    def tracker_ids(self) -> dict[str, str]:
        """Of this run, by the tracker's name. Raises CheckpointError for a file that holds none."""
        try:
            ids = json.loads(self.trackers.read_text(encoding="utf-8")) if self.trackers.is_file() else {}
            return {str(name): str(id) for name, id in ids.items()}
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{self.trackers}: holds no ids; remove it, and the trackers begin new runs") from error

    @property
    def told_files(self) -> list[Path]:
        """What says which run this is: its settings and what it reads."""
        return [self.path / "config.yaml", self.inputs]

    def told(self) -> Values:
        """What config.yaml says, wherever the folder has been moved to since."""
        return relocated(read_yaml(self.path / "config.yaml", Settings), self.path)

    def settings(self) -> Settings:
        return build(Settings, self.told())

    def write_settings(self, settings: Settings) -> None:
        _replace(self.path / "config.yaml", dump(settings))

    def sample_log(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step}.parquet"

    def append(self, file: Path, row: Row) -> None:
        with writing(file), file.open("a", encoding="utf-8") as out:
            out.write(json_line(row) + "\n")

    def truncate(self, step: int) -> None:
        """Remove what the per-step files hold of steps after `step`, and of events, which stay, a half line at the end."""
        for file in (self.metrics, self.evaluations, self.failed_prompts, self.events):
            if file.is_file():
                kept = [row for row in _rows(file) if row["step"] <= step or file == self.events]
                _replace(file, "".join(json_line(row) + "\n" for row in kept))
        for number, log in self.sample_logs():
            if number > step:
                log.unlink()

    def sample_logs(self) -> list[tuple[int, Path]]:
        """(step, file) of every sample log, in the order of the steps."""
        logs = ((log.stem.removeprefix("step-"), log) for log in (self.path / "samples").glob("step-*.parquet"))
        return sorted((int(number), log) for number, log in logs if number.isdecimal())

    def metric_rows(self) -> list[Row]:
        return list(_figures(self.metrics))

    def event_rows(self) -> list[Row]:
        return list(_rows(self.events))

    def evaluation_rows(self) -> list[Row]:
        """Read again only where the file has changed, for a run asks at every step."""
        found = self.evaluations.stat() if self.evaluations.is_file() else None
        version = (found.st_ino, found.st_size, found.st_mtime_ns) if found is not None else ()
        if version != self._evaluations[0]:
            self._evaluations = version, list(_figures(self.evaluations))
        return list(self._evaluations[1])

    def failed_prompt_rows(self) -> list[Row]:
        return list(_rows(self.failed_prompts))

    def incarnations(self) -> set[int]:
        """Those of the learners that have trained here."""
        return {row["incarnation"] for row in self.metric_rows()}


def check_writable(path: Path, beside: Iterable[Path | None]) -> None:
    """Raise SettingsError unless a file can be written at `path` that is none of those `beside` it."""
    if any(other is not None and path.resolve() == other.resolve() for other in beside):
        raise SettingsError(f"{path}: stands for another file of this command; name one of its own")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingsError(f"{path}: cannot be written; name a file in a folder that exists and is yours")


def read_settings(file: Path) -> Settings:
    return build(Settings, read_yaml(file, Settings))


def _figures(file: Path) -> Iterator[Row]:
    """Rows that hold numbers, but for some texts, and the figures in what is nested."""
    for row in _rows(file):
        for key, value in _no_figures(row):
            place = f"{file}: step {row['step']}"
            raise CheckpointError(f"{place}: {key!r} is {value!r:.60}, no number; correct the line or remove it")
        yield row


def _no_figures(row: Row, of: str = "") -> Iterator[tuple[str, object]]:
    for key, value in row.items():
        if isinstance(value, dict) and (key in NESTED or of in BY_NAMES):
            yield from _no_figures(value, key)
        elif of == "intervals" and isinstance(value, list) and len(value) == 2:
            yield from ((key, bound) for bound in value if not isinstance(bound, int | float | None))
        elif not isinstance(value, int | float | None) and key not in TEXTS:
            yield key, value
        elif value is not None and key in NESTED:
            yield key, value


def _rows(file: Path) -> Iterator[Row]:
    """Rows of a jsonl file, if there is one; a last line that was cut short by a kill is left out.

    Raises CheckpointError for a line that no run wrote.
    """
    if not file.is_file():
        return
    whole = file.read_bytes().rpartition(b"\n")[0]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CheckpointError(f"{file}:{number}: is not JSON ({first_line(error)}); remove the line") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise CheckpointError(f"{file}:{number}: names no step; remove the line")
        yield row


def _replace(file: Path, text: str) -> None:
    draft = file.with_suffix(".tmp")
    with writing(file):
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
