from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.settings.effects import check_effects
from cluster.settings.tree import Settings
from learner.algorithm import CHOSEN_BY_PRESETS, PRESETS, Algorithm
from learner.config import LearnerSettings, without_preset
from rollout.errors import SettingsError

WITHOUT_RATIO = {"importance": "none", "baseline": "none", "scale_rewards": "none", "kl_coef": 0.0}
OTHER_THAN_GRPO = {
    "grpo": {},
    "dapo": {"aggregation": "token", "eps_high": 0.28, "kl_coef": 0.0},
    "dr_grpo": {"aggregation": "constant", "scale_rewards": "none", "kl_coef": 0.0},
    "bnpo": {"aggregation": "token"},
    "cispo": {"surrogate": "cispo", "aggregation": "token", "eps_low": 1.0, "eps_high": 4.0, "kl_coef": 0.0},
    "gspo": {"importance": "sequence", "eps_low": 3e-4, "eps_high": 4e-4, "kl_coef": 0.0},
    "reinforce": WITHOUT_RATIO,
    "sft": WITHOUT_RATIO | {"aggregation": "token"},
}


@pytest.mark.parametrize("loss", PRESETS)
def test_a_named_loss_is_grpo_but_for_what_its_preset_chooses(loss):
    settings = LearnerSettings(loss=loss)
    assert settings.algorithm() == PRESETS[loss] == Algorithm(**OTHER_THAN_GRPO[loss])
    assert settings.needs_reference() == (loss in ("grpo", "bnpo"))


def test_the_defaults_are_those_of_grpo():
    grpo = PRESETS["grpo"]
    assert (grpo.eps_low, grpo.eps_high, grpo.kl_coef, grpo.kl_estimator) == (0.2, 0.2, 0.04, "k3")
    assert (grpo.importance, grpo.surrogate, grpo.aggregation) == ("token", "clip", "sequence")
    assert (grpo.baseline, grpo.scale_rewards, grpo.passes, grpo.top_k_ratio) == ("group", "group", 1, 1.0)


@pytest.mark.parametrize(
    ("values", "algorithm"),
    [
        ({"loss": "dapo", "eps_high": 0.5, "kl_coef": 0.1}, {"eps_high": 0.5, "aggregation": "token", "kl_coef": 0.1}),
        ({"kl_coef": 0.0, "aggregation": "token"}, {"kl_coef": 0.0, "aggregation": "token"}),
        ({"loss": "reinforce", "importance": "token"}, WITHOUT_RATIO | {"importance": "token"}),
        ({"kl_in": "reward"}, {"kl_in": "reward", "kl_estimator": "k1"}),
        ({"kl_in": "reward", "kl_estimator": "k3"}, {"kl_in": "reward", "kl_estimator": "k3"}),
        ({"overlong_buffer": 3, "mask_truncated": True, "passes": 2},) * 2,
        ({"correction": "mask", "correction_level": "sequence", "correction_cap": 3.0},) * 2,
        ({"dual_clip": 4.0, "entropy_coef": 0.1, "kl_estimator": "k2", "kl_weighted": True},) * 2,
    ],
)
def test_a_switch_that_is_set_wins(values, algorithm):
    assert LearnerSettings(**values).algorithm() == Algorithm(**algorithm)


