import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from learner.advantage import decoupled_advantages
from learner.algorithm import PRESETS
from learner.config import LearnerSettings, Stage
from learner.learner import Learner
from rollout.errors import CheckpointError, SettingsError
from rollout.policy.tiny import build_tiny_policy
from rollout.types import PromptKey
from tests.learner.examples import RL, ROLLOUT, SUPERVISED, groups_of, new_learner
from tests.rollout.tiny import SETTINGS, tiny_policy
from tests.rollout.tiny_causal import save_causal


def stage(**values):
    whole = Stage(name="rl", mode="sample", first=11, steps=12, prompts_per_step=4, lr=1.0, lr_warmup_steps=4)
    return replace(whole, **values)


def without_memory(metrics):
    return replace(metrics, peak_memory_mb=0.0)


def restored_from(folder, of_stage, **settings):
    """A learner that began with another policy."""
    learner = Learner(tiny_policy(1), LearnerSettings(**settings), ROLLOUT, SETTINGS, {})
    learner.restore(folder, of_stage)
    return learner


def test_learning_rate_rises_to_its_peak_and_falls_to_a_tenth():
    # steps 11 to 22: four of warm-up, the peak at 15, then 7 more down to 0.1
    rates = [stage().lr_at(step) for step in range(11, 23)]
    expected = [0.25, 0.5, 0.75, 1.0, 1.0] + [1 - 0.9 * i / 7 for i in range(1, 8)]
    assert rates == pytest.approx(expected)
    assert rates[-1] == pytest.approx(0.1)
    assert stage().last == 22


def test_without_warm_up_the_first_step_is_the_peak():
    assert stage(lr_warmup_steps=0, lr=3e-4).lr_at(11) == 3e-4


@pytest.mark.parametrize(("steps", "rates"), [(1, [0.25]), (4, [0.25, 0.5, 0.75, 1.0]), (5, [0.25, 0.5, 0.75, 1.0, 1.0])])
def test_a_stage_shorter_than_its_decay_stays_at_or_below_the_peak(steps, rates):
    assert [stage(steps=steps).lr_at(11 + i) for i in range(steps)] == pytest.approx(rates)


def test_schedules_end_at_the_final_ratio_and_cosine_is_halfway_in_the_middle() -> None:
    # steps 11 to 19 without warm-up: the fifth is the middle
    cosine = [stage(steps=9, lr_warmup_steps=0, schedule="cosine", final_lr_ratio=0.2).lr_at(step) for step in range(11, 20)]
    assert cosine == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)])
    assert (cosine[0], cosine[4], cosine[8]) == pytest.approx((1.0, 0.6, 0.2))
    linear = stage(steps=9, lr_warmup_steps=0, final_lr_ratio=0.0)
    assert [linear.lr_at(step) for step in (11, 15, 19)] == pytest.approx([1.0, 0.5, 0.0])
    assert {stage(schedule="constant").lr_at(step) for step in range(14, 23)} == {1.0}


def test_supervised_loss_falls_on_a_repeated_batch():
    learner = new_learner(SUPERVISED)
    groups = groups_of(learner)
    losses = [learner.update(groups, step)[0].loss for step in range(1, 9)]
    assert all(later < earlier for earlier, later in zip(losses, losses[1:], strict=False))
    assert losses[-1] < 0.8 * losses[0]


def test_stage_1_is_cross_entropy_whatever_the_loss():
    of_stage_2 = {"loss": "gspo", "kl_coef": 0.1, "passes": 3, "entropy_coef": 0.1, "mask_truncated": True}
    learner = new_learner(SUPERVISED, **of_stage_2)
    assert learner.algorithm == PRESETS["sft"]
    learner.begin(RL)
    assert learner.algorithm == learner.settings.algorithm() and learner.algorithm.passes == 3


