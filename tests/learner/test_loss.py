import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from learner.algorithm import PRESETS, LossConfig
from learner.loss import adapted_kl_coef, importance_ratio, kl_divergence, off_policy_correction, token_weights
from learner.objective import TokenStatistics, policy_loss

ONE = torch.tensor([1.0])
# with everything on that a preset leaves off
EVERYTHING = {"kl_coef": 0.1, "entropy_coef": 0.05, "correction": "truncate", "correction_cap": 1.1}


def logs(*rows):
    return torch.tensor(rows).log()


def one_token(ratio, advantage, reference=None, entropy=None, **config):
    """Loss, its gradient and statistics of a single token of log-prob -1 that the sampler found 1 / ratio times as probable."""
    policy = torch.tensor([[-1.0]], requires_grad=True)
    value, statistics = policy_loss(
        policy,
        policy.detach() - math.log(ratio),
        torch.tensor([advantage]),
        ONE,
        torch.tensor([[True]]),
        LossConfig(**config),
        reference_logprobs=None if reference is None else torch.tensor([[reference]]),
        entropy=None if entropy is None else torch.tensor([[entropy]]),
    )
    value.backward()
    return value.item(), policy.grad.item(), statistics


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual_clip", "value", "gradient", "clipped"),
    [
        (1.1, 2.0, None, -2.2, -2.2, 0),  # inside: the gradient of r A is r A
        (1.25, 2.0, None, -2.5, -2.5, 0),  # above 1.2, but not above 1.3: clip-higher
        (1.5, 2.0, None, -2.6, 0.0, 1),  # above 1.3, and better than expected: no more pull upwards
        (1.5, -2.0, None, 3.0, 3.0, 0),  # above, but worse than expected: pushed down in full
        (0.5, 2.0, None, -1.0, -1.0, 0),  # below, but better than expected: pulled up in full
        (0.5, -2.0, None, 1.6, 0.0, 1),  # below 0.8, and worse than expected: no more push downwards
        (0.9, -2.0, None, 1.8, 1.8, 0),
        (1.5, 0.0, None, 0.0, 0.0, 0),
        (5.0, -2.0, 3.0, 6.0, 0.0, 1),  # 5 * 2 = 10 is bounded by 3 * 2
        (2.5, -2.0, 3.0, 5.0, 5.0, 0),
        (0.5, -2.0, 3.0, 1.6, 0.0, 1),  # the lower clip is unchanged
        (5.0, 2.0, 3.0, -2.6, 0.0, 1),  # A > 0 does not know of it
    ],
)
def test_clip_bounds_the_ratio_where_it_would_run_away(ratio, advantage, dual_clip, value, gradient, clipped):
    result = one_token(ratio, advantage, eps_low=0.2, eps_high=0.3, dual_clip=dual_clip)
    assert result[:2] == pytest.approx((value, gradient), rel=1e-5)
    assert result[2].clipped.tolist() == [clipped]
    assert result[2].log_ratio.tolist() == pytest.approx([math.log(ratio)], rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "clipped"),
    [
        (1.1, 2.0, 2.2, 0),  # -1.1 * 2 * log-prob -1
        (1.5, 2.0, 2.6, 1),  # the ratio counts as 1.3 ...
        (1.5, -2.0, -2.6, 1),  # ... whatever the advantage's sign
        (0.5, 2.0, 1.6, 1),
        (0.5, -2.0, -1.6, 1),
    ],
)
def test_cispo_bounds_the_ratio_and_keeps_the_gradient(ratio, advantage, value, clipped):
    result = one_token(ratio, advantage, surrogate="cispo", eps_low=0.2, eps_high=0.3)
    assert result[:2] == pytest.approx((value, -value), rel=1e-5)  # the ratio a constant: d/dp of -r A p is -r A
    assert result[2].clipped.tolist() == [clipped]


def test_without_importance_the_loss_is_minus_advantage_times_logprob():
    value, gradient, statistics = one_token(5.0, 3.0, importance="none", surrogate="cispo", dual_clip=2.0)
    assert (value, gradient, statistics.clipped.tolist()) == (3.0, -3.0, [0])


