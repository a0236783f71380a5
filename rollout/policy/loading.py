"""Policies from a folder or hub name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.quantizers import AutoHfQuantizer

from rollout.config import PolicySettings
from rollout.errors import PolicyError
from rollout.policy import adapters
from rollout.policy.base import Policy
from rollout.policy.families import family_of
from rollout.policy.family import Family
from rollout.policy.family_t5 import T5
from rollout.policy.interface import Context
from rollout.policy.model_files import BROKEN, COMPLETE, check_vocabulary, read_config, read_tokenizer, unreadable
from rollout.policy.rendering import Renderer
from rollout.policy.templates import with_templates
from rollout.types import Passage

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class PolicySkeleton:
    """A policy whose model has shapes and no values: what it reads and how large it is."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer

    @property
    def positions(self) -> int | None:
        return family_of(self.model.config).positions(self.model.config)

    def contexts(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]], longest: int | None = None
    ) -> list[Context]:
        return self.renderer.contexts(questions, passages, longest)

    def unsayable(self, answers: Sequence[str]) -> list[bool]:
        return self.renderer.unsayable(answers)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def load_policy(path: str | Path, settings: PolicySettings, dtype: torch.dtype, device: str) -> Policy:
    """Load model and tokenizer, and adapters where the folder holds them or the settings ask for new ones.

    The model of adapters is that of `policy.path`, where the settings name one. Raises PolicyError if `path` is no model that
    we train, or is incomplete.
    """
    base, family = check_policy(path, settings.path)
    tokenizer = read_tokenizer(path, family)
    try:
        model, report = family.auto_model.from_pretrained(
            base, dtype=dtype, output_loading_info=True, weights_only=True, trust_remote_code=False
        )
    except BROKEN as error:
        raise unreadable(path, "cannot be loaded", error) from error
    if missing := sorted(report["missing_keys"]):
        raise PolicyError(f"policy {path}: its weights lack {missing[0]}; {COMPLETE}")
    check_vocabulary(path, tokenizer, model.get_input_embeddings().num_embeddings)
    if adapters.are_in(path):
        _load_adapters(model, path, settings)
    elif settings.lora.rank:
        adapters.add(model, settings.lora)
    return family.policy(model.to(device), tokenizer, with_templates(settings, tokenizer, family))


def skeleton(path: str | Path, settings: PolicySettings) -> PolicySkeleton:
    """The policy without its weights, which takes no memory: sizes, tokenizer, rendering. Raises as `load_policy` does."""
    base, family = check_policy(path, settings.path)
    tokenizer = read_tokenizer(path, family)
    try:
        with torch.device("meta"):
            model = family.auto_model.from_config(read_config(base), trust_remote_code=False)
    except BROKEN as error:
        raise unreadable(path, "cannot be read", error) from error
    check_vocabulary(path, tokenizer, model.get_input_embeddings().num_embeddings)
    _untie_head(model, base)
    if settings.lora.rank or adapters.are_in(path):
        model.add_adapter(adapters.config_of(path, settings.lora))
    renderer = family.policy.renderer(tokenizer, with_templates(settings, tokenizer, family))
    return PolicySkeleton(model, tokenizer, renderer)


def merge_adapters(path: Path, target: Path, model_of: str | None = None) -> None:
    """Write the model of a folder of adapters, as `check_policy` finds it, with these added to its weights.

    Raises PolicyError as `load_policy` does.
    """
    policy = load_policy(path, PolicySettings(path=model_of), torch.float32, "cpu")
    base, family = check_policy(path, model_of)
    model = family.auto_model.from_pretrained(base, dtype=torch.float32, weights_only=True, trust_remote_code=False)
    adapters.merge(model, path).save_pretrained(target)
    policy.tokenizer.save_pretrained(target)


def check_policy(path: str | Path, model_of: str | None = None) -> tuple[str | Path, Family]:
    """The model itself, where `path` holds adapters alone, and its family. Raises PolicyError unless we train such a model.

    model_of: folder or hub name of a policy whose model it is, for the one that the adapters name may have been moved.
    """
    if not adapters.are_in(path):
        return path, family_of(read_config(path))
    if model_of is not None and model_of != str(path):
        return check_policy(model_of)
    base = adapters.base_model(path)
    return base, family_of(read_config(base))


def check_trainable(path: str | Path, adapted: bool) -> None:
    """adapted: by adapters alone. Raises PolicyError for a model that could be read and not be trained: of quantised weights
    nothing but adapters can be."""
    base, _ = check_policy(path)
    quantised = getattr(read_config(base), "quantization_config", None)
    if quantised is None:
        return
    kind = (quantised if isinstance(quantised, dict) else quantised.to_dict()).get("quant_method", "in an unknown way")
    if not (adapted or adapters.are_in(path)):
        remedy = "set policy.lora.rank, or give the model unquantised"
        raise PolicyError(f"policy {path}: its weights are quantised ({kind}), which only adapters can be trained on; {remedy}")
    try:
        AutoHfQuantizer.from_config(quantised, pre_quantized=True).validate_environment(device_map=None)
    except BROKEN as error:
        problem = f"its weights are quantised ({kind}) and cannot be loaded here"
        raise unreadable(path, problem, error, "give the model unquantised") from error


def tokenizer_of(path: str | Path, settings: PolicySettings) -> PreTrainedTokenizerBase:
    """As `load_policy` has it, without the model. Raises as that does."""
    _, family = check_policy(path, settings.path)
    return read_tokenizer(path, family)


def with_family_templates(path: str | None, settings: PolicySettings) -> PolicySettings:
    """The settings with their templates filled in by the family of the model at `path`; None: the small T5."""
    if path is None:
        return with_templates(settings, None, T5)
    _, family = check_policy(path, settings.path)
    return with_templates(settings, tokenizer_of(path, settings), family)


def _untie_head(model: PreTrainedModel, base: str | Path) -> None:
    """A T5's head is its own where its config says so, though transformers ties all that are built from a config."""
    told, _ = PretrainedConfig.get_config_dict(base)
    head, shared = model.get_output_embeddings(), model.get_input_embeddings()
    if told.get("tie_word_embeddings") is False and head.weight is shared.weight:
        head.weight = torch.nn.Parameter(torch.empty_like(shared.weight))


def _load_adapters(model: PreTrainedModel, path: str | Path, settings: PolicySettings) -> None:
    try:
        loaded = adapters.load(model, path)
    except BROKEN as error:
        raise unreadable(path, "its adapters cannot be loaded", error, "give a complete folder") from error
    adapters.check_wanted(path, loaded, settings.lora)
