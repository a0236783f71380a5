"""Models as folders hold them, through the commands: what is refused before work is done, what a run writes down."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch

from cluster.settings.tree import Settings
from cluster.settings.yaml_file import read_yaml
from cluster.store.run_folder import RunFolder
from cluster.training.stop_signals import short_grace
from launch import main
from tests.cluster.runs import rows, without_tiny
from tests.rollout.tiny_causal import save_causal
from tests.rollout.tiny_chat import CHATML, LLAMA3, QWEN3, save_chat
from tests.rollout.tiny_t5s import SAVED

DRY, LOCAL = ["train", "--dry-run"], ["train", "--local"]
BRIEF = {"policy.n_context": 0, "supervised.steps": 1, "learner.steps": 1, "rollout.max_new_tokens": 4}


def flags(**settings: object) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name.replace('__', '.')}", str(value))]


@pytest.fixture(scope="session")
def tiny_flags(tiny_flags: list[str]) -> list[str]:
    return without_tiny(tiny_flags)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def told(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions that a person at a terminal would see; the answer is yes."""
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "y")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    return questions


def test_a_job_that_could_not_be_saved_in_time_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 million parameters of four copies, 16 GB, take 80 s: as long again is left for the step."""
    monkeypatch.setattr("cluster.training.stop_signals.BYTES", 4e9 / 1e6)
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)

    class Million:
        def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
            return {"a": torch.nn.Parameter(torch.zeros(1000, 1000))}

    [text] = short_grace(Million(), Settings())  # type: ignore[arg-type]
    assert text.startswith("a checkpoint takes about 16.0 GB, which a job that is stopped may not write within 3 s; submit it")
    assert text.endswith("""--runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "180"}}'""")
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "180")
    assert short_grace(Million(), Settings()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["model", "tokenizer"])
