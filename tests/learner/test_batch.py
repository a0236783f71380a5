import numpy as np
import pytest
import torch

from learner.batch import micro_batches, response_lengths
from rollout.types import Group, Prompt, Response, Retrieval, Version
from tests.learner.examples import GRPO, SUPERVISED, groups_of, new_learner


def group(number, rows, responses):
    """A group of given row and response lengths, whose tokens are 10 * its number, + 1 in the second response ..."""
    ids = [np.full(length, 10 * number + g, np.int32) for g, length in enumerate(responses)]
    return Group(
        prompt=Prompt(id=str(number), question="?", answers=("!",)),
        retrieval=Retrieval(passages=(), scores=()),
        context_ids=tuple(np.full(length, number, np.int32) for length in rows),
        responses=tuple(Response(text="", token_ids=x, sampler_logprobs=-x.astype(np.float32), finished=True) for x in ids),
        version=Version(0, 0),
    )


GROUPS = [group(1, [9, 4], [2, 1]), group(2, [3], [4, 4]), group(3, [5, 5, 5], [1, 3]), group(4, [20], [1, 1])]
ADVANTAGES = torch.arange(8.0).view(4, 2)
WEIGHTS = torch.arange(8.0) / 10


def cut(token_budget):
    return list(micro_batches(GROUPS, ADVANTAGES, WEIGHTS, token_budget, "cpu"))


def numbers(micro):
    return [int(context[0][0]) for context in micro.contexts]


def test_response_lengths_stand_in_the_groups_order():
    assert response_lengths(GROUPS).tolist() == [2, 1, 4, 4, 1, 3, 1, 1]


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
        tokens = len(rows) * max(rows) + micro.mask.numel()
        assert tokens <= token_budget or len(micro.contexts) == 1


def test_everything_of_a_response_stays_together():
    for micro in cut(77):
        size = len(micro.contexts)
        assert micro.response_ids.shape[:2] == (size, 2) and micro.response_ids.dtype == torch.int64
        ids = micro.response_ids.flatten(0, 1)
        assert torch.equal(ids != 0, micro.mask)
        assert torch.equal(micro.sampler_logprobs, -ids.float())
        for n, advantage, weight in zip(ids[:, 0].tolist(), micro.advantages, micro.weights, strict=True):
            position = 2 * (n // 10 - 1) + n % 10
            assert advantage == position and weight == WEIGHTS[position]


def test_the_order_of_groups_of_equal_length_is_kept():
    groups = [group(number, [7], [2, 2]) for number in (5, 2, 9)]
    micros = micro_batches(groups, torch.zeros(3, 2), torch.zeros(6), 1000, "cpu")
    assert [numbers(micro) for micro in micros] == [[5, 2, 9]]


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_the_gradient_does_not_depend_on_the_token_budget(loss):
    gradients, losses = [], []
    for token_budget in (1, 120, 100_000):
        learner = new_learner(GRPO, token_budget=token_budget, loss=loss, kl_coef=0.1, max_grad_norm=1e9)
        groups = groups_of(new_learner(GRPO))
        metrics, _ = learner.update(groups, 1)
        gradients.append({name: p.grad for name, p in learner.policy.model.named_parameters()})
        losses.append(metrics.loss)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5, abs=1e-7)
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            assert (gradient - other[name]).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_the_supervised_gradient_does_not_depend_on_the_token_budget():
    losses = [new_learner(SUPERVISED, token_budget=b).update(groups_of(new_learner(SUPERVISED)), 1)[0].loss for b in (1, 9999)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
