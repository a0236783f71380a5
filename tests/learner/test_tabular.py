"""The losses move a policy as they should: one that is a table of logits, all of whose responses can be enumerated."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch

from learner.advantage import group_advantages
from learner.algorithm import PRESETS, LossConfig
from learner.loss import adapted_kl_coef, kl_divergence, token_weights
from learner.objective import policy_loss

PROMPTS, GROUP, VOCABULARY, END = 3, 8, 3, 0
UNBOUNDED = LossConfig(eps_low=1.0, eps_high=1e9, correction_cap=1e9)


@dataclass(frozen=True)
class World:
    """All responses to all prompts, R rows: the state (prompt and prefix) before each token, the token, the mask, [R, T]."""

    states: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    rewards: torch.Tensor

    def random_logits(self, seed, spread=1.0):
        shape = (int(self.states.max()) + 1, VOCABULARY)
        return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def logprobs(self, logits):
        return logits.log_softmax(-1)[self.states, self.tokens].masked_fill(~self.mask, 0.0)

    def probabilities(self, logits):
        """Of each response, over the number of prompts: they sum to 1."""
        return self.logprobs(logits).sum(-1).exp() / PROMPTS

    def reward(self, logits):
        return (self.probabilities(logits) * self.rewards).sum()

    def kl(self, policy, reference):
        """KL(policy || reference) of whole responses."""
        return (self.probabilities(policy) * (self.logprobs(policy) - self.logprobs(reference)).sum(-1)).sum()

    def kl_of_tokens(self, policy, reference, sampler):
        """KL(policy || reference) of the next token, over the states that a sampler's tokens are drawn in."""
        per_state = torch.nn.functional.kl_div(
            reference.log_softmax(-1), policy.log_softmax(-1), log_target=True, reduction="none"
        )
        return (self.probabilities(sampler).detach()[:, None] * per_state.sum(-1)[self.states] * self.mask).sum()

    def entropy(self, logits):
        """Of the next token, [R, T]."""
        return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)[self.states]

    def draw(self, logits, generator):
        """Rows of GROUP responses to each prompt."""
        chances = self.probabilities(logits).detach().view(PROMPTS, -1)
        chosen = torch.multinomial(chances, GROUP, replacement=True, generator=generator)
        return (chosen + torch.arange(PROMPTS)[:, None] * chances.shape[1]).flatten()


