"""What is done to every layer of a transformers model alike."""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep only each layer's input in a forward that is differentiated."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in _layers(model):
        layer.training = True  # transformers asks for it; dropout stays off, it sits in the layer's children


def compile_layers(model: nn.Module) -> None:
    for layer in _layers(model):
        layer.compile(dynamic=True)


def _layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
