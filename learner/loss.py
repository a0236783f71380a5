"""The terms of a loss of sampled tokens. N responses, T tokens, padded on the right. Torch only."""

import torch


def importance_ratio(log_ratio: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    """exp(log_ratio) of every token [N, T]; at the level of sequences exp(mean log_ratio) for all tokens of one: the ratio of
    the sequences' probabilities, normalised by their length, of GSPO, Zheng et al. 2025 (arXiv:2507.18071)."""
    if level == "sequence":
        log_ratio = (log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)).expand_as(log_ratio)
    return log_ratio.exp()


def clipped_surrogate(
    ratio: torch.Tensor, advantage: torch.Tensor, eps_low: float, eps_high: float, dual_clip: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) [N, T], and where the clip bounds it, bool [N, T]; r [N, T], A [N, 1].

    PPO, Schulman et al. 2017 (arXiv:1707.06347); eps_high > eps_low is DAPO's clip-higher (arXiv:2503.14476). With
    dual_clip = c > 1 the loss of A < 0 is at most -c A, Ye et al. 2020 (arXiv:1912.09729).
    """
    bounded = ratio.clamp(1 - eps_low, 1 + eps_high)
    gain = torch.minimum(ratio * advantage, bounded * advantage)
    if dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
    return -gain, gain != ratio * advantage


def cispo_surrogate(
    policy_logprobs: torch.Tensor, ratio: torch.Tensor, advantage: torch.Tensor, eps_low: float, eps_high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """-stop_gradient(clip(r, 1 - eps_low, 1 + eps_high)) A log p [N, T], and where the clip bounds it: no token loses its
    gradient, MiniMax 2025 (arXiv:2506.13585)."""
    bounded = ratio.clamp(1 - eps_low, 1 + eps_high)
    return -bounded.detach() * advantage * policy_logprobs, bounded != ratio


def off_policy_correction(
    log_ratio: torch.Tensor, mask: torch.Tensor, correction: str, level: str, cap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Importance weights [N, T] or [N, 1] of sampled tokens under the proximal policy, log_ratio = proximal - sampler, and
    where the cap C bound them, bool [N, T].

    w = exp(log_ratio) of each token, or their product over the sequence. truncate: min(w, C), as in V-trace, Espeholt et al.
    2018 (arXiv:1802.01561), and TIS, Yao et al. 2025; mask: w where w <= C, else 0, as in IcePop, Ling Team 2025
    (arXiv:2510.18855).
    """
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True)
    weight = log_ratio.detach().exp()
    above = weight > cap
    kept = weight.clamp(max=cap) if correction == "truncate" else weight.masked_fill(above, 0.0)
    return kept, above.expand_as(mask)


def kl_divergence(policy: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
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
    raise ValueError(f"kl_divergence: no estimator {estimator!r}: k1, k2, k3")


def adapted_kl_coef(kl_coef: float, kl: float, target: float) -> float:
    """The next step's coefficient: raised by at most 2 % where the KL lies above its target, lowered where below.

    beta (1 + 0.1 clip(KL / target - 1, -0.2, 0.2)), Ziegler et al. 2019 (arXiv:1909.08593, section 2.2).
    """
    return kl_coef * (1 + 0.1 * min(0.2, max(-0.2, kl / target - 1)))


def token_weights(lengths: torch.Tensor, aggregation: str, max_length: int) -> torch.Tensor:
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
    raise ValueError(f"token_weights: no aggregation {aggregation!r}: sequence, token, constant")
