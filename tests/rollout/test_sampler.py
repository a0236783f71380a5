from dataclasses import replace

import numpy as np
import pytest
import torch

from rollout.config import RolloutSettings
from rollout.errors import PolicyError
from rollout.policy.weights import FlatWeights
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler, generator
from rollout.types import Version
from tests.rollout.tiny import PROMPTS, SETTINGS, tiny_policy

ROLLOUT = RolloutSettings(group_size=3, max_new_tokens=6)
VERSION = Version(0, 4)


def new_sampler(seed=0, policy_seed=0, **settings):
    retriever = Retriever(None, "all", SETTINGS.n_context)
    return Sampler(tiny_policy(policy_seed), retriever, ROLLOUT.model_copy(update=settings), seed)


@pytest.fixture(scope="module")
def sampler():
    return new_sampler()


def tokens(group):
    return [r.token_ids.tolist() for r in group.responses]


def same(a, b):
    return (
        (a.prompt, a.retrieval, a.version) == (b.prompt, b.retrieval, b.version)
        and all(np.array_equal(x, y) for x, y in zip(a.context_ids, b.context_ids, strict=True))
        and tokens(a) == tokens(b)
        and all(np.array_equal(x.sampler_logprobs, y.sampler_logprobs) for x, y in zip(a.responses, b.responses, strict=True))
    )


def test_the_same_call_gives_the_same_groups_bit_for_bit(sampler):
    first = sampler.groups(PROMPTS, "sample", VERSION)
    sampler.groups(PROMPTS[:2], "greedy", VERSION)
    for again in (sampler.groups(PROMPTS, "sample", VERSION), new_sampler().groups(PROMPTS, "sample", VERSION)):
        assert all(same(a, b) for a, b in zip(first, again, strict=True))


def test_groups_stand_in_the_order_of_their_prompts(sampler):
    groups = sampler.groups(PROMPTS, "sample", VERSION)
    assert [group.prompt for group in groups] == list(PROMPTS)
    assert [len(group.context_ids) for group in groups] == [3, 1, 1, 2]
    assert all(len(group.responses) == 3 and group.version == VERSION and group.rewards is None for group in groups)


def test_what_a_prompt_draws_does_not_depend_on_its_neighbours(sampler):
    together = {g.prompt.id: tokens(g) for g in sampler.groups(PROMPTS, "sample", VERSION)}
    for prompts in (PROMPTS[2:], PROMPTS[::-1], PROMPTS[1:2]):
        assert all(tokens(g) == together[g.prompt.id] for g in sampler.groups(prompts, "sample", VERSION))


@pytest.mark.parametrize("changed", ["epoch", "seed", "id"])
def test_another_epoch_seed_or_id_draws_other_responses(sampler, changed):
    before = sampler.groups(PROMPTS, "sample", VERSION)
    prompts = [replace(p, **({"epoch": 1} if changed == "epoch" else {"id": p.id + "x"})) for p in PROMPTS]
    after = new_sampler(seed=1).groups(PROMPTS, "sample", VERSION) if changed == "seed" else None
    after = after or sampler.groups(prompts, "sample", VERSION)
    assert all(tokens(a) != tokens(b) for a, b in zip(before, after, strict=True))


def test_a_prompts_generator_is_its_own():
    prompt = PROMPTS[0]
    drawn = generator(3, prompt).random(5)
    assert np.array_equal(drawn, generator(3, replace(prompt, question="?")).random(5))
    others = [generator(3, replace(prompt, **{name: value})) for name, value in (("epoch", 1), ("id", "q1"), ("attempt", 1))]
    assert all(not np.array_equal(drawn, other.random(5)) for other in [generator(4, prompt), *others])


def test_gold_mode_gives_a_gold_answer(sampler):
    for group in sampler.groups(PROMPTS, "gold", VERSION):
        [response] = group.responses
        target = sampler.policy.target(response.text)
        assert response.text in group.prompt.answers
        assert response.token_ids.tolist() == target[:6].tolist()
        assert response.finished == (len(target) <= 6)
        assert response.sampler_logprobs.tolist() == [0] * len(response.token_ids)


def test_gold_mode_draws_every_answer_over_the_epochs(sampler):
    prompts = [replace(PROMPTS[1], epoch=epoch) for epoch in range(12)]
    texts = {group.responses[0].text for group in sampler.groups(prompts, "gold", VERSION)}
    assert texts == set(PROMPTS[1].answers)


def test_a_gold_answer_that_is_too_long_is_cut_and_not_finished():
    [group] = new_sampler(max_new_tokens=2).groups(PROMPTS[:1], "gold", VERSION)
    assert len(group.responses[0].token_ids) == 2 and not group.responses[0].finished


def test_greedy_mode_gives_the_one_most_probable_response(sampler):
    groups = sampler.groups(PROMPTS, "greedy", VERSION)
    assert [len(group.responses) for group in groups] == [1, 1, 1, 1]
    later = sampler.groups([replace(p, epoch=9) for p in PROMPTS], "greedy", VERSION)
    assert [tokens(g) for g in groups] == [tokens(g) for g in later]


def test_a_temperature_near_zero_draws_the_greedy_response(sampler):
    cold = new_sampler(temperature=1e-4).groups(PROMPTS, "sample", VERSION)
    for group, greedy in zip(cold, sampler.groups(PROMPTS, "greedy", VERSION), strict=True):
        assert tokens(group) == tokens(greedy) * 3


def test_the_nucleus_keeps_less_than_all_and_says_how_much():
    whole, cut = new_sampler(), new_sampler(top_p=0.5)
    whole.groups(PROMPTS, "sample", VERSION)
    cut.groups(PROMPTS, "sample", VERSION)
    assert whole.top_p_mass == pytest.approx(1, abs=1e-6)
    assert 0.5 <= cut.top_p_mass < 1


def test_kept_mass_is_that_of_the_last_call():
    sampler = new_sampler(top_p=0.5)
    sampler.groups(PROMPTS, "sample", VERSION)
    sampler.groups(PROMPTS, "greedy", VERSION)
    assert sampler.top_p_mass == 1


def test_loaded_weights_decide_what_is_sampled(sampler):
    other = new_sampler(policy_seed=1)
    assert tokens(other.groups(PROMPTS, "greedy", VERSION)[0]) != tokens(sampler.groups(PROMPTS, "greedy", VERSION)[0])
    other.load_weights(FlatWeights.of(sampler.policy.weights(torch.float32)), Version(0, 9))
    assert other.version == Version(0, 9)
    before, after = sampler.groups(PROMPTS, "sample", VERSION), other.groups(PROMPTS, "sample", VERSION)
    assert all(same(a, b) for a, b in zip(before, after, strict=True))


def test_damaged_weights_are_refused_and_the_old_ones_stay():
    sampler = new_sampler()
    before = sampler.policy.weights(torch.float32)
    weights = FlatWeights.of(before + 1)
    weights.values[3] += 1
    with pytest.raises(PolicyError, match="arrived damaged"):
        sampler.load_weights(weights, Version(0, 9))
    assert (sampler.policy.weights(torch.float32) == before).all() and sampler.version != Version(0, 9)
