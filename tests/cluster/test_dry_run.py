"""What a run would take: printed, not started."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluster.inputs import load_inputs
from cluster.plan import memory, tokens
from cluster.run_folder import read_settings
from launch import main
from rollout.policy.loading import load_policy, outline
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.types import Version
from tests.rollout import tiny_causal
from tests.rollout.tiny_causal import save_causal


def planned(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["train", "--dry-run", *map(str, flags)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_dry_run_prints_settings_actors_memory_and_tokens_and_writes_nothing(
    tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = planned(capsys, *tiny_flags, "--run_dir", tmp_path / "run", "--cluster.samplers", 3)
    assert f"run_dir: {tmp_path / 'run'}" in out and "  group_size: 4\n" in out
    assert "3 sampler                   1 CPU and a share of the GPUs there are each" in out
    assert "together                    4.5 CPU" in out  # 3 samplers, a learner, a reward actor of half a CPU
    assert "40 examples, 0.8 times over all stages; 6 held out" in out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_the_demo_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "T5ForConditionalGeneration, 8" in planned(capsys) and list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_run_that_goes_on_tells_what_it_was_told(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(finished_run.rglob("*"))
    assert "9 steps" in planned(capsys, "--resume", finished_run, "--learner.steps", 9)
    assert sorted(finished_run.rglob("*")) == before


def test_memory_and_tokens_are_those_of_the_run(finished_run: Path) -> None:
    settings = read_settings(finished_run / "config.yaml")
    inputs = load_inputs(settings)
    policy = load_policy(finished_run / "policy", settings.policy, torch.float32, "cpu")
    measured = tokens(settings, policy, inputs)
    retriever = Retriever(
        Corpus.open(settings.data.passages, settings.data.cache), settings.data.query, settings.policy.n_context
    )
    groups = Sampler(policy, retriever, settings.rollout, 0).groups(inputs.train, "gold", Version(0, 0))
    assert measured.context == [sum(len(row) for row in group.context_ids) for group in groups]
    assert measured.responses == 4 * 4 * 6 and measured.contexts == pytest.approx(4 * sum(measured.context) / 40, abs=1)
    needed = memory(settings, policy, sum(measured.context) / 40)
    held = sum(tensor.nbytes for tensor in load_file(finished_run / "policy" / "model.safetensors").values())
    assert needed.weights == needed.gradients == needed.reference == needed.sampler_weights == needed.published == held
    adam = load_file(finished_run / "checkpoints" / "latest" / "optimizer.safetensors")
    moments = sum(tensor.nbytes for name, tensor in adam.items() if "exp_avg" in name)
    assert needed.adam == moments == 2 * held


@pytest.mark.parametrize("lora", [0, 4])
def test_a_policys_sizes_are_known_without_its_weights(lora: int, tmp_path: Path) -> None:
    save_causal(tmp_path / "model", "llama")
    settings = tiny_causal.SETTINGS.model_copy(update={"lora": tiny_causal.SETTINGS.lora.model_copy(update={"rank": lora})})
    outlined = outline(tmp_path / "model", settings)
    loaded = load_policy(tmp_path / "model", settings, torch.float32, "cpu")
    assert {p.device.type for p in outlined.model.parameters()} == {"meta"}
    for policies in (lambda p: p.model.parameters(), lambda p: p.trained_parameters()):
        assert [p.shape for p in policies(outlined)] == [p.shape for p in policies(loaded)]


def test_a_dry_run_refuses_what_the_run_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", "--rollout.group_size", "1"]) == 2
    assert "rollout.group_size" in capsys.readouterr().err
