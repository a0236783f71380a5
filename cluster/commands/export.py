"""`export`: a policy as a plain transformers folder with tokenizer, generation config and model card."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from cluster.commands.model_card import model_card
from cluster.commands.policy_source import CHECKPOINT, EXPORTED_SETTINGS, PolicySource, flags_of_a_policy, open_policy
from cluster.output import print_out
from cluster.settings.tree import Settings, absolute, read_by
from cluster.settings.values import by_name, split
from cluster.training.data_fit import longest_prompt
from rollout.config import LoraSettings, PolicySettings, Section
from rollout.errors import DISK_REMEDY, CheckpointError, SettingsError, writing
from rollout.policy import adapters
from rollout.policy.base import Policy
from rollout.policy.decoding import Decoding
from rollout.policy.interface import Context
from rollout.policy.loading import load_policy, merge_adapters
from rollout.types import Passage, Response

# questions, and passages to them, that an export must answer as its checkpoint does
TRIED = (
    "what do you do in your free time ?",
    "who wrote the first book of the series ?",
    "Wie hoch war der Anteil, der 3.5 % nicht überstieg?",
)
TRIED_TOKENS = 16
DRAFT = "draft"
TOLERANCE = 1e-3  # nats a token: adding adapters to the weights rounds anew


@dataclass(frozen=True, slots=True)
class Tried:
    """What the checkpoint reads of the questions of `TRIED`, its greedy replies, and what ends these."""

    contexts: Sequence[Context]
    replies: Sequence[Response]
    end_tokens: set[int]


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
            _write_checked(opened, options.keep_adapters, Path(folder), target)
            if target.is_dir():
                target.rmdir()
            (Path(folder) / DRAFT).rename(target)
    print_out(f"wrote {target}: " + ", ".join(sorted(file.name for file in target.iterdir())))


def _write_checked(opened: PolicySource, keep_adapters: bool, place: Path, target: Path) -> None:
    """Write the draft of `target` and load it again. Raises CheckpointError unless it answers as the checkpoint does."""
    policy = load_policy(opened.path, opened.settings.policy, torch.float32, "cpu")
    tried = _tried(policy, opened.settings)
    if adapters.are_in(opened.path) and not keep_adapters:
        merge_adapters(Path(opened.path), place / "merged", opened.settings.policy.path)
        policy = load_policy(place / "merged", _without_new_adapters(opened.settings), torch.float32, "cpu")
    _write(policy, opened, place / DRAFT)
    del policy  # its memory is the next one's
    if (problem := _problem(place / DRAFT, opened, tried)) is not None:
        raise CheckpointError(
            f"{target}: is not written, for what was loaded back {problem}; give another checkpoint, or --keep-adapters"
        )


def _tried(policy: Policy, settings: Settings) -> Tried:
    contexts = _contexts(policy, settings)
    groups = policy.sample(contexts, 1, Decoding(min(TRIED_TOKENS, settings.rollout.max_new_tokens))).responses
    return Tried(contexts, [reply for [reply] in groups], set(policy.end_tokens))


def _contexts(policy: Policy, settings: Settings) -> list[Context]:
    """What a policy reads of the questions that an export is tried with."""
    passages = [Passage(id="", title="", text=text) for text in TRIED * settings.policy.n_context]
    of_each = [passages[: settings.policy.n_context]] * len(TRIED)
    return policy.contexts(TRIED, of_each, longest_prompt(settings, policy))


def _problem(draft: Path, opened: PolicySource, tried: Tried) -> str | None:
    """In what the draft, opened as an export is, is not the checkpoint."""
    base = opened.settings.policy.path
    back = open_policy(draft, {"policy.path": base} if base is not None and adapters.are_in(draft) else {})
    for name, value in _read(opened.settings).items():
        if (other := _read(back.settings)[name]) != value:
            return f"has {name} {other!r} where the checkpoint has {value!r}"
    policy = load_policy(back.path, _without_new_adapters(back.settings), torch.float32, "cpu")
    for ours, theirs in zip(_contexts(policy, back.settings), tried.contexts, strict=True):
        if len(ours) != len(theirs) or not all(map(np.array_equal, ours, theirs)):
            return "reads questions as other tokens than the checkpoint"
    if set(policy.end_tokens) != tried.end_tokens:
        return "ends replies with other tokens than the checkpoint"
    if policy.texts([reply.token_ids for reply in tried.replies]) != [reply.text for reply in tried.replies]:
        return "writes the checkpoint's replies as other text"
    off = _off(policy, tried)
    return None if off < TOLERANCE else f"gives the checkpoint's replies other log-probs (by {off:.2g})"


@torch.inference_mode()
def _off(policy: Policy, tried: Tried) -> float:
    """The largest difference of a log-prob from the checkpoint's."""
    ids = pad_sequence([torch.from_numpy(reply.token_ids).long() for reply in tried.replies], batch_first=True)[:, None]
    logprobs = policy.token_logprobs(tried.contexts, ids, temperature=1.0).logprobs[:, 0].numpy()
    of_each = [own[: len(reply.token_ids)] - reply.sampler_logprobs for own, reply in zip(logprobs, tried.replies, strict=True)]
    return float(np.abs(np.concatenate(of_each)).max())


def _without_new_adapters(settings: Settings) -> PolicySettings:
    """Those in a folder are enough."""
    return settings.policy.with_values(lora=LoraSettings())


def _read(settings: Settings) -> dict[str, Any]:
    """What is read of a policy's settings, by name, without the policy, which is what is written."""
    of_policy = set(read_by("export")) - {"policy.path"}
    return {name: value for name, value in by_name(settings).items() if name in of_policy}


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
    read = yaml.safe_dump(_read(opened.settings), sort_keys=False, allow_unicode=True)
    (folder / EXPORTED_SETTINGS).write_text(read, encoding="utf-8")
    (folder / "README.md").write_text(model_card(policy, opened), encoding="utf-8")
