"""Prompts that cannot be answered: written down, left out, and too many of them end the run."""

from collections.abc import Callable
from typing import Literal

from cluster.actors.replica import cause
from cluster.store.records import Row
from cluster.store.run_folder import RunFolder
from cluster.training.isolation import FailedPrompt
from rollout.errors import ClusterError

File = Literal["train", "valid"]


class FailedPrompts:
    """Those of this process: who resumes a run may have mended what was the matter, so all are tried again.

    limit: so many may fail; train_count, valid_count: how many there are. say: told of each.
    """

    def __init__(self, folder: RunFolder, limit: int, train_count: int, valid_count: int, say: Callable[[str], None]):
        self._folder, self._limit, self._say = folder, limit, say
        self._counts: dict[File, int] = {"train": train_count, "valid": valid_count}
        self._rows: list[Row] = []

    def add(self, file: File, step: int, failed: FailedPrompt) -> None:
        """Write a prompt down with the step that went on without it. Raises ClusterError if there are too many of them."""
        prompt, met = failed.prompt, cause(failed.error)
        row = {"step": step, "file": file, "epoch": prompt.epoch, "id": prompt.id, "error": met}
        self._rows.append(row)
        self._folder.append(self._folder.failed_prompts, row | {"question": prompt.question, "details": str(failed.error)})
        self._say(f"prompt {prompt.id!r} of data.{file} failed three times and is left out: {met}")
        count = len(self.ids("train")) + len(self.ids("valid"))
        nothing_left = len(self.ids(file)) == self._counts[file]
        if count > self._limit or nothing_left:
            first, bound = self._rows[0], f"none of data.{file} is left" if nothing_left else f"{self._limit} may"
            raise ClusterError(
                f"cluster.max_failed_prompts: {count} prompts failed, {bound}; "
                f"the first was {first['id']!r}: {first['error']}; mend that, or raise the limit"
            ) from failed.error

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what failed after it is tried again."""
        self._rows = [row for row in self._rows if row["step"] <= step]

    def ids(self, file: File) -> set[str]:
        return {row["id"] for row in self._rows if row["file"] == file}
