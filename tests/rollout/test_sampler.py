from dataclasses import replace

import numpy as np
import pytest
import torch

from rollout.config import RolloutSettings
from rollout.policy.weights import DamagedWeights, FlatWeights
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.seeding import rng_of
from rollout.types import Draws, Version
from tests.rollout.tiny import PROMPTS, SETTINGS, tiny_policy

ROLLOUT = RolloutSettings(group_size=3, max_new_tokens=6)
VERSION = Version(0, 4)
DRAWS = Draws(2, 0.7)


def new_sampler(seed=0, policy_seed=0, draws=DRAWS, **settings):
    retriever = Retriever(SETTINGS.n_context)
    return Sampler(tiny_policy(policy_seed), retriever, ROLLOUT.model_copy(update=settings), seed, draws=draws)


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
    first = sampler.sample(PROMPTS, "sample", VERSION).groups
    sampler.sample(PROMPTS[:2], "greedy", VERSION)
    for again in (sampler.sample(PROMPTS, "sample", VERSION).groups, new_sampler().sample(PROMPTS, "sample", VERSION).groups):
        assert all(same(a, b) for a, b in zip(first, again, strict=True))


def test_groups_stand_in_the_order_of_their_prompts(sampler):
    groups = sampler.sample(PROMPTS, "sample", VERSION).groups
    assert [group.prompt for group in groups] == list(PROMPTS)
    assert [len(group.context_ids) for group in groups] == [3, 1, 1, 2]
    assert all(len(group.responses) == 3 and group.version == VERSION and group.rewards is None for group in groups)


def test_what_a_prompt_draws_does_not_depend_on_its_neighbours(sampler):
    together = {g.prompt.id: tokens(g) for g in sampler.sample(PROMPTS, "sample", VERSION).groups}
    for prompts in (PROMPTS[2:], PROMPTS[::-1], PROMPTS[1:2]):
        assert all(tokens(g) == together[g.prompt.id] for g in sampler.sample(prompts, "sample", VERSION).groups)


@pytest.mark.parametrize("changed", ["epoch", "seed", "id"])
def test_another_epoch_seed_or_id_draws_other_responses(sampler, changed):
    before = sampler.sample(PROMPTS, "sample", VERSION).groups
    prompts = [replace(p, **({"epoch": 1} if changed == "epoch" else {"id": p.id + "x"})) for p in PROMPTS]
    after = new_sampler(seed=1).sample(PROMPTS, "sample", VERSION).groups if changed == "seed" else None
    after = after or sampler.sample(prompts, "sample", VERSION).groups
    assert all(tokens(a) != tokens(b) for a, b in zip(before, after, strict=True))


def test_a_prompts_generator_is_its_own():
    prompt = PROMPTS[0]
    drawn = rng_of(prompt, 3).random(5)
    assert np.array_equal(drawn, rng_of(replace(prompt, question="?"), 3).random(5))
    others = [rng_of(replace(prompt, **{name: value}), 3) for name, value in (("epoch", 1), ("id", "q1"), ("attempt", 1))]
    assert all(not np.array_equal(drawn, other.random(5)) for other in [rng_of(prompt, 4), *others])


def test_gold_mode_gives_a_gold_answer(sampler):
    for group in sampler.sample(PROMPTS, "gold", VERSION).groups:
        [response] = group.responses
        target = sampler.policy.target(response.text)
        assert response.text in group.prompt.answers
        assert response.token_ids.tolist() == target[:6].tolist()
        assert response.finished == (len(target) <= 6)
        assert response.sampler_logprobs.tolist() == [0] * len(response.token_ids)


def test_gold_mode_draws_every_answer_over_the_epochs(sampler):
    prompts = [replace(PROMPTS[1], epoch=epoch) for epoch in range(12)]
    texts = {group.responses[0].text for group in sampler.sample(prompts, "gold", VERSION).groups}
    assert texts == set(PROMPTS[1].answers)