# two responses of 3 and 1 tokens; ratios 2 * 2 * 1/4 = 1 -> 1, and 1.5 -> 1.5
RAGGED = torch.tensor([[True, True, True], [True, False, False]])


def test_gspo_clips_the_ratio_of_the_sequence_normalised_by_its_length():
    sampler = torch.full((2, 3), -2.0)
    policy = (sampler + logs([2.0, 2.0, 0.25], [1.5, 9.0, 9.0])).requires_grad_()
    torch.testing.assert_close(
        importance_ratio((policy - sampler).detach().masked_fill(~RAGGED, 0.0), RAGGED, "sequence"),
        torch.tensor([[1.0] * 3, [1.5] * 3]),
    )
    config = LossConfig(importance="sequence", eps_low=0.2, eps_high=0.3)
    weights = token_weights(RAGGED.sum(1), "sequence", 3)  # 1/6 and 1/2
    value, statistics = policy_loss(policy, sampler, torch.tensor([3.0, 4.0]), weights, RAGGED, config)
    assert value.item() == pytest.approx(-(3 * 1.0 + 4 * 1.3) / 2, rel=1e-6)
    assert statistics.clipped.tolist() == [0, 0, 0, 1]
    value.backward()  # tokens of ratios 2, 2 and 1/4 alike: d(sequence's ratio)/d(log-prob) = 1/3 of it
    torch.testing.assert_close(policy.grad, torch.tensor([[-0.5, -0.5, -0.5], [0.0, 0.0, 0.0]]))


def test_gspo_clips_sequences_as_a_whole():
    # ratios of tokens 2 and 1, so of the sequence sqrt(2); 1 and 1/2, so sqrt(1/2): the tokens of ratio 1 are clipped too
    policy = logs([0.6, 0.6], [0.3, 0.3]).requires_grad_()
    sampler, mask = logs([0.3, 0.6], [0.3, 0.6]), torch.ones(2, 2, dtype=torch.bool)
    config = LossConfig(importance="sequence")
    value, statistics = policy_loss(policy, sampler, torch.tensor([1.0, -1.0]), torch.full((2,), 0.25), mask, config)
    assert value.item() == pytest.approx((-1.2 + 0.8) / 2, rel=1e-5)
    assert statistics.clipped.tolist() == [1, 1, 1, 1]
    value.backward()
    assert (policy.grad == 0).all()


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_response_without_tokens_has_ratio_one(level):
    assert importance_ratio(torch.zeros(1, 2), torch.zeros(1, 2).bool(), level).tolist() == [[1, 1]]


def test_k3_of_policies_that_are_all_but_equal_is_no_rounding_noise() -> None:
    d = torch.linspace(-1e-4, 1e-4, 1001)
    k3 = kl_divergence(torch.zeros(1001), d, "k3")
    assert k3.min() >= 0 and torch.allclose(k3, d.square() / 2, atol=1e-11)


@pytest.mark.parametrize(("estimator", "value"), [("k1", -0.5), ("k2", 0.125), ("k3", math.exp(0.5) - 1.5)])
def test_kl_estimators(estimator, value):
    d = kl_divergence(torch.tensor([-1.5]), torch.tensor([-1.0]), estimator)
    assert d.tolist() == pytest.approx([value], rel=1e-6)


@pytest.mark.parametrize(
    ("weighted", "ratio", "kl", "gradient"),
    [
        (False, 0.9, math.e - 2, 1 - math.e),  # reference 0, policy -1: d = 1, k3 = e - 2; dk3/dp = 1 - e
        (True, 0.9, 0.9 * (math.e - 2), -0.9),  # d(r k3)/dp = r (k3 + 1 - e) = -r d
    ],
)
def test_the_kl_is_added_and_weighted_by_the_ratio_on_demand(weighted, ratio, kl, gradient):
    result = one_token(ratio, 1.0, reference=0.0, kl_coef=0.5, kl_weighted=weighted)
    assert result[:2] == pytest.approx((-ratio + 0.5 * kl, -ratio + 0.5 * gradient), rel=1e-6)
    assert result[2].kl.tolist() == pytest.approx([kl], rel=1e-6)


