"""Low-rank adapters: they alone are trained, travel and are saved; the model beneath them stays as it is."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.config import LoraSettings
from rollout.errors import PolicyError, SettingsError
from rollout.policy.loading import load_policy
from tests.learner.examples import RL, ROLLOUT, groups_of
from tests.rollout import tiny, tiny_causal
from tests.rollout.tiny import contexts_of, tiny_policy
from tests.rollout.tiny_causal import save_causal

LORA = LoraSettings(rank=4)
PLAIN = {family: tiny.SETTINGS if family == "t5" else tiny_causal.SETTINGS for family in ("t5", "llama", "gpt2")}
SETTINGS = {family: plain.model_copy(update={"lora": LORA}) for family, plain in PLAIN.items()}


@pytest.fixture(params=SETTINGS)
def family(request):
    return request.param


@pytest.fixture
def folder(family, tmp_path):
    """The model beneath the adapters."""
    if family == "t5":
        tiny_policy().save(tmp_path / "base")
    else:
        save_causal(tmp_path / "base", family)
    return tmp_path / "base"


def loaded(folder, settings):
    return load_policy(folder, settings, torch.float32, "cpu")


def changed(policy):
    """The same with adapters that do something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return policy


def logprobs(policy):
    contexts = contexts_of(policy)
    ids = np.random.default_rng(0).integers(3, 40, (len(contexts), 2, 4))
    with torch.no_grad():
        return policy.token_logprobs(contexts, torch.from_numpy(ids), 1.0).logprobs


def base_of(policy):
    return {name: p for name, p in policy.model.named_parameters() if name not in policy.trained}


def new_learner(policy, settings):
    learner = Learner(policy, LearnerSettings(), ROLLOUT, settings, {})
    learner.begin(RL)
    return learner


def test_the_adapters_alone_are_trained_and_travel(folder, family):
    policy = loaded(folder, SETTINGS[family])
    adapters = [p for name, p in policy.model.named_parameters() if "lora_" in name]
    assert policy.trained and all("lora_" in name for name in policy.trained)
    assert policy.weights(torch.float32).size == sum(p.numel() for p in adapters)
    assert policy.weights(torch.float32).size < sum(p.numel() for p in base_of(policy).values()) / 2
    assert not any(p.requires_grad for p in base_of(policy).values())


def test_fresh_adapters_change_nothing_and_others_do(folder, family):
    plain, policy = loaded(folder, PLAIN[family]), loaded(folder, SETTINGS[family])
    assert torch.equal(logprobs(policy), logprobs(plain))
    assert (logprobs(changed(policy)) - logprobs(plain)).abs().max() > 0.01


def test_every_load_draws_the_same_adapters_and_leaves_torchs_generator_alone(folder, family):
    torch.manual_seed(1)
    first = loaded(folder, SETTINGS[family])
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    second = loaded(folder, SETTINGS[family])
    assert torch.equal(torch.rand(1), expected)
    assert first.trained == second.trained and first.weights(torch.float32).any()
    assert (first.weights(torch.float32) == second.weights(torch.float32)).all()


def test_what_travels_makes_another_load_the_same_policy(folder, family):
    policy, other = changed(loaded(folder, SETTINGS[family])), loaded(folder, SETTINGS[family])
    assert not torch.equal(logprobs(other), logprobs(policy))
    other.load_weights(policy.weights(torch.float32))
    assert torch.equal(logprobs(other), logprobs(policy))


def test_saved_adapters_load_as_the_same_policy(folder, family, tmp_path):
    policy = changed(loaded(folder, SETTINGS[family]))
    policy.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    for settings in (SETTINGS[family], PLAIN[family]):  # the folder tells that there are adapters
        again = loaded(tmp_path / "saved", settings)
        assert torch.equal(logprobs(again), logprobs(policy))
        assert again.trained == policy.trained
        assert (again.weights(torch.float32) == policy.weights(torch.float32)).all()
        assert not any(p.requires_grad for p in base_of(again).values())


