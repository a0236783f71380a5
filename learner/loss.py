"""Log-probs of sampled responses -> loss and its statistics. N responses, T tokens, padded on the right. Torch only."""

from dataclasses import dataclass
from typing import Literal, Self

import torch

Aggregation = Literal["sequence", "token", "constant"]
KlEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, slots=True)
class LossSwitches:
    """importance_ratio: weigh by policy / sampler and clip; without it the loss is -A * logp (REINFORCE, supervised)."""

    importance_ratio: bool = True
    eps_low: float = 0.2
    eps_high: float = 0.2
    aggregation: Aggregation = "sequence"
    kl_coef: float = 0.0
    kl_estimator: KlEstimator = "k3"


@dataclass(frozen=True, slots=True)
class LossStatistics:
    """Sums over tokens, so that micro-batches add up; `ratio_max` is the largest ratio seen."""

    tokens: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    ratio_max: float = 0.0

    def __add__(self, other: Self) -> "LossStatistics":
        return LossStatistics(
            self.tokens + other.tokens,
            self.kl + other.kl,
            self.clipped + other.clipped,
            self.entropy + other.entropy,
            max(self.ratio_max, other.ratio_max),
        )

    def mean(self, total: float) -> float:
        return total / self.tokens if self.tokens else 0.0


def token_weights(lengths: torch.Tensor, aggregation: Aggregation, max_length: int) -> torch.Tensor:
    """Weight [N] of every token of a response, from the lengths [N] of the WHOLE batch: micro-batches then just add up.

    sequence  1 / (N * length)        mean over responses of their token means   GRPO, arXiv:2402.03300
    token     1 / sum of lengths      mean over all tokens                       DAPO, arXiv:2503.14476
    constant  1 / (N * max_length)    no bias towards length                     Dr. GRPO, arXiv:2503.20783
    """
    lengths = lengths.float()
    match aggregation:
        case "sequence":
            return 1.0 / (len(lengths) * lengths)
        case "token":
            return (1.0 / lengths.sum()).expand(len(lengths))
        case "constant":
            return torch.full_like(lengths, 1.0 / (len(lengths) * max_length))


def kl_divergence(policy: torch.Tensor, reference: torch.Tensor, estimator: KlEstimator) -> torch.Tensor:
    """Estimate KL(policy || reference) per token from log-probs of sampled tokens (Schulman 2020), d = reference - policy.

    k1: -d.   k2: d^2 / 2.   k3: exp(d) - d - 1, never negative, and the one of low variance whose gradient pulls back.
    """
    d = reference - policy
    match estimator:
        case "k1":
            return -d
        case "k2":
            return d.square() / 2
        case "k3":
            return d.exp() - d - 1


def policy_loss(
    policy_logprobs: torch.Tensor,
    sampler_logprobs: torch.Tensor,
    reference_logprobs: torch.Tensor | None,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    mask: torch.Tensor,
    switches: LossSwitches,
) -> tuple[torch.Tensor, LossStatistics]:
    """Clipped surrogate with a KL penalty (arXiv:1707.06347, arXiv:2402.03300), summed with `weights`; minimise it.

    Log-probs and mask [N, T], advantages and weights [N]. Per token: -min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)
    + kl_coef * KL with r = exp(policy - sampler). Where the mask is False nothing counts, whatever stands there.
    """
    advantage = advantages[:, None]
    if switches.importance_ratio:
        ratio = (policy_logprobs - sampler_logprobs).masked_fill(~mask, 0.0).exp()
        clipped = ratio.clamp(1 - switches.eps_low, 1 + switches.eps_high)
        per_token = -torch.minimum(ratio * advantage, clipped * advantage)
        outside = (clipped * advantage < ratio * advantage) & mask
        ratio_max = float(ratio.detach().masked_fill(~mask, 0.0).max())
    else:
        per_token = -policy_logprobs * advantage
        outside, ratio_max = torch.zeros_like(mask), 1.0
    kl_sum = 0.0
    if reference_logprobs is not None:
        policy, reference = (x.masked_fill(~mask, 0.0) for x in (policy_logprobs, reference_logprobs))  # exp(d) may overflow
        kl = kl_divergence(policy, reference, switches.kl_estimator)
        per_token = per_token + switches.kl_coef * kl
        kl_sum = float(kl.detach().sum())
    loss = (per_token.masked_fill(~mask, 0.0) * weights[:, None]).sum()
    tokens, clipped_tokens = float(mask.sum()), float(outside.sum())
    return loss, LossStatistics(tokens=tokens, kl=kl_sum, clipped=clipped_tokens, ratio_max=ratio_max)
