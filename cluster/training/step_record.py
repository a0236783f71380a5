"""One row of metrics.jsonl from what a step's actors reported."""

import time
from typing import Any

from cluster.store.checkpoint import TrainState
from cluster.training.pipeline import Batch
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from reward.config import METRICS


def metrics_row(
    state: TrainState, stage: Stage, batch: Batch, update: UpdateMetrics, seconds_update: float, seconds_step: float
) -> dict[str, Any]:
    """Keys as in docs/run-folder.md. seconds_sample, seconds_reward and seconds_sync add up over the actors."""
    scored = [made.scored.seconds for made in batch.calls if made.scored is not None]
    return {
        "step": state.step,
        "time": time.time(),
        "incarnation": state.incarnation,
        "stage": stage.name,
        "epoch": max(prompt.epoch for prompt in batch.prompts),
        "loss": update.loss,
        "reward": update.reward,
        "reward_std": update.reward_std,
        **dict.fromkeys(METRICS),
        **update.reward_parts,
        "kl": update.kl,
        "kl_coef": update.kl_coef,
        "kl_to_sampler": update.kl_to_sampler,
        "clip_fraction": update.clip_fraction,
        "corrected": update.corrected,
        "entropy": update.entropy,
        **update.ratios,
        "grad_norm": update.grad_norm,
        "lr": update.lr,
        "staleness_mean": sum(batch.staleness) / len(batch.staleness),
        "staleness_max": max(batch.staleness),
        "zero_variance": update.zero_variance,
        "filtered": batch.filtered,
        "truncated": update.truncated,
        "response_tokens": update.response_tokens,
        "top_p_mass": min((made.sampled.top_p_mass for made in batch.calls), default=None),
        "tokens_per_s": update.response_tokens / seconds_step,
        "groups_per_s": len(batch.groups) / seconds_step,
        "trained_groups": len(batch.groups),
        "sampled_groups": sum(len(made.groups) for made in batch.calls),
        "sampled_tokens": sum(made.sampled.response_tokens for made in batch.calls),
        "seconds_sample": sum(made.sampled.seconds for made in batch.calls),
        "seconds_reward": sum(scored),
        "seconds_update": seconds_update,
        "seconds_sync": sum(made.sampled.sync_seconds for made in batch.calls),
        "bytes_sync": sum(made.sampled.sync_bytes for made in batch.calls),
        "seconds_step": seconds_step,
        "skipped": update.skipped,
        "requeued": batch.requeued,
        "padding_update": update.padding,
        "padding_sample": sum(made.sampled.padding for made in batch.calls) / len(batch.calls) if batch.calls else None,
        "peak_memory_mb": update.peak_memory_mb,
        "peak_memory_mb_sampler": max((made.sampled.peak_memory_mb for made in batch.calls), default=None),
    }
