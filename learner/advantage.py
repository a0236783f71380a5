"""Rewards of groups -> group-relative advantages. P prompts, G responses each. Torch only."""

from typing import Literal

import torch

EPSILON = 1e-4
SAME_REWARD = 1e-6

Scale = Literal["group", "batch", "none"]


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """bool [P]: groups whose rewards [P, G] spread less than 1e-6, which teach nothing."""
    return rewards.amax(-1) - rewards.amin(-1) < SAME_REWARD


def group_advantages(rewards: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Advantages [P, G] of rewards [P, G], G >= 2; 0 throughout a group without variance.

    group  (r - mean) / (std + 1e-4), unbiased std over the group   GRPO, Shao et al. 2024 (arXiv:2402.03300)
    batch  (r - mean) / (std + 1e-4), std over the whole batch      Lite PPO, Liu et al. 2025 (arXiv:2508.08221)
    none   r - mean                                                 Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783)
    """
    if rewards.shape[-1] < 2:
        raise ValueError(f"group_advantages: rewards of shape {tuple(rewards.shape)} need two or more responses a group")
    centred = rewards - rewards.mean(-1, keepdim=True)
    match scale:
        case "group":
            advantages = centred / (rewards.std(-1, keepdim=True) + EPSILON)
        case "batch":
            advantages = centred / (rewards.std() + EPSILON)
        case "none":
            advantages = centred
    return advantages.masked_fill(zero_variance(rewards)[:, None], 0.0)


def keep_largest(advantages: torch.Tensor, ratio: float) -> torch.Tensor:
    """Keep the max(2, ceil(ratio * G)) advantages of largest magnitude in each group [P, G], zero the others."""
    size = advantages.shape[-1]
    kept = max(2, -int(-ratio * size // 1))
    if kept >= size:
        return advantages
    chosen = advantages.abs().topk(kept, -1).indices
    return torch.zeros_like(advantages).scatter(-1, chosen, advantages.gather(-1, chosen))
