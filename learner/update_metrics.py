"""What one update did, in figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learner.advantage import reward_std, zero_variance
from learner.loss import kl_divergence
from learner.objective import TokenStatistics
from rollout.types import Group, PromptKey

QUANTILES = {"ratio_p01": 0.01, "ratio_p50": 0.5, "ratio_p99": 0.99, "ratio_max": 1.0}


@dataclass(frozen=True, slots=True)
class PassOutcome:
    """Of one optimiser pass over a batch, before its step."""

    loss: float
    grad_norm: float
    tokens: TokenStatistics

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetrics:
    """Means over tokens (kl, kl_to_sampler, clip_fraction, corrected, entropy), responses (reward, truncated), groups
    (reward_std, zero_variance) or passes (loss); None where undefined. ratios: quantiles of policy / sampler over tokens."""

    loss: float
    reward: float | None
    reward_std: float | None
    reward_parts: dict[str, float | None]
    kl: float | None
    kl_coef: float | None
    kl_to_sampler: float | None
    clip_fraction: float | None
    corrected: float | None
    entropy: float
    ratios: dict[str, float | None]
    grad_norm: float
    lr: float
    zero_variance: float
    truncated: float
    response_tokens: int
    skipped: int
    peak_memory_mb: float
    padding: float
    skipped_prompts: tuple[PromptKey, ...] = ()


def update_metrics(
    groups: Sequence[Group],
    passes: Sequence[PassOutcome],
    rewards: torch.Tensor | None,
    kl_coef: float | None,
    lr: float,
    peak_memory_mb: float,
    padding: float,
) -> UpdateMetrics:
    """rewards [P, G], None where gold answers were trained on, whose sampler is not a policy; padding: its share of the tokens
    that a pass computes."""
    responses = [r for group in groups for r in group.responses]
    tokens = TokenStatistics.concatenated([outcome.tokens for outcome in passes])
    log_ratio = tokens.log_ratio if rewards is not None else tokens.log_ratio[:0]
    finite = all(outcome.finite for outcome in passes)
    return UpdateMetrics(
        loss=sum(outcome.loss for outcome in passes) / len(passes),
        reward=None if rewards is None else _mean(rewards),
        reward_std=None if rewards is None else _mean(reward_std(rewards)),
        reward_parts=_reward_parts(groups),
        kl=_mean(tokens.kl),
        kl_coef=kl_coef,
        kl_to_sampler=_mean(kl_divergence(torch.zeros_like(log_ratio), log_ratio, "k3")),
        clip_fraction=None if rewards is None else _mean(tokens.clipped),
        corrected=None if rewards is None else _mean(tokens.corrected),
        entropy=_mean(tokens.entropy) or 0.0,
        ratios=_quantiles(log_ratio.exp()),
        grad_norm=max(outcome.grad_norm for outcome in passes),
        lr=lr,
        zero_variance=0.0 if rewards is None else float(zero_variance(rewards).float().mean()),
        truncated=sum(not r.finished for r in responses) / len(responses),
        response_tokens=sum(len(r.token_ids) for r in responses),
        skipped=int(not finite),
        peak_memory_mb=peak_memory_mb,
        padding=padding,
        skipped_prompts=() if finite else tuple(group.prompt.key for group in groups),
    )


def _reward_parts(groups: Sequence[Group]) -> dict[str, float | None]:
    columns = {name: np.concatenate([group.reward_parts[name] for group in groups]) for name in groups[0].reward_parts}
    return {name: _mean(torch.from_numpy(values)) for name, values in columns.items()}


def _quantiles(ratio: torch.Tensor) -> dict[str, float | None]:
    if len(ratio) == 0 or not ratio.isfinite().all():
        return dict.fromkeys(QUANTILES)
    return dict(zip(QUANTILES, map(float, np.quantile(ratio.float().cpu(), list(QUANTILES.values()))), strict=True))


def _mean(values: torch.Tensor) -> float | None:
    """Of those that are not NaN; None if there are none."""
    return None if values.isnan().all() else float(values.nanmean())
