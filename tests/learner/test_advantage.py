import math
import statistics
from typing import get_args

import numpy as np
import pytest
import torch

from learner.advantage import (
    decoupled_advantages,
    group_advantages,
    keep_largest,
    overlong_penalty,
    reward_std,
    zero_variance,
)
from learner.algorithm import Algorithm, Baseline, Scale

NAN = math.nan
# means 2 and 5; unbiased std of the groups 1 and 2, of all six rewards (mean 3.5) sqrt(23.5 / 5):
# squares 6.25 + 2.25 + .25 + .25 + 2.25 + 12.25 = 23.5
REWARDS = torch.tensor([[1.0, 2.0, 3.0], [3.0, 5.0, 7.0]])
CENTRED = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]])
OF_GROUPS, OF_ALL = torch.tensor([[1.0001], [2.0001]]), math.sqrt(23.5 / 5) + 1e-4

every_baseline = pytest.mark.parametrize("baseline", get_args(Baseline))
every_scale = pytest.mark.parametrize("scale", get_args(Scale))


@pytest.mark.parametrize(("scale", "divisor"), [("group", OF_GROUPS), ("batch", OF_ALL), ("none", 1.0)])
@pytest.mark.parametrize(
    ("baseline", "minuend"),
    [
        ("group", CENTRED),
        # 1 - (2 + 3) / 2, 2 - (1 + 3) / 2, 3 - (1 + 2) / 2; 3 - (5 + 7) / 2, ...
        ("leave_one_out", torch.tensor([[-1.5, 0.0, 1.5], [-3.0, 0.0, 3.0]])),
        ("batch", REWARDS - 3.5),
        ("none", REWARDS),
    ],
)
def test_advantages_are_what_was_earned_beyond_the_baseline_over_the_scale(baseline, minuend, scale, divisor):
    torch.testing.assert_close(group_advantages(REWARDS, baseline, scale), minuend / divisor)


def test_grpo_is_the_default():
    assert torch.equal(group_advantages(REWARDS), group_advantages(REWARDS, "group", "group"))


def test_two_responses_get_opposite_advantages():
    # std of (0, 1) is sqrt(1/2)
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    torch.testing.assert_close(group_advantages(torch.tensor([[0.0, 1.0]])), torch.tensor([[-expected, expected]]))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_leave_one_out_is_g_over_g_minus_one_times_the_group_centred_advantage(size):
    rewards = torch.rand(4, size, generator=torch.Generator().manual_seed(0))
    centred = group_advantages(rewards, "group", "none")
    torch.testing.assert_close(group_advantages(rewards, "leave_one_out", "none"), centred * size / (size - 1))


@every_baseline
@every_scale
def test_what_is_compared_within_a_group_needs_two_responses(baseline, scale):
    single = torch.tensor([[1.0], [2.0], [6.0]])  # mean 3, squares 4 + 1 + 9: std sqrt(14 / 2)
    if baseline in ("group", "leave_one_out") or scale == "group":
        with pytest.raises(ValueError, match=r"shape \(3, 1\) need two or more responses"):
            group_advantages(single, baseline, scale)
    else:
        expected = single - (3.0 if baseline == "batch" else 0.0)
        expected = expected / (math.sqrt(7) + 1e-4) if scale == "batch" else expected
        torch.testing.assert_close(group_advantages(single, baseline, scale), expected)


def test_zero_variance_counts_the_rewards_that_apply():
    rewards = torch.tensor([[0.3] * 3, [0.1, 0.1 + 5e-7, 0.1], [0.0, 1.0, 0.5], [-2.0, -2.0, NAN], [-2.0, -1.0, NAN]])
    assert zero_variance(rewards).tolist() == [True, True, False, True, False]
    assert zero_variance(torch.tensor([[5.0, NAN], [NAN, NAN]])).tolist() == [True, True]


@every_baseline
@every_scale
def test_a_group_without_variance_teaches_nothing_if_it_is_compared_with_itself(baseline, scale):
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.1, 0.1 + 5e-7, 0.1], [0.0, 1.0, 0.5], [0.3, NAN, NAN]])
    advantages = group_advantages(rewards, baseline, scale)
    compared = baseline in ("group", "leave_one_out") or scale == "group"
    assert (advantages[[0, 1, 3]] == 0).all() == compared
    assert advantages[2].abs().sum() > 0


@every_baseline
@every_scale
def test_a_batch_without_any_variance_is_all_zero_unless_rewards_stand_alone(baseline, scale):
    expected = 0.7 if (baseline, scale) == ("none", "none") else 0.0
    torch.testing.assert_close(group_advantages(torch.full((2, 4), 0.7), baseline, scale), torch.full((2, 4), expected))


