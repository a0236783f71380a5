import numpy as np
import pytest
import torch

from rollout.policy.buckets import PADDING, TOKENS, buckets, padded_tokens
from tests.rollout.tiny import contexts_of, tiny_policy

MANY = [np.random.default_rng(seed).integers(1, 400, 300) for seed in range(5)]


@pytest.mark.parametrize("lengths", [[7], [3, 9, 3], *MANY])
def test_every_row_stands_in_one_bucket_and_the_longest_come_first(lengths):
    order = np.concatenate(buckets(lengths))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(np.asarray(lengths)[order]) <= 0).all()


def test_rows_of_equal_length_are_one_bucket_in_their_order():
    [bucket] = buckets([TOKENS] * 9)
    assert bucket.tolist() == list(range(9))
    assert padded_tokens([TOKENS] * 9) == 9 * TOKENS


@pytest.mark.parametrize("lengths", MANY)
def test_little_of_a_bucket_is_padding_unless_it_is_small(lengths):
    cut = buckets(lengths)
    assert len(cut) > 3
    for bucket in cut:
        longest, real = lengths[bucket].max(), lengths[bucket].sum()
        padded = len(bucket) * longest
        assert padded - real <= PADDING * padded or (len(bucket) - 1) * longest < TOKENS
    assert lengths.sum() / padded_tokens(lengths) > 1 - 1.5 * PADDING


def test_few_tokens_are_not_worth_a_cut():
    assert len(buckets([9, 1, 1, 1])) == 1
    assert padded_tokens([9, 1, 1, 1]) == 36


def test_buckets_and_their_tokens_are_those_worked_out_by_hand(monkeypatch):
    """9 and 8: 1 of 18 is padding; with a 4 it were 6 of 27. 4 and 3: 1 of 8, just the limit; with a 3 more 2 of 12."""
    monkeypatch.setattr("rollout.policy.buckets.TOKENS", 1)
    lengths = [9, 4, 3, 3, 8]
    assert [bucket.tolist() for bucket in buckets(lengths)] == [[0, 4], [1, 2], [3]]
    assert padded_tokens(lengths) == 18 + 8 + 3


def test_rows_encoded_in_several_buckets_score_as_in_one(monkeypatch):
    policy = tiny_policy()
    contexts = contexts_of(policy)
    lengths = [len(row) for context in contexts for row in context]
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 100, (len(contexts), 3, 5)))
    with torch.no_grad():
        one = policy.token_logprobs(contexts, ids, 1.0)
        assert len(buckets(lengths)) == 1 and policy.context_tokens(contexts) == len(lengths) * max(lengths)
        monkeypatch.setattr("rollout.policy.buckets.TOKENS", 1)
        several = policy.token_logprobs(contexts, ids, 1.0)
        assert len(buckets(lengths)) > 2 and policy.context_tokens(contexts) < len(lengths) * max(lengths)
    torch.testing.assert_close(several.logprobs, one.logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(several.entropy, one.entropy, rtol=1e-5, atol=1e-5)
