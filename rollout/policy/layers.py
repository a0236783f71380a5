"""What is done to every layer of a transformers model alike."""

from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rollout.errors import PolicyError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep only each layer's input in a forward that is differentiated."""
    for layer in _layers(model):
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        layer.training = True  # transformers asks for it; dropout stays off: that of the children, and the layer's own here
        for name in [name for name, value in vars(layer).items() if "dropout" in name and isinstance(value, float)]:
            setattr(layer, name, 0.0)


def compile_layers(model: PreTrainedModel) -> None:
    for layer in _layers(model):
        layer.compile(dynamic=True)


def _layers(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise PolicyError(
            f"policy: {type(model).__name__} does not mark its layers; "
            "leave out learner.activation_checkpointing and learner.compile, or give another model"
        )
    return layers
