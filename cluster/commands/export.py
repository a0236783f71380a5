"""`export`: a policy as a plain transformers folder with tokenizer, generation config and model card."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

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
from rollout.config import LoraSettings, Section
from rollout.errors import DISK_REMEDY, CheckpointError, SettingsError, writing
from rollout.policy import adapters
from rollout.policy.base import Policy
from rollout.policy.decoding import Decoding
from rollout.policy.interface import Context
from rollout.policy.loading import load_policy, merge_adapters
from rollout.types import Passage, Response

# questions, and passages to them, that each export must answer as its checkpoint does
TRIED = (
    "what do you do in your free time ?",
    "who wrote the first book of the series ?",
    "Wie hoch war der Anteil, der 3.5 % nicht überstieg?",
)
TRIED_TOKENS = 16
DRAFT = "draft"
TOLERANCE = 1e-3  # nats a token: adding adapters to the weights rounds anew


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
    contexts, replies = _replies(policy, opened.settings)
    without = opened.settings.policy.with_values(lora=LoraSettings())  # those in the folder are enough
    if adapters.are_in(opened.path) and not keep_adapters:
        merge_adapters(Path(opened.path), place / "merged", opened.settings.policy.path)
        policy = load_policy(place / "merged", without, torch.float32, "cpu")
    _write(policy, opened, place / DRAFT)
    del policy  # its memory is the next one's
    _check_replies(load_policy(place / DRAFT, without, torch.float32, "cpu"), contexts, replies, target)


def _replies(policy: Policy, settings: Settings) -> tuple[list[Context], list[Response]]:
    """What a policy reads of the questions that an export is tried with, and its greedy replies."""
    passages = [Passage(id="", title="", text=text) for text in TRIED * settings.policy.n_context]
    contexts = policy.contexts(TRIED, [passages[: settings.policy.n_context]] * len(TRIED))
    groups = policy.sample(contexts, 1, Decoding(min(TRIED_TOKENS, settings.rollout.max_new_tokens))).responses
    return contexts, [reply for [reply] in groups]


@torch.inference_mode()
def _check_replies(policy: Policy, contexts: Sequence[Context], replies: Sequence[Response], target: Path) -> None:
    """Raise CheckpointError unless what was written gives the checkpoint's replies the log-probs that the checkpoint gave."""
    ids = pad_sequence([torch.from_numpy(reply.token_ids).long() for reply in replies], batch_first=True)[:, None]
    logprobs = policy.token_logprobs(contexts, ids, temperature=1.0).logprobs[:, 0].numpy()
    for own, reply in zip(logprobs, replies, strict=True):
        off = np.abs(own[: len(reply.token_ids)] - reply.sampler_logprobs).max()
        if not off < TOLERANCE:
            raise CheckpointError(
                f"{target}: is not written, for what was loaded back gives the checkpoint's replies other log-probs "
                f"(by {off:.2g}); give another checkpoint, or --keep-adapters"
            )


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
    of_policy = set(read_by("export")) - {"policy.path"}  # what is written is the policy
    read = {name: value for name, value in by_name(opened.settings).items() if name in of_policy}
    (folder / EXPORTED_SETTINGS).write_text(yaml.safe_dump(read, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / "README.md").write_text(model_card(policy, opened), encoding="utf-8")
