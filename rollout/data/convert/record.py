"""What the models of other projects' rows have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict

from rollout.data.rows import Line, listed

Kind = Literal["examples", "passages"]
Row = dict[str, Any]  # id, question, answers, passages, gold of an example; id, title, text of a passage


def _text(value: Any) -> Any:
    """Numbers as they are written, truth values as JSON writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | Decimal) else value


Words = Annotated[str, BeforeValidator(_text)]
Answers = Annotated[list[Words], BeforeValidator(listed)]


class Part(Line):
    """A part of a row, which keeps what it does not know, so that it can be told."""

    model_config = ConfigDict(extra="allow")

    def unread(self, prefix: str = "") -> set[str]:
        """Dotted names of what is not read."""
        names = {f"{prefix}{name}" for name in self.model_extra or {}}
        for name, value in self:
            for part in value if isinstance(value, list) else [value]:
                names |= part.unread(f"{prefix}{name}.") if isinstance(part, Part) else set()
        return names


class Record(Part, ABC):
    """A row of another project's file. kind: of the rows of ours that it holds."""

    kind: ClassVar[Kind] = "examples"

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Ours that it holds; some may lack a question, an answer or a text, and be left out."""


class Context(Part):
    """A passage that comes with a question: FiD's and DPR's."""

    id: Words | None = None
    passage_id: Words | None = None
    title: Words = ""
    text: Words = ""
    hasanswer: bool = False
    has_answer: bool = False

    def named(self, number: int) -> Row:
        """As one of ours; without an id it is called by its place."""
        return {"id": self.id or self.passage_id or f"ctx-{number}", "title": self.title, "text": self.text}
