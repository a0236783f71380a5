"""All weights of a model as one flat buffer: the form in which they travel from the learner to the samplers."""

import warnings

import numpy as np
import torch
from torch import nn

from rollout.errors import PolicyError

WIRE = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.int16)}


@torch.no_grad()
def flatten(model: nn.Module, dtype: torch.dtype) -> np.ndarray:
    """Copy every parameter, in the model's own order, into one new array; bfloat16 travels as its bits in int16."""
    flat = torch.empty(sum(p.numel() for p in model.parameters()), dtype=dtype)
    offset = 0
    for parameter in model.parameters():
        flat[offset : offset + parameter.numel()].copy_(parameter.reshape(-1))
        offset += parameter.numel()
    return flat.view(torch.int16).numpy() if dtype == torch.bfloat16 else flat.numpy()


@torch.no_grad()
def load_flat(model: nn.Module, array: np.ndarray) -> None:
    """Copy an array made by `flatten` into `model`; raises PolicyError if their sizes or types differ."""
    dtype = next(model.parameters()).dtype
    size = sum(p.numel() for p in model.parameters())
    if array.size != size or array.dtype != WIRE[dtype]:
        raise PolicyError(f"weights: {array.size} x {array.dtype} do not fit a policy of {size} x {dtype}; use one folder")
    with warnings.catch_warnings():  # an array in the object store is read-only, and is only read here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        flat = torch.from_numpy(array).view(dtype)
    offset = 0
    for parameter in model.parameters():
        parameter.copy_(flat[offset : offset + parameter.numel()].view_as(parameter))
        offset += parameter.numel()
