import ast
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from learner import advantage, loss
from learner.loss import LossStatistics, LossSwitches, kl_divergence, policy_loss, token_weights

ONE = torch.tensor([1.0])


def one_token(ratio, advantage, switches=None, reference=None):
    """Loss and statistics of a single token that the policy finds `ratio` times as probable as the sampler did."""
    sampler = torch.tensor([[-2.0]])
    policy = sampler + math.log(ratio)
    reference = None if reference is None else torch.tensor([[reference]])
    mask = torch.tensor([[True]])
    return policy_loss(policy, sampler, reference, torch.tensor([advantage]), ONE, mask, switches or LossSwitches())


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "clipped"),
    [
        (1.1, 2.0, -2.2, 0),  # inside
        (1.5, 2.0, -2.6, 1),  # above 1 + 0.3, and better than expected: no more pull upwards
        (1.5, -2.0, 3.0, 0),  # above, but worse than expected: pulled back in full
        (0.5, 2.0, -1.0, 0),  # below, but better than expected: pulled back in full
        (0.5, -2.0, 1.6, 1),  # below 1 - 0.2, and worse than expected: no more push downwards
        (0.9, -2.0, 1.8, 0),
        (1.5, 0.0, 0.0, 0),
    ],
)
def test_ratios_are_clipped_on_both_sides(ratio, advantage, value, clipped):
    loss, statistics = one_token(ratio, advantage, LossSwitches(eps_low=0.2, eps_high=0.3))
    assert float(loss) == pytest.approx(value, rel=1e-6)
    assert statistics.clipped == clipped and statistics.tokens == 1
    assert statistics.ratio_max == pytest.approx(ratio, rel=1e-6)


def test_without_importance_ratio_the_loss_is_minus_advantage_times_logprob():
    loss, statistics = one_token(5.0, 3.0, LossSwitches(importance_ratio=False))
    assert float(loss) == pytest.approx(-3 * (-2 + math.log(5)), rel=1e-6)
    assert (statistics.clipped, statistics.ratio_max) == (0, 1)


@pytest.mark.parametrize(("estimator", "value"), [("k1", -0.5), ("k2", 0.125), ("k3", math.exp(0.5) - 1.5)])
def test_kl_estimators(estimator, value):
    d = kl_divergence(torch.tensor([-1.5]), torch.tensor([-1.0]), estimator)
    assert d.tolist() == pytest.approx([value], rel=1e-6)


def test_kl_is_weighed_into_the_loss_and_summed_apart():
    # policy -2, reference -1: k3 = e - 2
    loss, statistics = one_token(1.0, 1.0, LossSwitches(kl_coef=0.5), reference=-1.0)
    assert float(loss) == pytest.approx(-1 + 0.5 * (math.e - 2), rel=1e-6)
    assert statistics.kl == pytest.approx(math.e - 2, rel=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sequence", [1 / 6, 1 / 3, 1 / 12]), ("token", [1 / 7] * 3), ("constant", [1 / 30] * 3)],
)
def test_token_weights(aggregation, expected):
    weights = token_weights(torch.tensor([2, 1, 4]), aggregation, 10)
    assert weights.shape == (3,)
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("aggregation", "value"), [("sequence", -(3 + 5) / 2), ("token", -(3 * 3 + 5) / 4)])
def test_aggregations_weigh_a_long_and_a_short_response(aggregation, value):
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = token_weights(mask.sum(1), aggregation, 3)
    zeros = torch.zeros(2, 3)
    loss, _ = policy_loss(zeros, zeros, None, torch.tensor([3.0, 5.0]), weights, mask, LossSwitches())
    assert float(loss) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("garbage", [0.0, 7.0, -60.0, 300.0, -300.0, 1e30, -1e30])
@pytest.mark.parametrize("where", ["policy", "sampler", "reference"])
@pytest.mark.parametrize("importance_ratio", [True, False])
def test_masked_positions_never_count(garbage, where, importance_ratio):
    rng = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    logprobs = {name: -torch.rand(2, 3, generator=rng) for name in ("policy", "sampler", "reference")}
    switches = LossSwitches(kl_coef=0.1, importance_ratio=importance_ratio)

    def result(values):
        policy = values["policy"].clone().requires_grad_()
        advantages, weights = torch.tensor([1.0, -2.0]), torch.tensor([0.25, 0.5])
        loss, statistics = policy_loss(policy, values["sampler"], values["reference"], advantages, weights, mask, switches)
        loss.backward()
        return loss.detach(), policy.grad, statistics

    plain = result(logprobs)
    changed = result(logprobs | {where: logprobs[where].masked_fill(~mask, garbage)})
    assert torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1], changed[1])
    assert plain[2] == changed[2]
    assert (plain[1][~mask] == 0).all()