def world_of(max_tokens):
    """Responses of 1 to `max_tokens` tokens, up to the end token, with random rewards."""
    prefixes = [p for n in range(max_tokens) for p in itertools.product(range(1, VOCABULARY), repeat=n)]
    whole = [(*p, t) for p in prefixes for t in range(VOCABULARY) if t == END or len(p) == max_tokens - 1]
    states, tokens, mask = (torch.zeros(PROMPTS * len(whole), max_tokens, dtype=torch.long) for _ in range(3))
    for row, (prompt, response) in enumerate(itertools.product(range(PROMPTS), whole)):
        for t, token in enumerate(response):
            states[row, t] = prompt * len(prefixes) + prefixes.index(response[:t])
            tokens[row, t], mask[row, t] = token, 1
    rewards = torch.rand(len(states), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return World(states, tokens, mask.bool(), rewards)


SHORT, LONG = world_of(1), world_of(3)


def gradient(value, logits):
    return torch.autograd.grad(value, logits)[0]


def expected_gradient(world, policy, sampler, config, reference=None, proximal=None, advantages=None):
    """That of the loss's expectation over the sampler's responses, each token with weight 1."""
    learned = policy.clone().requires_grad_()
    value, _ = policy_loss(
        world.logprobs(learned),
        world.logprobs(sampler),
        torch.zeros_like(world.rewards) if advantages is None else advantages,
        world.probabilities(sampler),
        world.mask,
        config,
        reference_logprobs=None if reference is None else world.logprobs(reference),
        proximal_logprobs=None if proximal is None else world.logprobs(proximal),
    )
    return gradient(value, learned)


def train(world, logits, config, advantages_of, steps, lr, reference=None, passes=2):
    """Stochastic gradient descent on drawn responses; advantages_of maps rows and log-probs to advantages."""
    generator, logits = torch.Generator().manual_seed(0), logits.clone().requires_grad_()
    lengths = world.mask.sum(-1)
    for _ in range(steps):
        rows = world.draw(logits, generator)
        sampler = world.logprobs(logits).detach()[rows]
        advantages = advantages_of(rows, sampler)
        weights = token_weights(lengths[rows], config.aggregation, 3)
        for _ in range(passes):
            known = None if reference is None else world.logprobs(reference)[rows]
            learned = world.logprobs(logits)[rows]
            mask = world.mask[rows]
            value, _ = policy_loss(learned, sampler, advantages, weights, mask, config, reference_logprobs=known)
            logits.data -= lr * gradient(value, logits)
    return logits.detach()


def nothing(rows, _):
    return torch.zeros(len(rows), dtype=torch.float64)


def test_the_enumeration_is_complete():
    assert len(SHORT.states) == PROMPTS * 3
    assert len(LONG.states) == PROMPTS * (1 + 2 + 4 * 3)  # ended after one, after two, and all of three tokens
    for world in (SHORT, LONG):
        assert float(world.probabilities(world.random_logits(0)).sum()) == pytest.approx(1)


LOSSES = {name: preset for name, preset in PRESETS.items() if name != "sft"}
LOSSES["rloo"] = replace(PRESETS["reinforce"], baseline="leave_one_out")


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_raises_the_expected_reward_and_lowers_it_with_flipped_advantages(name):
    algorithm = LOSSES[name]
    uniform = torch.zeros_like(LONG.random_logits(0))
    start, reached = float(LONG.reward(uniform)), {}
    for sign in (1, -1):

        def advantages_of(rows, _, sign=sign):
            rewards = LONG.rewards[rows].view(PROMPTS, GROUP)
            return sign * group_advantages(rewards, algorithm.baseline, algorithm.scale_rewards).flatten()

        reached[sign] = float(LONG.reward(train(LONG, uniform, algorithm, advantages_of, steps=30, lr=4.0, reference=uniform)))
    assert reached[-1] + 0.1 < start < reached[1] - 0.1


def expected_gain(world, policy):
    learned = policy.clone().requires_grad_()
    return -gradient(world.reward(learned), learned)


POLICY, SAMPLER, PROXIMAL = 0, 1, 2  # seeds of three policies
EXACT = [
    (SHORT, {}, False),
    (SHORT, {"surrogate": "cispo"}, False),
    (SHORT, {"importance": "sequence"}, False),  # of one token
    (SHORT, {"correction": "truncate"}, False),
    (SHORT, {"correction": "mask"}, False),
    (SHORT, {"correction": "truncate", "importance": "none"}, False),
    (SHORT, {"correction": "truncate"}, True),
    (SHORT, {"correction": "truncate", "surrogate": "cispo"}, True),
    (LONG, {"correction": "truncate", "correction_level": "sequence"}, False),
    (LONG, {"correction": "mask", "correction_level": "sequence", "importance": "none"}, False),
]
BIASED = [
    (SHORT, {"importance": "none"}, False),
    (SHORT, {"correction": "truncate", "correction_cap": 1.5}, False),
    (SHORT, {"eps_high": 0.2}, False),
    (LONG, {}, False),  # tokens corrected one by one, in states that the sampler came to
    (LONG, {"correction": "truncate"}, False),
]


@pytest.mark.parametrize(("cases", "exact"), [(EXACT, True), (BIASED, False)])
def test_stale_samples_teach_what_fresh_ones_would_only_if_they_are_corrected(cases, exact):
    for world, changes, decoupled in cases:
        policy, sampler = world.random_logits(POLICY), world.random_logits(SAMPLER)
        proximal = world.random_logits(PROXIMAL) if decoupled else None
        config = replace(UNBOUNDED, **changes)
        found = expected_gradient(world, policy, sampler, config, proximal=proximal, advantages=world.rewards)
        assert torch.allclose(found, expected_gain(world, policy), rtol=1e-9, atol=1e-12) == exact, changes


@pytest.mark.parametrize("importance", ["token", "none"])
def test_fresh_samples_need_no_correction(importance):
    policy = LONG.random_logits(POLICY)
    found = expected_gradient(LONG, policy, policy, LossConfig(importance=importance), advantages=LONG.rewards)
    torch.testing.assert_close(found, expected_gain(LONG, policy))


def kl_gradient(of, policy, reference, sampler):
    learned = policy.clone().requires_grad_()
    pair = (learned, reference) if of == "policy || reference" else (reference, learned)
    return gradient(LONG.kl_of_tokens(*pair, sampler), learned)


@pytest.mark.parametrize("kind", ["sampling policy", "stale policy"])
@pytest.mark.parametrize(
    ("estimator", "weighted", "of"),
    [
        ("k2", False, "policy || reference"),
        ("k3", False, "reference || policy"),
        ("k1", True, "policy || reference"),
        ("k3", True, "policy || reference"),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"importance": "sequence"}, {"importance": "none"}, {"correction": "truncate"}])
