"""A model is known by what its files say, not by its place."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rollout.config import LoraSettings
from rollout.errors import PolicyError
from rollout.policy.loading import load_policy
from rollout.policy.model_digest import model_digest
from tests.rollout.tiny_causal import SETTINGS, save_causal


def test_a_copy_has_the_same_digest_whatever_lies_beside(tmp_path: Path) -> None:
    one = save_causal(tmp_path / "one")
    other = shutil.copytree(one, tmp_path / "other")
    (other / "README.md").write_text("a card")
    (other / "._config.json").write_text("what macOS adds")
    (other / "pytorch_model.bin").write_text("weights that are not read beside the others")
    assert model_digest(one) == model_digest(str(other))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_any_file_that_is_read_changes_it(name: str, tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    before = model_digest(folder)
    file = folder / name
    file.write_bytes(file.read_bytes() + b" ")
    assert model_digest(folder) != before
    file.rename(folder / f"renamed-{name}")
    assert model_digest(folder) != before


def test_adapters_are_known_with_their_model_wherever_it_lies(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base")
    settings = SETTINGS.model_copy(update={"lora": LoraSettings(rank=2)})
    load_policy(base, settings, torch.float32, "cpu").save(tmp_path / "adapters")
    before, config = model_digest(tmp_path / "adapters"), tmp_path / "adapters" / "adapter_config.json"
    base.rename(tmp_path / "moved")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "moved")}))
    assert model_digest(tmp_path / "adapters") == before
    save_causal(tmp_path / "moved", seed=1)
    assert model_digest(tmp_path / "adapters") != before


def test_a_name_of_the_hub_is_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, commit = tmp_path / "models--some--model", "0123456789abcdef0123456789abcdef01234567"
    folder = save_causal(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert model_digest("some/model") == model_digest(folder)
    with pytest.raises(PolicyError, match="policy some/other: its files cannot be fetched .*; check the path"):
        model_digest("some/other")
