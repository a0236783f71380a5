"""Figures and incidents over the steps, as few points however many steps there were."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from cluster.report.bounded import largest, mean
from cluster.store.metrics import SECTIONS, columns
from cluster.store.records import Row

POINTS = 500


INCIDENTS = {
    "restarts": "actors replaced",
    "requeued": "prompts sampled again",
    "skipped": "steps skipped",
    "restarted": "learner or driver restarted",
}


def charts(keys: Iterable[str]) -> list[dict[str, Any]]:
    """Of the figures of metrics.jsonl with these keys: what stands above each chart, section by section."""
    wanted = set(keys)
    found = [
        {
            "key": metric.name,
            "title": metric.chart.title,
            "about": f"{metric.meaning}, in {metric.unit}" if metric.unit else metric.meaning,
            "section": metric.chart.section,
            "exact": metric.chart.exact,
        }
        for metric in columns(sorted(wanted))
        if metric.chart is not None and metric.name in wanted
    ]
    return sorted(found, key=lambda chart: SECTIONS.index(chart["section"]))


def curves(rows: Sequence[Row]) -> dict[str, Any]:
    """About `POINTS` points at most: each the mean, or the largest, of as many steps of one stage, at the last of them."""
    size, parts = _parts(rows)
    keys = sorted({key for row in rows for key in row})
    return {
        "size": size,
        "steps": [part[-1]["step"] for part in parts],
        "values": {
            metric.name: [(largest if metric.chart.largest else mean)(map(metric.value, part)) for part in parts]
            for metric in columns(keys)
            if metric.chart is not None
        },
    }


def stages(rows: Sequence[Row]) -> dict[str, list[int]]:
    """[first step, last step] by stage."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        steps.setdefault(str(row.get("stage")), []).append(row["step"])
    return {name: [own[0], own[-1]] for name, own in steps.items()}


def incidents(rows: Sequence[Row]) -> dict[str, list[list[int]]]:
    """[first step, last step, how often] by kind, over the same parts of the run as the curves."""
    counted = [{name: row.get(name) or 0 for name in INCIDENTS} for row in rows]
    for row, before, times in zip(rows[1:], rows, counted[1:], strict=False):
        times["restarted"] = int(row.get("incarnation") != before.get("incarnation"))
    times_of = {row["step"]: times for row, times in zip(rows, counted, strict=True)}
    _, parts = _parts(rows)
    return {name: [mark for part in parts for mark in _mark(name, part, times_of)] for name in INCIDENTS}


def _mark(name: str, part: Sequence[Row], times_of: Mapping[int, Row]) -> list[list[int]]:
    """None, or one."""
    steps = [row["step"] for row in part if times_of[row["step"]][name]]
    return [[steps[0], steps[-1], sum(times_of[step][name] for step in steps)]] if steps else []


def _parts(rows: Sequence[Row]) -> tuple[int, list[Sequence[Row]]]:
    """How many rows a part has at most, and the parts, each of one stage."""
    size = -(-len(rows) // POINTS) or 1
    stages = [list(own) for _, own in groupby(rows, key=lambda row: row.get("stage"))]
    return size, [own[i : i + size] for own in stages for i in range(0, len(own), size)]
