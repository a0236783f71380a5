"""LoRA adapters: the low-rank matrices that are trained in place of a model's weights, by peft."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from rollout.config import LoraSettings
from rollout.errors import PolicyError, SettingsError, first_line

CONFIG, BASE = "adapter_config.json", "base_model_name_or_path"


def are_in(path: str | Path) -> bool:
    return (Path(path) / CONFIG).is_file()


def base_model(path: str | Path) -> str:
    """Folder or hub name of the model that the adapters in `path` belong to."""
    config = Path(path) / CONFIG
    try:
        return json.loads(config.read_text(encoding="utf-8"))[BASE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{config}: names no base model ({first_line(error)}); give a complete adapter folder") from error


def add(model: PreTrainedModel, lora: LoraSettings) -> None:
    """New adapters that change nothing yet: drawn alike in every process, since only the trained ones travel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_adapter(_config(lora))


def share_base(one: Path, other: Path) -> bool:
    """Whether both folders hold adapters, and of one model, by the name they had when they were written."""
    return are_in(one) and are_in(other) and base_model(one) == base_model(other)


def load(model: PreTrainedModel, path: str | Path) -> LoraConfig:
    """Put those in `path` into their model, to be trained on. Saved again they name its place of now."""
    model.requires_grad_(False)
    model.load_adapter(str(path), is_trainable=True)
    [loaded] = model.peft_config.values()
    loaded.base_model_name_or_path = model.name_or_path
    return loaded


def check_wanted(path: str | Path, loaded: LoraConfig, wanted: LoraSettings) -> None:
    """Raise SettingsError where the settings ask for others than those in `path`."""
    if wanted.rank and (wanted.rank, wanted.alpha) != (loaded.r, loaded.lora_alpha):
        raise SettingsError(
            f"policy.lora: {path} holds adapters of rank {loaded.r} and alpha {loaded.lora_alpha:g}; "
            "leave policy.lora out, or give a model without adapters"
        )


def config_of(path: str | Path, lora: LoraSettings) -> LoraConfig:
    """That of the adapters in `path`, or of the new ones that the settings ask for."""
    return LoraConfig.from_pretrained(path) if are_in(path) else _config(lora)


def merge(model: PreTrainedModel, path: Path) -> PreTrainedModel:
    """The model with the adapters in `path` added to its weights."""
    return PeftModel.from_pretrained(model, str(path)).merge_and_unload()


def _config(lora: LoraSettings) -> LoraConfig:
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")
