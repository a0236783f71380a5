from dataclasses import replace

import numpy as np
import pytest
import torch

from learner.algorithm import PRESETS
from learner.batch import counted_lengths, micro_batches
from learner.batch_advantages import sequence_kl
from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.types import Group, Prompt, Response, Retrieval, Version
from tests.learner.examples import RL, ROLLOUT, SUPERVISED, groups_of, new_learner
from tests.rollout.tiny import SETTINGS, tiny_policy


def group(number, rows, responses):
    """A group of given row and response lengths, whose tokens are 10 * its number, + 1 in the second response ..."""
    ids = [np.full(length, 10 * number + g, np.int32) for g, length in enumerate(responses)]
    return Group(
        prompt=Prompt(id=str(number), question="?", answers=("!",)),
        retrieval=Retrieval(passages=(), scores=()),
        context_ids=tuple(np.full(length, number, np.int32) for length in rows),
        responses=tuple(
            Response(text="", token_ids=x, sampler_logprobs=-x.astype(np.float32), mask=np.ones(len(x), bool), finished=True)
            for x in ids
        ),
        version=Version(0, 0),
    )


GROUPS = [group(1, [9, 4], [2, 1]), group(2, [3], [4, 4]), group(3, [5, 5, 5], [1, 3]), group(4, [20], [1, 1])]


def cut(token_budget):
    return micro_batches(GROUPS, counted_lengths(GROUPS, mask_truncated=False), token_budget, tiny_policy())


def numbers(micro):
    return [int(context[0][0]) for context in micro.contexts]


def test_lengths_stand_in_the_groups_order():
    assert counted_lengths(GROUPS, mask_truncated=True).tolist() == [2, 1, 4, 4, 1, 3, 1, 1]


def test_responses_that_were_cut_count_nothing_where_they_are_masked():
    first, second = GROUPS[1].responses
    groups = [GROUPS[0], replace(GROUPS[1], responses=(replace(first, finished=False), second))]
    assert counted_lengths(groups, mask_truncated=False).tolist() == [2, 1, 4, 4]
    lengths = counted_lengths(groups, mask_truncated=True)
    assert lengths.tolist() == [2, 1, 0, 4]
    for micro in micro_batches(groups, lengths, 1, tiny_policy()):
        assert micro.loss_mask.sum(1).tolist() == lengths[micro.rows].tolist()


def masked(group, *masks):
    responses = zip(group.responses, masks, strict=True)
    return replace(group, responses=tuple(replace(r, mask=np.array(mask, bool)) for r, mask in responses))


