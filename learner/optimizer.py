"""AdamW whose state is saved by parameter names, as safetensors."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rollout.errors import CheckpointError

STATE = ("step", "exp_avg", "exp_avg_sq")


def new_optimizer(parameters: Iterable[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)


def save_optimizer(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    save_file({f"{name}/{key}": value for name, p in parameters.items() for key, value in optimizer.state[p].items()}, path)


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    """Raises CheckpointError if the file is damaged or belongs to another model."""
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); resume from another checkpoint") from error
    for name, parameter in parameters.items():
        state = {key: saved.pop(f"{name}/{key}") for key in STATE if f"{name}/{key}" in saved}
        if not state:  # no gradient has reached it yet
            continue
        if len(state) < len(STATE) or state["exp_avg"].shape != parameter.shape:
            raise CheckpointError(f"{path}: {name} is not as in the policy; resume with the run's own policy")
        optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    if saved:
        raise CheckpointError(f"{path}: {min(saved)} is not in the policy; resume with the run's own policy")
