"""What a report shows of runs, as plain data that JSON can hold: bounded in size however long a run was."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.config import Settings
from cluster.flags import by_name
from cluster.run_folder import Row, RunFolder, read_settings
from cluster.terminal import EVALUATION_COLUMNS
from learner.samples import COLUMNS

POINTS = 500
STEPS_WITH_GROUPS = 24
GROUPS_PER_STEP = 16
EVENTS = 400


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of metrics.jsonl over the steps; `key` as there."""

    key: str
    title: str
    about: str
    section: str
    exact: bool = False  # not to be smoothed


CURVES = (
    Curve("reward", "Reward", "mean over all responses of a step", "Reward"),
    Curve("reward_std", "Spread within a group", "mean over groups of the standard deviation: what GRPO learns from", "Reward"),
    Curve("f1", "F1", "part of the reward, 0 to 1", "Reward"),
    Curve("rougeL", "ROUGE-L", "part of the reward, 0 to 1", "Reward"),
    Curve("bleu", "BLEU", "part of the reward, 0 to 1", "Reward"),
    Curve("zero_variance", "Groups without spread", "share whose rewards are all equal: they teach nothing", "Reward"),
    Curve("kl", "KL to the reference", "nats a token", "Policy"),
    Curve("entropy", "Entropy", "nats a token", "Policy"),
    Curve("clip_fraction", "Clipped tokens", "share whose ratio was clipped", "Policy"),
    Curve("ratio_max", "Largest ratio", "policy / sampler over all tokens", "Policy"),
    Curve("kl_to_sampler", "KL to the sampler", "nats a token since the responses were drawn", "Policy"),
    Curve("truncated", "Cut responses", "share that reached rollout.max_new_tokens", "Policy"),
    Curve("loss", "Loss", "what was minimised", "Optimiser"),
    Curve("grad_norm", "Gradient norm", "before clipping", "Optimiser"),
    Curve("lr", "Learning rate", "as used", "Optimiser", exact=True),
    Curve("staleness_mean", "Staleness", "versions published between sampling and training", "Throughput"),
    Curve("tokens_per_s", "Response tokens", "a second, over the wall time of the step", "Throughput"),
    Curve("groups_per_s", "Groups", "a second, over the wall time of the step", "Throughput"),
    Curve("seconds_step", "Step", "seconds of wall time", "Seconds"),
    Curve("seconds_sample", "Sampling", "seconds, summed over the samplers", "Seconds"),
    Curve("seconds_reward", "Scoring", "seconds, summed over the reward actors", "Seconds"),
    Curve("seconds_update", "Update", "seconds of the learner", "Seconds"),
    Curve("seconds_sync", "Taking weights", "seconds, summed over the samplers", "Seconds"),
    Curve("peak_memory_mb", "Learner's memory", "MB: of the GPU where there is one, else resident", "Throughput", exact=True),
)
OF_RESPONSES = ("zero_variance", "truncated", "staleness_mean", "seconds_reward", "seconds_sync")  # 0 where none are drawn
MISHAPS = {"restarts": "actors replaced", "requeued": "prompts sampled anew", "skipped": "steps skipped"}


def report_data(paths: Sequence[Path]) -> dict[str, Any]:
    """Raises CheckpointError for a folder that holds no run."""
    runs = [_run(RunFolder.existing(path)) for path in paths]
    used = {key for run in runs for key, values in run["curves"]["values"].items() if any(v is not None for v in values)}
    extras = [Curve(key, key, "a reward of your own", "Reward") for key in sorted(used) if key.startswith("extra/")]
    return {
        "curves": [asdict(curve) for curve in (*CURVES, *extras) if curve.key in used],
        "columns": EVALUATION_COLUMNS,
        "defaults": by_name(Settings().resolved()),
        "mishaps": MISHAPS,
        "runs": runs,
    }


def _run(folder: RunFolder) -> dict[str, Any]:
    metrics = folder.metric_rows()
    settings = read_settings(folder.path / "config.yaml")
    groups, passages, sampled_steps = _groups(folder)
    return {
        "name": folder.path.name,
        "path": str(folder.path),
        "settings": by_name(settings),
        "stages": {stage.name: [stage.first, stage.last] for stage in settings.stages()},
        "steps": metrics[-1]["step"] if metrics else 0,
        "seconds": sum(row["seconds_step"] for row in metrics),
        "incarnations": [[row["step"], row["incarnation"]] for row in _first_of_each(metrics, "incarnation")],
        "mishaps": {name: [[row["step"], row[name]] for row in metrics if row[name]] for name in MISHAPS},
        "curves": _curves(metrics),
        "evaluations": folder.evaluation_rows(),
        "failed_prompts": folder.failed_prompt_rows()[:EVENTS],
        "events": folder.event_rows()[-EVENTS:],
        "groups": groups,
        "passages": passages,
        "sampled_steps": sampled_steps,
    }


def _first_of_each(rows: Sequence[Row], key: str) -> list[Row]:
    return [row for i, row in enumerate(rows) if i == 0 or rows[i - 1][key] != row[key]]


def _curves(rows: Sequence[Row]) -> dict[str, Any]:
    """At most `POINTS` points: each the mean over as many steps, at the last of them."""
    size = -(-len(rows) // POINTS) or 1
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    keys = {curve.key for curve in CURVES} | {key for row in rows[-1:] for key in row if key.startswith("extra/")}
    return {
        "size": size,
        "steps": [part[-1]["step"] for part in parts],
        "values": {key: [_mean(_value(row, key) for row in part) for part in parts] for key in sorted(keys)},
    }


def _value(row: Row, key: str) -> float | None:
    return None if key in OF_RESPONSES and row["reward"] is None else row.get(key)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(f"{sum(known) / len(known):.5g}") if known else None


def _groups(folder: RunFolder) -> tuple[list[dict[str, Any]], list[str], int]:
    """Groups of steps spread over the run, first and last among them; their passages, once each; how many steps have any."""
    logs = folder.sample_logs()
    chosen = sorted({round(i * (len(logs) - 1) / (STEPS_WITH_GROUPS - 1)) for i in range(STEPS_WITH_GROUPS)}) if logs else []
    groups: list[dict[str, Any]] = []
    passages: dict[str, int] = {}
    for step, log in (logs[i] for i in chosen):
        by_prompt: dict[tuple[int, str], list[Row]] = {}
        for row in pq.read_table(log).to_pylist():
            by_prompt.setdefault((row["epoch"], row["id"]), []).append(row)
        for rows in list(by_prompt.values())[:GROUPS_PER_STEP]:
            groups.append(_group(step, rows, passages))
    return groups, list(passages), len(logs)


def _group(step: int, rows: Sequence[Row], passages: dict[str, int]) -> dict[str, Any]:
    known = {name for name, _ in COLUMNS}
    first = rows[0]
    return {
        "step": step,
        **{name: first[name] for name in ("epoch", "id", "question", "answers")},
        "version": first["version"],
        "passages": [
            {"text": passages.setdefault(text, len(passages)), "id": id, "score": score, "gold": id in first["gold"]}
            for text, id, score in zip(first["passages"], first["passage_ids"], first["retrieval_scores"], strict=True)
        ],
        "responses": [
            {
                **{name: row[name] for name in ("response", "reward", "advantage", "tokens", "finished")},
                "parts": {name: value for name, value in row.items() if name not in known},
            }
            for row in rows
        ],
    }