def test_a_folders_own_code_is_never_run_nor_asked_about(
    of: str, tmp_path: Path, tiny_flags: list[str], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_causal(tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: ...\n")
    if of == "model":
        told(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    else:
        path = folder / "tokenizer_config.json"
        own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    commands = [DRY + tiny_flags + flags(policy__path=folder), ["chat", "--checkpoint", str(folder)]]
    commands += [["export", "--checkpoint", str(folder), "--to", str(tmp_path / "taken")]]
    remedy = "which is never run; give a model that transformers knows"
    for command in commands:
        assert error_of(capsys, *command) == f"error: policy {folder}: needs code that it brings itself, {remedy}\n"
    assert asked == [] and not (tmp_path / "ran").exists()


def test_a_folder_that_brings_code_for_a_model_that_transformers_knows_is_read_by_transformers(
    tmp_path: Path, tiny_flags: list[str], asked: list[str]
) -> None:
    folder = told(save_causal(tmp_path / "model"), auto_map={"AutoModelForCausalLM": "own.Own"})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "train.jsonl").write_text('{"question": "yes ?", "answers": ["well ."]}\n')
    settings = flags(policy__path=folder, policy__n_context=0, data__train=tmp_path / "train.jsonl", supervised__steps=1)
    assert main([*DRY, *settings]) == 0 and asked == [] and not (tmp_path / "ran").exists()


def test_quantised_weights_are_refused_unless_adapters_can_be_trained_on_them_here(
    tmp_path: Path, tiny_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = told(save_causal(tmp_path / "model"), quantization_config={"quant_method": "gptq", "bits": 4})
    model = [*DRY, *tiny_flags, *flags(policy__path=folder)]
    assert "its weights are quantised (gptq), which only adapters can be trained on; set policy.lora.rank" in error_of(
        capsys, *model
    )
    assert f"policy {folder}: needs the package optimum" in error_of(capsys, *model, *flags(policy__lora__rank=4))
    reference = [*DRY, *tiny_flags, *flags(learner__reference_path=folder)]
    assert "(gptq), which only adapters" in error_of(capsys, *reference)


def test_a_prompt_beyond_the_positions_is_named_in_a_dry_run_and_a_run(
    tmp_path: Path, tiny_flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = told(save_chat(tmp_path / "model", CHATML), max_position_embeddings=64)
    for command in (DRY, LOCAL):
        error = error_of(capsys, *command, *tiny_flags, *flags(policy__path=folder, run_dir=tmp_path / "run"))
        assert "data.train: the prompt of example" in error and "the model reads 58 beside a response of 6" in error
    assert not (tmp_path / "run").exists()


def test_evaluate_holds_its_examples_against_the_model_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = save_causal(tmp_path / "gpt2", "gpt2", chat=False), tmp_path / "valid.jsonl"
    data.write_text(json.dumps({"id": "b", "question": " ".join(["which pet ?"] * 40), "answers": ["a parrot"]}) + "\n")
    flags = "evaluate", "--checkpoint", str(model), "--data", str(data), "--policy.n_context", "0", "--data.language", "en"
    named = f"error: {data}: the prompt of example 'b' has 121 tokens, and the model reads 96 beside a response of 32; "
    assert error_of(capsys, *flags).startswith(named)
    bounded = error_of(capsys, *flags, "--data.max_prompt_tokens", "50")
    assert f"error: {data}: 1 of 1 examples are left out, whose prompts exceed data.max_prompt_tokens 50" in bounded
    assert "exceed the model's 128 positions; give 96 or fewer" in error_of(capsys, *flags, "--data.max_prompt_tokens", "97")


def test_what_is_left_out_and_what_cannot_be_said_is_told_at_start_in_a_dry_run_and_in_the_report(
    tmp_path: Path, tiny_flags: list[str], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SAVED["mt5"](tmp_path / "model")
    lines = [json.dumps({"question": "yes ?", "answers": ["well"]}) + "\n"] * 8
    lines += ['{"question": "no ?", "answers": ["{no}"]}\n', json.dumps({"question": "oh " * 99, "answers": ["oh"]}) + "\n"]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    settings = [*tiny_flags, *flags(policy__path=folder, data__train=tmp_path / "train.jsonl", data__max_prompt_tokens=64)]
    settings += flags(
        **{name.replace(".", "__"): value for name, value in BRIEF.items()},
        data__valid="null",
        data__passages="null",
        eval_every=0,
    )
    out = "data.train: 1 of 10 examples are left out, whose prompts exceed data.max_prompt_tokens 64; the first, 'line-10' has"
    lost = "1 of 9 gold answers of data.train (11.1%) have characters that the model cannot say; the first is '{no}'"
    assert main([*DRY, *settings]) == 0
    said = capsys.readouterr().out
    assert out in said and lost in said and "9 examples" in said
    assert main([*LOCAL, *settings, *flags(run_dir=tmp_path / "run")]) == 0
    events = [row["text"] for row in rows(tmp_path / "run" / "events.jsonl")]
    assert events[1].startswith(out) and events[2] == lost
    assert lost in (tmp_path / "run" / "report.html").read_text()
    assert main([*LOCAL, "--resume", str(tmp_path / "run"), "--learner.steps", "2"]) == 0
    assert sum(row["text"] == lost for row in rows(tmp_path / "run" / "events.jsonl")) == 1


def test_a_run_keeps_the_day_that_its_template_writes_and_hands_it_on(
    train_locally: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, day = save_chat(tmp_path / "model", LLAMA3), str(datetime.now().date())
    settings = {name: value for name, value in BRIEF.items()} | {"policy.path": folder}
    brief = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    assert f"template_date: '{day}'" in (train_locally(*brief) / "config.yaml").read_text()
    run = train_locally(*brief, "--policy.template_date", "2025-03-09")
    assert read_yaml(RunFolder(run).path / "config.yaml", Settings)["policy.template_date"] == "2025-03-09"
    assert main(["export", "--checkpoint", str(run), "--to", str(tmp_path / "taken")]) == 0
    assert "policy.template_date: '2025-03-09'" in (tmp_path / "taken" / "lapdog.yaml").read_text()
    assert "which was 2025-03-09 in training" in (tmp_path / "taken" / "README.md").read_text()
    ends = json.loads((tmp_path / "taken" / "generation_config.json").read_text())["eos_token_id"]
    assert len(ends) == 2


def test_arguments_of_a_template_are_flags_and_stand_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_chat(tmp_path / "model", QWEN3)
    export = ["export", "--checkpoint", str(folder), "--to"]
    assert main([*export, str(tmp_path / "a"), "--policy.chat_template_args", "{enable_thinking: false}"]) == 0
    assert "add_generation_prompt=True, enable_thinking=False)" in (tmp_path / "a" / "README.md").read_text()
    assert "does not read 'thinking'; it reads enable_thinking" in error_of(
        capsys, *export, str(tmp_path / "b"), "--policy.chat_template_args", "{thinking: false}"
    )
    assert "is not YAML; give a mapping" in error_of(
        capsys, *export, str(tmp_path / "b"), "--policy.chat_template_args", "{a: "
    )
    assert "policy.chat_template_args: 'a' is refused" in error_of(
        capsys, *export, str(tmp_path / "b"), "--policy.chat_template_args", "a"
    )
