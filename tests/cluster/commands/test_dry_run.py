"""What a run would take: printed, not started."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from cluster.commands.dry_run import tokens
from cluster.commands.memory_estimate import memory
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.run_folder import read_settings
from cluster.training.inputs import load_inputs
from launch import main
from rollout.policy.base import Policy
from rollout.policy.causal import CausalDecodeState, CausalPolicy
from rollout.policy.decoding import Decoding
from rollout.policy.family_causal import CAUSAL
from rollout.policy.fid import EncoderCache, FidDecodeState, FidPolicy
from rollout.policy.interface import Context
from rollout.policy.loading import load_policy, skeleton
from rollout.policy.templates import with_templates
from rollout.retrieval.open import open_retriever
from rollout.sampler import Sampler
from rollout.types import Version
from tests.learner.activations import batch, kept_bytes
from tests.rollout import tiny, tiny_causal
from tests.rollout.tiny_causal import save_causal


def planned(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    capsys.readouterr()
    assert main(["train", "--dry-run", *map(str, flags)]) == 0
    return capsys.readouterr().out


def test_a_dry_run_prints_settings_actors_memory_and_tokens_and_writes_nothing(
    tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = planned(capsys, *tiny_flags, "--run_dir", tmp_path / "run", "--cluster.samplers", 3)
    assert f"run_dir: {tmp_path / 'run'}" in out and "  group_size: 4\n" in out
    assert "3 samplers                  1 CPU and a share of the GPUs there are each" in out
    assert "together                    4.5 CPU and 0 GPU, and" in out  # 3 samplers, a learner, a reward actor of half a CPU
    assert "40 examples, 0.8 times over all stages; 6 held out" in out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_the_demo_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "T5ForConditionalGeneration, 8" in planned(capsys) and list(tmp_path.iterdir()) == []


def test_a_dry_run_reads_folders_of_shards_and_tells_of_gold_that_no_passage_has(
    tiny_flags: list[str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (data_dir / "train.jsonl").read_text().splitlines()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "2.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:5]).encode()))
    rows = [json.loads(line) | {"gold": [f"gone-{n}"]} for n, line in enumerate(lines[5:9])]
    (tmp_path / "train" / "1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [tmp_path / "train" if flag == str(data_dir / "train.jsonl") else flag for flag in tiny_flags]
    assert main(["train", "--dry-run", *map(str, flags), "--run_dir", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert f"train: {tmp_path / 'train'}\n" in captured.out and "9 examples, " in captured.out
    told = "4 gold ids of 4 of 9 examples are of no passage, and left out of recall: 'gone-0', 'gone-1', 'gone-2', ..."
    assert captured.out.count(f"{tmp_path / 'train'}: {told}\n") == 1 and captured.err == ""


def test_a_dry_run_of_a_run_that_goes_on_tells_what_it_was_told(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(finished_run.rglob("*"))
    assert "9 steps" in planned(capsys, "--resume", finished_run, "--learner.steps", 9)
    assert sorted(finished_run.rglob("*")) == before


def test_memory_and_tokens_are_those_of_the_run(finished_run: Path) -> None:
    settings = read_settings(finished_run / "config.yaml")
    inputs = load_inputs(settings)
    policy = load_policy(finished_run / "policy", settings.policy, torch.float32, "cpu")
    measured = tokens(settings, policy, inputs)
    retriever = open_retriever(settings.data, settings.policy.n_context)
    groups = Sampler(policy, retriever, settings.rollout, 0).sample(inputs.train, "gold", Version(0, 0)).groups
    assert measured.context == [sum(len(row) for row in group.context_ids) for group in groups]
    assert measured.responses == 4 * 4 * 6 and measured.contexts == pytest.approx(4 * sum(measured.context) / 40, abs=1)
    assert measured.row == max(len(row) for group in groups for row in group.context_ids)
    needed = memory(settings, policy, max(measured.context), measured.row)
    held = sum(tensor.nbytes for tensor in load_file(finished_run / "policy" / "model.safetensors").values())
    assert needed.weights == needed.gradients == needed.reference == needed.sampler_weights == needed.published == held
    adam = load_file(finished_run / "checkpoints" / "latest" / "optimizer.safetensors")
    moments = sum(tensor.nbytes for name, tensor in adam.items() if "exp_avg" in name)
    assert needed.adam == moments == 2 * held


def small_model(family: str, folder: Path) -> Policy:
    """Small, and of the proportions of real ones."""
    if family.endswith("t5"):
        tokenizer = tiny.tiny_policy().tokenizer
        widths = {"d_model": 64, "d_kv": 16, "d_ff": 160, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2}
        form = "gated-gelu" if family == "gated t5" else "relu"
        config = T5Config(vocab_size=len(tokenizer), feed_forward_proj=form, **widths)
        config.decoder_start_token_id = 0
        return FidPolicy(T5ForConditionalGeneration(config), tokenizer, tiny.SETTINGS)
    tokenizer = tiny_causal.causal_policy(folder, "llama").tokenizer
    settings = with_templates(tiny_causal.SETTINGS, tokenizer, CAUSAL)
    known = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2}
    if family == "gpt2":
        return CausalPolicy(GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=3, n_head=4, **known)), tokenizer, settings)
    shape = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(num_key_value_heads=2, head_dim=16, **shape, **known)
    return CausalPolicy(LlamaForCausalLM(config), tokenizer, settings)


def work_settings(contexts: list[Context], ids: torch.Tensor, **more: str) -> Settings:
    """Of a run whose step is one micro-batch: responses int64 [P, G, T] to these contexts."""
    groups, size, length = ids.shape
    shape = {"rollout.prompts_per_step": groups, "rollout.group_size": size, "rollout.max_new_tokens": length}
    return build(Settings, {"supervised.steps": 0, "learner.token_budget": 10**6, **shape, **more})


@pytest.mark.parametrize("family", ["t5", "gated t5", "llama", "gpt2"])
@pytest.mark.parametrize(("rows", "length", "size", "responses"), [(4, 96, 2, 4), (1, 400, 2, 4), (1, 16, 8, 24)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_stay_below_their_bound_and_near_it(
    family: str, rows: int, length: int, size: int, responses: int, dtype: str, tmp_path: Path
) -> None:
    policy = small_model(family, tmp_path)
    rows, length = (rows, length) if family.endswith("t5") else (1, rows * length)
    contexts, ids = batch(size, length, rows, groups=4, length=responses)
    settings = work_settings(contexts, ids, **{"policy.dtype": dtype})
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        kept = kept_bytes(policy, contexts, ids)
    bound = memory(settings, policy, rows * length, length).activations
    assert kept <= bound < (1.5 if dtype == "float32" else 2.5) * kept


@pytest.mark.parametrize("family", ["t5", "gated t5", "llama"])
def test_checkpointed_activations_stay_below_their_bound(family: str, tmp_path: Path) -> None:
    policy = small_model(family, tmp_path)
    policy.checkpoint_activations()
    rows, length = (4, 96) if family.endswith("t5") else (1, 384)
    contexts, ids = batch(4, length, rows, groups=4, length=8)
    plain, checkpointed = (
        memory(work_settings(contexts, ids, **{"learner.activation_checkpointing": wanted}), policy, rows * length, length)
        for wanted in ("false", "true")
    )
    assert kept_bytes(policy, contexts, ids) <= checkpointed.activations < plain.activations


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_cache_is_that_of_decoding(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_model(family, tmp_path)
    rows, length = (4, 48) if family == "t5" else (1, 192)
    contexts, ids = batch(4, length, rows, groups=4, length=8)
    needed = memory(work_settings(contexts, ids), policy, rows * length, length)
    held = []

    def counting(self: Any, tokens: torch.Tensor) -> torch.Tensor:
        logits = following(self, tokens)
        held.append(sum(tensor.nbytes for tensor in tensors_in(self)))
        return logits

    decode_state = FidDecodeState if family == "t5" else CausalDecodeState
    following = decode_state.next_logits
    monkeypatch.setattr(decode_state, "next_logits", counting)
    policy.sample(contexts, 4, Decoding(8, uniforms=np.full((16, 8), 0.5)))
    assert held[0] == pytest.approx(needed.cache, rel=0.05)  # masks and positions are beside it


def tensors_in(thing: Any) -> Iterator[torch.Tensor]:
    """All that a decode_state holds, but for the policy's."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        yield from (tensor for each in thing for tensor in tensors_in(each))
    elif isinstance(thing, dict):
        yield from tensors_in(list(thing.values()))
    elif isinstance(thing, EncoderCache):
        yield from tensors_in([thing.keys, thing.values, thing.mask])
    elif hasattr(thing, "__dict__") and not isinstance(thing, Policy):
        yield from tensors_in(vars(thing))


