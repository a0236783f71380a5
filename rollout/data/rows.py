"""What one row of an example or a passage file holds."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rollout.types import Passage


def _text_of_a_whole_number(id: Any) -> Any:
    return str(id) if isinstance(id, int) and not isinstance(id, bool) else id


def listed(value: Any) -> Any:
    """One value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Id = Annotated[Text, BeforeValidator(_text_of_a_whole_number)]


class Line(BaseModel):
    """A null stands for an absent key, as parquet has it."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, row: Any) -> Any:
        return {key: value for key, value in row.items() if value is not None} if isinstance(row, dict) else row


class PassageRow(Line):
    id: Id
    title: str = ""
    text: Text

    def passage(self) -> Passage:
        return Passage(id=self.id, title=self.title, text=self.text)


class ExampleRow(Line):
    """One line of an example file."""

    question: Text
    answers: Annotated[list[Text], Field(min_length=1)]
    id: Id | None = None
    passages: list[PassageRow] | None = None
    gold: list[Id] = []


class FullExampleRow(ExampleRow):
    """The same with all its other columns."""

    model_config = ConfigDict(extra="allow")
