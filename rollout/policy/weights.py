"""Weights as one flat buffer: the form in which they travel from the learner to the samplers."""

import warnings
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from rollout.errors import PolicyError

WIRE = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.int16)}


class DamagedWeights(RuntimeError):
    """The machine's fault and no user's mistake: who met it is replaced."""


@dataclass(frozen=True, slots=True)
class FlatWeights:
    """What `flatten` made, and its CRC-32."""

    values: np.ndarray
    checksum: int

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        return cls(values, zlib.crc32(values.data))

    def check(self) -> None:
        """Raise DamagedWeights if the values are not those that the checksum was taken of."""
        if zlib.crc32(self.values.data) != self.checksum:
            raise DamagedWeights(f"{self.values.nbytes} bytes of weights arrived damaged; check learner's and sampler's memory")


def wire_buffer(parameters: Collection[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Room for `flatten`, written once: a first broadcast then waits for no fresh pages."""
    return torch.empty(sum(p.numel() for p in parameters), dtype=dtype).zero_()


@torch.no_grad()
def flatten(parameters: Collection[torch.Tensor], dtype: torch.dtype, out: torch.Tensor | None = None) -> np.ndarray:
    """Copy every parameter, in the given order, into one array, `out` or a new one; bfloat16 travels as its bits in int16."""
    flat = wire_buffer(parameters, dtype) if out is None else out
    offset = 0
    for parameter in parameters:
        flat[offset : offset + parameter.numel()].copy_(parameter.reshape(-1))
        offset += parameter.numel()
    return flat.view(torch.int16).numpy() if dtype == torch.bfloat16 else flat.numpy()


@torch.no_grad()
def load_flat(parameters: Sequence[torch.Tensor], array: np.ndarray) -> None:
    """Copy an array made by `flatten` into `parameters`; raises PolicyError if their sizes or types differ."""
    dtype = parameters[0].dtype
    size = sum(p.numel() for p in parameters)
    if array.size != size or array.dtype != WIRE[dtype]:
        raise PolicyError(f"weights: {array.size} x {array.dtype} do not fit a policy of {size} x {dtype}; use one folder")
    with warnings.catch_warnings():  # an array in the object store is read-only, and is only read here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        flat = torch.from_numpy(array).view(dtype)
    offset = 0
    for parameter in parameters:
        parameter.copy_(flat[offset : offset + parameter.numel()].view_as(parameter))
        offset += parameter.numel()