def test_a_kl_in_the_reward_is_measured_and_not_added():
    value, gradient, statistics = one_token(0.9, 1.0, reference=0.0, kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    assert (value, gradient) == pytest.approx((-0.9, -0.9), rel=1e-6)
    assert statistics.kl.tolist() == [-1.0]


def test_the_entropy_bonus_is_taken_from_the_loss():
    value, _, statistics = one_token(1.0, 2.0, entropy=3.0, entropy_coef=0.1)
    assert value == pytest.approx(-2 - 0.1 * 3, rel=1e-6)
    assert statistics.entropy.tolist() == [3.0]


def test_without_reference_or_entropy_their_statistics_are_empty():
    _, _, statistics = one_token(1.0, 2.0, kl_coef=0.5, entropy_coef=0.1)
    assert statistics.kl.shape == statistics.entropy.shape == (0,)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sequence", [1 / 8, 1 / 4, None, 1 / 16]),  # 1 / (4 responses * length)
        ("token", [1 / 7, 1 / 7, None, 1 / 7]),  # 2 + 1 + 0 + 4 tokens
        ("constant", [1 / 40, 1 / 40, None, 1 / 40]),
    ],
)
def test_token_weights(aggregation, expected):
    weights = token_weights(torch.tensor([2, 1, 0, 4]), aggregation, 10)
    assert weights.shape == (4,) and weights.isfinite().all()
    kept = [n for n, weight in enumerate(expected) if weight is not None]  # a response without tokens has no use for one
    assert weights[kept].tolist() == pytest.approx([expected[n] for n in kept], rel=1e-6)


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_a_batch_that_is_masked_as_a_whole_has_loss_zero(aggregation):
    weights = token_weights(torch.tensor([0, 0]), aggregation, 3)
    policy = torch.zeros(2, 3, requires_grad=True)
    value, statistics = policy_loss(policy, policy.detach(), torch.ones(2), weights, torch.zeros(2, 3).bool(), LossConfig())
    value.backward()
    assert value == 0 and (policy.grad == 0).all() and statistics.clipped.shape == (0,)


@pytest.mark.parametrize(
    ("aggregation", "value"),
    [
        ("sequence", -(3 + 5 + 0) / 3),  # means over tokens 3, 5 and, masked as a whole, nothing
        ("token", -(3 * 3 + 5) / 4),
        ("constant", -(3 * 3 + 5) / (3 * 10)),
    ],
)
def test_aggregations_weigh_a_long_a_short_and_a_masked_response(aggregation, value):
    mask = torch.cat([RAGGED, torch.zeros(1, 3, dtype=torch.bool)])
    weights, zeros = token_weights(mask.sum(1), aggregation, 10), torch.zeros(3, 3)
    result, _ = policy_loss(zeros, zeros, torch.tensor([3.0, 5.0, 7.0]), weights, mask, LossConfig())
    assert float(result) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("correction", "level", "expected", "bound"),
    [
        ("truncate", "token", [[2.0, 1.2, 0.5], [0.5, 1, 1]], [[1, 0, 0], [0, 0, 0]]),
        ("mask", "token", [[0.0, 1.2, 0.5], [0.5, 1, 1]], [[1, 0, 0], [0, 0, 0]]),
        ("truncate", "sequence", [[2.0], [0.5]], [[1, 1, 1], [0, 0, 0]]),  # 4 * 1.2 * .5 = 2.4
        ("mask", "sequence", [[0.0], [0.5]], [[1, 1, 1], [0, 0, 0]]),
    ],
)
def test_corrections_bound_the_weights_of_tokens_or_of_their_product(correction, level, expected, bound):
    log_ratio = logs([4.0, 1.2, 0.5], [0.5, 1.0, 1.0])  # 0 where masked
    weights, above = off_policy_correction(log_ratio, RAGGED, correction, level, 2.0)
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert above.int().tolist() == bound