def test_supervised_loss_is_the_mean_cross_entropy_of_gold_tokens():
    learner = new_learner(SUPERVISED)
    groups = groups_of(learner)
    tokens = sum(len(group.responses[0].token_ids) for group in groups)
    with torch.no_grad():
        scores = [
            learner.policy.token_logprobs(
                [g.context_ids], torch.from_numpy(g.responses[0].token_ids.astype(np.int64))[None, None], 1.0
            )
            for g in groups
        ]
    metrics, advantages = learner.update(groups, 1)
    assert metrics.loss == pytest.approx(-sum(float(s.logprobs.sum()) for s in scores) / tokens, rel=1e-5)
    assert metrics.entropy == pytest.approx(sum(float(s.entropy.sum()) for s in scores) / tokens, rel=1e-5)
    assert (metrics.reward, metrics.reward_std, metrics.reward_parts) == (None, None, {})
    assert advantages.tolist() == [[1]] * 4 and metrics.response_tokens == tokens
    assert learner.reference is None


def test_rewarded_responses_become_more_probable():
    learner = new_learner(RL)
    groups = [replace(g, rewards=np.array([1, 0, 0, 0], np.float32)) for g in groups_of(learner)]

    def mean_logprob():
        with torch.no_grad():
            ids = [torch.from_numpy(g.responses[0].token_ids.astype(np.int64))[None, None] for g in groups]
            scores = [learner.policy.token_logprobs([g.context_ids], i, 1.2) for g, i in zip(groups, ids, strict=True)]
        return np.mean([float(s.logprobs.mean()) for s in scores])

    before = mean_logprob()
    for step in (1, 2, 3):
        learner.update(groups, step)
    assert mean_logprob() > before


def test_the_first_update_after_begin_has_ratio_one_and_no_kl():
    learner = new_learner(RL)
    metrics, _ = learner.update(groups_of(learner), 1)
    assert metrics.kl == pytest.approx(0, abs=1e-9)
    assert metrics.ratios["ratio_max"] == pytest.approx(1, abs=1e-5) and metrics.clip_fraction == 0
    assert (metrics.skipped, metrics.skipped_prompts) == (0, ())
    again, _ = learner.update(groups_of(learner, epoch=1), 2)
    assert again.kl > 0


def test_metrics_are_those_of_the_batch():
    learner = new_learner(RL)
    groups = groups_of(learner)
    groups[0] = replace(groups[0], rewards=np.full(4, 0.5, np.float32))
    rewards = np.stack([g.rewards for g in groups])
    responses = [r for g in groups for r in g.responses]
    metrics, advantages = learner.update(groups, 1)
    assert metrics.reward == pytest.approx(rewards.mean(), rel=1e-6)
    assert metrics.reward_std == pytest.approx(rewards.std(1, ddof=1).mean(), rel=1e-6)
    assert metrics.reward_parts == {"f1": pytest.approx(np.mean([g.reward_parts["f1"] for g in groups]), rel=1e-6)}
    assert metrics.zero_variance == 0.25 and advantages[0].tolist() == [0] * 4
    assert metrics.truncated == pytest.approx(np.mean([not r.finished for r in responses]))
    assert metrics.response_tokens == sum(len(r.token_ids) for r in responses)
    assert metrics.lr == RL.lr and metrics.grad_norm > 0 and metrics.peak_memory_mb > 0


def test_padding_is_the_share_of_computed_tokens_that_are_none():
    groups = groups_of(new_learner(RL))
    rows = [len(row) for g in groups for row in g.context_ids]
    responses = [len(r.token_ids) for g in groups for r in g.responses]
    padded = len(rows) * max(rows) + len(responses) * max(responses)  # one micro-batch, its rows one bucket
    assert new_learner(RL).update(groups, 1)[0].padding == pytest.approx(1 - (sum(rows) + sum(responses)) / padded)


def test_top_k_ratio_leaves_the_largest_advantages():
    learner = new_learner(RL, top_k_ratio=0.5)
    _, advantages = learner.update(groups_of(learner), 1)
    assert (advantages != 0).sum(1).tolist() == [2] * 4


