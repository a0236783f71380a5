"""Scored groups -> advantages: the rewards, what a response's length and its KL cost, and how they are compared."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from learner.advantage import decoupled_advantages, group_advantages, keep_largest, overlong_penalty
from learner.algorithm import Algorithm, KlEstimator
from learner.batch import MicroBatch, counted_lengths
from learner.loss import kl_divergence
from rollout.types import Group


def rewards_of(groups: Sequence[Group]) -> torch.Tensor:
    """Float32 [P, G] as the scorer gave them, NaN where none applies."""
    scored = [group.rewards for group in groups if group.rewards is not None]
    assert len(scored) == len(groups), "groups are scored before they are trained on"
    return torch.from_numpy(np.stack(scored))


def advantages_of(
    groups: Sequence[Group],
    algorithm: Algorithm,
    reward_weights: Mapping[str, float],
    max_length: int,
    kl: torch.Tensor | None = None,
) -> torch.Tensor:
    """Advantages [P, G]. kl [P, G] is subtracted from the rewards, already weighted. normalize_then_sum compares the parts
    named in `reward_weights` and the length's penalty one by one, sum_then_normalize the rewards' sum."""
    penalty = _length_penalty(groups, algorithm.overlong_buffer, max_length)
    if algorithm.reward_aggregation == "normalize_then_sum":
        parts = [np.stack([group.reward_parts[name] for group in groups]) for name in reward_weights]
        parts.append(penalty.masked_fill(rewards_of(groups).isnan(), torch.nan).numpy())
        weights = torch.tensor([*reward_weights.values(), algorithm.overlong_penalty])
        advantages = decoupled_advantages(torch.from_numpy(np.stack(parts)), weights)
    else:
        rewards = rewards_of(groups) + algorithm.overlong_penalty * penalty
        rewards = rewards if kl is None else rewards - kl
        advantages = group_advantages(rewards, algorithm.baseline, algorithm.scale_rewards)
    return keep_largest(advantages, algorithm.kept_count(advantages.shape[-1]))


def sequence_kl(batches: Sequence[MicroBatch], reference: Sequence[torch.Tensor], estimator: KlEstimator) -> torch.Tensor:
    """KL(sampler || reference) of every response, float32 [N]: the estimate summed over its tokens."""
    kl = torch.zeros(sum(len(micro.rows) for micro in batches))
    for micro, logprobs in zip(batches, reference, strict=True):
        per_token = kl_divergence(micro.sampler_logprobs, logprobs, estimator).masked_fill(~micro.token_mask, 0.0)
        kl[micro.rows.cpu()] = per_token.sum(-1).float().cpu()
    return kl


def _length_penalty(groups: Sequence[Group], buffer: int, max_length: int) -> torch.Tensor:
    """[P, G], from 0 to -1."""
    lengths = counted_lengths(groups, mask_truncated=False).view(len(groups), -1).float()
    return overlong_penalty(lengths, max_length, buffer) if buffer else torch.zeros_like(lengths)