def test_a_correction_weighs_the_surrogate_and_neither_kl_nor_entropy():
    # policy / proximal 1.1, proximal / sampler 4 -> 2
    value, statistics = policy_loss(
        torch.tensor([[-1.0]]),
        torch.tensor([[-1.0]]) - math.log(1.1 * 4),
        torch.tensor([3.0]),
        ONE,
        torch.tensor([[True]]),
        LossConfig(correction="truncate", correction_cap=2.0, kl_coef=0.5, entropy_coef=0.25),
        reference_logprobs=torch.tensor([[0.0]]),
        proximal_logprobs=torch.tensor([[-1.0]]) - math.log(1.1),
        entropy=torch.tensor([[3.0]]),
    )
    assert value.item() == pytest.approx(2 * -1.1 * 3 + 0.5 * (math.e - 2) - 0.25 * 3, rel=1e-6)
    assert statistics.corrected.tolist() == [1] and statistics.clipped.tolist() == [0]
    assert statistics.log_ratio.tolist() == pytest.approx([math.log(4.4)], rel=1e-6)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.1, 1.0), (0.11, 1.01), (0.12, 1.02), (5.0, 1.02), (math.inf, 1.02), (0.09, 0.99), (0.08, 0.98), (0.0, 0.98)],
)
def test_the_kl_coefficient_follows_the_kl_by_two_per_cent_at_most(kl, factor):
    assert adapted_kl_coef(0.5, kl, 0.1) == pytest.approx(0.5 * factor, rel=1e-12)


def test_the_sft_loss_is_cross_entropy():
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 3, 5, generator=rng), torch.randint(5, (2, 3), generator=rng)
    policy = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    config = PRESETS["sft"]
    weights = token_weights(RAGGED.sum(1), config.aggregation, 3)
    value, _ = policy_loss(policy, torch.zeros(2, 3), torch.ones(2), weights, RAGGED, config)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits[RAGGED], targets[RAGGED]))


def test_equal_weights_have_ratio_one_no_kl_and_no_clipping():
    logprobs, mask = -torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4, dtype=torch.bool)
    weights, advantages = token_weights(mask.sum(1), "sequence", 4), torch.tensor([1.0, -1.0, 0.5])
    for importance, estimator in itertools.product(("token", "sequence"), ("k1", "k2", "k3")):
        config = LossConfig(importance=importance, kl_coef=0.04, kl_estimator=estimator, correction="mask", correction_cap=1)
        result = policy_loss(logprobs, logprobs, advantages, weights, mask, config, reference_logprobs=logprobs)
        assert float(result[0]) == pytest.approx(-0.5 / 3, rel=1e-6)  # each token's ratio and correction is 1
        for statistic in ("log_ratio", "clipped", "corrected", "kl"):
            assert getattr(result[1], statistic).tolist() == [0] * 12


def test_statistics_are_concatenated_in_order():
    parts = [
        TokenStatistics(**dict.fromkeys([f.name for f in fields(TokenStatistics)], torch.tensor(x))) for x in ([1.0], [2, 3])
    ]
    both = TokenStatistics.concatenated(parts)
    assert all(getattr(both, field.name).tolist() == [1, 2, 3] for field in fields(TokenStatistics))


