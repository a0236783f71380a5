"""Log-probs of sampled responses -> loss and its statistics. N responses, T tokens, padded on the right. Torch only.

Per token, to be minimised, and summed with the weights of `token_weights`:

    correction * surrogate(ratio, A) + kl_coef * KL - entropy_coef * entropy

Every named loss of `learner.algorithm.PRESETS` is one choice of its `LossConfig`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from learner.algorithm import Aggregation, Importance, KlEstimator, LossConfig


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
    config: "LossConfig",
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
    per_token, clipped = surrogate(policy, ratio, advantages[:, None], config)
    if config.correction != "none":
        correction, corrected = off_policy_correction(old_logprobs - sampler, mask, config)
        per_token = correction * per_token
    kl = None
    if reference_logprobs is not None:
        kl = token_kl(policy, sampler, reference_logprobs.masked_fill(~mask, 0.0), config)
        per_token = per_token + config.kl_coef * kl if config.kl_in == "loss" else per_token
    if entropy is not None:
        per_token = per_token - config.entropy_coef * entropy
    loss = (per_token.masked_fill(~mask, 0.0) * weights[:, None]).sum()
    measured = {"clipped": clipped.float(), "corrected": corrected.float(), "kl": kl, "entropy": entropy}
    return loss, TokenStatistics.where(mask, log_ratio=policy - sampler, **measured)


def importance_ratio(log_ratio: torch.Tensor, mask: torch.Tensor, level: "Importance") -> torch.Tensor:
    """exp(log_ratio) of every token [N, T]; at the level of sequences exp(mean log_ratio) for all tokens of one: the ratio of
    the sequences' probabilities, normalised by their length, of GSPO, Zheng et al. 2025 (arXiv:2507.18071)."""
    if level == "sequence":
        log_ratio = (log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)).expand_as(log_ratio)
    return log_ratio.exp()


def surrogate(
    policy_logprobs: torch.Tensor, ratio: torch.Tensor, advantage: torch.Tensor, config: "LossConfig"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The surrogate's loss [N, T] and where clipping bounds it, bool [N, T]. ratio r [N, T], advantage A [N, 1].

    clip   -min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)   PPO, Schulman et al. 2017 (arXiv:1707.06347); eps_high > eps_low
           is DAPO's clip-higher (arXiv:2503.14476); with dual_clip = c > 1 the loss of A < 0 is at most -c A, Ye et al. 2020
           (arXiv:1912.09729)
    cispo  -stop_gradient(clip(r, 1 - eps_low, 1 + eps_high)) A log p: no token loses its gradient, MiniMax 2025
           (arXiv:2506.13585)
    With importance none the loss is -A log p: REINFORCE (Williams 1992), and cross-entropy where A is 1.
    """
    if config.importance == "none":
        return -policy_logprobs * advantage, torch.zeros_like(ratio, dtype=torch.bool)
    bounded = ratio.clamp(1 - config.eps_low, 1 + config.eps_high)
    if config.surrogate == "cispo":
        return -bounded.detach() * advantage * policy_logprobs, bounded != ratio
    gain = torch.minimum(ratio * advantage, bounded * advantage)
    if config.dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, config.dual_clip * advantage), gain)
    return -gain, gain != ratio * advantage


def off_policy_correction(
    log_ratio: torch.Tensor, mask: torch.Tensor, config: "LossConfig"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Importance weights [N, T] or [N, 1] of sampled tokens under the proximal policy, log_ratio = proximal - sampler, and
    where the cap C bound them, bool [N, T].

    w = exp(log_ratio) of each token, or their product over the sequence. truncate: min(w, C), as in V-trace, Espeholt et al.
    2018 (arXiv:1802.01561), and TIS, Yao et al. 2025; mask: w where w <= C, else 0, as in IcePop, Ling Team 2025
    (arXiv:2510.18855).
    """
    if config.correction_level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True)
    weight = log_ratio.detach().exp()
    above = weight > config.correction_cap
    kept = weight.clamp(max=config.correction_cap) if config.correction == "truncate" else weight.masked_fill(above, 0.0)
    return kept, above.expand_as(mask)


def token_kl(policy: torch.Tensor, sampler: torch.Tensor, reference: torch.Tensor, config: "LossConfig") -> torch.Tensor:
    """KL(policy || reference) of each token [N, T]; with kl_weighted multiplied by policy / sampler, and differentiated through
    that too: the expected gradient of k1 and k3 is then that of KL(policy || reference), also off-policy, DeepSeek-AI 2025
    (arXiv:2512.02556)."""
    kl = kl_divergence(policy, reference, config.kl_estimator)
    return (policy - sampler).exp() * kl if config.kl_weighted else kl


def kl_divergence(policy: torch.Tensor, reference: torch.Tensor, estimator: "KlEstimator") -> torch.Tensor:
    """Estimate KL(policy || reference) per token from log-probs of sampled tokens (Schulman 2020), d = reference - policy.

    k1: -d.   k2: d^2 / 2.   k3: exp(d) - d - 1, never negative. As a loss k1 does not pull back: at the sampling policy its
    expected gradient is 0. That of k2 is the gradient of KL(policy || reference), that of k3 of KL(reference || policy)
    (Tang & Munos 2025, arXiv:2506.09477).
    """
    d = reference - policy
    match estimator:
        case "k1":
            return -d
        case "k2":
            return d.square() / 2
        case "k3":
            return torch.expm1(d) - d  # near 0 exp(d) - 1 is rounding alone


def adapted_kl_coef(kl_coef: float, kl: float, target: float) -> float:
    """The next step's coefficient: raised by at most 2 % where the KL lies above its target, lowered where below.

    beta (1 + 0.1 clip(KL / target - 1, -0.2, 0.2)), Ziegler et al. 2019 (arXiv:1909.08593, section 2.2).
    """
    return kl_coef * (1 + 0.1 * min(0.2, max(-0.2, kl / target - 1)))


def token_weights(lengths: torch.Tensor, aggregation: "Aggregation", max_length: int) -> torch.Tensor:
    """Weight [N] of every token of a response, from the lengths [N] of the WHOLE batch: micro-batches then just add up.

    sequence  1 / (N * length)        mean over responses of their token means   GRPO, arXiv:2402.03300
    token     1 / sum of lengths      mean over all tokens                       DAPO, arXiv:2503.14476
    constant  1 / (N * max_length)    no bias towards length                     Dr. GRPO, arXiv:2503.20783

    The length of a response that is masked as a whole is 0; it counts in N.
    """
    lengths = lengths.float()
    match aggregation:
        case "sequence":
            return 1.0 / (len(lengths) * lengths.clamp(min=1))
        case "token":
            return (1.0 / lengths.sum().clamp(min=1)).expand(len(lengths))
        case "constant":
            return torch.full_like(lengths, 1.0 / (len(lengths) * max_length))
