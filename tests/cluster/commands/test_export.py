"""A policy taken away as a plain transformers folder."""

import errno
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from cluster.commands.export import export
from cluster.commands.model_card import _code, _evaluation, _stages, _told
from cluster.commands.policy_source import PolicySource
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.checkpoint import RunState
from cluster.store.run_folder import RunFolder
from launch import main
from rollout.config import LoraSettings
from rollout.policy.base import Policy
from rollout.policy.loading import load_policy
from rollout.setting_tags import ModelCard, tagged
from tests.cluster.runs import rows
from tests.rollout import tiny, tiny_causal
from tests.rollout.tiny_causal import save_causal


def test_an_exported_policy_replies_as_the_sampler_does_to_one_passage(
    finished_run: Path, data_dir: Path, tmp_path: Path
) -> None:
    replies = tmp_path / "replies.jsonl"
    flags = ["--data", data_dir / "valid.jsonl", "--passages", data_dir / "passages.jsonl", "--limit", 6]
    flags += ["--policy.n_context", 1, "--predictions", replies, "--output", tmp_path / "figures.json"]
    assert main(["evaluate", "--checkpoint", str(finished_run), *map(str, flags)]) == 0
    assert main(["export", "--checkpoint", str(finished_run), "--to", str(tmp_path / "taken")]) == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "taken")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "taken")
    for row in rows(replies):
        [passage] = row["passages"]
        query = f"dialog with R's persona: {row['question']} R:"
        text = f"{query} story title: {passage['title']} story: {passage['text']}"
        ids = model.generate(**tokenizer(text, return_tensors="pt"))
        assert tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip() == row["prediction"]


