"""Passages as other projects write them -> ours."""

from collections.abc import Iterator
from typing import ClassVar

from rollout.data.convert.record import Kind, Record, Row, Words


class DprPassage(Record):
    """A row of DPR's `psgs_w100.tsv`; ours, too."""

    kind: ClassVar[Kind] = "passages"
    id: Words
    text: Words
    title: Words = ""

    def rows(self) -> Iterator[Row]:
        yield {"id": self.id, "title": self.title, "text": self.text}


class Contents(Record):
    """Pyserini, FlashRAG, Search-R1: the first of several lines is the title, in quotes or not."""

    kind: ClassVar[Kind] = "passages"
    id: Words
    contents: Words
    title: Words = ""

    def rows(self) -> Iterator[Row]:
        first, _, rest = self.contents.strip().partition("\n")
        if not rest.strip() or (self.title and _unquoted(first) != self.title):
            yield {"id": self.id, "title": self.title, "text": self.contents.strip()}
        else:
            yield {"id": self.id, "title": _unquoted(first), "text": rest.strip()}


def _unquoted(title: str) -> str:
    title = title.strip()
    return title[1:-1].strip() if len(title) > 1 and title[0] == title[-1] == '"' else title
