"""Our losses and advantages against TRL's own, as recorded by trl/record.py."""

import json
from pathlib import Path

import pytest
import torch

from learner.advantage import decoupled_advantages, group_advantages
from learner.algorithm import LossConfig
from learner.loss import token_weights
from learner.objective import policy_loss

RECORDED = json.loads((Path(__file__).parent / "trl" / "agreement.json").read_text(encoding="utf-8"))
INPUTS = {name: torch.tensor(value, dtype=torch.float64) for name, value in RECORDED["inputs"].items()}
AGGREGATIONS = {"grpo": "sequence", "dapo": "token", "bnpo": "token", "cispo": "token", "dr_grpo": "constant"}

# Where we differ on purpose, and why. Everything else agrees.
DIFFERENT_LOSSES = {
    "grpo_entropy": "TRL averages the bonus over tokens whatever the loss; ours is aggregated like the rest of the loss",
    "dr_grpo_entropy": "the same",
    "dapo_token_truncate_bounded": "TRL can raise small weights to a lower bound; ours are bounded above only, as in V-trace",
    "dapo_token_mask_bounded": "TRL can mask small weights too",
    "dapo_sequence_truncate_bounded": "as for tokens",
    "dapo_sequence_mask_bounded": "as for tokens",
    "gspo_kl_weighted": "TRL weighs the KL by the sequence's ratio; ours by the token's, which alone makes it unbiased",
    "gspo_on_policy": "the same",
    "rloo": "TRL clips a ratio of whole sequences, the product over tokens; ours is of tokens or GSPO's geometric mean",
    "rloo_kl": "the same",
    "rloo_mask_truncated": "the same",
}
NOT_OURS = {"grpo_entropy_top": "training on the tokens of highest entropy only is not offered"}
DIFFERENT_ADVANTAGES = {
    "rloo_one_normalized": "TRL centres leave-one-out advantages over the batch once more before it scales them",
    "rloo_one_clipped": "rewards are not clipped: each part lies in [0, 1] already",
    "rloo_one_kl_clipped_normalized": "both",
}


def settings_of(case):
    return RECORDED["common"] | case["settings"]


def our_config(settings):
    cispo = settings.get("loss_type") == "cispo"
    mode = settings.get("vllm_importance_sampling_mode", "token_none")
    level, correction = mode.split("_")
    high = settings["epsilon"] if settings["epsilon_high"] is None else settings["epsilon_high"]
    return LossConfig(
        importance=settings.get("importance_sampling_level", "token"),
        surrogate="cispo" if cispo else "clip",
        eps_low=1.0 if cispo else settings["epsilon"],
        eps_high=high - 1 if cispo else high,  # TRL's bound of CISPO is the ratio itself
        dual_clip=settings.get("delta"),
        aggregation=AGGREGATIONS[settings.get("loss_type", "grpo")],
        kl_coef=settings["beta"],
        kl_weighted=settings.get("use_bias_correction_kl", False),
        entropy_coef=settings.get("entropy_coef", 0.0),
        correction=correction,
        correction_level=level,
        correction_cap=settings.get("vllm_importance_sampling_clip_max", 1.0),
    )


def our_loss(case):
    """Loss, its gradients with respect to log-probs and entropy, and the statistics."""
    settings, config = settings_of(case), our_config(settings_of(case))
    mask = INPUTS["mask"].bool()
    if settings.get("mask_truncated_completions"):
        mask = mask & ~INPUTS["truncated"].bool()[:, None]
    policy, entropy = INPUTS["policy_logprobs"].clone().requires_grad_(), INPUTS["entropies"].clone().requires_grad_()
    old = policy.detach() if settings["num_iterations"] == 1 else INPUTS["old_logprobs"]
    sampler = old if config.correction == "none" else INPUTS["sampler_logprobs"]
    advantages = torch.tensor(case["advantages"], dtype=torch.float64) if "advantages" in case else INPUTS["advantages"]
    loss, statistics = policy_loss(
        policy,
        sampler,
        advantages,
        token_weights(mask.sum(-1), config.aggregation, settings["max_completion_length"]).double(),
        mask,
        config,
        reference_logprobs=INPUTS["reference_logprobs"] if config.kl_coef else None,
        proximal_logprobs=old,
        entropy=entropy,
    )
    loss.backward()
    return loss.detach(), policy.grad, entropy.grad, statistics


def close(ours, theirs):
    return bool((ours - torch.tensor(theirs, dtype=torch.float64)).abs().max() <= 1e-5)


@pytest.mark.parametrize("name", sorted(RECORDED["losses"].keys() - DIFFERENT_LOSSES.keys() - NOT_OURS.keys()))
def test_losses_and_their_gradients_equal_those_of_trl(name):
    case = RECORDED["losses"][name]
    loss, gradient, entropy_gradient, statistics = our_loss(case)
    assert close(loss, case["loss"])
    assert close(gradient, case["gradient"])
    if "entropy_gradient" in case:
        assert close(entropy_gradient, case["entropy_gradient"])
    if "kl" in case["metrics"]:
        assert float(statistics.kl.mean()) == pytest.approx(case["metrics"]["kl"], abs=1e-5)
    per_token = settings_of(case).get("importance_sampling_level") != "sequence"  # TRL's is a mean over sequences there
    if per_token and "clip_ratio/region_mean" in case["metrics"] and "delta" not in case["settings"]:
        assert float(statistics.clipped.mean()) == pytest.approx(case["metrics"]["clip_ratio/region_mean"], abs=1e-5)


@pytest.mark.parametrize("name", DIFFERENT_LOSSES)
def test_losses_that_differ_on_purpose_do_differ(name):
    case = RECORDED["losses"][name]
    loss, gradient, _, _ = our_loss(case)
    assert not (close(loss, case["loss"]) and close(gradient, case["gradient"]))


def our_advantages(name, case):
    settings = settings_of(case)
    parts = torch.tensor(
        [[[float("nan") if r is None else r for r in group] for group in part] for part in case["rewards_per_function"]],
        dtype=torch.float64,
    )
    weights = torch.tensor(settings.get("reward_weights", [1.0] * len(parts)), dtype=torch.float64)
    if settings.get("multi_objective_aggregation") == "normalize_then_sum":
        return decoupled_advantages(parts, weights)
    rewards = (weights[:, None, None] * parts).nansum(0).masked_fill(parts.isnan().all(0), torch.nan)
    if name.startswith("rloo"):
        kl = (INPUTS["old_logprobs"] - INPUTS["reference_logprobs"]) * INPUTS["mask"]
        return group_advantages(rewards - settings["beta"] * kl.sum(-1).view(3, 4), "leave_one_out", "none")
    return group_advantages(rewards, "group", settings["scale_rewards"])


@pytest.mark.parametrize("name", sorted(RECORDED["advantages"].keys() - DIFFERENT_ADVANTAGES.keys()))
def test_advantages_equal_those_of_trl(name):
    case = RECORDED["advantages"][name]
    assert close(our_advantages(name, case), case["advantages"])


@pytest.mark.parametrize("name", DIFFERENT_ADVANTAGES)
def test_advantages_that_differ_on_purpose_do_differ(name):
    case = RECORDED["advantages"][name]
    assert not close(our_advantages(name, case), case["advantages"])


def test_the_recording_is_of_the_version_that_is_named():
    assert RECORDED["trl"].startswith("1.16.")