def test_tokens_that_a_responses_mask_leaves_out_do_not_count():
    groups = [masked(GROUPS[0], [0, 1], [0]), masked(GROUPS[1], [1, 0, 0, 1], [1, 1, 1, 1])]
    groups[1] = replace(groups[1], responses=(groups[1].responses[0], replace(groups[1].responses[1], finished=False)))
    lengths = counted_lengths(groups, mask_truncated=True)
    assert lengths.tolist() == [1, 0, 2, 0] and counted_lengths(groups, mask_truncated=False).tolist() == [1, 0, 2, 4]
    [micro] = micro_batches(groups, lengths, 1000, tiny_policy())
    assert micro.rows.tolist() == [2, 3, 0, 1]
    assert micro.token_mask.int().tolist() == [[1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert micro.loss_mask.int().tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert micro.tokens == 3 + 4 + 4 + 13 + 2 + 1  # they are computed all the same


def test_the_kl_of_a_response_is_summed_over_the_tokens_that_its_mask_counts():
    groups = [masked(GROUPS[1], [1, 0, 0, 1], [0, 1, 1, 1])]  # of log-probs -20 and -21
    [micro] = micro_batches(groups, counted_lengths(groups, mask_truncated=False), 1000, tiny_policy())
    reference = torch.tensor([[-20.5, 7.0, 7.0, -21.0], [7.0, -21.0, -22.0, -21.5]])
    assert sequence_kl([micro], [reference], "k1").tolist() == [0.5 + 1.0, 0.0 + 1.0 + 0.5]


@pytest.mark.parametrize(
    ("token_budget", "expected"),
    [
        (1, [[2], [3], [1], [4]]),
        (35, [[2], [3], [1], [4]]),  # 2 and 3: 4 rows of 5 and 4 responses of 4 tokens make 36
        (36, [[2, 3], [1], [4]]),
        (78, [[2, 3, 1], [4]]),  # 6 rows of 9 and 6 responses of 4
        (77, [[2, 3], [1, 4]]),  # 3 rows of 20 and 4 responses of 2 make 68
        (10_000, [[2, 3, 1, 4]]),
    ],
)
def test_groups_are_cut_shortest_contexts_first(token_budget, expected):
    assert [numbers(micro) for micro in cut(token_budget)] == expected


@pytest.mark.parametrize("token_budget", [1, 20, 36, 50, 77, 100, 500])
def test_micro_batches_cover_every_group_once_within_the_budget(token_budget):
    micros = cut(token_budget)
    assert sorted(number for micro in micros for number in numbers(micro)) == [1, 2, 3, 4]
    for micro in micros:
        rows = [len(row) for context in micro.contexts for row in context]
        tokens = len(rows) * max(rows) + micro.loss_mask.numel()
        assert tokens <= token_budget or len(micro.contexts) == 1


def test_everything_of_a_response_stays_together():
    for micro in cut(77):
        size = len(micro.contexts)
        assert micro.response_ids.shape[:2] == (size, 2) and micro.response_ids.dtype == torch.int64
        ids = micro.response_ids.flatten(0, 1)
        assert torch.equal(ids != 0, micro.loss_mask)
        assert torch.equal(micro.sampler_logprobs, -ids.float())
        assert micro.rows.tolist() == [2 * (n // 10 - 1) + n % 10 for n in ids[:, 0].tolist()]


def test_the_order_of_groups_of_equal_length_is_kept():
    groups = [group(number, [7], [2, 2]) for number in (5, 2, 9)]
    micros = micro_batches(groups, counted_lengths(groups, mask_truncated=False), 1000, tiny_policy())
    assert [numbers(micro) for micro in micros] == [[5, 2, 9]]


@pytest.fixture(scope="module")
def sampled():
    return groups_of(new_learner(RL))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    tiny_policy(1).save(folder)
    return folder


IN_LOSS = {"kl_coef": 0.1, "mask_truncated": True, "entropy_coef": 0.05}
IN_REWARD = {"kl_coef": 0.1, "kl_in": "reward", "overlong_buffer": 3}
CORRECTED = {"correction": "truncate", "correction_level": "sequence", "correction_cap": 1.5}
EXTRAS = {"plain": {}, "kl in the loss, corrected": IN_LOSS | CORRECTED, "kl in the reward": IN_REWARD}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("loss", [name for name in PRESETS if name != "sft"])
def test_the_gradient_does_not_depend_on_the_token_budget(loss, extra, sampled, reference):
    (first, expected, _), *others = (
        trained_on(sampled, reference, token_budget=token_budget, loss=loss, **EXTRAS[extra])
        for token_budget in (1, 120, 100_000)
    )
    for parameters, metrics, _ in others:
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-7)
        for name, parameter in first.items():
            assert (parameter.grad - parameters[name].grad).abs().max() <= 1e-5 * parameter.grad.abs().max(), name


def trained_on(groups, folder, **changed):
    """Gradients and metrics of an update of a policy that is not the sampler's."""
    learner = Learner(
        tiny_policy(2), LearnerSettings(max_grad_norm=1e9, reference_path=str(folder), **changed), ROLLOUT, SETTINGS, {}
    )
    learner.begin(RL)
    metrics, advantages = learner.update(groups, 1)
    return learner.policy.trained_parameters(), metrics, advantages


MASKED = IN_LOSS, IN_REWARD | {"kl_estimator": "k1"}, CORRECTED | {"kl_coef": 0.1}
OF_TOKENS = ("loss", "kl", "kl_to_sampler", "clip_fraction", "corrected", "entropy", "ratios", "grad_norm")


@pytest.mark.parametrize("extra", MASKED)
@pytest.mark.parametrize("loss", ["grpo", "dapo", "gspo"])
def test_a_masked_last_token_counts_as_if_it_were_not_there(loss, extra, sampled, reference):
    """In loss, gradient, advantages and statistics: the same response without it says the same."""
    last_masked, without = [], []
    for each in sampled:
        masks = [[True] * (len(r.token_ids) - 1) + [len(r.token_ids) == 1] for r in each.responses]
        last_masked.append(masked(each, *masks))
        cut = [(r, np.count_nonzero(mask)) for r, mask in zip(each.responses, masks, strict=True)]
        responses = (
            replace(r, token_ids=r.token_ids[:n], sampler_logprobs=r.sampler_logprobs[:n], mask=r.mask[:n]) for r, n in cut
        )
        without.append(replace(each, responses=tuple(responses)))
    (ours, metrics, advantages), (theirs, expected, others) = (
        trained_on(groups, reference, loss=loss, **extra) for groups in (last_masked, without)
    )
    torch.testing.assert_close(advantages, others, rtol=1e-5, atol=1e-5)
    for name in OF_TOKENS:
        assert getattr(metrics, name) == pytest.approx(getattr(expected, name), rel=1e-4, abs=1e-6), name
    for name, parameter in ours.items():
        assert (parameter.grad - theirs[name].grad).abs().max() <= 1e-4 * theirs[name].grad.abs().max(), name


@pytest.mark.parametrize("extra", MASKED)
def test_what_a_sampler_said_of_a_masked_token_changes_nothing(extra, sampled, reference):
    groups = [masked(each, *([i % 3 != 1 for i in range(len(r.token_ids))] for r in each.responses)) for each in sampled]
    absurd = [
        replace(
            each,
            responses=tuple(
                replace(r, sampler_logprobs=np.where(r.mask, r.sampler_logprobs, np.float32(-1e9))) for r in each.responses
            ),
        )
        for each in groups
    ]
    (ours, metrics, advantages), (theirs, expected, others) = (trained_on(g, reference, **extra) for g in (absurd, groups))
    assert torch.equal(advantages, others)
    assert all(getattr(metrics, name) == getattr(expected, name) for name in OF_TOKENS)
    assert all(torch.equal(parameter.grad, theirs[name].grad) for name, parameter in ours.items())


def test_the_supervised_gradient_does_not_depend_on_the_token_budget():
    losses = [new_learner(SUPERVISED, token_budget=b).update(groups_of(new_learner(SUPERVISED)), 1)[0].loss for b in (1, 9999)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("token_budget", "tokens", "padded"),
    [
        (1, [11, 19, 16, 22], [11, 21, 22, 22]),  # 1 has 13 + 3 tokens, computed as 2 rows of 9 and 2 responses of 2
        (77, [30, 38], [36, 68]),
        (10_000, [68], [172]),  # 7 rows of 20 and 8 responses of 4
    ],
)
def test_tokens_are_counted_with_and_without_padding(token_budget, tokens, padded):
    assert [micro.tokens for micro in cut(token_budget)] == tokens
    assert [micro.padded_tokens for micro in cut(token_budget)] == padded
