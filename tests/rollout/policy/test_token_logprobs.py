"""Scores in slices against the plain computation of all logits at once."""

import pytest
import torch

from rollout.policy import token_logprobs as module
from rollout.policy.token_logprobs import sliced_logprobs

P, G, T, WIDTH, VOCABULARY = 2, 3, 4, 5, 40
TOKENS = P * G * T


def inputs():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(P, G, T, WIDTH, generator=generator).requires_grad_()
    head = torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_()
    return hidden, head, torch.randint(VOCABULARY, (P, G, T), generator=generator)


def plain(hidden, head, labels, temperature):
    logprobs = torch.log_softmax(hidden @ head.T / temperature, -1)
    return logprobs.gather(-1, labels[..., None])[..., 0], -(logprobs.exp() * logprobs).sum(-1)


def sliced(hidden, head, labels, temperature=1.0, entropy_gradient=True):
    return sliced_logprobs(hidden, labels, lambda states: states @ head.T, VOCABULARY, temperature, entropy_gradient)


def gradients(logprobs, entropy, *of):
    weights = torch.randn(2, P, G, T, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((weights[0] * logprobs + weights[1] * entropy).sum(), of)


@pytest.mark.parametrize("entropy_gradient", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("at_once", [1, 3, 7, TOKENS, 10 * TOKENS])
def test_slices_give_the_scores_and_gradients_of_the_whole(at_once, temperature, entropy_gradient, monkeypatch):
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once * VOCABULARY)
    hidden, head, labels = inputs()
    scores = sliced(hidden, head, labels, temperature, entropy_gradient)
    logprobs, entropy = plain(hidden, head, labels, temperature)
    torch.testing.assert_close(scores.logprobs, logprobs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scores.entropy, entropy, rtol=1e-6, atol=1e-6)
    assert scores.entropy.requires_grad == entropy_gradient
    expected = gradients(logprobs, entropy if entropy_gradient else entropy.detach(), hidden, head)
    torch.testing.assert_close(gradients(scores.logprobs, scores.entropy, hidden, head), expected, rtol=1e-5, atol=1e-5)


def test_fewer_logits_than_a_vocabulary_still_score_a_token_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", VOCABULARY - 1)
    hidden, head, labels = inputs()
    torch.testing.assert_close(sliced(hidden, head, labels).logprobs, plain(hidden, head, labels, 1.0)[0])


def test_without_gradients_none_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 3 * VOCABULARY)
    with torch.no_grad():
        scores = sliced(*inputs())
    assert not scores.logprobs.requires_grad and not scores.entropy.requires_grad


def kept_sizes(compute):
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        outcome = compute()
    return sizes, outcome  # alive until now, so what it keeps was counted


def test_no_logits_of_all_tokens_are_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 3 * VOCABULARY)
    hidden, head, labels = inputs()
    whole, _ = kept_sizes(lambda: plain(hidden, head, labels, 1.0))
    slices, _ = kept_sizes(lambda: sliced(hidden, head, labels))
    assert max(whole) == TOKENS * VOCABULARY
    assert slices and max(slices) < TOKENS * VOCABULARY and sum(slices) < TOKENS * VOCABULARY
