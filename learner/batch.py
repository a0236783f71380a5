"""Scored groups -> micro-batches under a token budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rollout.policy.interface import Context, Trainable
from rollout.policy.ragged import pad
from rollout.types import Group


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """P groups of G responses, N = P*G. rows int64 [N]: where they stand in the whole batch. response_ids int64 [P, G, T]
    and sampler_logprobs [N, T], padded on the right.

    token_mask bool [N, T]: the tokens that the responses' masks count, no padding; loss_mask: the same, but none of a response
    that does not count in the loss. tokens: those of contexts and responses, once a group; padded_tokens: as many as are
    computed.
    """

    rows: torch.Tensor
    contexts: list[Context]
    response_ids: torch.Tensor
    token_mask: torch.Tensor
    loss_mask: torch.Tensor
    sampler_logprobs: torch.Tensor
    tokens: int
    padded_tokens: int


def counted_lengths(groups: Sequence[Group], mask_truncated: bool) -> torch.Tensor:
    """Tokens that the mask of every response counts, int64 [N] in the groups' order: 0 of a cut one if those are masked."""
    responses = [r for group in groups for r in group.responses]
    return torch.tensor([0 if mask_truncated and not r.finished else np.count_nonzero(r.mask) for r in responses])


def micro_batches(groups: Sequence[Group], lengths: torch.Tensor, token_budget: int, policy: Trainable) -> list[MicroBatch]:
    """Cut the batch, shortest contexts first so that little is padding; `lengths` as from `counted_lengths`."""
    size = len(groups[0].responses)
    rows = torch.arange(len(groups) * size).view(len(groups), size)
    return [
        _pack([groups[i] for i in chosen], rows[chosen].flatten(), lengths, policy)
        for chosen in _within_budget(groups, token_budget, policy)
    ]


def _within_budget(groups: Sequence[Group], token_budget: int, policy: Trainable) -> Iterator[list[int]]:
    """Indices of groups whose padded tokens fit the budget together; a group that exceeds it alone stands alone."""
    chosen: list[int] = []
    for i in sorted(range(len(groups)), key=lambda i: (max(len(row) for row in groups[i].context_ids), i)):
        if chosen and _padded_tokens([groups[j] for j in (*chosen, i)], policy) > token_budget:
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def _padded_tokens(groups: Sequence[Group], policy: Trainable) -> int:
    """What a forward computes: each context once for its group, every response as long as the longest."""
    responses = [len(r.token_ids) for group in groups for r in group.responses]
    return policy.context_tokens([group.context_ids for group in groups]) + len(responses) * max(responses)


def _pack(groups: Sequence[Group], rows: torch.Tensor, lengths: torch.Tensor, policy: Trainable) -> MicroBatch:
    device = policy.device
    responses = [r for group in groups for r in group.responses]
    ids, real = pad([r.token_ids for r in responses], np.int64)
    token_mask, _ = pad([r.mask for r in responses], np.bool_)
    sampler_logprobs, _ = pad([r.sampler_logprobs for r in responses], np.float32)
    return MicroBatch(
        rows=rows.to(device),
        contexts=[group.context_ids for group in groups],
        response_ids=ids.view(len(groups), -1, ids.shape[1]).to(device),
        token_mask=token_mask.to(device),
        loss_mask=(token_mask & (lengths[rows] > 0)[:, None]).to(device),
        sampler_logprobs=sampler_logprobs.to(device),
        tokens=int(real.sum()) + sum(len(row) for group in groups for row in group.context_ids),
        padded_tokens=_padded_tokens(groups, policy),
    )