@pytest.mark.parametrize("lora", [0, 4])
def test_a_policys_sizes_are_known_without_its_weights(lora: int, tmp_path: Path) -> None:
    save_causal(tmp_path / "model", "llama")
    settings = tiny_causal.SETTINGS.model_copy(update={"lora": tiny_causal.SETTINGS.lora.model_copy(update={"rank": lora})})
    outlined = skeleton(tmp_path / "model", settings)
    loaded = load_policy(tmp_path / "model", settings, torch.float32, "cpu")
    assert {p.device.type for p in outlined.model.parameters()} == {"meta"}
    for policies in (lambda p: p.model.parameters(), lambda p: p.trained_parameters().values()):
        assert [p.shape for p in policies(outlined)] == [p.shape for p in policies(loaded)]


def test_a_switch_is_spelled_with_a_dash_or_an_underscore(tiny_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry_run", *tiny_flags]) == 0
    assert "group_size: 4" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--dry-run=yes"], ["--dry-run", "yes"], ["--dryrun"]])
def test_a_switch_takes_no_value(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *flags]) == 2
    error = capsys.readouterr().err
    assert "dry" in error or "stands alone" in error
    assert error.count("\n") == 1


def test_a_dry_run_refuses_what_the_run_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", "--rollout.group_size", "1"]) == 2
    assert "rollout.group_size" in capsys.readouterr().err


def test_a_dry_run_counts_the_vectors_of_the_corpus_and_their_encoder(
    tiny_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = planned(capsys, *tiny_flags, "--retriever.mode", "dense", "--retriever.dtype", "float16")
    [line] = [line for line in out.splitlines() if line.startswith("vectors ")]
    passages = int(line.split(": ")[1].split()[0].replace(",", ""))
    assert line.endswith(f"{passages:,} of 128 float16") and f" {passages * 128 * 2 / 1000:.3g} KB in each node's" in line
    assert "encoder, each sampler" in out
    assert "vectors " not in planned(capsys, *tiny_flags)


def test_a_dry_run_counts_the_actors_that_hold_the_index(tiny_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = *tiny_flags, "--retriever.mode", "dense", "--retriever.index_actors", 3
    out = planned(capsys, *flags)
    assert "3 index actors              1 CPU and 0 GPU each" in out
    assert "together                    5.5 CPU and 0 GPU, and" in out  # one sampler, a learner, a reward actor of half a CPU
    assert "on disk, of which an index actor maps 1/3: " in out