def slow_loss(policy, frozen, tensors, lengths, config, max_length):
    """Loss and [log_ratio, clipped, corrected, kl, entropy] of each token in plain floats; `frozen` is the policy as it stands
    where no gradient flows."""
    sampler, proximal, reference, entropy, advantages = tensors
    total, statistics = 0.0, []
    for n, length in enumerate(lengths):
        weight = {"sequence": len(lengths) * length, "token": sum(lengths), "constant": len(lengths) * max_length}
        mean_log_ratio = mean_frozen = log_correction = 0.0
        old = sampler if config.correction == "none" else frozen if proximal is None else proximal
        for t in range(length):
            mean_log_ratio += (policy[n][t] - old[n][t]) / length
            mean_frozen += (frozen[n][t] - old[n][t]) / length
            log_correction += old[n][t] - sampler[n][t]
        for t in range(length):
            whole = config.importance == "sequence"
            ratio = math.exp(mean_log_ratio if whole else policy[n][t] - old[n][t])
            frozen_ratio = math.exp(mean_frozen if whole else frozen[n][t] - old[n][t])
            low, high, a = 1 - config.eps_low, 1 + config.eps_high, advantages[n]
            if config.importance == "none":
                objective, clipped = a * policy[n][t], False
            elif config.surrogate == "cispo":
                objective, clipped = min(max(frozen_ratio, low), high) * a * policy[n][t], not low <= ratio <= high
            else:
                objective = min(ratio * a, min(max(ratio, low), high) * a)
                if config.dual_clip and a < 0:
                    objective = max(objective, config.dual_clip * a)
                clipped = objective != ratio * a
            correction, bound = 1.0, False
            if config.correction != "none":
                correction = math.exp(log_correction if config.correction_level == "sequence" else old[n][t] - sampler[n][t])
                bound = correction > config.correction_cap
                if bound:
                    correction = config.correction_cap if config.correction == "truncate" else 0.0
            d = reference[n][t] - policy[n][t]
            kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[config.kl_estimator]
            kl *= math.exp(policy[n][t] - sampler[n][t]) if config.kl_weighted else 1
            bonus = config.entropy_coef * entropy[n][t]
            total += (-correction * objective + config.kl_coef * kl - bonus) / weight[config.aggregation]
            statistics.append([policy[n][t] - sampler[n][t], clipped, bound, kl, entropy[n][t]])
    return total, statistics


CORRECTIONS = [("none", "token", False), *itertools.product(("truncate", "mask"), ("token", "sequence"), (False, True))]