def test_rewards_that_do_not_apply_are_left_out_of_mean_and_std():
    with_gaps = torch.tensor([[1.0, NAN, 2.0, 3.0], [NAN, 3.0, 5.0, 7.0]])
    for baseline in get_args(Baseline):
        for scale in get_args(Scale):
            advantages = group_advantages(with_gaps, baseline, scale)
            assert (advantages[with_gaps.isnan()] == 0).all()
            torch.testing.assert_close(advantages[~with_gaps.isnan()].view(2, 3), group_advantages(REWARDS, baseline, scale))


def test_reward_std_is_unbiased_over_the_rewards_that_apply():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [3.0, NAN, 7.0], [5.0, NAN, NAN], [NAN, NAN, NAN]])
    expected = torch.tensor([[1.0], [math.sqrt(8)], [0.0], [NAN]])  # of 3 and 7: sqrt((4 + 4) / 1)
    torch.testing.assert_close(reward_std(rewards), expected, equal_nan=True)


@every_baseline
@every_scale
@pytest.mark.parametrize(
    "rewards", [[[NAN, NAN], [NAN, NAN]], [[1.0, NAN], [NAN, NAN]], [[1.0, NAN], [2.0, NAN]], [[NAN, NAN], [1.0, 3.0]]]
)
def test_groups_of_one_reward_or_none_give_no_nan(baseline, scale, rewards):
    rewards = torch.tensor(rewards)
    advantages = group_advantages(rewards, baseline, scale)
    assert advantages.isfinite().all() and (advantages[rewards.isnan()] == 0).all()


def test_a_reward_that_is_not_finite_is_not_hidden():
    assert not group_advantages(torch.tensor([[0.0, math.inf, 1.0]])).isfinite().all()


def slow_advantages(rewards, baseline, scale):
    """Response by response; None where a reward does not apply."""

    def std(values):
        return statistics.stdev(values) if len(values) > 1 else 0.0

    everything = [r for group in rewards for r in group if not math.isnan(r)]
    flat = scale == "batch" and max(everything, default=0) - min(everything, default=0) < 1e-6
    rows = []
    for group in rewards:
        applying, row = [r for r in group if not math.isnan(r)], []
        idle = len(applying) < 2 or max(applying) - min(applying) < 1e-6
        for i, r in enumerate(group):
            others = [other for j, other in enumerate(group) if j != i and not math.isnan(other)]
            if math.isnan(r) or flat or (idle and (baseline in ("group", "leave_one_out") or scale == "group")):
                row.append(0.0)
                continue
            known = {"group": applying, "leave_one_out": others, "batch": everything, "none": [0.0]}[baseline]
            divisor = {"group": std(applying) + 1e-4, "batch": std(everything) + 1e-4, "none": 1.0}[scale]
            row.append((r - statistics.fmean(known)) / divisor)
        rows.append(row)
    return rows


@every_baseline
@every_scale
def test_advantages_equal_their_slow_ground_truth(baseline, scale):
    rng = np.random.default_rng(0)
    for _ in range(20):
        rewards = rng.normal(1.0, 2.0, size=(rng.integers(1, 5), rng.integers(2, 6)))
        rewards[rng.random(rewards.shape) < 0.3] = NAN
        rewards[0] = np.where(np.isnan(rewards[0]), NAN, 0.25)  # a group without variance
        fast = group_advantages(torch.from_numpy(rewards), baseline, scale).numpy()
        np.testing.assert_allclose(fast, slow_advantages(rewards.tolist(), baseline, scale), rtol=1e-9, atol=1e-12)


def test_decoupled_advantages_normalise_each_reward_before_they_are_summed():
    # reward 0: std sqrt(1/2) and 0; reward 1: std sqrt(50) and sqrt(2). Divided by them (1e-4 apart): -+1/sqrt(2) each.
    parts = torch.tensor([[[0.0, 1.0], [3.0, 3.0]], [[10.0, 0.0], [1.0, 3.0]]], dtype=torch.float64)
    weights = torch.tensor([2.0, 1.0], dtype=torch.float64)
    half, third, fourth = 0.5 / (math.sqrt(0.5) + 1e-4), 5 / (math.sqrt(50) + 1e-4), 1 / (math.sqrt(2) + 1e-4)
    a, b = 2 * half - third, fourth  # totals -a, a; -b, b: mean 0, squares 2 a^2 + 2 b^2 over 3
    std = math.sqrt((2 * a * a + 2 * b * b) / 3) + 1e-4
    expected = torch.tensor([[-a, a], [-b, b]], dtype=torch.float64) / std
    torch.testing.assert_close(decoupled_advantages(parts, weights), expected)
    assert expected[1, 1] == pytest.approx(math.sqrt(3 / 4), abs=1e-3)  # a and b are both 1/sqrt(2), nearly


