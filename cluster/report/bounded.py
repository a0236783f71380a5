"""What keeps a report small: no list or text without end."""

import math
from collections.abc import Iterable
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


def cut(text: str, limit: int) -> str:
    more = len(text) - limit
    return text if more <= 0 else f"{text[:limit]}… ({more:,} character{'' if more == 1 else 's'} more)"


class Excerpt(str):
    """A text that `within_budget` may cut."""


def within_budget(tree: Any, budget: int) -> Any:
    """`tree` with its excerpts cut, all alike, so that they are short enough and keep to `budget` characters together."""
    lengths: list[int] = []
    mapped(tree, lambda leaf: lengths.append(len(leaf)) if isinstance(leaf, Excerpt) else None)
    limit = LONGEST_TEXT
    while sum(min(limit, length) for length in lengths) > budget:
        limit //= 2
    return mapped(tree, lambda leaf: cut(leaf, limit) if isinstance(leaf, Excerpt) else leaf)