def test_the_reference_is_the_policy_at_begin_and_stays():
    learner = new_learner(RL)
    before = learner.weights().values.copy()
    for step in (1, 2):
        learner.update(groups_of(learner, step), step)
    assert (learner.reference.weights(torch.float32) == before).all()
    assert (learner.weights().values != before).any()
    learner.begin(RL)
    assert (learner.reference.weights(torch.float32) == learner.weights().values).all()


def test_without_kl_no_reference_is_held():
    assert new_learner(RL, kl_coef=0.0).reference is None
    assert new_learner(RL, loss="dapo").reference is None


def test_a_reference_of_its_own_is_read_from_its_folder(tmp_path):
    tiny_policy(1).save(tmp_path)
    learner = new_learner(RL, reference_path=str(tmp_path))
    assert (learner.reference.weights(torch.float32) == tiny_policy(1).weights(torch.float32)).all()
    assert learner.update(groups_of(learner), 1)[0].kl > 0


def broken_reward(group):
    return replace(group, rewards=np.array([math.inf, 0, 1, 0], np.float32))


def broken_logprobs(group):
    first = group.responses[0]
    lost = replace(first, sampler_logprobs=np.full_like(first.sampler_logprobs, -np.inf))
    return replace(group, responses=(lost, *group.responses[1:]))


@pytest.mark.parametrize("broken", [broken_reward, broken_logprobs])
def test_a_step_that_is_not_finite_is_skipped_and_its_prompts_named(broken):
    learner = new_learner(RL)
    groups = groups_of(learner, epoch=3)
    learner.update(groups_of(learner), 1)
    before, state = learner.weights().values.copy(), [p["exp_avg"].clone() for p in learner.optimizer.state.values()]
    metrics, _ = learner.update([broken(groups[0]), *groups[1:]], 2)
    assert metrics.skipped == 1
    assert metrics.skipped_prompts == tuple(PromptKey(3, f"q{i}") for i in range(4))
    assert (learner.weights().values == before).all()
    assert all(torch.equal(a, b["exp_avg"]) for a, b in zip(state, learner.optimizer.state.values(), strict=True))
    assert learner.update(groups, 3)[0].skipped == 0


def test_weights_that_are_not_finite_skip_the_step():
    learner = new_learner(RL)
    groups = groups_of(learner)
    with torch.no_grad():
        learner.policy.model.decoder.final_layer_norm.weight[0] = math.nan
    before = learner.weights().values.copy()
    metrics, _ = learner.update(groups, 1)
    assert metrics.skipped == 1 and len(metrics.skipped_prompts) == 4
    assert np.array_equal(learner.weights().values, before, equal_nan=True)


@pytest.mark.parametrize("of_stage", [SUPERVISED, RL], ids=["supervised", "rl"])
def test_a_restored_learner_goes_on_bit_for_bit(of_stage, tmp_path):
    learner = new_learner(of_stage)
    batches = [groups_of(learner, epoch) for epoch in range(4)]
    for step in (1, 2):
        learner.update(batches[step - 1], step)
    learner.save(tmp_path)
    restored = restored_from(tmp_path, of_stage)
    assert (restored.weights().values == learner.weights().values).all()
    for step in (3, 4):
        expected, advantages = learner.update(batches[step - 1], step)
        metrics, again = restored.update(batches[step - 1], step)
        assert without_memory(metrics) == without_memory(expected)
        assert torch.equal(advantages, again)
        assert (restored.weights().values == learner.weights().values).all()


def test_a_learner_saved_before_its_first_update_is_restored(tmp_path):
    learner = new_learner(RL)
    groups = groups_of(learner)
    learner.save(tmp_path)
    restored = restored_from(tmp_path, RL)
    assert without_memory(restored.update(groups, 1)[0]) == without_memory(learner.update(groups, 1)[0])