def test_the_model_card_tells_data_settings_evaluation_and_the_floor(
    finished_run: Path, data_dir: Path, tmp_path: Path
) -> None:
    export(["--checkpoint", str(finished_run), "--to", str(tmp_path / "taken")])
    card = (tmp_path / "taken" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "text2text-generation"
    assert "base_model" not in front and "embedded demo" not in card
    assert str(data_dir / "train.jsonl") in card and "| `rollout.group_size` | `4` |" in card
    last = rows(finished_run / "evaluations.jsonl")[-1]
    floor = last["constant_reply"]
    low, high = last["intervals"]["f1"]
    assert f"| f1 | {last['f1']:.2f} | {low:.2f} – {high:.2f} | {floor['f1']:.2f} |" in card and floor["text"] in card
    assert "`learner.surrogate`" not in card and "`policy.prompt_template`" not in card  # defaults, resolved
    assert "by supervised learning to step 4, by Group Relative Policy Optimization to step 8." in card
    assert "2 passages at once" in card and "with 2 retrieved passages a question" in card
    assert f"transformers {transformers.__version__} and torch {torch.__version__}." in card
    assert "EMNLP 2023" in card and "arXiv:2402.03300" in card


def test_the_model_card_states_the_algorithm_whether_it_is_the_default_or_not(finished_run: Path, tmp_path: Path) -> None:
    export(["--checkpoint", str(finished_run), "--to", str(tmp_path / "taken"), "--policy.n_context", "1"])
    card = (tmp_path / "taken" / "README.md").read_text()
    told = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", card, re.M)
    values = dict(told)
    always = {name for name, tag in tagged(Settings, ModelCard) if tag.always}
    assert always < set(values) and len(told) == len(values)
    assert values["policy.path"] == "from scratch" and values["learner.loss"] == '`"grpo"`'
    assert values["learner.kl_coef"] == "`0.04`" and values["rollout.temperature"] == "`1.0`"
    assert values["policy.n_context"] == "`2`"  # that of training: the export reads one


def test_the_model_card_names_the_base_model_of_the_hub_and_says_that_the_demo_is_made_up(
    finished_run: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(finished_run / "checkpoints" / "latest", tmp_path / "moved" / "step-8")
    settings = yaml.safe_load((checkpoint / "config.yaml").read_text())
    settings["policy"]["path"] = "google/flan-t5-small"
    settings["data"] |= {name: f"{finished_run}/data/{name}.jsonl" for name in ("train", "valid", "passages")}
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(settings))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["config.yaml"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    export(["--checkpoint", str(checkpoint), "--to", str(tmp_path / "taken")])
    card = (tmp_path / "taken" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "google/flan-t5-small"
    assert "embedded demo, a synthetic world" in card and '| `policy.path` | `"google/flan-t5-small"` |' in card


def test_the_model_card_tells_other_losses_and_switches_without_effect() -> None:
    settings = build(Settings, {"learner.loss": "reinforce", "learner.steps": 3, "supervised.steps": 5}).as_used()
    assert dict(_told(settings)).items() >= {"learner.eps_low": "no effect", "learner.kl_coef": "`0.0`"}.items()
    assert [_stages(settings, step) for step in (0, 2, 6)] == [
        "no step yet",
        "by supervised learning to step 2",
        "by supervised learning to step 5, by REINFORCE to step 6",
    ]


def test_replies_and_settings_cannot_break_the_cards_tables() -> None:
    assert _code("a | b\nc") == "`a \\| b c`"


def test_decoding_is_that_of_the_evaluation_whatever_the_base_model_decodes_with(tmp_path: Path) -> None:
    save_causal(tmp_path / "model", "llama")
    theirs = GenerationConfig(repetition_penalty=1.3, do_sample=True, top_k=5, eos_token_id=[1, 2], suppress_tokens=[7])
    theirs.save_pretrained(tmp_path / "model")
    export(["--checkpoint", str(tmp_path / "model"), "--to", str(tmp_path / "taken")])
    ours = GenerationConfig.from_pretrained(tmp_path / "taken")
    assert ours.repetition_penalty is None and ours.suppress_tokens is None and ours.do_sample is False
    assert set(ours.eos_token_id) >= {1, 2} and ours.max_new_tokens == 32


def test_a_checkpoint_without_its_run_is_exported_without_an_evaluation(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "checkpoints" / "latest", tmp_path / "moved" / "step-8")
    export(["--checkpoint", str(tmp_path / "moved" / "step-8"), "--to", str(tmp_path / "taken")])
    assert "No evaluation of step 8 is known." in (tmp_path / "taken" / "README.md").read_text()


def test_the_lines_of_the_card_run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(["--checkpoint", str(finished_run), "--to", str(tmp_path / "taken")])
    monkeypatch.chdir(tmp_path / "taken")
    found = re.search(r"```python\n(.*?)```", (tmp_path / "taken" / "README.md").read_text(), re.DOTALL)
    assert found is not None
    exec(found[1], {})


def test_a_causal_policy_is_exported_with_the_lines_that_its_family_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(tmp_path / "model", "llama")
    export(["--checkpoint", str(tmp_path / "model"), "--to", str(tmp_path / "taken"), "--rollout.max_new_tokens", "5"])
    assert json.loads((tmp_path / "taken" / "generation_config.json").read_text())["max_new_tokens"] == 5
    card = (tmp_path / "taken" / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "without a run" in card and "## Training" not in card
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "text-generation"
    monkeypatch.chdir(tmp_path / "taken")
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found is not None
    exec(found[1], {})


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_adapters_are_added_to_the_weights_unless_they_are_to_be_kept(family: str, tmp_path: Path) -> None:
    if family == "t5":
        tiny.tiny_policy().save(tmp_path / "base")
    else:
        save_causal(tmp_path / "base", family)
    settings = (tiny if family == "t5" else tiny_causal).SETTINGS.model_copy(update={"lora": LoraSettings(rank=4)})
    policy = load_policy(tmp_path / "base", settings, torch.float32, "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    policy.save(tmp_path / "adapters")
    for flags, name in (([], "merged"), (["--keep-adapters"], "kept")):
        export(["--checkpoint", str(tmp_path / "adapters"), "--to", str(tmp_path / name), *flags])
    assert (tmp_path / "kept" / "adapter_config.json").exists() and not (tmp_path / "merged" / "adapter_config.json").exists()
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 40, (2, 7)))
    arguments = {"input_ids": ids, **({"decoder_input_ids": ids} if family == "t5" else {})}
    with torch.no_grad():
        plain, merged, kept = (
            auto.from_pretrained(tmp_path / name).eval()(**arguments).logits for name in ("base", "merged", "kept")
        )
    torch.testing.assert_close(merged, kept, atol=1e-4, rtol=1e-4)
    assert (merged - plain).abs().max() > 1e-2


def test_a_run_with_adapters_is_exported_as_a_model_that_needs_none(
    train_locally: Callable[..., Path], data_dir: Path, tmp_path: Path
) -> None:
    save_causal(tmp_path / "base", "llama")
    (tmp_path / "train.jsonl").write_text('{"question": "you ?", "answers": ["i love to bake ."]}\n' * 8)
    data = ["--data.train", tmp_path / "train.jsonl", "--data.valid", "null", "--data.passages", "null", "--eval_every", 0]
    lora = ["--policy.path", tmp_path / "base", "--policy.lora.rank", 2, "--policy.prompt_template", "{question}"]
    run = train_locally(
        "--supervised.steps", 2, "--supervised.lr", "0.05", "--learner.steps", 1, "--policy.n_context", 0, *data, *lora
    )
    export(["--checkpoint", str(run), "--to", str(tmp_path / "merged")])
    export(["--checkpoint", str(run), "--to", str(tmp_path / "kept"), "--keep-adapters"])
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        base, merged, kept = (
            AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()(ids).logits for name in ("base", "merged", "kept")
        )
    torch.testing.assert_close(merged, kept, atol=1e-4, rtol=1e-4)
    assert (merged - base).abs().max() > 1e-2


def damage_weights(policy: Policy, folder: Path) -> None:
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[5] += 1.0
    policy.model.save_pretrained(folder)


def rotate_vocabulary(policy: Policy, folder: Path) -> None:
    change_json(folder / "tokenizer.json", lambda file: file["model"].update(vocab=rotated(file["model"]["vocab"])))


def rotated(vocabulary: dict[str, int]) -> dict[str, int]:
    first, *ids = vocabulary.values()
    return dict(zip(vocabulary, [*ids, first], strict=True))


def join_words(policy: Policy, folder: Path) -> None:
    change_json(folder / "tokenizer.json", lambda file: file.update(decoder={"type": "Fuse"}))


def word_turns_otherwise(policy: Policy, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(tiny_causal.CHAT.replace("<assistant>", "<system>"))


def name_another_end(policy: Policy, folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", lambda file: file.update(eos_token="<user>"))


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_weights, "gives the checkpoint's replies other log-probs (by "),
        (rotate_vocabulary, "reads questions as other tokens than the checkpoint"),
        (word_turns_otherwise, "reads questions as other tokens than the checkpoint"),
        (join_words, "writes the checkpoint's replies as other text"),
        (name_another_end, "ends replies with other tokens than the checkpoint"),
    ],
)
def test_an_export_that_answers_otherwise_than_its_checkpoint_is_not_written(
    damage: Callable[[Policy, Path], None],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_causal(tmp_path / "model", "llama")
    save = Policy.save

    def damaged(policy: Policy, folder: Path) -> None:
        save(policy, folder)
        damage(policy, folder)

    monkeypatch.setattr(Policy, "save", damaged)
    assert main(["export", "--checkpoint", str(tmp_path / "model"), "--to", str(tmp_path / "taken")]) == 2
    assert f"taken: is not written, for what was loaded back {problem}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_an_export_whose_settings_are_read_back_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_causal(tmp_path / "model", "llama")
    monkeypatch.setattr("cluster.commands.export.EXPORTED_SETTINGS", "other.yaml")
    flags = ["--policy.prompt_template", "{question} now"]
    assert main(["export", "--checkpoint", str(tmp_path / "model"), "--to", str(tmp_path / "taken"), *flags]) == 2
    assert "has policy.prompt_template '{question}' where the checkpoint has '{question} now'" in capsys.readouterr().err


@pytest.mark.parametrize("bound", [[], ["--data.max_prompt_tokens", "96", "--data.too_long", "cut"]])
def test_questions_that_an_export_is_tried_with_are_cut_to_what_the_model_reads(bound: list[str], tmp_path: Path) -> None:
    save_causal(tmp_path / "model", "gpt2", chat=False)  # of 128 positions
    export(["--checkpoint", str(tmp_path / "model"), "--to", str(tmp_path / "taken"), "--policy.n_context", "12", *bound])
    assert (tmp_path / "taken" / "lapdog.yaml").is_file()


def test_the_card_tells_the_newest_evaluation_of_a_step_that_was_measured_twice(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for row in (
        {"step": 2, "measure": "b", "f1": 1.0},
        {"step": 3, "measure": "a", "f1": 2.0},
        {"step": 4, "measure": "a", "f1": 3.0},
        {"step": 4, "measure": "b", "f1": 4.0},
    ):
        folder.append(folder.evaluations, row)
    told = {}
    for step in (2, 3, 4, 5):
        source = PolicySource(folder.checkpoints / f"step-{step}", "", RunState(step=step), Settings())
        told[step] = (_evaluation(source) or {}).get("f1")
    assert told == {2: 1.0, 3: 2.0, 4: 4.0, 5: None}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--to", "FULL"], "full: is not empty; give another folder with --to"),
        (["--to", "x", "--keep-adapters"], "holds no adapters; leave it out"),
        (["--to", "FULL/config.json"], "config.json: is a file; give another folder with --to"),
        (["--to", "x", "--policy.path", "y"], "policy holds no adapters, which alone need another model; leave it out"),
        ([], "to: is missing; give it"),
        (["--to", "x", "--checkpoint", "nowhere"], "nowhere: no such checkpoint"),
    ],
)
def test_a_mistake_in_an_export_is_one_line(
    flags: list[str],
    expected: str,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run / "policy", tmp_path / "full")
    capsys.readouterr()
    given = ["--checkpoint", str(finished_run), *[flag.replace("FULL", str(tmp_path / "full")) for flag in flags]]
    assert main(["export", *given]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1 and not (tmp_path / "x").exists()


def test_chat_reads_an_export_as_it_reads_the_checkpoint(
    train_locally: Callable[..., Path], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    template = ["--policy.prompt_template", "{question} says:", "--policy.n_context", "1", "--data.query", "last_turn"]
    run = train_locally("--supervised.steps", 1, "--learner.steps", 1, "--data.valid", "null", "--eval_every", 0, *template)
    export(["--checkpoint", str(run), "--to", str(tmp_path / "taken")])
    said = []
    for checkpoint in (run, tmp_path / "taken"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("who is my friend ?\nwhat did my cousin do ?\n"))
        capsys.readouterr()
        assert main(["chat", "--checkpoint", str(checkpoint), "--passages", str(data_dir / "passages.jsonl")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 4
    settings = yaml.safe_load((tmp_path / "taken" / "lapdog.yaml").read_text())
    assert settings["policy.prompt_template"] == "{question} says:" and settings["data.query"] == "last_turn"


def test_an_export_that_fails_leaves_nothing(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cluster.commands.export.model_card", full)
    assert main(["export", "--checkpoint", str(finished_run), "--to", str(tmp_path / "taken")]) == 2
    expected = f"error: {tmp_path / 'taken'}: cannot be written (No space left on device); make room or mend the rights\n"
    assert capsys.readouterr().err == expected and list(tmp_path.iterdir()) == []
