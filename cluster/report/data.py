"""What a report shows of runs, as plain data that JSON can hold: bounded in size however long a run was."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.report.bounded import LONGEST_LINE, cut, evenly
from cluster.report.curves import charts, curves, stages, with_incidents
from cluster.report.groups import sampled_groups
from cluster.settings.tree import Settings, changed
from cluster.settings.values import by_name
from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.store.rows import Row, best_of, finite, held_out_figures, summary_rows
from cluster.store.run_folder import RunFolder

EVALUATIONS = 200
EVENTS = 400


def report_data(paths: Sequence[Path]) -> dict[str, Any]:
    """Raises CheckpointError for a folder that holds no run."""
    folders = [RunFolder.existing(path) for path in paths]
    names = distinct_names([folder.path for folder in folders])
    runs = [_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    used = {key for run in runs for key, values in run["curves"]["values"].items() if any(v is not None for v in values)}
    return {
        "curves": charts(used),
        "columns": EVALUATION_COLUMNS,
        "defaults": by_name(Settings().as_used()),
        "runs": runs,
    }


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Each folder's own name; where two are the same, of all with the folders above, up to the one that holds all."""
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    shared = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(shared)) for path in paths]


def _run(folder: RunFolder, name: str) -> dict[str, Any]:
    metrics, evaluations = finite(folder.metric_rows()), finite(folder.evaluation_rows())
    failed, events = folder.failed_prompt_rows(), finite(folder.event_rows())
    settings = folder.settings()
    shown = _spread_evaluations(evaluations)
    return {
        "name": name,
        "path": str(folder.path),
        "model": settings.policy.name,
        "settings": by_name(settings),
        "changed": changed(settings),
        "stages": stages(metrics),
        "steps": metrics[-1]["step"] if metrics else 0,
        "seconds": sum(row.get("seconds_step") or 0 for row in metrics),
        "replaced": sum(row.get("restarts") or 0 for row in metrics),
        "curves": curves(with_incidents(metrics, failed)),
        "evaluations": [_with_further_lines(row) for row in shown],
        "evaluated": len(evaluations),
        "summary_rows": [row["step"] for row in summary_rows(evaluations)],
        "best": best_of(evaluations).step,
        "failed": len({(row.get("file"), row.get("id")) for row in failed}),
        "events": [{**_only(row, "time", "step"), "text": cut(str(row.get("text")), LONGEST_LINE)} for row in events[-EVENTS:]],
        "all_events": len(events),
        **sampled_groups(folder.sample_logs()),
    }


def _spread_evaluations(rows: Sequence[Row]) -> list[Row]:
    """Of too many the first, the best, the last of each stage and others evenly between."""
    if len(rows) <= EVALUATIONS:
        return list(rows)
    wanted = {row["step"] for row in summary_rows(rows)}
    kept = {place for place, row in enumerate(rows) if row["step"] in wanted}
    return [rows[place] for place in sorted(kept | set(evenly(len(rows), EVALUATIONS - len(kept))))]


def _with_further_lines(row: Row) -> Row:
    """A row whose other sets, draws and readings are a list, `further`, of names and figures."""
    [_, *others] = held_out_figures(row)
    own = {key: value for key, value in _with_short_reply(row).items() if key not in ("draws", "others", "readings")}
    return own | ({"further": [[name, _with_short_reply(figures)] for name, figures in others]} if others else {})


def _with_short_reply(row: Row) -> Row:
    floor = row.get("constant_reply")
    return {**row, "constant_reply": {**floor, "text": cut(str(floor.get("text")), LONGEST_LINE)}} if floor else row


def _only(row: Row, *names: str) -> Row:
    return {name: row.get(name) for name in names}