def test_each_kl_estimator_has_the_gradient_of_its_kl(estimator, weighted, of, kind, changes):
    policy, reference = LONG.random_logits(POLICY), LONG.random_logits(PROXIMAL)
    sampler = policy if kind == "sampling policy" else LONG.random_logits(SAMPLER)
    config = replace(UNBOUNDED, kl_coef=1.0, kl_estimator=estimator, kl_weighted=weighted, **changes)
    found = expected_gradient(LONG, policy, sampler, config, reference=reference)
    exact = weighted or kind == "sampling policy"  # stale samples mislead unless they are weighted
    assert torch.allclose(found, kl_gradient(of, policy, reference, sampler), rtol=1e-9, atol=1e-12) == exact


def test_k1_as_a_loss_has_no_expected_gradient_at_the_sampling_policy():
    policy, reference = LONG.random_logits(POLICY), LONG.random_logits(PROXIMAL)
    found = expected_gradient(LONG, policy, policy, LossConfig(kl_coef=1.0, kl_estimator="k1"), reference=reference)
    assert found.abs().max() < 1e-15
    assert kl_gradient("policy || reference", policy, reference, policy).abs().max() > 0.1


def kl_after_training(config, advantages_of):
    """KL(policy || reference) after 60 steps, over what it was."""
    reference = LONG.random_logits(0, spread=0.5)
    policy = reference + LONG.random_logits(1)
    trained = train(LONG, policy, config, advantages_of(reference), 60, lr=1.0, reference=reference, passes=1)
    return float(LONG.kl(trained, reference) / LONG.kl(policy, reference))


@pytest.mark.parametrize(
    ("estimator", "weighted", "pulls"),
    [("k3", False, True), ("k3", True, True), ("k2", False, True), ("k1", False, False)],
)
def test_the_kl_as_a_loss_pulls_the_policy_back_but_not_as_k1(estimator, weighted, pulls):
    config = LossConfig(kl_coef=1.0, kl_estimator=estimator, kl_weighted=weighted)
    share = kl_after_training(config, lambda _: nothing)
    assert share < 0.3 if pulls else share > 0.9


def test_k1_taken_from_the_reward_pulls_the_policy_back():
    def advantages_of(reference):
        def of_rows(rows, sampler):
            kl = kl_divergence(sampler, LONG.logprobs(reference)[rows], "k1").sum(-1)
            return group_advantages(-kl.view(PROMPTS, GROUP), "leave_one_out", "none").flatten()

        return of_rows

    assert kl_after_training(LossConfig(kl_coef=0.0), advantages_of) < 0.3


def test_the_entropy_bonus_raises_the_entropy():
    logits = LONG.random_logits(0, spread=2.0).requires_grad_()
    config, entropies = LossConfig(entropy_coef=1.0), []
    for _ in range(10):
        learned, entropy = LONG.logprobs(logits), LONG.entropy(logits)
        chances = LONG.probabilities(logits).detach()
        visits = chances[:, None] * LONG.mask
        entropies.append(((visits * entropy).sum() / visits.sum()).item())
        zeros = nothing(LONG.rewards, None)
        value, _ = policy_loss(learned, learned.detach(), zeros, chances, LONG.mask, config, entropy=entropy)
        logits.data -= 1.0 * gradient(value, logits)
    assert all(after > before for before, after in itertools.pairwise(entropies))
    assert entropies[-1] > 1.3 * entropies[0]


@pytest.mark.parametrize("start", [0.05, 5.0])
def test_the_adaptive_coefficient_brings_the_kl_to_its_target(start):
    reference = SHORT.random_logits(0)
    policy, kl_coef, target = reference.clone(), start, 0.05
    for _ in range(400):
        config = LossConfig(kl_coef=kl_coef, kl_weighted=True)
        policy -= 1.0 * expected_gradient(SHORT, policy, policy, config, reference=reference, advantages=SHORT.rewards)
        kl_coef = adapted_kl_coef(kl_coef, float(SHORT.kl(policy, reference)), target)
    assert float(SHORT.kl(policy, reference)) == pytest.approx(target, rel=0.05)
    assert SHORT.reward(policy) > SHORT.reward(reference) + 0.03
