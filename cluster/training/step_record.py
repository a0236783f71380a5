"""One row of metrics.jsonl from what a step's actors reported."""

import time
from dataclasses import fields

from cluster.actors.ports import UpdateCall
from cluster.store.checkpoint import RunState
from cluster.store.metrics import metrics_line
from cluster.store.rows import Row
from cluster.training.pipeline import Batch
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from reward.config import METRICS as REWARD_PARTS


def metrics_row(state: RunState, stage: Stage, batch: Batch, update: UpdateCall, seconds_step: float, restarts: int) -> Row:
    """Keys as in docs/run-folder.md. restarts: actors that were replaced since the last row."""
    once = {
        "step": state.step,
        "time": time.time(),
        "incarnation": state.incarnation,
        "stage": stage.name,
        "epoch": max(prompt.epoch for prompt in batch.prompts),
        "staleness_mean": sum(batch.staleness) / len(batch.staleness),
        "staleness_max": max(batch.staleness),
        "filtered": batch.filtered,
        "requeued": batch.requeued,
        "trained_groups": len(batch.groups),
        "tokens_per_s": update.metrics.response_tokens / seconds_step,
        "groups_per_s": len(batch.groups) / seconds_step,
        "seconds_update": update.seconds,
        "seconds_step": seconds_step,
        "restarts": restarts,
    }
    reports = [report for call in batch.rollouts for report in (call.sampled, call.scored) if report is not None]
    return metrics_line(once | _of_update(update.metrics), [report.figures for report in reports])


def _of_update(update: UpdateMetrics) -> Row:
    """The learner's figures by their names in metrics.jsonl."""
    figures = {field.name: getattr(update, field.name) for field in fields(update) if field.name != "skipped_prompts"}
    parts, ratios, padding = (figures.pop(name) for name in ("reward_parts", "ratios", "padding"))
    return figures | dict.fromkeys(REWARD_PARTS) | parts | ratios | {"padding_update": padding}
