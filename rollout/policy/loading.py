"""Policies from a folder or hub name, or built small from the settings."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from rollout.config import LoraSettings, PolicySettings
from rollout.errors import PolicyError, SettingsError, first_line
from rollout.policy.causal import CausalPolicy
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Policy
from rollout.policy.rendering import CausalRenderer, FidRenderer, Renderer
from rollout.policy.templates import with_templates
from rollout.policy.tokenizer import EXTRA_IDS, train_tokenizer
from rollout.types import Passage

transformers.utils.logging.disable_progress_bar()  # actors' logs are read by people

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CAUSAL = (  # encoders and encoder-decoders have a causal variant too
    set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    - set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    - set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
)
ADAPTER_CONFIG = "adapter_config.json"
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

    def contexts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[tuple[np.ndarray, ...]]:
        return self.renderer.contexts(questions, passages)

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def load_policy(path: str | Path, settings: PolicySettings, dtype: torch.dtype, device: str) -> Policy:
    """Load model and tokenizer, and adapters where the folder holds them or the settings ask for new ones.

    Raises PolicyError if `path` is no model that we train, or is incomplete.
    """
    base = check_policy(path)
    is_t5 = _is_t5(base)
    auto = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(base, dtype=dtype, output_loading_info=True, weights_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except BROKEN as error:
        raise PolicyError(f"policy {path}: cannot be loaded ({first_line(error)}); give a complete model folder") from error
    if missing := sorted(report["missing_keys"]):
        raise PolicyError(f"policy {path}: its weights lack {missing[0]}; give a complete model folder")
    _check_tokenizer(path, tokenizer, is_t5)
    if str(base) != str(path):
        _load_adapters(model, path, settings.lora)
    elif settings.lora.rank:
        _add_adapters(model, settings.lora)
    model = model.to(device)
    settings = with_templates(settings, tokenizer, is_t5)
    return FidPolicy(model, tokenizer, settings) if is_t5 else CausalPolicy(model, tokenizer, settings)


def skeleton(path: str | Path, settings: PolicySettings) -> PolicySkeleton:
    """The policy without its weights, which takes no memory: sizes, tokenizer, rendering. Raises as `load_policy` does."""
    base = check_policy(path)
    is_t5 = _is_t5(base)
    auto = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        with torch.device("meta"):
            model = auto.from_config(AutoConfig.from_pretrained(base))
    except BROKEN as error:
        raise PolicyError(f"policy {path}: cannot be read ({first_line(error)}); give a complete model folder") from error
    _check_tokenizer(path, tokenizer, is_t5)
    if settings.lora.rank or has_adapters(path):
        lora = LoraConfig.from_pretrained(path) if has_adapters(path) else _lora_config(settings.lora)
        model.add_adapter(lora)
    settings = with_templates(settings, tokenizer, is_t5)
    return PolicySkeleton(model, FidRenderer(tokenizer, settings) if is_t5 else CausalRenderer(tokenizer, settings))


def has_adapters(path: str | Path) -> bool:
    return (Path(path) / ADAPTER_CONFIG).is_file()


def merge_adapters(path: Path, target: Path) -> None:
    """Write the model of a folder of adapters with these added to its weights. Raises PolicyError as `load_policy` does."""
    policy = load_policy(path, PolicySettings(), torch.float32, "cpu")
    auto = AutoModelForSeq2SeqLM if isinstance(policy, FidPolicy) else AutoModelForCausalLM
    model = auto.from_pretrained(check_policy(path), dtype=torch.float32)
    PeftModel.from_pretrained(model, str(path)).merge_and_unload().save_pretrained(target)
    policy.tokenizer.save_pretrained(target)


def check_policy(path: str | Path) -> str | Path:
    """The model itself, where `path` holds adapters alone. Raises PolicyError unless it is of a type that we train."""
    base = _base(path)
    try:
        config = AutoConfig.from_pretrained(base)
    except BROKEN as error:
        raise PolicyError(f"policy {base}: is no model folder or hub name ({first_line(error)}); check the path") from error
    if config.model_type != "t5" and config.model_type not in CAUSAL:
        raise PolicyError(f"policy {base}: is of type {config.model_type!r}; give a T5 or a causal LM")
    return base


def resolved(path: str | None, settings: PolicySettings) -> PolicySettings:
    """The settings with their templates filled in by the family of the model at `path`; None: the small T5."""
    if path is None:
        return with_templates(settings, None, is_t5=True)
    base = check_policy(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except BROKEN as error:
        raise PolicyError(
            f"policy {path}: its tokenizer cannot be loaded ({first_line(error)}); give a complete folder"
        ) from error
    return with_templates(settings, tokenizer, _is_t5(base))


def build_tiny_policy(settings: PolicySettings, texts: Iterable[str], seed: int) -> Policy:
    """A small T5 with random weights drawn from `seed` and a tokenizer trained on `texts`."""
    tiny = settings.tiny
    tokenizer = train_tokenizer(texts, tiny.vocab_size)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=tiny.d_model,
        d_kv=tiny.d_kv,
        d_ff=tiny.d_ff,
        num_layers=tiny.layers,
        num_heads=tiny.heads,
        decoder_start_token_id=tokenizer.pad_token_id,
        dropout_rate=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    return FidPolicy(model, tokenizer, with_templates(settings, tokenizer, is_t5=True))


def _is_t5(base: str | Path) -> bool:
    return AutoConfig.from_pretrained(base).model_type == "t5"


def _base(path: str | Path) -> str | Path:
    """`path`, or the model that the adapters in it belong to."""
    if not has_adapters(path):
        return path
    config = Path(path) / ADAPTER_CONFIG
    try:
        return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{config}: names no base model ({first_line(error)}); give a complete adapter folder") from error


def _check_tokenizer(path: str | Path, tokenizer: PreTrainedTokenizerBase, is_t5: bool) -> None:
    if len(tokenizer) <= 4 + EXTRA_IDS * is_t5:  # what transformers makes up where there is no tokenizer file
        raise PolicyError(f"policy {path}: has no tokenizer; put its tokenizer.json or spiece.model there")
    if not tokenizer.is_fast:
        raise PolicyError(f"policy {path}: its tokenizer tells no offsets; save it as tokenizer.json")


def _add_adapters(model: PreTrainedModel, lora: LoraSettings) -> None:
    """New adapters that change nothing yet: drawn alike in every process, since only the trained ones travel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_adapter(_lora_config(lora))


def _lora_config(lora: LoraSettings) -> LoraConfig:
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")


def _load_adapters(model: PreTrainedModel, path: str | Path, wanted: LoraSettings) -> None:
    try:
        model.requires_grad_(False)
        model.load_adapter(str(path), is_trainable=True)
        [loaded] = model.peft_config.values()
        rank, alpha = loaded.r, loaded.lora_alpha
    except BROKEN as error:
        raise PolicyError(
            f"policy {path}: its adapters cannot be loaded ({first_line(error)}); give a complete folder"
        ) from error
    if wanted.rank and (wanted.rank, wanted.alpha) != (rank, alpha):
        raise SettingsError(
            f"policy.lora: {path} holds adapters of rank {rank} and alpha {alpha:g}; "
            "leave policy.lora out, or give a model without adapters"
        )