def test_saved_adapters_are_a_folder_that_transformers_loads(folder, family, tmp_path):
    policy = changed(loaded(folder, SETTINGS[family]))
    policy.save(tmp_path / "saved")
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    theirs, ours = auto.from_pretrained(tmp_path / "saved").eval(), copy.deepcopy(policy.model)
    if family != "t5":
        ours.set_attn_implementation("sdpa")  # the policy's own wants to know the prompts' tree
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    if family == "t5":
        inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(**inputs).logits, ours(**inputs).logits, rtol=0, atol=0)


def test_damaged_adapters_are_refused(folder, family, tmp_path):
    loaded(folder, SETTINGS[family]).save(tmp_path / "saved")
    path = tmp_path / "saved" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PolicyError, match="its adapters cannot be loaded"):
        loaded(tmp_path / "saved", SETTINGS[family])


def test_adapters_of_another_rank_than_the_settings_are_refused(folder, family, tmp_path):
    loaded(folder, SETTINGS[family]).save(tmp_path / "saved")
    for lora in (LoraSettings(rank=8), LoraSettings(rank=4, alpha=1)):
        with pytest.raises(SettingsError, match="policy.lora: .* holds adapters of rank 4 and alpha 32; leave policy.lora out"):
            loaded(tmp_path / "saved", PLAIN[family].model_copy(update={"lora": lora}))


def test_a_given_reference_has_no_adapters_and_is_restored_whole(folder, family, tmp_path):
    loaded(folder, PLAIN[family]).save(tmp_path / "reference")
    settings = LearnerSettings(reference_path=str(tmp_path / "reference"))
    learner = Learner(loaded(folder, SETTINGS[family]), settings, ROLLOUT, SETTINGS[family], {})
    learner.begin(RL)
    learner.save(tmp_path / "saved")
    (tmp_path / "reference").rename(tmp_path / "gone")
    learner.restore(tmp_path / "saved", RL)
    assert not any("lora_" in name for name, _ in learner.reference.model.named_parameters())
    given = loaded(folder, PLAIN[family])
    assert (learner.reference.weights(torch.float32) == given.weights(torch.float32)).all()


def test_an_update_moves_the_adapters_and_neither_the_model_nor_the_reference(folder, family):
    learner = new_learner(loaded(folder, SETTINGS[family]), SETTINGS[family])
    policy, reference = learner.policy, learner.reference
    before, base = policy.weights(torch.float32), {name: p.clone() for name, p in base_of(policy).items()}
    metrics, _ = learner.update(groups_of(learner), 1)
    assert metrics.skipped == 0 and metrics.grad_norm > 0
    assert (policy.weights(torch.float32) != before).any()
    assert (reference.weights(torch.float32) == before).all()
    for name, parameter in base_of(policy).items():
        assert torch.equal(parameter, base[name]) and parameter.grad is None, name
        assert base_of(reference)[name].data_ptr() == parameter.data_ptr(), name
    assert not {p.data_ptr() for p in reference.trained_parameters().values()} & {
        p.data_ptr() for p in policy.trained_parameters().values()
    }


def test_a_restored_learner_goes_on_bit_for_bit(folder, family, tmp_path):
    learner = new_learner(loaded(folder, SETTINGS[family]), SETTINGS[family])
    batches = [groups_of(learner, epoch) for epoch in range(2)]
    learner.update(batches[0], 1)
    learner.save(tmp_path / "saved")
    restored = Learner(loaded(folder, SETTINGS[family]), LearnerSettings(), ROLLOUT, SETTINGS[family], {})
    restored.restore(tmp_path / "saved", RL)
    assert (restored.weights().values == learner.weights().values).all()
    expected, _ = learner.update(batches[1], 2)
    for name, parameter in base_of(restored.policy).items():
        assert base_of(restored.reference)[name].data_ptr() == parameter.data_ptr(), name
    metrics, _ = restored.update(batches[1], 2)
    assert replace(metrics, peak_memory_mb=0.0) == replace(expected, peak_memory_mb=0.0)
    assert metrics.kl > 0
    assert (restored.weights().values == learner.weights().values).all()
