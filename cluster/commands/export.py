"""`export`: a policy as a plain transformers folder with tokenizer, generation config and model card."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from pydantic import Field
from transformers import GenerationConfig

from cluster.commands.model_card import model_card
from cluster.commands.policy_source import (
    CHECKPOINT,
    EXPORTED_SETTINGS,
    PolicySource,
    flags_of_a_policy,
    open_policy,
    read_by,
)
from cluster.output import print_out
from cluster.settings.tree import absolute
from cluster.settings.values import by_name, split
from rollout.config import Section
from rollout.errors import DISK_REMEDY, CheckpointError, SettingsError, writing
from rollout.policy import adapters
from rollout.policy.base import Policy
from rollout.policy.loading import load_policy, merge_adapters


class ExportOptions(Section):
    checkpoint: Path = Field(description=CHECKPOINT)
    to: Path = Field(description="folder to write; it must not exist, or be empty")
    keep_adapters: bool = Field(False, description="leave LoRA adapters as they are, do not add them to the weights")


def export(argv: Sequence[str]) -> None:
    """A policy as a plain transformers folder: weights, tokenizer, generation config, and a model card."""
    given = flags_of_a_policy("export", export.__doc__, ExportOptions, argv)
    options, values = split(ExportOptions, given)
    target = absolute(options.to)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target}: is {'not empty' if target.is_dir() else 'a file'}; give another folder with --to")
    opened = open_policy(options.checkpoint, values)
    if options.keep_adapters and not adapters.are_in(opened.path):
        raise SettingsError(f"keep_adapters: {opened.path} holds no adapters; leave it out")
    with writing(target, DISK_REMEDY):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            source, merged, draft = opened.path, Path(folder) / "merged", Path(folder) / "draft"
            if adapters.are_in(source) and not options.keep_adapters:
                merge_adapters(Path(source), merged)
                source = str(merged)
            _write(load_policy(source, opened.settings.policy, torch.float32, "cpu"), opened, draft)
            if target.is_dir():
                target.rmdir()
            draft.rename(target)
    print_out(f"wrote {target}: " + ", ".join(sorted(file.name for file in target.iterdir())))


def _write(policy: Policy, opened: PolicySource, folder: Path) -> None:
    """The generation config is what evaluation decodes with: nothing of the base model's own, such as a repetition penalty."""
    policy.model.generation_config = GenerationConfig(
        max_new_tokens=opened.settings.rollout.max_new_tokens,
        do_sample=False,
        num_beams=1,
        bos_token_id=policy.model.generation_config.bos_token_id,
        decoder_start_token_id=policy.start_token,
        eos_token_id=policy.end_tokens,
        pad_token_id=policy.tokenizer.pad_token_id,
    )
    policy.save(folder)
    policy.model.generation_config.save_pretrained(folder)  # a folder of adapters comes without
    of_policy = read_by("export")
    read = {name: value for name, value in by_name(opened.settings).items() if name in of_policy}
    (folder / EXPORTED_SETTINGS).write_text(yaml.safe_dump(read, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / "README.md").write_text(model_card(policy, opened), encoding="utf-8")
