"""What keeps a report small: no list or text without end."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.store.rows import mapped

LONGEST_TEXT = 4000
LONGEST_LINE = 1000
LONGEST_NAME = 200
TEXT_BUDGET = 2_300_000  # characters of prompts, answers, passages and responses in a run


def rounded(value: float | None) -> float | None:
    """To seven digits; values below 1e-12 are rounding noise and become 0."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}") if abs(value) > 1e-12 else 0.0


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return rounded(sum(known) / len(known)) if known else None


def largest(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    return rounded(max((value for value in values if value is not None), default=None))


def total(values: Iterable[float | None]) -> float | None:
    """None where nothing happened."""
    return rounded(sum(value for value in values if value is not None)) or None


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indexes 0 to count - 1: the first, the last and others evenly between."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def cut(text: str, limit: int, length: int | None = None) -> str:
    """length: of the text as it was, where `text` is no longer all of it."""
    more = (len(text) if length is None else length) - limit
    return text if more <= 0 else f"{text[:limit]}… ({count(more, 'character')} more)"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text's beginning and its whole length."""

    head: str
    length: int

    @classmethod
    def of(cls, text: str) -> "Excerpt":
        return cls(text[:LONGEST_TEXT], len(text))


def within_budget(tree: Any, budget: int) -> Any:
    """`tree` with texts in place of its excerpts: short ones whole, long ones cut, all alike, so that together they keep to
    `budget` characters."""
    lengths: list[int] = []
    mapped(tree, lambda leaf: lengths.append(len(leaf.head)) if isinstance(leaf, Excerpt) else None)
    limit = fair_limit(lengths, budget)
    return mapped(tree, lambda leaf: cut(leaf.head, limit, leaf.length) if isinstance(leaf, Excerpt) else leaf)


def fair_limit(lengths: Sequence[int], budget: int) -> int:
    """The greatest length, at most LONGEST_TEXT, at which texts of these lengths can be cut to keep to `budget` together."""
    for place, length in enumerate(sorted(lengths)):
        share = budget // (len(lengths) - place)
        if length > share:
            return share
        budget -= length
    return LONGEST_TEXT
