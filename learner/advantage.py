"""Rewards of groups -> advantages. P prompts, G responses each; NaN stands where a reward does not apply. Torch only."""

import torch

EPSILON = 1e-4
SAME_REWARD = 1e-6


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """bool [P]: groups whose rewards [P, G] spread less than 1e-6 (or of which one at most applies): nothing to compare."""
    highest = rewards.masked_fill(rewards.isnan(), -torch.inf).amax(-1)
    lowest = rewards.masked_fill(rewards.isnan(), torch.inf).amin(-1)
    return highest - lowest < SAME_REWARD


def reward_std(rewards: torch.Tensor) -> torch.Tensor:
    """Unbiased std along the last axis, which is kept, of the rewards that apply; 0 of a single one, NaN of none."""
    squares = (rewards - rewards.nanmean(-1, keepdim=True)).square().nansum(-1, keepdim=True)
    squares = squares.masked_fill(_present(rewards) == 0, torch.nan)
    return (squares / (_present(rewards) - 1).clamp(min=1)).sqrt()


def group_advantages(rewards: torch.Tensor, baseline: str = "group", scale: str = "group") -> torch.Tensor:
    """Advantages [P, G] of rewards [P, G]: what a response earned beyond a baseline, over a scale. n rewards r apply.

    baseline  group          r - mean of the group                   GRPO, Shao et al. 2024 (arXiv:2402.03300)
              leave_one_out  r - mean of the group's other rewards   RLOO, Ahmadian et al. 2024 (arXiv:2402.14740)
              batch          r - mean of all rewards                 REINFORCE with a baseline, Williams 1992
              none           r                                       REINFORCE, Williams 1992
    scale     group          / (std of the group + 1e-4)             GRPO
              batch          / (std of all rewards + 1e-4)           Lite PPO, Liu et al. 2025 (arXiv:2508.08221)
              none                                                   Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783)

    std is unbiased. 0 where a reward does not apply, throughout a group without variance if it is compared with itself, and
    throughout a batch without variance if it is scaled by its std.
    Raises ValueError for another baseline or scale, and if a group that is compared with itself has one response only.
    """
    within_group = baseline in ("group", "leave_one_out") or scale == "group"
    if within_group and rewards.shape[-1] < 2:
        raise ValueError(f"group_advantages: rewards of shape {tuple(rewards.shape)} need two or more responses a group")
    advantages = _scaled(_beyond(baseline, rewards), scale, rewards)
    if within_group:
        advantages = advantages.masked_fill(zero_variance(rewards)[:, None], 0.0)
    return advantages.masked_fill(rewards.isnan(), 0.0)


def _beyond(baseline: str, rewards: torch.Tensor) -> torch.Tensor:
    match baseline:
        case "group":
            return rewards - rewards.nanmean(-1, keepdim=True)
        case "leave_one_out":
            n = _present(rewards)
            return (rewards - rewards.nanmean(-1, keepdim=True)) * n / (n - 1).clamp(min=1)
        case "batch":
            return rewards - rewards.nanmean()
        case "none":
            return rewards
    raise ValueError(f"group_advantages: no baseline {baseline!r}: group, leave_one_out, batch, none")


def _scaled(advantages: torch.Tensor, scale: str, rewards: torch.Tensor) -> torch.Tensor:
    match scale:
        case "group":
            return advantages / (reward_std(rewards) + EPSILON)
        case "batch":
            spread = ~zero_variance(rewards.flatten()[None])
            return spread * advantages / (reward_std(rewards.flatten()) + EPSILON)
        case "none":
            return advantages
    raise ValueError(f"group_advantages: no scale {scale!r}: group, batch, none")


def decoupled_advantages(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Advantages [P, G] of R rewards, parts [R, P, G] with weights [R], each compared within its group before they are summed.

    sum_k w_k (r_k - mean) / (std + 1e-4), which has mean 0, over its std in the batch: a reward of small spread is not drowned.
    GDPO, Liu et al. 2026 (arXiv:2601.05242).
    """
    total = (weights[:, None, None] * torch.stack([group_advantages(part) for part in parts])).sum(0)
    applies = ~parts.isnan().all(0)
    std = reward_std(total.masked_fill(~applies, torch.nan).flatten())
    return torch.where(applies, total / (std + EPSILON), 0.0)


def keep_largest(advantages: torch.Tensor, kept: int) -> torch.Tensor:
    """Keep the `kept` advantages of largest magnitude in each group [P, G], zero the others.

    Among equal magnitudes those of either sign take turns, earlier responses first: else binary rewards would keep one sign.
    """
    positive = advantages > 0
    turn = torch.where(positive, positive.cumsum(-1), (~positive).cumsum(-1))
    by_turn = turn.argsort(dim=-1, stable=True)
    by_size = advantages.abs().gather(-1, by_turn).argsort(dim=-1, descending=True, stable=True)
    chosen = by_turn.gather(-1, by_size)[..., :kept]
    return torch.zeros_like(advantages).scatter(-1, chosen, advantages.gather(-1, chosen))


def overlong_penalty(lengths: torch.Tensor, max_length: int, buffer: int) -> torch.Tensor:
    """What is added to the reward of responses of these lengths (tokens, any shape): 0 up to max_length - buffer, then down
    linearly to -1 at max_length. Soft overlong punishment of DAPO, Yu et al. 2025 (arXiv:2503.14476, eq. 13)."""
    return ((max_length - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def _present(rewards: torch.Tensor) -> torch.Tensor:
    return (~rewards.isnan()).sum(-1, keepdim=True)
