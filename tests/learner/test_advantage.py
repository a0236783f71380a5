import math

import pytest
import torch

from learner.advantage import group_advantages, keep_largest, zero_variance

# means 2 and 5; unbiased std of the groups 1 and 2, of all six rewards sqrt(23.5 / 5)
REWARDS = torch.tensor([[1.0, 2.0, 3.0], [3.0, 5.0, 7.0]])
CENTRED = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]])


def test_group_scale_divides_by_each_groups_unbiased_std():
    expected = CENTRED / torch.tensor([[1.0001], [2.0001]])
    torch.testing.assert_close(group_advantages(REWARDS, "group"), expected)


def test_batch_scale_divides_by_the_std_of_all_rewards():
    # all rewards 1 2 3 3 5 7: mean 3.5, squares 6.25 + 2.25 + .25 + .25 + 2.25 + 12.25 = 23.5
    expected = CENTRED / (math.sqrt(23.5 / 5) + 1e-4)
    torch.testing.assert_close(group_advantages(REWARDS, "batch"), expected)


def test_without_scale_the_mean_is_subtracted():
    torch.testing.assert_close(group_advantages(REWARDS, "none"), CENTRED)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_without_variance_teaches_nothing(scale):
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.1, 0.1 + 5e-7, 0.1], [0.0, 1.0, 0.5]])
    assert zero_variance(rewards).tolist() == [True, True, False]
    advantages = group_advantages(rewards, scale)
    assert advantages[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert advantages[2].abs().sum() > 0


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_batch_without_any_variance_is_all_zero(scale):
    assert group_advantages(torch.full((2, 4), 0.7), scale).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_single_responses_are_refused(scale):
    with pytest.raises(ValueError, match="two or more responses"):
        group_advantages(torch.ones(3, 1), scale)


def test_two_responses_get_opposite_advantages():
    # std of (0, 1) is sqrt(1/2)
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    torch.testing.assert_close(group_advantages(torch.tensor([[0.0, 1.0]]), "group"), torch.tensor([[-expected, expected]]))


def test_keep_largest_goes_by_magnitude_in_each_group():
    advantages = torch.tensor([[0.1, -3.0, 2.0, -0.5], [4.0, 1.0, -1.5, 0.0]])
    expected = [[0, -3, 2, 0], [4, 0, -1.5, 0]]
    assert keep_largest(advantages, 0.5).tolist() == expected


@pytest.mark.parametrize(
    ("ratio", "size", "kept"),
    [(0.5, 4, 2), (0.1, 4, 2), (0.1, 8, 2), (0.51, 4, 3), (0.75, 4, 3), (0.76, 4, 4), (1.0, 4, 4), (0.3, 2, 2), (0.3, 10, 3)],
)
def test_keep_largest_keeps_two_or_the_share_rounded_up(ratio, size, kept):
    advantages = torch.arange(1.0, size + 1)[None]
    assert keep_largest(advantages, ratio).tolist() == [[0] * (size - kept) + list(range(size - kept + 1, size + 1))]
