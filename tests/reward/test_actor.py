"""The shells' own code, called without Ray."""

import sys
import types

import numpy as np
import pytest

from reward.actor import ExtraRewardActor, RecordsActor, RewardActor
from reward.config import ExtraReward, RewardSettings
from rollout.text import ENGLISH
from tests.reward.groups import make_group

GROUPS = [make_group(["yes", "no"], ("yes",)), make_group(["never", "maybe"], ("no",))]


@pytest.fixture
def rewards(monkeypatch):
    module = types.ModuleType("own_rewards")
    module.lengths = lambda prompt, passages, responses: [len(text) for text in responses]
    module.firsts = lambda prompts, passages, responses, value: [[value] + [None] * (len(own) - 1) for own in responses]
    monkeypatch.setitem(sys.modules, "own_rewards", module)


FIRSTS = {"function": "own_rewards:firsts", "weight": 2, "args": {"value": 7}, "batch": True}
LENGTHS = {"function": "own_rewards:lengths", "weight": 0.5}


def ready(actor):
    actor.ready()
    return actor


def test_what_is_measured_elsewhere_is_paid_as_if_measured_here(rewards):
    here = ready(RewardActor("0", RewardSettings(extra=(FIRSTS, LENGTHS)), ENGLISH))
    apart = RewardSettings(extra=(FIRSTS | {"actors": 1}, LENGTHS))
    there, scoring = ready(ExtraRewardActor("0", apart.extra[0])), ready(RewardActor("0", apart, ENGLISH))
    report, values = there.measure(*GROUPS)
    assert list(report.figures) == ["seconds_reward"] and report.reward_ranges == ()
    np.testing.assert_equal(values, {"extra/firsts": [np.array([7, np.nan])] * 2})
    (expected_report, *expected), (scored_report, *scored) = here.score(2, *GROUPS), scoring.score(2, *GROUPS, values)
    assert expected_report.reward_ranges == scored_report.reward_ranges == (3 + 14 + 0.5, 14.0)  # yes: 3 metrics
    for one, other in zip(expected, scored, strict=True):
        np.testing.assert_equal(one.rewards, other.rewards)
        assert list(one.reward_parts) == list(other.reward_parts) == ["f1", "rougeL", "bleu", "extra/firsts", "extra/lengths"]


def test_a_reward_that_is_measured_elsewhere_is_not_loaded_here():
    settings = RewardSettings(extra=({"function": "no_such_module:f", "gpus": 1},))
    ready(RewardActor("0", settings, ENGLISH))


def test_records_run_none_of_the_users_code():
    settings = RewardSettings(extra=({"function": "no_such_module:f"},))
    records = ready(RecordsActor(settings, ENGLISH))
    scored = ready(RewardActor("0", RewardSettings(), ENGLISH)).score(2, *GROUPS)[1:]
    evaluation = records.evaluate("yes", 1.0, 2, *scored)
    assert evaluation.figures["f1"] == 50 and evaluation.figures["constant_reply"]["reward"] is None
    assert [row["prediction"] for row in evaluation.predictions] == ["yes", "never"]
    assert records.constant_reply([group.prompt for group in GROUPS], seed=0) in ("yes", "no")


def test_groups_come_back_from_their_file(tmp_path):
    records = ready(RecordsActor(RewardSettings(), ENGLISH))
    records.write_groups(tmp_path / "groups.parquet", *GROUPS)
    nothing, *back = records.read_groups(tmp_path / "groups.parquet")
    assert nothing is None and [group.prompt for group in back] == [group.prompt for group in GROUPS]


def test_actors_are_named_by_what_they_do():
    extra = ExtraReward(function="own_rewards:judge", name="tox", gpus=1)
    settings = RewardSettings()
    actors = RewardActor("0", settings, ENGLISH), ExtraRewardActor("1", extra), RecordsActor(settings, ENGLISH)
    assert [str(actor) for actor in actors] == ["Reward[0]", "Reward[tox/1]", "Records"]
