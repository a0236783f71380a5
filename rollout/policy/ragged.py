"""Rows of unlike length as one tensor, and equal rows as one."""

from collections.abc import Sequence

import numpy as np
import torch


def pad(rows: Sequence[np.ndarray], dtype: type) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows [L_i] -> a tensor [N, max L] filled up with zeros on the right, and the mask bool of what is real."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded: np.ndarray = np.zeros(mask.shape, dtype)
    padded[mask] = np.concatenate(rows)
    return torch.from_numpy(padded), torch.from_numpy(mask)


def distinct_responses(response_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses [P, G, T] -> those of each group that differ, [P, G', T] with G' that of the group with most, filled up with
    zeros; and where in them each response stands, [P, G]."""
    groups, size, length = response_ids.shape
    group = torch.arange(groups, device=response_ids.device)
    rows = torch.cat([group.repeat_interleave(size)[:, None], response_ids.flatten(0, 1)], 1)
    unique, inverse = torch.unique(rows, dim=0, return_inverse=True)  # sorted, so those of a group stand together
    counts = torch.bincount(unique[:, 0], minlength=groups)
    first = counts.cumsum(0) - counts
    most = int(counts.max())
    if most == size:
        return response_ids, torch.arange(size, device=response_ids.device).expand(groups, size)
    distinct = response_ids.new_zeros(groups, most, length)
    owner = unique[:, 0]
    distinct[owner, torch.arange(len(unique), device=owner.device) - first[owner]] = unique[:, 1:]
    return distinct, inverse.view(groups, size) - first[:, None]
