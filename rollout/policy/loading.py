"""Policies from a folder or hub name, or built small from the settings."""

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from rollout.config import PolicySettings
from rollout.errors import PolicyError, first_line
from rollout.policy.fid import FidPolicy
from rollout.policy.interface import Policy
from rollout.policy.tokenizer import EXTRA_IDS, train_tokenizer

transformers.utils.logging.disable_progress_bar()  # actors' logs are read by people

FAMILIES = {"t5": FidPolicy}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_policy(path: str | Path, settings: PolicySettings, dtype: torch.dtype, device: str) -> Policy:
    """Load model and tokenizer. Raises PolicyError if `path` is no T5 model or is incomplete."""
    check_policy(path)
    try:
        model, report = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise PolicyError(f"policy {path}: cannot be loaded ({first_line(error)}); give a complete model folder") from error
    if missing := sorted(report["missing_keys"]):
        raise PolicyError(f"policy {path}: its weights lack {missing[0]}; give a complete model folder")
    if len(tokenizer) <= EXTRA_IDS + 4:  # what transformers makes up where there is no tokenizer file
        raise PolicyError(f"policy {path}: has no tokenizer; put its tokenizer.json or spiece.model there")
    if not tokenizer.is_fast:
        raise PolicyError(f"policy {path}: its tokenizer tells no offsets; save it as tokenizer.json")
    return FAMILIES[model.config.model_type](model.to(device), tokenizer, settings)


def check_policy(path: str | Path) -> None:
    """Raise PolicyError unless `path` names a model of a type that we train."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise PolicyError(f"policy {path}: is no model folder or hub name ({first_line(error)}); check the path") from error
    if config.model_type not in FAMILIES:
        raise PolicyError(f"policy {path}: is of type {config.model_type!r}; give a model of type {', '.join(FAMILIES)}")


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
    return FidPolicy(model, tokenizer, settings)
