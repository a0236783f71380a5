"""Prompts that cannot be answered: written down, left out, and too many of them end the run."""

from collections.abc import Callable
from typing import Literal

from cluster.poison import FailedPrompt
from cluster.replica import cause
from cluster.run_folder import RunFolder
from rollout.errors import ClusterError

File = Literal["train", "valid"]


class FailedPrompts:
    """limit: so many may fail; train_count: how many training prompts there are. say: told of each."""

    def __init__(self, folder: RunFolder, limit: int, train_count: int, say: Callable[[str], None]):
        self._folder, self._limit, self._train_count, self._say = folder, limit, train_count, say

    def add(self, file: File, step: int, failed: FailedPrompt) -> None:
        """Write a prompt down with the step that went on without it. Raises ClusterError if there are too many of them."""
        prompt, met = failed.prompt, cause(failed.error)
        row = {"step": step, "file": file, "epoch": prompt.epoch, "id": prompt.id, "error": met}
        self._folder.append(self._folder.failed_prompts, row | {"question": prompt.question, "details": str(failed.error)})
        self._say(f"prompt {prompt.id!r} of data.{file} failed three times and is left out: {met}")
        first = self._folder.failed_prompt_rows()[0]
        count = len(self.ids("train")) + len(self.ids("valid"))
        nothing_left = len(self.ids("train")) == self._train_count
        if count > self._limit or nothing_left:
            bound = "none is left" if nothing_left else f"{self._limit} may"
            raise ClusterError(
                f"cluster.max_failed_prompts: {count} prompts failed, {bound}; "
                f"the first was {first['id']!r}: {first['error']}; mend that, or raise the limit"
            ) from failed.error

    def ids(self, file: File) -> set[str]:
        return {row["id"] for row in self._folder.failed_prompt_rows() if row["file"] == file}
