"""Prompts that cannot be answered: written down, left out, and too many of them end the run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.actors.errors import cause
from cluster.actors.tasks import Event
from cluster.store.rows import Row
from cluster.store.run_folder import RunFolder
from rollout.errors import ClusterError
from rollout.types import Prompt


@dataclass(frozen=True, slots=True)
class FailedPrompt:
    """A prompt that failed again and again by itself, and what it met first."""

    prompt: Prompt
    error: Exception


class FailedPrompts:
    """Failures of this process only; a resumed run tries all prompts again.

    limit: so many may fail. counts: how many prompts each file holds, train, valid, or with several held-out sets valid.NAME.
    event: told of each that fails.
    """

    def __init__(self, folder: RunFolder, limit: int, counts: Mapping[str, int], event: Event):
        self._folder, self._limit, self.counts, self._event = folder, limit, counts, event
        self._rows: list[Row] = []

    def add(self, file: str, step: int, failed: Iterable[FailedPrompt]) -> None:
        """Write prompts down with the step that went on without them. Raises ClusterError if there are too many of them."""
        for each in failed:
            prompt, met = each.prompt, cause(each.error)
            row = {"step": step, "file": file, "epoch": prompt.epoch, "id": prompt.id, "error": met}
            self._rows.append(row)
            self._folder.append(self._folder.failed_prompts, row | {"question": prompt.question, "details": str(each.error)})
            self._event(f"prompt {prompt.id!r} of data.{file} failed at every attempt and is left out: {met}")
            nothing_left = len(self.ids(file)) == self.counts[file]
            if nothing_left or self.room < 0:
                first, bound = self._rows[0], f"none of data.{file} is left" if nothing_left else f"{self._limit} may"
                raise ClusterError(
                    f"cluster.max_failed_prompts: {self._limit - self.room} prompts failed, {bound}; "
                    f"the first was {first['id']!r}: {first['error']}; mend that, or raise the limit"
                ) from each.error

    @property
    def room(self) -> int:
        """How many more may fail."""
        return self._limit - sum(len(self.ids(file)) for file in self.counts)

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what failed after it is tried again."""
        self._rows = [row for row in self._rows if row["step"] <= step]

    def ids(self, file: str) -> set[str]:
        return {row["id"] for row in self._rows if row["file"] == file}