@pytest.mark.parametrize("loss", PRESETS)
def test_settings_written_out_are_read_back_as_the_same(loss):
    written = Settings(learner={"loss": loss}).as_used().learner
    assert LearnerSettings(**written.model_dump()).algorithm() == LearnerSettings(loss=loss).algorithm()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"loss": "sft", "kl_coef": 0.1}, "kl_coef"),
        ({"loss": "sft", "top_k_ratio": 0.5}, "top_k_ratio"),
        ({"loss": "sft", "correction": "mask"}, "correction"),
        ({"loss": "reinforce", "eps_low": 0.1}, "eps_low"),
        ({"loss": "reinforce", "dual_clip": 3.0}, "dual_clip"),
        ({"loss": "cispo", "dual_clip": 3.0}, "dual_clip"),
        ({"correction": "mask", "eps_high": 0.3}, "eps_high"),
        ({"loss": "dapo", "kl_estimator": "k1"}, "kl_estimator"),
        ({"loss": "dapo", "reference_path": "folder"}, "reference_path"),
        ({"kl_coef": 0.0, "reference_every": 5}, "reference_every"),
        ({"kl_coef": 0.0, "kl_target": 0.1}, "kl_target"),
        ({"kl_in": "reward", "kl_weighted": True}, "kl_weighted"),
        ({"reward_aggregation": "normalize_then_sum", "baseline": "group"}, "baseline"),
        ({"reward_aggregation": "normalize_then_sum", "scale_rewards": "none"}, "scale_rewards"),
        ({"reward_aggregation": "normalize_then_sum", "kl_in": "reward"}, "kl_in"),
        ({"overlong_penalty": 2.0}, "overlong_penalty"),
        ({"correction_cap": 3.0}, "correction_cap"),
        ({"correction_level": "sequence"}, "correction_level"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(values, name):
    with pytest.raises(SettingsError, match=f"learner.{name}: .* has no effect with"):
        check_effects(Settings(learner=values), ())


@pytest.mark.parametrize(
    "values", [{}, {"baseline": "leave_one_out", "scale_rewards": "none"}, {"loss": "reinforce", "scale_rewards": "group"}]
)
def test_groups_of_one_are_refused_where_a_group_is_compared_with_itself(values):
    with pytest.raises(ValidationError, match="rollout.group_size: 1 response"):
        Settings(learner=values, rollout={"group_size": 1})


@pytest.mark.parametrize("values", [{"loss": "reinforce"}, {"loss": "reinforce", "baseline": "batch"}, {"loss": "sft"}])
def test_groups_of_one_are_taken_where_they_are_not(values):
    Settings(learner=values, rollout={"group_size": 1})


def test_a_share_that_keeps_the_whole_group_is_refused():
    with pytest.raises(ValidationError, match="learner.top_k_ratio: 0.5 keeps all 2 responses"):
        Settings(learner={"top_k_ratio": 0.5}, rollout={"group_size": 2})


def test_the_overlong_buffer_lies_within_the_longest_response():
    with pytest.raises(ValidationError, match="learner.overlong_buffer: 32 tokens must be fewer"):
        Settings(learner={"overlong_buffer": 32}, rollout={"max_new_tokens": 32})


def test_switches_of_a_file_that_say_what_its_loss_says_follow_another_loss():
    written = LearnerSettings(loss="dapo", eps_low=0.1, kl_coef=0.0).as_used(idle=()).model_dump()
    kept = without_preset({f"learner.{name}": value for name, value in written.items()})
    assert kept["learner.eps_low"] == 0.1 and kept["learner.loss"] == "dapo" and kept["learner.lr"] == 1e-4
    assert not {"learner.aggregation", "learner.eps_high", "learner.kl_coef", "learner.baseline"} & set(kept)
    assert "learner.kl_estimator" not in without_preset({"learner.kl_in": "reward", "learner.kl_estimator": "k1"})
    assert "learner.kl_estimator" in without_preset({"learner.kl_in": "reward", "learner.kl_estimator": "k3"})


def test_a_loss_that_is_no_name_is_left_to_validation():
    assert without_preset({"learner.loss": ["grpo"], "learner.lr": 1.0}) == {"learner.loss": ["grpo"], "learner.lr": 1.0}


def test_the_documented_presets_are_those_of_the_code():
    lines = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8").splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ") and line.count("|") == 10
    ]
    names = table[0][1:]
    assert {name: {row[0]: row[i + 1] for row in table[1:]} for i, name in enumerate(names)} == {
        loss: {name: str(getattr(preset, name)) for name in CHOSEN_BY_PRESETS} for loss, preset in PRESETS.items()
    }
