from datetime import date

import pytest
from pydantic import ValidationError

from reward.config import ExtraReward, RewardSettings


def test_defaults_weigh_the_three_metrics_equally():
    settings = RewardSettings()
    assert (settings.f1, settings.rouge, settings.bleu, settings.mode, settings.extra) == (1, 1, 1, "sum", ())


def test_every_setting_has_a_line_of_help():
    for model in (RewardSettings, ExtraReward):
        assert all(field.description and "\n" not in field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    "values", [{"f1": float("nan")}, {"bleu": float("inf")}, {"mode": "max"}, {"rougeL": 1.0}, {"f1": "x"}]
)
def test_wrong_values_and_unknown_names_are_refused(values):
    with pytest.raises(ValidationError):
        RewardSettings.model_validate(values)


def test_extra_weight_must_be_finite():
    with pytest.raises(ValidationError, match="finite"):
        ExtraReward(function="module:function", weight=float("nan"))


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RewardSettings().f1 = 2.0


@pytest.mark.parametrize("name", ["", "module", "module:", ":function", "a:b:c", "my module:f", "a/b.py:f", "a..b:f"])
def test_function_must_look_like_module_and_function(name):
    with pytest.raises(ValidationError, match="module:function"):
        ExtraReward(function=name)


def test_extra_names_must_be_distinct():
    with pytest.raises(ValidationError, match="as 'extra/length': give 'two:length' a name of its own"):
        RewardSettings(extra=(ExtraReward(function="one:length"), ExtraReward(function="two:length")))
    one, other = ExtraReward(function="one:length", args={"limit": 3}), ExtraReward(function="one:length", name="longer")
    assert list(RewardSettings(f1=0, rouge=0, bleu=0, extra=(one, other)).weights()) == ["extra/length", "extra/longer"]


def test_an_extra_reward_never_takes_the_name_of_a_column_of_ours():
    assert ExtraReward(function="my.rewards:reward").column == "extra/reward"


@pytest.mark.parametrize(
    ("values", "own_pool", "pool_size"),
    [({}, False, 1), ({"gpus": 0.5}, True, 1), ({"actors": 3}, True, 3), ({"gpus": 1, "actors": 2}, True, 2)],
)
def test_a_reward_with_gpus_or_actors_has_a_pool_of_its_own(values, own_pool, pool_size):
    extra = ExtraReward(function="module:function", **values)
    assert (extra.own_pool, extra.pool_size) == (own_pool, pool_size)


@pytest.mark.parametrize(
    "values",
    [
        {"gpus": -1},
        {"gpus": 1.5},
        {"actors": 0},
        {"concurrency": 0},
        {"args": [1]},
        {"args": {1: 2}},
        {"args": {"day": date(2024, 1, 2)}},
        {"name": "a b"},
        {"name": ""},
        {"arg": {}},
    ],
)
def test_wrong_values_of_an_extra_reward_are_refused(values):
    with pytest.raises(ValidationError):
        ExtraReward.model_validate({"function": "module:function", **values})
