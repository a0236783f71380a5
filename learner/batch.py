"""Scored groups -> micro-batches under a token budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rollout.policy.interface import Context, pad
from rollout.types import Group


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """P groups of G responses, N = P*G. rows int64 [N]: where they stand in the whole batch. response_ids int64 [P, G, T]
    and sampler_logprobs [N, T], padded on the right. bool [N, T]: `real` tells tokens from padding, `mask` is `real` but for
    responses that do not count in the loss."""

    rows: torch.Tensor
    contexts: list[Context]
    response_ids: torch.Tensor
    real: torch.Tensor
    mask: torch.Tensor
    sampler_logprobs: torch.Tensor


def counted_lengths(groups: Sequence[Group], mask_truncated: bool) -> torch.Tensor:
    """Tokens that count of every response, int64 [N] in the groups' order: 0 of a cut one if those are masked."""
    responses = [r for group in groups for r in group.responses]
    return torch.tensor([0 if mask_truncated and not r.finished else len(r.token_ids) for r in responses])


def micro_batches(groups: Sequence[Group], lengths: torch.Tensor, token_budget: int, device: str) -> list[MicroBatch]:
    """Cut the batch, shortest contexts first so that little is padding; `lengths` as from `counted_lengths`."""
    size = len(groups[0].responses)
    rows = torch.arange(len(groups) * size).view(len(groups), size)
    return [
        _pack([groups[i] for i in chosen], rows[chosen].flatten(), lengths, device)
        for chosen in _within_budget(groups, token_budget)
    ]


def _within_budget(groups: Sequence[Group], token_budget: int) -> Iterator[list[int]]:
    """Indices of groups whose padded tokens fit the budget together; a group that exceeds it alone stands alone."""
    order = sorted(range(len(groups)), key=lambda i: (_longest_row(groups[i]), i))
    chosen: list[int] = []
    rows = responses = longest_response = 0
    for i in order:
        group = groups[i]
        rows += len(group.context_ids)
        responses += len(group.responses)
        longest_response = max(longest_response, max(len(r.token_ids) for r in group.responses))
        if chosen and rows * _longest_row(group) + responses * longest_response > token_budget:
            yield chosen
            chosen, rows, responses = [], len(group.context_ids), len(group.responses)
            longest_response = max(len(r.token_ids) for r in group.responses)
        chosen.append(i)
    if chosen:
        yield chosen


def _longest_row(group: Group) -> int:
    return max(len(row) for row in group.context_ids)


def _pack(groups: Sequence[Group], rows: torch.Tensor, lengths: torch.Tensor, device: str) -> MicroBatch:
    responses = [r for group in groups for r in group.responses]
    ids, real = pad([r.token_ids for r in responses], np.int64)
    sampler_logprobs, _ = pad([r.sampler_logprobs for r in responses], np.float32)
    return MicroBatch(
        rows=rows.to(device),
        contexts=[group.context_ids for group in groups],
        response_ids=ids.view(len(groups), -1, ids.shape[1]).to(device),
        real=real.to(device),
        mask=(real & (lengths[rows] > 0)[:, None]).to(device),
        sampler_logprobs=sampler_logprobs.to(device),
    )
