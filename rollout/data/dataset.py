"""Example files -> prompts, and the seeded order in which a run takes them."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rollout.data.files import data_files, shown
from rollout.data.reading import Tell, read_rows, warn
from rollout.data.rows import ExampleRow, FullExampleRow
from rollout.errors import DataError
from rollout.types import Prompt


def read_prompts(given: Path | Sequence[Path], keep_extra: bool = False, tell: Tell = warn) -> list[Prompt]:
    """Read files of examples, as `data_files` finds them. An example without an id is named after its line, and where there are
    several files after the number of its file, which stays where files are moved or renamed.

    keep_extra: whether columns that are not ours become the prompt's `extra`, without nulls; what JSON lacks (times, decimals)
    becomes text. tell: takes what is to be said of the files. Raises DataError naming file and line for what cannot be read, is
    malformed, comes twice, or is empty.
    """
    files = data_files(given)
    prompts: list[Prompt] = []
    places: dict[str, tuple[Path, int]] = {}
    for number, path in enumerate(files, 1):
        for line, row in read_rows(path, FullExampleRow if keep_extra else ExampleRow, tell):
            of_line = f"line-{line}" if len(files) == 1 else f"{number}:line-{line}"
            prompt = _prompt(row, of_line)
            if (first := places.setdefault(prompt.id, (path, line))) != (path, line):
                place = f"on line {first[1]}" if first[0] == path else f"in {first[0]}:{first[1]}"
                raise DataError.at(path, line, f"id {prompt.id!r} stands {place} already; give every example its own")
            prompts.append(prompt)
    if not prompts:
        raise DataError(f"{shown(given)}: holds no example; give a file with at least one line")
    return prompts


def _prompt(row: ExampleRow, id: str) -> Prompt:
    """id: that of a row without one."""
    return Prompt(
        id=row.id if row.id is not None else id,
        question=row.question,
        answers=tuple(row.answers),
        passages=tuple(p.passage() for p in row.passages) if row.passages is not None else None,
        gold=tuple(row.gold),
        extra=json.loads(json.dumps(row.model_extra or {}, default=_text)),
    )


def _text(value: Any) -> str:
    """What JSON lacks, as text: bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


class PromptOrder:
    """An endless, seeded order of prompts: each epoch is a fresh permutation, the position is two numbers.

    The permutation depends on (seed, epoch) alone, so a restored position goes on exactly where it was.
    """

    def __init__(self, prompts: list[Prompt], seed: int, epoch: int = 0, position: int = 0):
        self.prompts, self.seed, self.epoch, self.position = prompts, seed, epoch, position
        self._permutation = self._shuffled()

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts, each stamped with its epoch."""
        taken: list[Prompt] = []
        while len(taken) < count:
            if self.position >= len(self.prompts):
                self.epoch, self.position = self.epoch + 1, 0
                self._permutation = self._shuffled()
            chosen = self._permutation[self.position : self.position + count - len(taken)]
            taken += [replace(self.prompts[i], epoch=self.epoch) for i in chosen]
            self.position += len(chosen)
        return taken

    @property
    def epoch_is_over(self) -> bool:
        """Whether the next prompt begins a new epoch."""
        return self.position >= len(self.prompts)

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.prompts))