def test_padding_does_not_raise_the_largest_ratio():
    policy, sampler = torch.full((1, 2), -2.0), torch.full((1, 2), -1.0)
    _, statistics = policy_loss(policy, sampler, None, ONE, ONE, torch.tensor([[True, False]]), LossSwitches())
    assert statistics.ratio_max == pytest.approx(math.exp(-1))


def test_equal_weights_have_ratio_one_no_kl_and_no_clipping():
    logprobs = -torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 4, dtype=torch.bool)
    weights = token_weights(mask.sum(1), "sequence", 4)
    advantages = torch.tensor([1.0, -1.0, 0.5])
    loss, statistics = policy_loss(logprobs, logprobs, logprobs, advantages, weights, mask, LossSwitches(kl_coef=0.04))
    assert statistics == LossStatistics(tokens=12, kl=0, clipped=0, ratio_max=1)
    assert float(loss) == pytest.approx(-0.5 / 3, rel=1e-6)


def test_at_the_sampling_policy_the_gradient_is_that_of_minus_advantage_times_logprob():
    sampler = -torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(4) < torch.tensor([[4], [2], [1]])
    weights, advantages = token_weights(mask.sum(1), "sequence", 4), torch.tensor([1.0, -1.0, 0.5])
    gradients = []
    for importance_ratio in (True, False):
        policy = sampler.clone().requires_grad_()
        switches = LossSwitches(importance_ratio=importance_ratio)
        policy_loss(policy, sampler, None, advantages, weights, mask, switches)[0].backward()
        gradients.append(policy.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], (-advantages * weights)[:, None] * mask)


def test_a_clipped_token_has_no_gradient():
    policy = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    sampler, mask = torch.tensor([[-2.0, -1.05]]), torch.ones(1, 2, dtype=torch.bool)
    policy_loss(policy, sampler, None, ONE, ONE, mask, LossSwitches())[0].backward()
    assert policy.grad[0, 0] == 0 and policy.grad[0, 1] == pytest.approx(-math.exp(0.05), rel=1e-6)


def slow_loss(policy, sampler, reference, advantages, lengths, switches, max_length):
    """The same from the formulas, token by token, in float64."""
    total, kl_sum, clipped, ratio_max = 0.0, 0.0, 0, 0.0
    for n, length in enumerate(lengths):
        weight = {
            "sequence": 1 / (len(lengths) * length),
            "token": 1 / sum(lengths),
            "constant": 1 / (len(lengths) * max_length),
        }[switches.aggregation]
        for t in range(length):
            ratio = math.exp(policy[n, t] - sampler[n, t])
            kept = min(max(ratio, 1 - switches.eps_low), 1 + switches.eps_high)
            surrogate = min(ratio * advantages[n], kept * advantages[n])
            d = reference[n, t] - policy[n, t]
            kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[switches.kl_estimator]
            total += weight * (-surrogate + switches.kl_coef * kl)
            kl_sum, ratio_max = kl_sum + kl, max(ratio_max, ratio)
            clipped += surrogate < ratio * advantages[n]
    return total, kl_sum, clipped, ratio_max


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_loss_equals_its_slow_ground_truth(aggregation, estimator):
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 7, size=8)
        sampler = -rng.exponential(1.0, (8, 6))
        policy, reference = sampler + rng.normal(0, 0.4, (8, 6)), sampler + rng.normal(0, 0.4, (8, 6))
        advantages, mask = rng.normal(size=8), np.arange(6) < lengths[:, None]
        switches = LossSwitches(True, 0.1, 0.3, aggregation, 0.7, estimator)
        weights = token_weights(torch.from_numpy(lengths), aggregation, 6).double()
        tensors = [torch.from_numpy(x) for x in (policy, sampler, reference, advantages)]
        value, statistics = policy_loss(*tensors, weights, torch.from_numpy(mask), switches)
        total, kl, clipped, ratio_max = slow_loss(policy, sampler, reference, advantages, lengths, switches, 6)
        assert float(value) == pytest.approx(total, rel=1e-6)
        assert statistics.kl == pytest.approx(kl, rel=1e-9)
        assert (statistics.clipped, statistics.tokens) == (clipped, lengths.sum())
        assert statistics.ratio_max == pytest.approx(ratio_max, rel=1e-9)


def test_statistics_add_up():
    both = LossStatistics(2, 1, 1, 3, 1.5) + LossStatistics(6, 3, 0, 1, 1.2)
    assert both == LossStatistics(8, 4, 1, 4, 1.5)
    assert (both.mean(both.kl), both.mean(both.clipped)) == (0.5, 0.125)
    assert LossStatistics().mean(3.0) == 0


@pytest.mark.parametrize("module", [advantage, loss])
def test_the_pure_mathematics_imports_torch_and_nothing_else(module):
    names = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - sys.stdlib_module_names == {"torch"}