def test_a_gold_answer_that_is_too_long_is_cut_and_not_finished():
    [group] = new_sampler(max_new_tokens=2).sample(PROMPTS[:1], "gold", VERSION).groups
    assert len(group.responses[0].token_ids) == 2 and not group.responses[0].finished


def test_greedy_mode_gives_the_one_most_probable_response(sampler):
    groups = sampler.sample(PROMPTS, "greedy", VERSION).groups
    assert [len(group.responses) for group in groups] == [1, 1, 1, 1]
    later = sampler.sample([replace(p, epoch=9) for p in PROMPTS], "greedy", VERSION).groups
    assert [tokens(g) for g in groups] == [tokens(g) for g in later]


def test_a_temperature_near_zero_draws_the_greedy_response(sampler):
    cold = new_sampler(temperature=1e-4).sample(PROMPTS, "sample", VERSION).groups
    for group, greedy in zip(cold, sampler.sample(PROMPTS, "greedy", VERSION).groups, strict=True):
        assert tokens(group) == tokens(greedy) * 3


def test_an_evaluation_draws_at_its_own_number_and_temperature_whatever_the_call(sampler):
    together = sampler.sample(PROMPTS, "draw", VERSION).groups
    assert [len(group.responses) for group in together] == [2] * len(PROMPTS)
    other = new_sampler(group_size=5, temperature=0.1, top_p=0.1)
    for prompts in (PROMPTS, PROMPTS[::-1], PROMPTS[1:2]):
        drawn = {group.prompt.id: tokens(group) for group in other.sample(prompts, "draw", VERSION).groups}
        assert drawn == {g.prompt.id: tokens(g) for g in together if g.prompt in prompts}
    cold = new_sampler(draws=Draws(3, 1e-4)).sample(PROMPTS, "draw", VERSION).groups
    for group, greedy in zip(cold, sampler.sample(PROMPTS, "greedy", VERSION).groups, strict=True):
        assert tokens(group) == tokens(greedy) * 3


def test_the_nucleus_keeps_less_than_all_and_says_how_much():
    whole, cut = (new_sampler(top_p=top_p).sample(PROMPTS, "sample", VERSION) for top_p in (1.0, 0.5))
    assert whole.top_p_mass == pytest.approx(1, abs=1e-6)
    assert 0.5 <= cut.top_p_mass < 1


def test_a_call_leaves_nothing_behind_in_the_sampler():
    sampler = new_sampler(top_p=0.5)
    before = dict(vars(sampler))
    assert sampler.sample(PROMPTS, "sample", VERSION).top_p_mass < 1 == sampler.sample(PROMPTS, "greedy", VERSION).top_p_mass
    assert vars(sampler) == before


def test_padding_is_told_of_the_contexts_of_the_call(sampler):
    sampled = sampler.sample(PROMPTS, "gold", VERSION)
    contexts = [group.context_ids for group in sampled.groups]
    tokens = sum(len(row) for context in contexts for row in context)
    assert 0 < sampled.padding == 1 - tokens / sampler.policy.context_tokens(contexts) < 1


def test_loaded_weights_decide_what_is_sampled(sampler):
    other = new_sampler(policy_seed=1)
    assert tokens(other.sample(PROMPTS, "greedy", VERSION).groups[0]) != tokens(
        sampler.sample(PROMPTS, "greedy", VERSION).groups[0]
    )
    other.load_weights(FlatWeights.of(sampler.policy.weights(torch.float32)), Version(0, 9))
    assert other.version == Version(0, 9)
    before, after = sampler.sample(PROMPTS, "sample", VERSION).groups, other.sample(PROMPTS, "sample", VERSION).groups
    assert all(same(a, b) for a, b in zip(before, after, strict=True))


def test_damaged_weights_are_refused_and_the_old_ones_stay():
    sampler = new_sampler()
    before = sampler.policy.weights(torch.float32)
    weights = FlatWeights.of(before + 1)
    weights.values[3] += 1
    with pytest.raises(DamagedWeights, match="arrived damaged"):
        sampler.load_weights(weights, Version(0, 9))
    assert (sampler.policy.weights(torch.float32) == before).all() and sampler.version != Version(0, 9)
