"""A new family is one object and its registration: a toy one is loaded, worded, measured, trained and sampled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.config import PolicySettings
from rollout.errors import PolicyError, SettingsError
from rollout.policy import families
from rollout.policy.families import FAMILIES, family_of
from rollout.policy.family import Lengths
from rollout.policy.family_causal import CAUSAL
from rollout.policy.family_t5 import T5
from rollout.policy.fid import FidPolicy
from rollout.policy.loading import check_policy, load_policy, merge_adapters, skeleton, with_family_templates
from rollout.policy.templates import DEFAULT_TEMPLATES
from tests.learner.examples import ROLLOUT, check_trained_and_saved
from tests.rollout import tiny_causal
from tests.rollout.tiny import SETTINGS, contexts_of, sampled, tiny_policy


class ToyConfig(T5Config):
    model_type = "toy-t5"


class ToyForConditionalGeneration(T5ForConditionalGeneration):
    config_class = ToyConfig


class ToyPolicy(FidPolicy):
    """Begins its responses with the end token, as BART does."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.start_token = self.end_tokens[0]


AutoConfig.register("toy-t5", ToyConfig)
AutoModelForSeq2SeqLM.register(ToyConfig, ToyForConditionalGeneration)
TOY = replace(
    T5,
    name="toy",
    model_types={"toy-t5"},
    policy=ToyPolicy,
    templates={**T5.templates, "prompt_template": "toy: {question}"},
    footprint=lambda config, lengths: replace(T5.footprint(config, lengths), cached=config.d_model),
)


@pytest.fixture
def folder(tmp_path):
    policy = tiny_policy()
    config = ToyConfig(**{name: value for name, value in policy.model.config.to_dict().items() if name != "model_type"})
    model = ToyForConditionalGeneration(config)
    model.load_state_dict(policy.model.state_dict())
    model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, TOY))


@pytest.mark.parametrize("loads", [check_policy, lambda path: load_policy(path, SETTINGS, torch.float32, "cpu")])
def test_a_family_that_is_not_registered_is_refused(folder, loads):
    with pytest.raises(PolicyError, match="is of type 'toy-t5'; give a T5 or a causal LM"):
        loads(folder)


def test_settings_know_every_familys_templates():
    of_families = [templates for each in FAMILIES for templates in (each.templates, each.chat_templates) if templates]
    assert all(templates in DEFAULT_TEMPLATES for templates in of_families)


def test_models_find_their_families(tmp_path):
    assert family_of(T5Config()) is T5
    for name in ("llama", "gpt2", "opt", "qwen3"):
        assert family_of(tiny_causal.config(name, 40)) is CAUSAL


def test_a_registered_family_loads_and_samples(folder, registered):
    policy = load_policy(folder, SETTINGS, torch.float32, "cpu")
    assert type(policy) is ToyPolicy and policy.start_token == policy.end_tokens[0] == 1
    ours, t5 = sampled(policy), tiny_policy()
    assert [r.text for group in ours for r in group] != [r.text for group in sampled(t5) for r in group]
    t5.start_token = 1
    assert [r.text for group in ours for r in group] == [r.text for group in sampled(t5) for r in group]


def test_a_registered_family_trains_and_comes_back(folder, registered, tmp_path):
    learner = Learner(load_policy(folder, SETTINGS, torch.float32, "cpu"), LearnerSettings(kl_coef=0.1), ROLLOUT, SETTINGS, {})
    check_trained_and_saved(learner, tmp_path / "saved")
    again = load_policy(tmp_path / "saved" / "policy", SETTINGS, torch.float32, "cpu")
    assert type(again) is ToyPolicy and (again.weights(torch.float32) == learner.weights().values).all()


def test_a_registered_family_takes_adapters(folder, registered, tmp_path):
    settings = SETTINGS.model_copy(update={"lora": SETTINGS.lora.model_copy(update={"rank": 2})})
    policy = load_policy(folder, settings, torch.float32, "cpu")
    policy.save(tmp_path / "adapters")
    merge_adapters(tmp_path / "adapters", tmp_path / "merged")
    assert type(load_policy(tmp_path / "merged", SETTINGS, torch.float32, "cpu")) is ToyPolicy


def test_a_registered_familys_templates_are_the_defaults_and_are_checked(folder, registered):
    filled = with_family_templates(str(folder), PolicySettings())
    assert (filled.prompt_template, filled.passage_template) == ("toy: {question}", T5.templates["passage_template"])
    with pytest.raises(SettingsError, match=r"lacks \{query\}; a toy reads each passage with the query"):
        with_family_templates(str(folder), PolicySettings(passage_template="{text}"))


def test_a_registered_familys_skeleton_reads_the_same_tokens_and_is_measured(folder, registered):
    outline, policy = skeleton(folder, SETTINGS), load_policy(folder, SETTINGS, torch.float32, "cpu")
    for ours, theirs in zip(contexts_of(outline), contexts_of(policy), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    config = outline.model.config
    assert family_of(config).footprint(config, Lengths(context=9, row=4, response=2, group=8)).cached == config.d_model


def test_footprints_by_hand():
    lengths = Lengths(context=10, row=5, response=3, group=6)
    t5 = T5Config(d_model=4, d_kv=3, num_heads=2, d_ff=7, num_layers=2, num_decoder_layers=1)  # i = 6, ReLU
    encoder, decoder = 6 * 4 + 4 * 6 + 7 + 2 * 5, 9 * 4 + 6 * 6 + 7 + 2 * 3
    held = T5.footprint(t5, lengths)
    assert (held.cached, held.once) == (2 * 6, 2 * 5 * 5)
    assert held.kept == max(2 * encoder + 12, decoder) + 16 == 158
    assert held.checkpointed == 2 * 4 + 12 + max(encoder, decoder) + 16 == 121
    llama = tiny_causal.config("llama", 40)  # 2 layers of 4 heads, 2 of keys, 32 wide; 48 in the feed-forward
    layer = 6 * 32 + 6 * 32 + 4 * 48 + 10 + 6
    held = CAUSAL.footprint(llama, lengths)
    assert (held.cached, held.once) == (2 * 2 * 16, 0)
    assert (held.kept, held.checkpointed) == (2 * layer + 128, 64 + layer + 128)
