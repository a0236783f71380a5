"""The decoding loop of every policy: greedy or sampled from one path, log-probs recorded as sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

SHRINK_BELOW = 0.75  # moving the caches costs about as much as two steps over the rows that leave


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to draw responses. uniforms float64 [P * G, max_new_tokens] in [0, 1) decide every draw; None is greedy."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    uniforms: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """token_ids int64 [P, G, T] and logprobs float32 at the decoding's temperature, zero after a response's end; lengths int64
    [P, G], end token included; finished bool: ended by itself; top_p_mass: mean probability inside the nucleus."""

    token_ids: torch.Tensor
    logprobs: torch.Tensor
    lengths: torch.Tensor
    finished: torch.Tensor
    top_p_mass: float


class DecodeState(Protocol):
    """P groups of G responses while they grow: a model with its caches."""

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Last tokens [P, G] -> logits [P, G, V] of the next."""
        ...

    def select(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        """Go on with `groups` [P'] alone and with `rows` [P'*G'] of the P*G responses, G' of each group, in their order."""
        ...


def decode(
    decode_state: DecodeState,
    start: torch.Tensor,
    end_tokens: Sequence[int],
    decoding: Decoding,
    ended: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Decoded:
    """Draw responses that go on from the tokens `start` int64 [P, G]; those that are finished leave the batch.

    ended: which of the responses so far, int64 [N, T], are finished whatever their last token is, bool [N].
    """
    count, steps, device = start.numel(), decoding.max_new_tokens, start.device
    token_ids, logprobs = start.new_zeros(count, steps), torch.zeros(count, steps, device=device)
    lengths, finished = start.new_zeros(count), torch.zeros(count, dtype=torch.bool, device=device)
    ends, kept = torch.tensor(end_tokens, device=device), []
    uniforms = None if decoding.uniforms is None else torch.from_numpy(decoding.uniforms).to(device)
    rows, tokens = torch.arange(count, device=device).view(start.shape), start
    for t in range(steps):
        scores = torch.log_softmax(decode_state.next_logits(tokens).float() / decoding.temperature, -1)
        growing = ~finished[rows]
        if uniforms is None:
            tokens = scores.argmax(-1)
        else:
            tokens, mass = draw(scores.exp(), uniforms[rows, t], decoding.top_p)
            kept.append((mass * growing).sum() / growing.sum())
        token_ids[rows, t] = tokens * growing
        logprobs[rows, t] = scores.gather(-1, tokens[..., None])[..., 0] * growing
        lengths[rows] += growing
        over = torch.isin(tokens, ends)
        if ended is not None:
            over |= ended(token_ids[rows.flatten(), : t + 1]).view(rows.shape)
        finished[rows] |= growing & over
        rows, tokens = _unfinished(decode_state, ~finished[rows], rows, tokens)
        if not rows.numel():
            break
    token_ids, logprobs = (each[:, : t + 1].view(*start.shape, -1) for each in (token_ids, logprobs))
    in_nucleus = float(torch.stack(kept).mean()) if kept and decoding.top_p < 1 else 1.0
    return Decoded(token_ids, logprobs, lengths.view(start.shape), finished.view(start.shape), in_nucleus)


def _unfinished(
    decode_state: DecodeState, active: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Go on with the groups that have an active response, of each as many as the widest has, the active ones first, once that
    makes the batch enough smaller. Empty where nothing is active."""
    widths = active.sum(1).tolist()
    if not any(widths):
        return rows[:0], tokens[:0]
    if sum(width > 0 for width in widths) * max(widths) >= SHRINK_BELOW * active.numel():
        return rows, tokens
    groups = torch.tensor([i for i, width in enumerate(widths) if width], device=active.device)
    columns = active[groups].int().argsort(dim=1, descending=True, stable=True)[:, : max(widths)]
    decode_state.select(groups, (groups[:, None] * active.shape[1] + columns).flatten())
    return rows[groups].gather(1, columns), tokens[groups].gather(1, columns)


def draw(probabilities: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert the cumulative distribution: probabilities [..., V], uniforms [...] -> (tokens int64 [...], kept mass [...]).

    With top_p < 1 only the smallest set of tokens that holds top_p of the mass can be drawn (Holtzman et al. 2020).
    """
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ranked.cumsum(-1) - ranked >= top_p
        probabilities = ranked.masked_fill(outside, 0).gather(-1, order.argsort(-1))
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[..., -1:]
    tokens = torch.searchsorted(cumulative, uniforms[..., None] * total, right=True)[..., 0]
    return tokens.clamp(max=probabilities.shape[-1] - 1), total[..., 0]
