import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from rollout.errors import PolicyError
from rollout.policy.loading import check_policy, load_policy
from rollout.policy.tiny import build_tiny_policy
from tests.rollout.tiny import SETTINGS, TEXTS, tiny_policy


@pytest.fixture
def folder(tmp_path):
    tiny_policy().save(tmp_path / "policy")
    return tmp_path / "policy"


def refused(folder):
    with pytest.raises(PolicyError) as caught:
        load_policy(folder, SETTINGS, torch.float32, "cpu")
    message = str(caught.value)
    assert message.startswith(f"policy {folder}: ") and "\n" not in message and "; " in message
    return message


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_saved_policy_loads_with_the_same_weights(folder):
    loaded = load_policy(folder, SETTINGS, torch.float32, "cpu")
    assert (loaded.weights(torch.float32) == tiny_policy().weights(torch.float32)).all()
    assert not loaded.model.training


def test_the_asked_dtype_wins_over_the_files(folder):
    assert load_policy(folder, SETTINGS, torch.bfloat16, "cpu").model.dtype == torch.bfloat16
    tiny_policy().model.bfloat16().save_pretrained(folder)
    assert load_policy(folder, SETTINGS, torch.float32, "cpu").model.dtype == torch.float32


def test_tiny_policies_come_from_their_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    first = build_tiny_policy(SETTINGS, TEXTS, 0).weights(torch.float32)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert (build_tiny_policy(SETTINGS, TEXTS, 0).weights(torch.float32) == first).all()
    assert (build_tiny_policy(SETTINGS, TEXTS, 1).weights(torch.float32) != first).any()


def test_a_tiny_policy_has_the_size_of_its_settings():
    model, tiny = build_tiny_policy(SETTINGS, TEXTS, 0).model, SETTINGS.tiny
    config = model.config
    assert (config.d_model, config.d_kv, config.num_heads, config.d_ff) == (tiny.d_model, tiny.d_kv, tiny.heads, tiny.d_ff)
    assert len(model.encoder.block) == len(model.decoder.block) == tiny.layers
    assert model.shared.num_embeddings <= tiny.vocab_size


def test_a_folder_that_is_missing_or_holds_no_model_is_refused(tmp_path):
    assert "is no model folder" in refused(tmp_path / "nowhere")
    assert "is no model folder" in refused(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "no-such-type"}'])
def test_a_config_that_says_nothing_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    assert "is no model folder" in refused(folder)


def test_a_config_with_a_value_of_the_wrong_type_is_refused(folder):
    rewrite(folder / "config.json", d_model="wide")
    refused(folder)


def test_another_model_type_is_refused_before_its_weights_are_read(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    assert "is of type 'bert'; give a T5 or a causal LM" in refused(tmp_path)
    with pytest.raises(PolicyError, match="'bert'"):
        check_policy(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 5000])
def test_truncated_weights_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be loaded" in refused(folder)


def test_missing_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refused(folder)


def test_weights_of_another_size_are_refused(folder):
    rewrite(folder / "config.json", d_ff=64)
    assert "cannot be loaded" in refused(folder)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_run_no_code(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in refused(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_lack_a_tensor_are_refused(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("decoder.block.0.layer.1.EncDecAttention.k.weight")
    save_file(tensors, path, {"format": "pt"})
    refused(folder)


def test_a_missing_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(folder)


def test_a_missing_tokenizer_file_is_refused_though_its_config_is_there(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder)


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_damaged_tokenizer_is_refused(folder, content):
    (folder / "tokenizer.json").write_text(content)
    assert "cannot be loaded" in refused(folder)
