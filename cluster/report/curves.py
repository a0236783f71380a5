"""Figures and incidents over the steps, as few points however many steps there were."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from cluster.report.bounded import largest, mean, total
from cluster.store.metrics import SECTIONS, Chart, Metric, columns, incidents
from cluster.store.rows import Row

POINTS = 500
OVER_STEPS = {"mean": mean, "max": largest, "sum": total}
OF_NO_ROW = (
    Metric("restarted", "learner or driver, by which the run went back to a checkpoint", incidents("Restarts")),
    Metric("failed_prompts", "prompts that failed three times by themselves", incidents("Prompts failed")),
)


def charted(names: Iterable[str]) -> list[tuple[Metric, Chart]]:
    return [(metric, metric.chart) for metric in (*columns(sorted(names)), *OF_NO_ROW) if metric.chart is not None]


def charts(used: Iterable[str]) -> list[dict[str, Any]]:
    """Of the figures with these names: what stands above each chart, section by section."""
    wanted = set(used)
    found = [
        {
            "key": metric.name,
            "title": chart.title,
            "about": f"{metric.meaning}, in {metric.unit}" if metric.unit else metric.meaning,
            "section": chart.section,
            "exact": chart.exact,
        }
        for metric, chart in charted(wanted)
        if metric.name in wanted
    ]
    return sorted(found, key=lambda chart: SECTIONS.index(chart["section"]))


def curves(rows: Sequence[Row]) -> dict[str, Any]:
    """About `POINTS` points at most: each the mean, largest or sum of as many steps of one stage, at the last of them."""
    size = -(-len(rows) // POINTS) or 1
    of_stages = [list(own) for _, own in groupby(rows, key=lambda row: row.get("stage"))]
    parts = [own[i : i + size] for own in of_stages for i in range(0, len(own), size)]
    values = {
        metric.name: [OVER_STEPS[chart.over_steps](map(metric.value, part)) for part in parts]
        for metric, chart in charted({key for row in rows for key in row})
    }
    return {"size": size, "steps": [part[-1]["step"] for part in parts], "values": values}


def with_incidents(rows: Sequence[Row], failed: Sequence[Row]) -> list[Row]:
    """Rows of metrics.jsonl, and in each which restart and how many failed prompts came since the one before."""
    steps = [row["step"] for row in rows]
    failures = Counter(bisect_left(steps, row["step"]) for row in failed)
    before = [*rows[:1], *rows]
    return [
        row | {"restarted": int(row.get("incarnation") != last.get("incarnation")), "failed_prompts": failures[place]}
        for place, (row, last) in enumerate(zip(rows, before, strict=False))
    ]


def stages(rows: Sequence[Row]) -> dict[str, list[int]]:
    """[first step, last step] by stage."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        steps.setdefault(str(row.get("stage")), []).append(row["step"])
    return {name: [own[0], own[-1]] for name, own in steps.items()}
