"""The decoding loop of every policy: greedy or sampled from one path, log-probs recorded as sampled."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to draw responses. uniforms float64 [N, max_new_tokens] in [0, 1) decide every draw; None is greedy."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    uniforms: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """token_ids int64 [N, T]; logprobs float32 [N, T] at the decoding's temperature; lengths int64 [N], end token included;
    finished bool [N]: ended by itself; kept_mass: mean probability inside the nucleus."""

    token_ids: torch.Tensor
    logprobs: torch.Tensor
    lengths: torch.Tensor
    finished: torch.Tensor
    kept_mass: float


def decode(
    next_logits: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, end_token: int, decoding: Decoding
) -> Decoded:
    """Draw N responses. next_logits: last tokens [N] -> logits [N, V]; it keeps its own cache. start: int64 [N]."""
    tokens, finished, columns, logprob_columns, kept = start, torch.zeros_like(start, dtype=torch.bool), [], [], []
    uniforms = None if decoding.uniforms is None else torch.from_numpy(decoding.uniforms).to(start.device)
    for t in range(decoding.max_new_tokens):
        logprobs = torch.log_softmax(next_logits(tokens).float() / decoding.temperature, -1)
        if uniforms is None:
            tokens = logprobs.argmax(-1)
        else:
            tokens, mass = draw(logprobs.exp(), uniforms[:, t], decoding.top_p)
            kept.append(mass[~finished].mean())
        columns.append(tokens)
        logprob_columns.append(logprobs.gather(-1, tokens[:, None])[:, 0])
        finished = finished | (tokens == end_token)
        if bool(finished.all()):
            break
    token_ids = torch.stack(columns, 1)
    ends = token_ids == end_token
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, token_ids.shape[1])
    kept_mass = float(torch.stack(kept).mean()) if kept else 1.0
    return Decoded(token_ids, torch.stack(logprob_columns, 1), lengths, finished, kept_mass)


def draw(probabilities: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert the cumulative distribution: probabilities [N, V], uniforms [N] -> (tokens int64 [N], kept mass [N]).

    With top_p < 1 only the smallest set of tokens that holds top_p of the mass can be drawn (Holtzman et al. 2020).
    """
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ranked.cumsum(-1) - ranked >= top_p
        probabilities = ranked.masked_fill(outside, 0).gather(-1, order.argsort(-1))
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)[:, 0]
    return tokens.clamp(max=probabilities.shape[-1] - 1), total[:, 0]
