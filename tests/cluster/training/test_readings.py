from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.settings.tree import Settings
from cluster.training.readings import ALL, gap_closed, wanted_readings
from cluster.watch.series import of_evaluation
from cluster.watch.terminal import evaluation_table
from rollout.types import Passage, Prompt
from tests.cluster.runs import rows

GOLD = Prompt(id="gold", question="?", answers=("a",), gold=("p1",))
BARE = Prompt(id="bare", question="?", answers=("a",))
OWN = Prompt(id="own", question="?", answers=("a",), passages=(Passage(id="p", title="", text="t"),))


def test_the_gap_closed_is_what_is_won_over_bm25_of_what_gold_would_win():
    others = {"lexical": {"reward": 1.0}, "gold": {"reward": 2.0}}
    assert [gap_closed({"reward": own}, others) for own in (1.0, 1.5, 2.0, 0.5)] == [0, 50, 100, -50]


@pytest.mark.parametrize(
    "readings",
    [
        {"lexical": {"reward": 1.0}},
        {"lexical": {"reward": 2.0}, "gold": {"reward": 2.0}},
        {"lexical": {"reward": None}, "gold": {"reward": 2.0}},
    ],
)
def test_no_gap_is_told_where_gold_is_unknown_earns_no_more_or_is_not_rewarded(readings):
    assert gap_closed({"reward": 1.5}, readings) is None


def test_all_readings_are_taken_at_the_end_where_gold_is_known_and_those_that_are_named_always():
    silent, named = Settings.model_validate({"retriever": {"mode": "dense"}}), Settings(eval_reading=("none",))
    assert wanted_readings(silent, [GOLD], at_the_end=True) == ALL
    assert wanted_readings(Settings(), [GOLD], at_the_end=True) == ("none", "gold", "random")  # it reads what BM25 finds
    assert wanted_readings(silent, [GOLD], at_the_end=False) == wanted_readings(silent, [BARE], at_the_end=True) == ()
    assert wanted_readings(named, [BARE], at_the_end=False) == ("none",) and wanted_readings(named, [OWN], True) == ()
    blind = silent.with_values(policy=silent.policy.with_values(n_context=0))
    assert wanted_readings(blind, [GOLD], at_the_end=True) == ()


def test_a_run_ends_with_what_reading_is_worth_in_its_row_table_and_series(train_locally: Callable[..., Path]) -> None:
    run = train_locally("--learner.steps", "2", "--patience", "5")
    *before, last = rows(run / "evaluations.jsonl")
    assert not any("readings" in row for row in before) and list(last["readings"]) == ["none", "gold", "random"]
    assert last["readings"]["gold"]["recall@1"] == 100 and last["readings"]["none"]["recall@20"] == 0
    assert "reads gold" in evaluation_table([last])
    shown = {(name, labels.get("reading")) for name, labels, _ in of_evaluation(last)}
    assert {("reading_reward", reading) for reading in last["readings"]} <= shown