def test_decoupled_advantages_do_not_let_a_reward_of_large_scale_drown_the_others():
    small = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    large = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    decoupled = decoupled_advantages(torch.stack([small, large]), torch.ones(2))[0]
    summed = group_advantages(small + large)[0]
    assert decoupled[1] == pytest.approx(float(decoupled[2]), abs=1e-3)  # each is worth the same ...
    assert decoupled[3] - decoupled[2] == pytest.approx(float(decoupled[3] - decoupled[1]), rel=1e-3)
    assert (summed[3] - summed[2]) < 0.02 * (summed[3] - summed[1])  # ... where the sum hardly knows of the small one


def test_decoupled_advantages_obey_the_weights():
    small, large = torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    only = decoupled_advantages(torch.stack([small, large]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(only, decoupled_advantages(small[None], torch.ones(1)))


def test_decoupled_rewards_that_do_not_apply_count_in_none_of_the_means():
    parts = torch.tensor([[[0.0, 1.0, NAN, NAN]], [[2.0, NAN, 3.0, NAN]]], dtype=torch.float64)
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    total = torch.tensor([-2 * half, half, half], dtype=torch.float64)  # the fourth response has no reward at all
    advantages = decoupled_advantages(parts, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(advantages[0, :3], total / (total.std() + 1e-4))
    assert advantages[0, 3] == 0


def test_decoupled_groups_without_variance_in_any_reward_teach_nothing():
    parts = torch.tensor([[[1.0, 1.0], [0.0, 1.0], [NAN, NAN]], [[5.0, 5.0], [2.0, 2.0], [NAN, 1.0]]])
    advantages = decoupled_advantages(parts, torch.ones(2))
    assert advantages[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert advantages[1, 0] == -advantages[1, 1] < 0
    assert decoupled_advantages(torch.full((2, 2, 2), NAN), torch.ones(2)).tolist() == [[0, 0], [0, 0]]


def test_decoupled_advantages_equal_their_slow_ground_truth():
    rng = np.random.default_rng(0)
    for _ in range(20):
        parts, weights = rng.random((3, 5, 4)) * np.array([1.0, 10.0, 0.1])[:, None, None], rng.random(3)
        parts[rng.random(parts.shape) < 0.3] = NAN
        parts[:, 1, 2], parts[:, 0] = NAN, 0.5  # a response without any reward, a group without variance in any
        normalised = [slow_advantages(part.tolist(), "group", "group") for part in parts]
        total = sum(weight * np.array(part) for weight, part in zip(weights, normalised, strict=True))
        applying = ~np.isnan(parts).all(0)
        known = total[applying].tolist()
        expected = (total - statistics.fmean(known)) / (statistics.stdev(known) + 1e-4) * applying
        fast = decoupled_advantages(torch.from_numpy(parts), torch.from_numpy(weights)).numpy()
        np.testing.assert_allclose(fast, expected, rtol=1e-9, atol=1e-12)
        assert (fast[0] == 0).all() and fast[1, 2] == 0


def test_among_equal_magnitudes_the_signs_take_turns():
    halves = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])
    assert keep_largest(halves, 2).tolist() == [[1, 0, -1, 0], [-1, 0, 1, 0]]


def test_keep_largest_goes_by_magnitude_in_each_group():
    advantages = torch.tensor([[0.1, -3.0, 2.0, -0.5], [4.0, 1.0, -1.5, 0.0]])
    expected = [[0, -3, 2, 0], [4, 0, -1.5, 0]]
    assert keep_largest(advantages, 2).tolist() == expected


@pytest.mark.parametrize(
    ("ratio", "size", "kept"),
    [
        (0.5, 4, 2),
        (0.1, 4, 2),
        (0.1, 8, 2),
        (0.51, 4, 3),
        (0.75, 4, 3),
        (0.76, 4, 4),
        (1.0, 4, 4),
        (0.3, 2, 2),
        (0.3, 10, 3),
        (0.28, 25, 7),
    ],
)
def test_two_responses_or_the_share_rounded_up_keep_their_advantage(ratio, size, kept):
    assert Algorithm(top_k_ratio=ratio).kept_count(size) == kept
    advantages = torch.arange(1.0, size + 1)[None]
    assert keep_largest(advantages, kept).tolist() == [[0] * (size - kept) + list(range(size - kept + 1, size + 1))]


def test_the_overlong_penalty_falls_linearly_over_the_buffer():
    lengths = torch.tensor([[1, 80, 81], [85, 95, 100]])  # free up to 100 - 20
    torch.testing.assert_close(overlong_penalty(lengths, 100, 20), torch.tensor([[0.0, 0.0, -0.05], [-0.25, -0.75, -1.0]]))
    assert overlong_penalty(torch.tensor([101, 500]), 100, 20).tolist() == [-1, -1]


def test_a_baseline_or_scale_of_another_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no baseline 'mean': group, leave_one_out, batch, none"):
        group_advantages(torch.zeros(1, 2), "mean")
    with pytest.raises(ValueError, match="no scale 'std': group, batch, none"):
        group_advantages(torch.zeros(1, 2), "group", "std")
