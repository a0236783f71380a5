"""Checkpoints: written beside, checked by size and checksum, put in place by a rename; `latest` and `best` point at one."""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cluster.actors.tasks import Event
from rollout.digests import digest_of_file
from rollout.errors import CheckpointError, writing
from rollout.types import Version

MANIFEST, STATE, GROUPS = "manifest.json", "state.json", "groups.parquet"
FIRST_POSITION = {"epoch": 0, "position": 0}


class SavedPrompt(NamedTuple):
    """A prompt by what identifies it in its file."""

    epoch: int
    id: str
    attempt: int


class SavedGroup(NamedTuple):
    """A finished group, whose content stands in the checkpoint's groups.parquet."""

    prompt: SavedPrompt
    reward_range: float | None
    version: Version


@dataclass(kw_only=True)
class RunState:
    """Where a run stands, apart from what the learner holds. pending: prompts taken but not trained on; filtered: those whose
    group taught nothing (`Pipeline`); ready: finished groups. patience_from: the step at which patience ended the run,
    which went on."""

    step: int = 0
    incarnation: int = 0
    stage: str = ""
    order: dict[str, int] = field(default_factory=lambda: dict(FIRST_POSITION))
    pending: list[SavedPrompt] = field(default_factory=list)
    filtered: list[SavedPrompt] = field(default_factory=list)
    ready: list[SavedGroup] = field(default_factory=list)
    constant_reply: str | None = None
    patience_from: int = 0

    @classmethod
    def read(cls, file: Path) -> "RunState":
        """Raises OSError, ValueError or TypeError for what `write` did not make."""
        state = cls(**json.loads(file.read_text(encoding="utf-8")))
        state.pending = [SavedPrompt(*key) for key in state.pending]
        state.filtered = [SavedPrompt(*key) for key in state.filtered]
        state.ready = [SavedGroup(SavedPrompt(*key), range, Version(*version)) for key, range, version in state.ready]
        return state

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")

    def begin(self, stage: str) -> None:
        self.stage, self.order = stage, dict(FIRST_POSITION)
        self.pending, self.filtered, self.ready = [], [], []

    def requeue_ready(self) -> None:
        """Have the finished groups made again."""
        self.pending, self.ready = [group.prompt for group in self.ready] + self.pending, []


class Checkpoints:
    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    async def save(
        self, state: RunState, told: Sequence[Path], write: Callable[[Path], Awaitable[None]], best_step: int | None = None
    ) -> None:
        """Let `write` fill a folder for `state.step`, then put it in place and drop the oldest ones but the best.

        told: files of the run that say what it is, to be copied.

        One of that step that is there already is what the run was resumed from, and stays. Raises CheckpointError if there
        is no room.
        """
        target, draft = self.folder / f"step-{state.step}", self.folder / f".step-{state.step}.tmp"
        if target.exists():
            return
        shutil.rmtree(draft, ignore_errors=True)
        try:
            with writing(target):
                draft.mkdir(parents=True)
            await write(draft)
            with writing(target):
                for file in told:
                    shutil.copy(file, draft)
                state.write(draft / STATE)
                await asyncio.to_thread(self._seal, draft)
                os.rename(draft, target)
                _flush(target.parent)
                self._point("latest", target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.mark_best(best_step)
        self._prune()

    def mark_best(self, step: int | None) -> None:
        """Let `best` point at the checkpoint of a step, if there is one already."""
        if step is not None and self.has(step):
            self._point("best", self.folder / f"step-{step}")

    def has(self, step: int) -> bool:
        return (self.folder / f"step-{step}").is_dir()

    def exist(self) -> bool:
        return bool(_checkpoints(self.folder))

    def discard_after(self, step: int) -> None:
        """Remove drafts and checkpoints of later steps: a resumed run writes its own."""
        for folder in [*self.folder.glob(".step-*"), *(c for c in _checkpoints(self.folder) if _step_of(c) > step)]:
            shutil.rmtree(folder)
        if (self.folder / "best").is_symlink() and not (self.folder / "best").exists():
            (self.folder / "best").unlink()
        if left := _checkpoints(self.folder):
            self._point("latest", left[-1])
        else:
            (self.folder / "latest").unlink(missing_ok=True)

    def _seal(self, draft: Path) -> None:
        """Share the reference with the checkpoint before, then write down size and checksum of every file."""
        self._share_reference(draft)
        files = {str(file.relative_to(draft)): _fingerprint(file) for file in sorted(draft.rglob("*")) if file.is_file()}
        (draft / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
        for written in [*draft.rglob("*"), draft]:
            _flush(written)

    def _share_reference(self, draft: Path) -> None:
        """The reference seldom changes: link it to the one that the newest checkpoint holds, if that is the same."""
        for file in (draft / "reference").glob("*"):
            older = self.folder / "latest" / "reference" / file.name
            if older.is_file() and older.stat().st_size == file.stat().st_size and _fingerprint(older) == _fingerprint(file):
                with contextlib.suppress(OSError):  # not every file system has hard links: then the copy stays
                    os.link(older.resolve(), file.with_suffix(".link"))
                    file.with_suffix(".link").replace(file)

    def _point(self, name: str, target: Path) -> None:
        link = self.folder / f".{name}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        link.replace(self.folder / name)

    def _prune(self) -> None:
        kept = {(self.folder / name).resolve() for name in ("latest", "best")}
        for old in _checkpoints(self.folder)[: -self.keep]:
            if old.resolve() not in kept:
                shutil.rmtree(old)


def newest(folder: Path, event: Event) -> tuple[Path, RunState] | None:
    """The newest whole checkpoint of a run's `checkpoints` folder, if it holds any; `event` is told of damaged ones.

    Raises CheckpointError if all are.
    """
    damage: CheckpointError | None = None
    for path in reversed(_checkpoints(folder)):
        try:
            state = verify(path)
        except CheckpointError as error:
            damage = damage or error
            event(f"{str(error).partition(';')[0]}; trying the one before")
        else:
            return path.resolve(), state
    if damage is not None:
        raise damage
    return None


def open_for_evaluation(path: Path) -> tuple[Path, RunState | None]:
    """The folder of a checkpoint given as itself, as `latest` or `best`, or as its run folder, with its verified state;
    None for a plain model folder."""
    if (path / "checkpoints" / "latest").is_dir():
        path = path / "checkpoints" / "latest"
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint; give a run folder, a checkpoints/step-N or a model folder")
    path = path.resolve()
    if path.name == "policy" and (path.parent / STATE).exists():
        path = path.parent
    return path, verify(path) if (path / STATE).exists() or (path / MANIFEST).exists() else None


def verify(folder: Path) -> RunState:
    """Check every file against the manifest and read the state. Raises CheckpointError naming what is missing or damaged."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, fingerprint in files.items():
            if not (folder / name).is_file() or _fingerprint(folder / name) != fingerprint:
                raise CheckpointError(f"{folder}: {name} is missing or damaged; give another checkpoint")
        return RunState.read(folder / STATE)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: is no complete checkpoint ({error}); give another one") from error


def _flush(path: Path) -> None:
    """Let a file's content, or a folder's entries, reach the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _fingerprint(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": digest_of_file(file)}


def _checkpoints(folder: Path) -> list[Path]:
    """In the order of their steps; a user's own copies beside them are left alone."""
    return sorted((path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()), key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