@pytest.mark.parametrize(("correction", "level", "decoupled"), CORRECTIONS)
@pytest.mark.parametrize("surrogate", ["clip", "cispo"])
@pytest.mark.parametrize("importance", ["token", "sequence", "none"])
def test_loss_gradient_and_statistics_equal_their_slow_ground_truth(importance, surrogate, correction, level, decoupled):
    rng = np.random.default_rng([*f"{importance} {surrogate} {correction} {level} {decoupled}".encode()])
    terms = ("sequence", "token", "constant"), (None, 1.4), ("k1", "k2", "k3"), (False, True), (0.0, 0.3)
    every = list(itertools.product(*terms))
    clipped, bound = 0.0, 0.0
    for n in rng.permutation(len(every))[:18]:
        aggregation, dual_clip, estimator, kl_weighted, entropy_coef = every[n]
        lengths = [int(length) for length in rng.integers(0, 5, size=4)] + [1, 4]
        mask, advantages = np.arange(4) < np.array(lengths)[:, None], rng.normal(size=6)
        sampler, entropy, direction = -rng.exponential(1.0, (6, 4)), rng.random((6, 4)), rng.normal(size=(6, 4))
        proximal, reference = sampler + rng.normal(0, 0.5, (6, 4)), sampler + rng.normal(0, 0.4, (6, 4))
        policy = proximal + rng.normal(0, 0.4, (6, 4))
        config = LossConfig(
            **{"importance": importance, "surrogate": surrogate, "eps_low": 0.1, "eps_high": 0.3, "dual_clip": dual_clip},
            **{"aggregation": aggregation, "kl_coef": 0.7, "kl_estimator": estimator, "kl_weighted": kl_weighted},
            **{"entropy_coef": entropy_coef, "correction": correction, "correction_level": level, "correction_cap": 1.3},
        )
        learned = torch.from_numpy(policy).requires_grad_()
        value, statistics = policy_loss(
            learned,
            torch.from_numpy(sampler),
            torch.from_numpy(advantages),
            token_weights(torch.tensor(lengths), aggregation, 4).double(),
            torch.from_numpy(mask),
            config,
            reference_logprobs=torch.from_numpy(reference),
            proximal_logprobs=torch.from_numpy(proximal) if decoupled else None,
            entropy=torch.from_numpy(entropy),
        )
        value.backward()
        known = [sampler, proximal if decoupled else None, reference, entropy, advantages]
        known = [None if x is None else x.tolist() for x in known]

        def slow(step, known=known, policy=policy, direction=direction, lengths=lengths, config=config):
            return slow_loss((policy + step * direction).tolist(), policy.tolist(), known, lengths, config, 4)

        total, tokens = slow(0.0)
        assert value.item() == pytest.approx(total, rel=1e-6, abs=1e-7)
        columns = [getattr(statistics, name).tolist() for name in ("log_ratio", "clipped", "corrected", "kl", "entropy")]
        np.testing.assert_allclose(np.array(columns).T, np.array(tokens, dtype=float), rtol=1e-9, atol=1e-12)
        slope = (slow(1e-5)[0] - slow(-1e-5)[0]) / 2e-5
        assert float((learned.grad.numpy() * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)
        clipped, bound = clipped + sum(columns[1]), bound + sum(columns[2])
    ratio_is_one = correction != "none" and not decoupled  # the proximal policy is then the policy itself
    assert (clipped > 0) == (importance != "none" and not ratio_is_one)  # the cases that matter did occur
    assert (bound > 0) == (correction != "none")


def random_batch(lengths=(4, 2, 1), width=4, seed=0):
    """Log-probs of four policies and the entropy, advantages, mask."""
    rng = torch.Generator().manual_seed(seed)
    sampler = -torch.rand(len(lengths), width, generator=rng) - 0.5
    tensors = {"sampler_logprobs": sampler}
    for name in ("policy_logprobs", "reference_logprobs", "proximal_logprobs"):
        tensors[name] = sampler + 0.3 * torch.randn(len(lengths), width, generator=rng)
    tensors["entropy"] = torch.rand(len(lengths), width, generator=rng)
    return tensors, torch.randn(len(lengths), generator=rng), torch.arange(width) < torch.tensor(lengths)[:, None]


def with_gradient(tensors, advantages, weights, mask, config):
    """Loss, gradients with respect to policy and entropy, statistics."""
    learned = {name: tensors[name].clone().requires_grad_() for name in ("policy_logprobs", "entropy")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in learned}
    value, statistics = policy_loss(advantages=advantages, weights=weights, mask=mask, config=config, **learned, **rest)
    value.backward()
    return value.detach(), learned["policy_logprobs"].grad, learned["entropy"].grad, statistics


@pytest.mark.parametrize("correction", ["none", "truncate"])
@pytest.mark.parametrize("name", PRESETS)
def test_at_the_sampling_policy_every_loss_has_the_gradient_of_minus_advantage_times_logprob(name, correction):
    tensors, advantages, mask = random_batch()
    same = tensors["sampler_logprobs"]
    tensors |= {"policy_logprobs": same, "reference_logprobs": same, "proximal_logprobs": same}
    config = replace(PRESETS[name], correction=correction)
    weights = token_weights(mask.sum(1), config.aggregation, 4)
    _, gradient, _, _ = with_gradient(tensors, advantages, weights, mask, config)
    torch.testing.assert_close(gradient, -(advantages * weights)[:, None] * mask)


def test_clipped_tokens_have_no_gradient_and_the_others_that_of_the_ratio():
    tensors, advantages, mask = random_batch(lengths=(6,) * 8, width=6)
    _, gradient, _, statistics = with_gradient(tensors, advantages, torch.ones(8), mask, LossConfig(kl_coef=0.0))
    clipped = statistics.clipped.view(8, 6).bool()
    ratio = (tensors["policy_logprobs"] - tensors["sampler_logprobs"]).exp()
    assert 0 < clipped.sum() < 48
    torch.testing.assert_close(gradient, (-ratio * advantages[:, None]).masked_fill(clipped, 0.0))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("correction", ["truncate", "mask"])
def test_correction_weights_carry_no_gradient(correction, level):
    tensors, advantages, mask = random_batch(lengths=(4, 2, 1, 3, 4, 4))
    del tensors["proximal_logprobs"]  # the policy itself is then the old one: the correction is made of what is learned
    config = LossConfig(kl_coef=0.0, correction=correction, correction_level=level, correction_cap=1.05)
    _, gradient, _, _ = with_gradient(tensors, advantages, torch.ones(6), mask, config)
    log_ratio = (tensors["policy_logprobs"] - tensors["sampler_logprobs"]).masked_fill(~mask, 0.0)
    weight, above = off_policy_correction(log_ratio, mask, correction, level, 1.05)
    assert 0 < above[mask].sum() < mask.sum()  # some are bound, some are not
    torch.testing.assert_close(gradient, -weight * advantages[:, None] * mask)
    assert not off_policy_correction(log_ratio.requires_grad_(), mask, correction, level, 1.05)[0].requires_grad


@pytest.mark.parametrize("garbage", [0.0, 7.0, -300.0, 1e30, -1e30, math.inf, math.nan])
@pytest.mark.parametrize("name", PRESETS)
def test_masked_positions_never_count(name, garbage):
    tensors, advantages, mask = random_batch()
    for level, kl_weighted in itertools.product(("token", "sequence"), (False, True)):
        config = replace(PRESETS[name], **EVERYTHING, correction_level=level, kl_weighted=kl_weighted)
        weights = token_weights(mask.sum(1), config.aggregation, 4)
        plain = with_gradient(tensors, advantages, weights, mask, config)
        assert (plain[1][~mask] == 0).all() and (plain[2][~mask] == 0).all()
        for where in (*((one,) for one in tensors), tuple(tensors)):
            filled = tensors | {one: tensors[one].masked_fill(~mask, garbage) for one in where}
            changed = with_gradient(filled, advantages, weights, mask, config)
            assert all(torch.equal(a, b) for a, b in zip(plain[:3], changed[:3], strict=True))
            for field in fields(TokenStatistics):
                assert torch.equal(getattr(plain[3], field.name), getattr(changed[3], field.name))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("name", PRESETS)
def test_neither_padding_nor_micro_batches_change_loss_or_gradient(name, level):
    tensors, advantages, mask = random_batch(lengths=(4, 2, 1, 0, 3))
    config = replace(PRESETS[name], **EVERYTHING, correction_level=level)
    weights = token_weights(mask.sum(1), config.aggregation, 4)
    whole = with_gradient(tensors, advantages, weights, mask, config)

    def pad(x, value):
        return torch.nn.functional.pad(x, (0, 3), value=value)

    padded = {key: pad(x, -9.0) for key, x in tensors.items()}
    wide = with_gradient(padded, advantages, weights, pad(mask, False), config)
    torch.testing.assert_close(wide[0], whole[0])
    torch.testing.assert_close(wide[1], pad(whole[1], 0.0))

    parts = []
    for rows in (torch.tensor([3, 1]), torch.tensor([2]), torch.tensor([0, 4])):  # out of order, and cut to their length
        width = int(mask[rows].sum(1).max())
        cut = {key: x[rows, :width] for key, x in tensors.items()}
        parts.append((rows, with_gradient(cut, advantages[rows], weights[rows], mask[rows, :width], config)))
    torch.testing.assert_close(torch.stack([part[0] for _, part in parts]).sum(), whole[0])
    for rows, part in parts:
        torch.testing.assert_close(pad(part[1], 0.0)[:, :4], whole[1][rows])
    order = torch.cat([rows for rows, _ in parts])
    tokens = TokenStatistics.concatenated([part[3] for _, part in parts])
    expected = with_gradient({k: x[order] for k, x in tensors.items()}, advantages[order], weights[order], mask[order], config)
    for field in fields(TokenStatistics):
        torch.testing.assert_close(getattr(tokens, field.name), getattr(expected[3], field.name))


def test_a_name_that_no_term_knows_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no estimator 'k4': k1, k2, k3"):
        kl_divergence(ONE, ONE, "k4")
    with pytest.raises(ValueError, match="no aggregation 'mean': sequence, token, constant"):
        token_weights(ONE, "mean", 3)
