"""What a report shows of runs, as plain data that JSON can hold: bounded in size however long a run was."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.report.bounded import LONGEST_LINE, LONGEST_NAME, cut, evenly, finite
from cluster.report.curves import INCIDENTS, charts, curves, incidents, stages
from cluster.report.groups import sampled_groups
from cluster.settings.selection import changed
from cluster.settings.tree import Settings
from cluster.settings.values import by_name
from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.store.records import Row, best_of, summary_rows
from cluster.store.run_folder import RunFolder, read_settings

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
        "incidents": INCIDENTS,
        "runs": runs,
    }


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Each folder's own name, with as many of those above it as tell it from the others."""
    depths = [1] * len(paths)
    while True:
        names = [str(Path(*path.parts[-depth:])) for path, depth in zip(paths, depths, strict=True)]
        taken = Counter(names)
        deeper = [
            depth + (taken[name] > 1 and depth < len(path.parts))
            for path, depth, name in zip(paths, depths, names, strict=True)
        ]
        if deeper == depths:
            return names
        depths = deeper


def _run(folder: RunFolder, name: str) -> dict[str, Any]:
    metrics, evaluations = finite(folder.metric_rows()), finite(folder.evaluation_rows())
    failed, events = folder.failed_prompt_rows(), finite(folder.event_rows())
    settings = read_settings(folder.path / "config.yaml")
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
        "incidents": incidents(metrics),
        "curves": curves(metrics),
        "evaluations": [_with_short_reply(row) for row in shown],
        "evaluated": len(evaluations),
        "summary_rows": [row["step"] for row in summary_rows(evaluations)],
        "best": best_of(evaluations).step,
        "failed_prompts": [[row["step"], cut(str(row.get("id")), LONGEST_NAME)] for row in failed[:EVENTS]],
        "failed": len({(row.get("file"), row.get("id")) for row in failed}),
        "failures": len(failed),
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


def _with_short_reply(row: Row) -> Row:
    floor = row.get("constant_reply")
    return {**row, "constant_reply": {**floor, "text": cut(str(floor.get("text")), LONGEST_LINE)}} if floor else row


def _only(row: Row, *names: str) -> Row:
    return {name: row.get(name) for name in names}