def test_a_restored_reference_does_not_need_the_folder_it_came_from(tmp_path):
    tiny_policy(1).save(tmp_path / "reference")
    learner = new_learner(RL, reference_path=str(tmp_path / "reference"))
    learner.save(tmp_path / "saved")
    (tmp_path / "reference").rename(tmp_path / "gone")
    restored = restored_from(tmp_path / "saved", RL, reference_path=str(tmp_path / "reference"))
    assert (restored.reference.weights(torch.float32) == learner.reference.weights(torch.float32)).all()


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_a_damaged_optimizer_file_is_refused(content, tmp_path):
    learner = new_learner(SUPERVISED)
    learner.update(groups_of(learner), 1)
    learner.save(tmp_path)
    path = tmp_path / "optimizer.safetensors"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="optimizer.safetensors: cannot be read"):
        learner.restore(tmp_path, SUPERVISED)


def changed_name(state):
    return {name.replace("shared", "other"): value for name, value in state.items()}


def changed_shape(state):
    return {name: value[:1] if name == "shared.weight/exp_avg" else value for name, value in state.items()}


def without_a_moment(state):
    return {name: value for name, value in state.items() if name != "shared.weight/exp_avg_sq"}


@pytest.mark.parametrize("change", [changed_name, changed_shape, without_a_moment])
def test_the_optimizer_file_of_another_model_is_refused(change, tmp_path):
    learner = new_learner(SUPERVISED)
    learner.update(groups_of(learner), 1)
    learner.save(tmp_path)
    path = tmp_path / "optimizer.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(CheckpointError, match="optimizer.safetensors: .* the policy; resume with the run's own policy"):
        learner.restore(tmp_path, SUPERVISED)


def test_a_reference_that_reads_other_tokens_is_refused(tmp_path):
    build_tiny_policy(SETTINGS, ["quite another text"], 0).save(tmp_path / "words")
    save_causal(tmp_path / "family")
    for folder in ("words", "family"):
        with pytest.raises(SettingsError, match="learner.reference_path: .* reads other tokens than the policy"):
            new_learner(RL, reference_path=str(tmp_path / folder))


def test_bfloat16_weights_travel_while_the_learners_own_stay_float32():
    settings = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    learner = Learner(tiny_policy(), LearnerSettings(), ROLLOUT, settings, {})
    learner.begin(SUPERVISED)
    learner.update(groups_of(learner), 1)
    assert learner.policy.model.dtype == torch.float32 and learner.weights().values.dtype == np.int16
    bits = learner.policy.weights(torch.bfloat16)
    assert (learner.weights().values == bits).all()


def stale_learner(**settings):
    """Whose policy is not the one that its groups were sampled with, and whose reference is a third."""
    learner = Learner(tiny_policy(2), LearnerSettings(**settings), ROLLOUT, SETTINGS, {"f1": 1.0, "extra/own": 0.5})
    learner.begin(RL)
    learner.reference = tiny_policy(1).frozen_copy()
    return learner


def test_each_pass_is_a_step_and_later_ones_leave_the_sampling_policy():
    one, two = new_learner(RL), new_learner(RL, passes=2)
    groups = groups_of(one)
    first, _ = one.update(groups, 1)
    both, _ = two.update(groups, 1)
    assert [int(p["step"]) for p in two.optimizer.state.values()] == [2] * len(two.optimizer.state)
    assert first.ratios["ratio_max"] == pytest.approx(1, abs=1e-5) and both.ratios["ratio_max"] > 1.001
    assert both.kl_to_sampler > first.kl_to_sampler and both.response_tokens == first.response_tokens


def test_the_corrections_proximal_policy_is_the_one_before_the_first_pass():
    """At the first pass the ratio to it is 1 whatever the sampler was, so nothing is clipped; without correction much is."""
    groups = groups_of(new_learner(RL))
    plain, _ = stale_learner().update(groups, 1)
    corrected, _ = stale_learner(correction="truncate", correction_cap=1.01).update(groups, 1)
    assert plain.clip_fraction > 0 and corrected.clip_fraction == 0
    assert plain.corrected == 0 and corrected.corrected > 0
    assert plain.kl_to_sampler == pytest.approx(corrected.kl_to_sampler, rel=1e-6) and plain.kl_to_sampler > 1e-4
    second, _ = stale_learner(correction="truncate", correction_cap=1.01, passes=2, eps_low=1e-4, eps_high=1e-4).update(
        groups, 1
    )
    assert second.clip_fraction > 0


