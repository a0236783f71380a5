"""What a forward keeps for its backward pass, and that neither checkpointing nor compiling changes what is computed."""

import shutil

import pytest
import torch

from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.policy.loading import load_policy
from tests.learner.activations import batch, kept_bytes
from tests.learner.examples import ROLLOUT
from tests.rollout.tiny import SETTINGS, contexts_of, tiny_policy, with_own_head
from tests.rollout.tiny_causal import causal_policy

FAMILIES = ["fid", "llama", "gpt2"]


def policy_of(family, folder, **settings):
    """A policy as a learner with these settings prepares it; two of one family have the same weights."""
    policy = tiny_policy() if family == "fid" else causal_policy(folder, family)
    return Learner(policy, LearnerSettings(**settings), ROLLOUT, SETTINGS, {}).policy


def scores_and_gradients(policy, contexts, ids):
    weights = torch.randn(2, *ids.shape, generator=torch.Generator().manual_seed(0))
    policy.model.zero_grad()
    scores = policy.token_logprobs(contexts, ids, 0.7, entropy_gradient=True)
    (weights[0] * scores.logprobs + weights[1] * scores.entropy).sum().backward()
    return scores.logprobs.detach(), {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same(policy, plain, contexts, ids, tolerance):
    (ours, pushed), (expected, gradients) = (scores_and_gradients(p, contexts, ids) for p in (policy, plain))
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    assert pushed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (pushed[name] - gradient).abs().max() <= tolerance * gradient.abs().max(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_neither_scores_nor_gradients(family, tmp_path):
    policy, plain = policy_of(family, tmp_path, activation_checkpointing=True), policy_of(family, tmp_path)
    contexts = contexts_of(plain)
    _, ids = batch(3, 1, 1, groups=len(contexts))
    assert_same(policy, plain, contexts, ids, 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_keeps_less_than_two_thirds(family, tmp_path):
    policy, plain = policy_of(family, tmp_path, activation_checkpointing=True), policy_of(family, tmp_path)
    work = batch(4, 48, 3 if family == "fid" else 1)
    assert 0 < kept_bytes(policy, *work) < 2 / 3 * kept_bytes(plain, *work)


@pytest.mark.parametrize("family", ["fid", "llama"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_group_of_twice_the_size_keeps_far_less_than_twice(family, checkpointing, tmp_path):
    policy = policy_of(family, tmp_path, activation_checkpointing=checkpointing)
    once, twice = (kept_bytes(policy, *batch(size, 48, 3 if family == "fid" else 1)) for size in (4, 8))
    assert once < twice < 1.5 * once


@pytest.mark.parametrize(("family", "rate"), [("fid", "dropout_rate"), ("gpt2", "resid_pdrop"), ("opt", "dropout")])
def test_dropout_stays_off_with_checkpointing(family, rate, tmp_path):
    if family == "fid":
        policy = load_policy(with_own_head(tmp_path), SETTINGS, torch.float32, "cpu")
    else:
        policy = causal_policy(tmp_path, family)
    assert getattr(policy.model.config, rate) == 0.1
    contexts = contexts_of(policy)
    _, ids = batch(3, 1, 1, groups=len(contexts))
    with torch.no_grad():
        without = policy.token_logprobs(contexts, ids, 1.0).logprobs
    policy = Learner(policy, LearnerSettings(activation_checkpointing=True), ROLLOUT, SETTINGS, {}).policy
    first, second = (policy.token_logprobs(contexts, ids, 1.0).logprobs for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.detach(), without, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++, which is not here")
def test_compiled_layers_compute_the_same_for_batches_of_any_shape(tmp_path):
    policy, plain = policy_of("llama", tmp_path, compile=True), policy_of("llama", tmp_path)
    assert_same(policy, plain, *batch(3, 12, 1), 1e-4)
    assert_same(policy, plain, *batch(2, 17, 1, groups=2, length=6), 1e-4)
