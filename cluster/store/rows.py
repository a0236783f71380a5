"""Rows of metrics.jsonl and evaluations.jsonl: how they are written, which of them count."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = dict[str, Any]
SHOWN_EVALUATIONS = 12


def json_line(row: Row) -> str:
    return json.dumps(finite(row))


def finite(tree: Any) -> Any:
    """JSON knows neither NaN nor infinity: each becomes null, however deep."""
    return mapped(tree, lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same tree of dicts and lists, its leaves changed."""
    if isinstance(tree, dict):
        return {key: mapped(one, change) for key, one in tree.items()}
    return [mapped(one, change) for one in tree] if isinstance(tree, list) else change(tree)


@dataclass(frozen=True, slots=True)
class Best:
    """The best held-out reward of training, and how many evaluations of the second stage came after it."""

    step: int | None = None
    reward: float | None = None
    evaluations_since: int = 0


def measured_alike(evaluations: Sequence[Row]) -> list[Row]:
    """The newest rows of one measure: a resume may change it, and figures before it cannot be compared."""
    measure = evaluations[-1].get("measure") if evaluations else None
    return [row for row in evaluations if row.get("measure") == measure]


def best_of(evaluations: Sequence[Row], patience_from: int = 0) -> Best:
    """Of those measured alike. The policy that training began with does not count; evaluations_since begins after the step
    `patience_from`."""
    best = Best()
    for row in measured_alike(evaluations):
        reward = row.get("reward")
        if row["step"] == 0 or reward is None:
            continue
        if best.reward is None or reward > best.reward:
            best = Best(row["step"], reward)
        elif row.get("stage") == "rl" and row["step"] > patience_from:
            best = Best(best.step, best.reward, best.evaluations_since + 1)
    return best


def held_out_figures(row: Row, *, readings: bool = True) -> list[tuple[str, Row]]:
    """(name, figures) of the greedy replies to each held-out set, and behind each of its draws and its readings. The first are
    the row's own, which have no name where there is one set. readings: with them."""
    found: list[tuple[str, Row]] = []
    for name, figures in ((row.get("set") or "", row), *(row.get("others") or {}).items()):
        beside = {kind: own for kind, own in (figures.get("draws") or {}).items() if isinstance(own, dict)}
        beside |= {f"reads {reading}": own for reading, own in (figures.get("readings") or {}).items() if readings}
        found += [(name, figures), *((f"{name} {kind}".strip(), own) for kind, own in beside.items())]
    return found


def summary_rows(evaluations: Sequence[Row]) -> list[Row]:
    """All, or of more than `SHOWN_EVALUATIONS` the first, the last of each stage and measure, and the best."""
    if len(evaluations) <= SHOWN_EVALUATIONS:
        return list(evaluations)
    best = best_of(evaluations).step
    series = [(row.get("stage"), row.get("measure")) for row in evaluations]
    ends = [before != after for before, after in pairwise([*series, object()])]
    last_of_series = [row["step"] for row, is_last in zip(evaluations, ends, strict=True) if is_last]
    kept = {evaluations[0]["step"], best, *last_of_series}
    return [row for row in evaluations if row["step"] in kept]
