from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.settings.tree import Settings
from learner.config import PRESETS, LearnerSettings, without_preset
from learner.loss import LossSwitches

PRESET_SWITCHES = {
    "grpo": LossSwitches(kl_coef=0.04),
    "dapo": LossSwitches(aggregation="token", eps_high=0.28),
    "dr_grpo": LossSwitches(aggregation="constant"),
    "bnpo": LossSwitches(aggregation="token", kl_coef=0.04),
    "cispo": LossSwitches(surrogate="cispo", aggregation="token", eps_low=1.0, eps_high=4.0),
    "gspo": LossSwitches(importance="sequence", eps_low=3e-4, eps_high=4e-4),
    "reinforce": LossSwitches(importance="none"),
    "sft": LossSwitches(importance="none", aggregation="token"),
}
PRESET_ADVANTAGES = {name: ("group", "group") for name in PRESETS} | {
    "dr_grpo": ("group", "none"),
    "reinforce": ("none", "none"),
    "sft": ("none", "none"),
}


@pytest.mark.parametrize("loss", PRESETS)
def test_a_named_loss_sets_the_switches(loss):
    settings = LearnerSettings(loss=loss)
    assert settings.loss_switches() == PRESET_SWITCHES[loss]
    assert (settings.switch("baseline"), settings.switch("scale_rewards")) == PRESET_ADVANTAGES[loss]
    assert settings.needs_reference() == (loss in ("grpo", "bnpo"))


@pytest.mark.parametrize(
    ("values", "switches"),
    [
        ({"loss": "dapo", "eps_high": 0.5, "kl_coef": 0.1}, LossSwitches(eps_high=0.5, aggregation="token", kl_coef=0.1)),
        ({"kl_coef": 0.0, "aggregation": "token"}, LossSwitches(aggregation="token")),
        ({"loss": "reinforce", "importance": "token"}, LossSwitches()),
        ({"kl_in": "reward"}, LossSwitches(kl_estimator="k1")),
        (
            {
                "correction": "mask",
                "correction_level": "sequence",
                "correction_cap": 3.0,
                "dual_clip": 4.0,
                "entropy_coef": 0.1,
            },
            LossSwitches(
                kl_coef=0.04,
                correction="mask",
                correction_level="sequence",
                correction_cap=3.0,
                dual_clip=4.0,
                entropy_coef=0.1,
            ),
        ),
        ({"kl_estimator": "k2", "kl_weighted": True}, LossSwitches(kl_coef=0.04, kl_estimator="k2", kl_weighted=True)),
    ],
)
def test_a_switch_that_is_set_wins(values, switches):
    assert LearnerSettings(**values).loss_switches() == switches


def test_stage_1_is_cross_entropy_whatever_the_loss():
    settings = LearnerSettings(loss="gspo", passes=3, entropy_coef=0.1, mask_truncated=True, weight_decay=0.3, token_budget=99)
    assert settings.supervised() == LearnerSettings(loss="sft", weight_decay=0.3, token_budget=99)


@pytest.mark.parametrize("loss", PRESETS)
def test_settings_written_out_are_read_back_as_the_same(loss):
    written = LearnerSettings(loss=loss).resolved()
    assert LearnerSettings(**written.model_dump()).loss_switches() == LearnerSettings(loss=loss).loss_switches()
    assert not list(written.without_effect())
    assert written.resolved() == written


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
    with pytest.raises(ValidationError, match=f"learner.{name}: .* has no effect with"):
        Settings(learner=values)


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
    written = LearnerSettings(loss="dapo", eps_low=0.1, kl_coef=0.0).resolved().model_dump()
    kept = without_preset({f"learner.{name}": value for name, value in written.items()})
    assert kept["learner.eps_low"] == 0.1 and kept["learner.loss"] == "dapo" and kept["learner.lr"] == 1e-4
    assert not {"learner.aggregation", "learner.eps_high", "learner.kl_coef", "learner.baseline"} & set(kept)
    assert "learner.kl_estimator" not in without_preset({"learner.kl_in": "reward", "learner.kl_estimator": "k1"})
    assert "learner.kl_estimator" in without_preset({"learner.kl_in": "reward", "learner.kl_estimator": "k3"})


def test_the_documented_presets_are_those_of_the_code():
    lines = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8").splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ") and line.count("|") == 10
    ]
    names = table[0][1:]
    assert {name: {row[0]: row[i + 1] for row in table[1:]} for i, name in enumerate(names)} == {
        loss: {switch: str(value) for switch, value in preset.items()} for loss, preset in PRESETS.items()
    }