def test_a_kl_in_the_reward_moves_advantages_and_not_the_loss():
    groups = [replace(g, rewards=np.zeros(4, np.float32)) for g in groups_of(new_learner(RL))]
    in_loss, at_loss = stale_learner(kl_coef=0.5).update(groups, 1)
    settings = {"kl_coef": 0.5, "kl_in": "reward", "kl_estimator": "k3", "scale_rewards": "none"}
    in_reward, at_reward = stale_learner(**settings).update(groups, 1)
    assert (at_loss == 0).all() and (at_reward != 0).any()
    assert in_loss.kl == pytest.approx(in_reward.kl) and in_loss.kl_coef == in_reward.kl_coef == 0.5
    assert in_reward.reward == 0  # as the scorer gave it


def test_the_kl_of_the_reward_is_summed_over_the_response():
    learner = stale_learner(kl_coef=0.5, kl_in="reward", scale_rewards="none", kl_estimator="k1")
    groups = [replace(g, rewards=np.zeros(4, np.float32)) for g in groups_of(new_learner(RL))]
    _, advantages = learner.update(groups, 1)
    for group, row in zip(groups, advantages, strict=True):
        kl = []
        for response in group.responses:
            ids = torch.from_numpy(response.token_ids.astype(np.int64))[None, None]
            with torch.no_grad():
                reference = learner.reference.token_logprobs([group.context_ids], ids, ROLLOUT.temperature).logprobs[0, 0]
            kl.append(float((torch.from_numpy(response.sampler_logprobs) - reference).sum()))
        assert row.tolist() == pytest.approx([-0.5 * (x - np.mean(kl)) for x in kl], abs=1e-4)


def test_the_coefficient_is_adapted_saved_and_restored(tmp_path):
    learner = new_learner(RL, kl_target=1e-9, kl_coef=0.5)
    groups = groups_of(learner)
    learner.update(groups, 1)
    assert learner.algorithm.kl_coef == pytest.approx(0.5 * 0.98)  # no KL yet
    learner.update(groups, 2)
    assert learner.algorithm.kl_coef == pytest.approx(0.5 * 0.98 * 1.02)
    learner.save(tmp_path)
    restored = restored_from(tmp_path, RL, kl_target=1e-9, kl_coef=0.5)
    assert restored.algorithm.kl_coef == learner.algorithm.kl_coef
    assert restored_from(tmp_path, RL, kl_target=1e-9, kl_coef=0.9).algorithm.kl_coef == 0.9
    (tmp_path / "learner.json").write_text("{}")
    with pytest.raises(CheckpointError, match="learner.json: cannot be read"):
        restored.restore(tmp_path, RL)


def test_the_reference_is_refreshed_every_n_updates():
    learner = new_learner(RL, reference_every=2)
    before = learner.weights().values.copy()
    learner.update(groups_of(learner), 1)
    assert (learner.reference.weights(torch.float32) == before).all()
    learner.update(groups_of(learner), 2)
    assert (learner.reference.weights(torch.float32) == learner.weights().values).all()
    assert not any(p.requires_grad for p in learner.reference.model.parameters())


def test_cut_responses_neither_pull_nor_push_where_they_are_masked():
    groups = groups_of(new_learner(RL))
    cut = [replace(g, responses=tuple(replace(r, finished=False) for r in g.responses)) for g in groups]
    learner = new_learner(RL, mask_truncated=True, weight_decay=0.0)
    before = learner.weights().values.copy()
    metrics, advantages = learner.update(cut, 1)
    assert metrics.grad_norm == 0 and (learner.weights().values == before).all()
    assert metrics.truncated == 1 and (advantages != 0).any()
    assert new_learner(RL).update(cut, 1)[0].grad_norm > 0


