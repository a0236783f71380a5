"""The loss of a batch of sampled responses, put together from `learner.loss` as a `LossConfig` says.

Per token, to be minimised, and summed with the weights of `token_weights`:

    correction * surrogate(ratio, A) + kl_coef * KL - entropy_coef * entropy

Every named loss of `learner.algorithm.PRESETS` is one choice of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch

from learner.algorithm import LossConfig
from learner.loss import cispo_surrogate, clipped_surrogate, importance_ratio, kl_divergence, off_policy_correction


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatistics:
    """Of every token that counts, [tokens]: log_ratio to the sampler; 1 where the ratio was clipped, where the correction was
    bound; KL to the reference, empty without one; entropy, empty if it was not given."""

    log_ratio: torch.Tensor
    clipped: torch.Tensor
    corrected: torch.Tensor
    kl: torch.Tensor
    entropy: torch.Tensor

    @classmethod
    def where(cls, mask: torch.Tensor, **measured: torch.Tensor | None) -> Self:
        """Every field [N, T] at the tokens of the mask; None where it was not measured."""
        nothing = torch.zeros(0, device=mask.device)
        return cls(**{name: nothing if values is None else values.detach()[mask] for name, values in measured.items()})

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})


def policy_loss(
    policy_logprobs: torch.Tensor,
    sampler_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    mask: torch.Tensor,
    config: LossConfig,
    *,
    reference_logprobs: torch.Tensor | None = None,
    proximal_logprobs: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
) -> tuple[torch.Tensor, TokenStatistics]:
    """The loss of N responses, a scalar, with the statistics of their tokens.

    Log-probs, entropy and mask [N, T], advantages and weights [N]. The ratio is policy / sampler; with a correction it is
    policy / proximal, where proximal_logprobs are the policy's own before the batch's first step (by default: those given
    as policy_logprobs), and the correction is proximal / sampler: the decoupled objective of Hilton et al. 2021
    (arXiv:2110.00641). A KL in the reward is measured and not added. Where the mask is False nothing counts, whatever
    stands there.
    """
    policy, sampler = policy_logprobs.masked_fill(~mask, 0.0), sampler_logprobs.masked_fill(~mask, 0.0)
    old_logprobs, corrected = sampler, torch.zeros_like(mask)
    if config.correction != "none":
        old_logprobs = policy.detach() if proximal_logprobs is None else proximal_logprobs.masked_fill(~mask, 0.0)
    ratio = importance_ratio(policy - old_logprobs, mask, config.importance)
    per_token, clipped = _surrogate(policy, ratio, advantages[:, None], config)
    if config.correction != "none":
        correction, corrected = off_policy_correction(
            old_logprobs - sampler, mask, config.correction, config.correction_level, config.correction_cap
        )
        per_token = correction * per_token
    kl = None
    if reference_logprobs is not None:
        kl = _token_kl(policy, sampler, reference_logprobs.masked_fill(~mask, 0.0), config)
        per_token = per_token + config.kl_coef * kl if config.kl_in == "loss" else per_token
    if entropy is not None:
        per_token = per_token - config.entropy_coef * entropy
    loss = (per_token.masked_fill(~mask, 0.0) * weights[:, None]).sum()
    measured = {"clipped": clipped.float(), "corrected": corrected.float(), "kl": kl, "entropy": entropy}
    return loss, TokenStatistics.where(mask, log_ratio=policy - sampler, **measured)


def _surrogate(
    policy: torch.Tensor, ratio: torch.Tensor, advantage: torch.Tensor, config: LossConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Without a ratio -A log p: REINFORCE (Williams 1992), and cross-entropy where A is 1."""
    if config.importance == "none":
        return -policy * advantage, torch.zeros_like(ratio, dtype=torch.bool)
    if config.surrogate == "cispo":
        return cispo_surrogate(policy, ratio, advantage, config.eps_low, config.eps_high)
    return clipped_surrogate(ratio, advantage, config.eps_low, config.eps_high, config.dual_clip)


def _token_kl(policy: torch.Tensor, sampler: torch.Tensor, reference: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """KL(policy || reference) of each token [N, T]; with kl_weighted multiplied by policy / sampler, and differentiated through
    that too: the expected gradient of k1 and k3 is then that of KL(policy || reference), also off-policy, DeepSeek-AI 2025
    (arXiv:2512.02556)."""
    kl = kl_divergence(policy, reference, config.kl_estimator)
    return (policy - sampler).exp() * kl if config.kl_weighted else kl
