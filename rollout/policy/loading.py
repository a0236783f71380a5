"""Policies from a folder or hub name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import PolicyError, first_line
from rollout.policy import adapters
from rollout.policy.base import Policy
from rollout.policy.families import family_of
from rollout.policy.family import Family
from rollout.policy.family_t5 import T5
from rollout.policy.interface import Context
from rollout.policy.rendering import Renderer
from rollout.policy.templates import with_templates
from rollout.types import Passage

transformers.utils.logging.disable_progress_bar()  # actors' logs are read by people

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BROKEN = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True, slots=True)
class PolicySkeleton:
    """A policy whose model has shapes and no values: what it reads and how large it is."""

    model: PreTrainedModel
    renderer: Renderer

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[Context]:
        return self.renderer.contexts(questions, passages)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def load_policy(path: str | Path, settings: PolicySettings, dtype: torch.dtype, device: str) -> Policy:
    """Load model and tokenizer, and adapters where the folder holds them or the settings ask for new ones.

    Raises PolicyError if `path` is no model that we train, or is incomplete.
    """
    base, family = check_policy(path)
    try:
        model, report = family.auto_model.from_pretrained(base, dtype=dtype, output_loading_info=True, weights_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except BROKEN as error:
        raise PolicyError(f"policy {path}: cannot be loaded ({first_line(error)}); give a complete model folder") from error
    if missing := sorted(report["missing_keys"]):
        raise PolicyError(f"policy {path}: its weights lack {missing[0]}; give a complete model folder")
    _check_tokenizer(path, tokenizer, family)
    if str(base) != str(path):
        _load_adapters(model, path, settings)
    elif settings.lora.rank:
        adapters.add(model, settings.lora)
    return family.policy(model.to(device), tokenizer, with_templates(settings, tokenizer, family))


def skeleton(path: str | Path, settings: PolicySettings) -> PolicySkeleton:
    """The policy without its weights, which takes no memory: sizes, tokenizer, rendering. Raises as `load_policy` does."""
    base, family = check_policy(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        with torch.device("meta"):
            model = family.auto_model.from_config(AutoConfig.from_pretrained(base))
    except BROKEN as error:
        raise PolicyError(f"policy {path}: cannot be read ({first_line(error)}); give a complete model folder") from error
    _check_tokenizer(path, tokenizer, family)
    if settings.lora.rank or adapters.are_in(path):
        model.add_adapter(adapters.config_of(path, settings.lora))
    return PolicySkeleton(model, family.policy.renderer(tokenizer, with_templates(settings, tokenizer, family)))


def merge_adapters(path: Path, target: Path) -> None:
    """Write the model of a folder of adapters with these added to its weights. Raises PolicyError as `load_policy` does."""
    policy = load_policy(path, PolicySettings(), torch.float32, "cpu")
    base, family = check_policy(path)
    adapters.merge(family.auto_model.from_pretrained(base, dtype=torch.float32), path).save_pretrained(target)
    policy.tokenizer.save_pretrained(target)


def check_policy(path: str | Path) -> tuple[str | Path, Family]:
    """The model itself, where `path` holds adapters alone, and its family. Raises PolicyError unless we train such a model."""
    base = adapters.base_model(path) if adapters.are_in(path) else path
    try:
        config = AutoConfig.from_pretrained(base)
    except BROKEN as error:
        raise PolicyError(f"policy {base}: is no model folder or hub name ({first_line(error)}); check the path") from error
    return base, family_of(config)


def with_family_templates(path: str | None, settings: PolicySettings) -> PolicySettings:
    """The settings with their templates filled in by the family of the model at `path`; None: the small T5."""
    if path is None:
        return with_templates(settings, None, T5)
    _, family = check_policy(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except BROKEN as error:
        raise PolicyError(
            f"policy {path}: its tokenizer cannot be loaded ({first_line(error)}); give a complete folder"
        ) from error
    return with_templates(settings, tokenizer, family)


def _check_tokenizer(path: str | Path, tokenizer: PreTrainedTokenizerBase, family: Family) -> None:
    if len(tokenizer) <= family.made_up_tokens:
        raise PolicyError(f"policy {path}: has no tokenizer; put its tokenizer.json or spiece.model there")
    if not tokenizer.is_fast:
        raise PolicyError(f"policy {path}: its tokenizer tells no offsets; save it as tokenizer.json")


def _load_adapters(model: PreTrainedModel, path: str | Path, settings: PolicySettings) -> None:
    try:
        loaded = adapters.load(model, path)
    except BROKEN as error:
        raise PolicyError(
            f"policy {path}: its adapters cannot be loaded ({first_line(error)}); give a complete folder"
        ) from error
    adapters.check_wanted(path, loaded, settings.lora)
