"""What all policies share: equal responses are computed once, and what a frozen copy holds of its own."""

import shutil

import numpy as np
import pytest
import torch

from rollout.policy.fid import FidPolicy
from rollout.policy.ragged import distinct_responses
from tests.rollout.tiny import SETTINGS, contexts_of, tiny_policy
from tests.rollout.tiny_causal import causal_policy


@pytest.fixture(params=["fid", "llama"])
def policy(request, tmp_path):
    """Made by its own constructor: a copy would hide what is bound to the original."""
    if request.param == "fid":
        return FidPolicy(tiny_policy().model, tiny_policy().tokenizer, SETTINGS)
    return causal_policy(tmp_path, request.param)


def restored(distinct, places):
    return distinct[torch.arange(len(places))[:, None], places]


def test_equal_responses_of_a_group_collapse_and_groups_stay_apart():
    ids = torch.tensor([[[5, 6], [3, 0], [5, 6]], [[3, 0], [3, 0], [3, 0]]])
    distinct, places = distinct_responses(ids)
    assert distinct.tolist() == [[[3, 0], [5, 6]], [[3, 0], [0, 0]]]  # the second group has but one, and is filled up
    assert places.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert torch.equal(restored(distinct, places), ids)


def test_every_response_is_found_again_at_its_place():
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (9, 7, 3)))
    distinct, places = distinct_responses(ids)
    assert distinct.shape[1] == max(len({tuple(row) for row in group}) for group in ids.tolist()) < 7
    assert torch.equal(restored(distinct, places), ids)


def test_where_all_differ_the_very_same_tensor_is_returned():
    ids = torch.tensor([[[5, 6], [3, 0]], [[7, 7], [7, 7]]])  # in one group they do
    distinct, places = distinct_responses(ids)
    assert distinct is ids and places.tolist() == [[0, 1], [0, 1]]


def test_equal_responses_score_and_push_as_if_they_stood_apart(policy):
    contexts = contexts_of(policy)[:2]
    ids = torch.tensor([[[5, 6, 1], [7, 8, 9], [5, 6, 1], [5, 6, 1]], [[4, 4, 1], [4, 4, 1], [9, 3, 1], [4, 4, 1]]])
    assert distinct_responses(ids)[0].shape == (2, 2, 3)
    weights = torch.randn(2, *ids.shape, generator=torch.Generator().manual_seed(0))

    def gradients(logprobs, entropy):
        policy.model.zero_grad()
        (weights[0] * logprobs + weights[1] * entropy).sum().backward()
        return {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    together = policy.token_logprobs(contexts, ids, 0.7, entropy_gradient=True)
    one_by_one = [policy.token_logprobs(contexts, ids[:, g : g + 1], 0.7, entropy_gradient=True) for g in range(4)]
    logprobs, entropy = torch.cat([s.logprobs for s in one_by_one], 1), torch.cat([s.entropy for s in one_by_one], 1)
    torch.testing.assert_close(together.logprobs, logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.entropy, entropy, rtol=1e-5, atol=1e-5)
    apart = gradients(logprobs, entropy)
    for name, gradient in gradients(together.logprobs, together.entropy).items():
        assert (gradient - apart[name]).abs().max() <= 1e-5 * apart[name].abs().max(), name


def test_a_frozen_copy_shares_what_is_not_trained_and_copies_what_is():
    whole = tiny_policy()
    whole.model.encoder.requires_grad_(False)
    policy = FidPolicy(whole.model, whole.tokenizer, SETTINGS)
    frozen = policy.frozen_copy()
    own = dict(frozen.model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(own[name], parameter) and not own[name].requires_grad, name
        assert (own[name].data_ptr() != parameter.data_ptr()) == (name in policy.trained) == parameter.requires_grad, name
    assert 0 < len(policy.trained) < len(own)
    with torch.no_grad():
        policy.trained_parameters()[policy.trained[0]].add_(1)
    assert not torch.equal(own[policy.trained[0]], policy.trained_parameters()[policy.trained[0]])


COMPILED = pytest.param(
    "compile", marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")]
)


@pytest.fixture(params=["eval", "checkpoint_activations", COMPILED])
def prepared(policy, request):
    """As a learner prepares it."""
    if request.param != "eval":
        getattr(policy, request.param)()
    return policy


def logprobs_of(policy, contexts):
    ids = torch.tensor([[[5, 6, 1], [7, 8, 9]]] * len(contexts))
    return policy.token_logprobs(contexts, ids, 0.7).logprobs


def test_a_frozen_copy_computes_as_before_whatever_becomes_of_the_policy(prepared):
    contexts, frozen = contexts_of(prepared), prepared.frozen_copy()
    before = logprobs_of(frozen, contexts)
    with torch.no_grad():
        for parameter in prepared.model.parameters():
            parameter.fill_(0.5)
    assert not torch.equal(logprobs_of(prepared, contexts), before)
    for name in vars(prepared):
        setattr(prepared, name, None)
    assert torch.equal(logprobs_of(frozen, contexts), before)
