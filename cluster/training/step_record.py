"""One row of metrics.jsonl from what a step's actors reported."""

import time
from typing import Any

from cluster.store.checkpoint import RunState
from cluster.training.pipeline import Batch
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from reward.config import METRICS


def metrics_row(
    state: RunState, stage: Stage, batch: Batch, update: UpdateMetrics, seconds_update: float, seconds_step: float
) -> dict[str, Any]:
    """Keys as in docs/run-folder.md. seconds_sample, seconds_reward and seconds_sync add up over the actors."""
    sampled = [made.sampled.figures for made in batch.rollouts]
    scored = [made.scored.figures for made in batch.rollouts if made.scored is not None]
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
        "top_p_mass": min((each["top_p_mass"] for each in sampled), default=None),
        "tokens_per_s": update.response_tokens / seconds_step,
        "groups_per_s": len(batch.groups) / seconds_step,
        "trained_groups": len(batch.groups),
        "sampled_groups": sum(each["sampled_groups"] for each in sampled),
        "sampled_tokens": sum(each["sampled_tokens"] for each in sampled),
        "seconds_sample": sum(each["seconds_sample"] for each in sampled),
        "seconds_reward": sum(each["seconds_reward"] for each in scored),
        "seconds_update": seconds_update,
        "seconds_sync": sum(each["seconds_sync"] for each in sampled),
        "bytes_sync": sum(each["bytes_sync"] for each in sampled),
        "seconds_step": seconds_step,
        "skipped": update.skipped,
        "requeued": batch.requeued,
        "padding_update": update.padding,
        "padding_sample": sum(each["padding_sample"] for each in sampled) / len(sampled) if sampled else None,
        "peak_memory_mb": update.peak_memory_mb,
        "peak_memory_mb_sampler": max((each["peak_memory_mb_sampler"] for each in sampled), default=None),
    }
