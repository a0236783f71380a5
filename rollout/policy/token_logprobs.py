"""Hidden states -> log-probs of given tokens, a slice at a time: the logits of all would be the largest tensor of an update."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from rollout.policy.interface import TokenLogprobs

LOGITS_AT_ONCE = 2**23  # 32 MiB of float32


def sliced_logprobs(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    temperature: float,
    entropy_gradient: bool,
) -> TokenLogprobs:
    """hidden [P, G, T, d_model]: each state predicts one of labels int64 [P, G, T]; head: states [M, d_model] -> logits [M, V].

    Logits are computed for LOGITS_AT_ONCE / V tokens at once, and again in the backward pass.
    """

    def scores_of(states: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(states).float()
        logprobs = torch.log_softmax(logits if temperature == 1 else logits / temperature, -1)
        picked = logprobs.gather(-1, tokens[:, None])[:, 0]
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            return picked, -(logprobs.exp() * logprobs).sum(-1)

    at_once = max(1, LOGITS_AT_ONCE // vocabulary)
    slices = zip(hidden.flatten(0, 2).split(at_once), labels.flatten().split(at_once), strict=True)
    scores = [checkpoint(scores_of, *both, use_reentrant=False, preserve_rng_state=False) for both in slices]
    logprobs, entropy = (torch.cat(parts).view(labels.shape) for parts in zip(*scores, strict=True))
    return TokenLogprobs(logprobs, entropy)
