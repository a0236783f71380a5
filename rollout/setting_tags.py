"""Tags of a setting, `Annotated[type, tag, ...]`: what it is for, said where it is defined.

A section's tag is that of each of its settings which has none of that kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel

Reader = Literal["chat", "chat --sample", "evaluate", "export", "retrieve"]
Tag = TypeVar("Tag")


@dataclass(frozen=True, init=False)
class ReadBy:
    """Commands that read the setting beside `train`, which reads all."""

    commands: tuple[Reader, ...]

    def __init__(self, *commands: Reader):
        object.__setattr__(self, "commands", commands)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A resumed run keeps it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where content lies, or how it is asked for: a resumed run takes the same content from another place."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The model card tells it where it is not the default, or always."""

    always: bool = False


def tagged(
    model: type[BaseModel], kind: type[Tag], prefix: str = "", of_section: Tag | None = None
) -> Iterator[tuple[str, Tag]]:
    """(dotted name, its tag of that kind) of every setting in the tree that has one."""
    for name, field in model.model_fields.items():
        tag = next((each for each in field.metadata if isinstance(each, kind)), of_section)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from tagged(field.annotation, kind, f"{prefix}{name}.", tag)
        elif tag is not None:
            yield f"{prefix}{name}", tag