def test_long_responses_lose_reward_within_the_buffer():
    groups = [replace(g, rewards=np.zeros(4, np.float32)) for g in groups_of(new_learner(RL))]
    settings = {"overlong_buffer": 5, "overlong_penalty": 2.0, "scale_rewards": "none"}
    metrics, advantages = new_learner(RL, **settings).update(groups, 1)
    for group, row in zip(groups, advantages, strict=True):
        penalties = np.array([-2.0 * (len(r.token_ids) - 1) / 5 for r in group.responses])  # 0 at 1 token, -2 at all 6
        assert row.tolist() == pytest.approx((penalties - penalties.mean()).tolist(), abs=1e-6)
    assert metrics.reward == 0


def test_the_entropy_bonus_raises_entropy():
    groups = [replace(g, rewards=np.zeros(4, np.float32)) for g in groups_of(new_learner(RL))]
    learner = new_learner(RL, entropy_coef=1.0, kl_coef=0.0)
    entropies = [learner.update(groups, step)[0].entropy for step in range(1, 6)]
    assert entropies == sorted(entropies) and entropies[-1] > entropies[0] + 1e-4


def test_rewards_may_be_normalised_one_by_one():
    groups, rng = [], np.random.default_rng(0)
    for group in groups_of(new_learner(RL)):
        f1, own = rng.random(4).astype(np.float32), 100 * rng.random(4).astype(np.float32)
        groups.append(replace(group, rewards=f1 + own / 2, reward_parts={"f1": f1, "bleu": own, "extra/own": own}))
    _, advantages = stale_learner(reward_aggregation="normalize_then_sum").update(groups, 1)
    parts = torch.from_numpy(np.stack([[g.reward_parts[name] for g in groups] for name in ("f1", "extra/own")]))
    assert torch.allclose(advantages, decoupled_advantages(parts, torch.tensor([1.0, 0.5])), atol=1e-6)


def test_reinforce_needs_no_group():
    learner = new_learner(RL, loss="reinforce", baseline="batch")
    groups = [replace(g, responses=g.responses[:1], rewards=g.rewards[:1]) for g in groups_of(new_learner(RL))]
    groups = [replace(g, reward_parts={"f1": g.rewards}) for g in groups]
    metrics, advantages = learner.update(groups, 1)
    rewards = np.array([g.rewards[0] for g in groups])
    assert advantages[:, 0].tolist() == pytest.approx((rewards - rewards.mean()).tolist(), abs=1e-6)
    assert metrics.grad_norm > 0 and metrics.reward_std == 0


def test_cut_responses_pay_their_kl_though_they_are_masked():
    groups = [
        replace(g, responses=tuple(replace(r, finished=bool(i % 2)) for i, r in enumerate(g.responses)))
        for g in groups_of(new_learner(RL))
    ]
    _, plain = stale_learner(kl_coef=0.5, kl_in="reward").update(groups, 1)
    _, masked = stale_learner(kl_coef=0.5, kl_in="reward", mask_truncated=True).update(groups, 1)
    assert torch.equal(plain, masked)


def test_passes_from_the_first_that_is_not_finite_on_are_left_out():
    learner = new_learner(replace(RL, lr=1e38), passes=3)
    metrics, _ = learner.update(groups_of(new_learner(RL)), 1)
    assert metrics.skipped == 1 and len(metrics.skipped_prompts) == 4
    assert {int(state["step"]) for state in learner.optimizer.state.values()} == {1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_a_restored_learner_goes_on(tmp_path):
    policy = tiny_policy()
    policy.model = policy.model.to("cuda")
    learner = Learner(policy, LearnerSettings(kl_in="reward", overlong_buffer=2, passes=2), ROLLOUT, SETTINGS, {})
    learner.begin(RL)
    groups = groups_of(new_learner(RL))
    learner.update(groups, 1)
    learner.save(tmp_path)
    learner.restore(tmp_path, RL)
    assert {state["step"].device.type for state in learner.optimizer.state.values()} == {"cuda"}
    assert learner.update(groups, 2)[0].skipped == 0
