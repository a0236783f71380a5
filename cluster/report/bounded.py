"""What keeps a report small and readable by JSON: no NaN, no infinity, no list or text without end."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_TEXT = 4000
LONGEST_LINE = 1000
LONGEST_NAME = 200
TEXT_BUDGET = 2_300_000  # characters of prompts, answers, passages and responses in a run


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: each becomes null, however deep."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list) else value


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
    found: list[int] = []

    def lengths(value: Any) -> None:
        if isinstance(value, Excerpt):
            found.append(len(value.head))
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                lengths(one)

    def written(value: Any) -> Any:
        if isinstance(value, Excerpt):
            return cut(value.head, limit, value.length)
        if isinstance(value, dict):
            return {key: written(one) for key, one in value.items()}
        return [written(one) for one in value] if isinstance(value, list) else value

    lengths(tree)
    limit = fair_limit(found, budget)
    return written(tree)


def fair_limit(lengths: Sequence[int], budget: int) -> int:
    """The greatest length, at most LONGEST_TEXT, at which texts of these lengths can be cut to keep to `budget` together."""
    for place, length in enumerate(sorted(lengths)):
        share = budget // (len(lengths) - place)
        if length > share:
            return share
        budget -= length
    return LONGEST_TEXT
