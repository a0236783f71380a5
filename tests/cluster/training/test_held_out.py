"""Several held-out sets, and draws beside greedy replies."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.report.data import report_data
from cluster.store.run_folder import RunFolder
from cluster.training.held_out import PROMPTS_PER_CALL, largest_call
from cluster.watch.series import of_evaluation
from cluster.watch.terminal import evaluation_line, evaluation_table
from cluster.watch.trackers.monitor import scalars
from launch import main
from rollout.errors import CheckpointError
from tests.cluster.runs import rows, without_clock

OWN = ("step", "stage", "measure", "set", "others", "draws", "readings")


@pytest.fixture(scope="module")
def one_set(train_locally: Callable[..., Path]) -> Path:
    return train_locally("--learner.steps", "2", "--patience", "5")


@pytest.fixture(scope="module")
def two_sets(tiny_flags: list[str], data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second set is the end of the first, all of whose ids it has."""
    far = tmp_path_factory.mktemp("far") / "far.jsonl"
    far.write_text("".join((data_dir / "valid.jsonl").read_text().splitlines(keepends=True)[-3:]))
    sets = json.dumps({"near": str(data_dir / "valid.jsonl"), "far": str(far)})
    draws = ["--eval_samples", "3", "--eval_temperature", "0.7", "--eval_reading", "[]"]
    flags, folder = list(tiny_flags), tmp_path_factory.mktemp("two-sets") / "run"
    flags[flags.index("--data.valid") + 1] = sets
    assert main(["train", "--local", *flags, "--learner.steps", "2", "--patience", "5", *draws, "--run_dir", str(folder)]) == 0
    return folder


def test_a_second_set_and_draws_change_no_figure_of_the_first_and_nothing_that_is_learnt(one_set: Path, two_sets: Path) -> None:
    assert without_clock(one_set / "metrics.jsonl") == without_clock(two_sets / "metrics.jsonl")
    alone, first = (
        [{k: v for k, v in row.items() if k not in OWN} for row in rows(run / "evaluations.jsonl")]
        for run in (one_set, two_sets)
    )
    assert alone == first and len(alone) == 4
    assert (one_set / "checkpoints" / "best").readlink() == (two_sets / "checkpoints" / "best").readlink()
    assert not {"set", "others", "draws"} & set(rows(one_set / "evaluations.jsonl")[0])


def test_each_set_has_its_figures_by_name_with_intervals_and_draws(two_sets: Path) -> None:
    for row in rows(two_sets / "evaluations.jsonl"):
        assert row["set"] == "near" and list(row["others"]) == ["far"]
        far = row["others"]["far"]
        assert row["examples"] == 6 and far["examples"] == 3 and far["constant_reply"]["text"] == row["constant_reply"]["text"]
        for figures in (row, far):
            assert list(figures["draws"]) == ["temperature", "avg@3", "best@3"] and figures["draws"]["temperature"] == 0.7
            assert {"f1", "reward"} < set(figures["intervals"]) and {"f1", "reward"} < set(
                figures["draws"]["best@3"]["intervals"]
            )


def test_a_run_goes_on_with_its_sets_and_is_evaluated_once_a_step(two_sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (two_sets / "evaluations.jsonl").read_text()
    assert main(["train", "--local", "--resume", str(two_sets)]) == 0
    assert (two_sets / "evaluations.jsonl").read_text() == before
    assert f"\n{evaluation_table(rows(two_sets / 'evaluations.jsonl'))}\n" in capsys.readouterr().out


def test_sets_and_draws_stand_in_tables_report_trackers_and_series(two_sets: Path) -> None:
    [*_, last] = rows(two_sets / "evaluations.jsonl")
    names = ["near", "avg@3", "best@3", "far", "far avg@3", "far best@3"]
    assert [line.split()[2] for line in evaluation_line(last).splitlines()][0] == "near"
    table = evaluation_table([last])
    told = [line[8:].split("  ")[0].strip() for line in table.splitlines()[1:-1]]
    assert told == ["rl near", "near avg@3", "near best@3", *names[3:], "constant reply near", "constant reply far"]
    assert {"held_out/f1", "held_out/others/far/f1", "held_out/draws/avg_at_3/f1"} <= set(scalars(last, "held_out/"))
    shown = {(name, *sorted(labels.items())): value for name, labels, value in of_evaluation(last)}
    assert shown["held_out_reward", ("set", "near")] == last["reward"]
    assert shown["held_out_score_ratio", ("score", "f1"), ("set", "far")] == last["others"]["far"]["f1"] / 100
    assert shown["draws_reward", ("of", "best_at_3"), ("set", "far")] == last["others"]["far"]["draws"]["best@3"]["reward"]
    [run] = report_data([two_sets])["runs"]
    assert [name for name, _ in run["evaluations"][-1]["further"]] == told[1:6]


def test_a_model_card_tells_of_every_set_and_of_draws(two_sets: Path, tmp_path: Path) -> None:
    assert main(["export", "--checkpoint", str(two_sets), "--to", str(tmp_path / "taken")]) == 0
    card = (tmp_path / "taken" / "README.md").read_text()
    [*_, last] = rows(two_sets / "evaluations.jsonl")
    best = last["others"]["far"]["draws"]["best@3"]
    low, high = best["intervals"]["reward"]
    assert "\nfar best@3:\n\n| figure | this policy | 95 % interval | constant reply |\n|---|---|---|---|\n| reward | " in card
    assert f"| reward | {best['reward']:.2f} | {low:.2f} – {high:.2f} |  |" in card
    assert "replies drawn at temperature 0.7, best@n the best of them" in card


def test_nested_figures_that_are_none_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    good = {
        "step": 1,
        "set": "a",
        "intervals": {"f1": [1, None]},
        "others": {"b": {"f1": 1.0, "draws": {"avg@2": {"f1": 2.0}}}},
    }
    folder.append(folder.evaluations, good)
    assert folder.evaluation_rows() == [good]
    for bad in (
        {"intervals": {"f1": ["a", 2]}},
        {"others": {"b": {"f1": "x"}}},
        {"others": 3},
        {"f1": {}},
        {"draws": {"avg@2": "x"}},
    ):
        folder.evaluations.write_text(json.dumps({"step": 1} | bad) + "\n")
        with pytest.raises(CheckpointError, match="no number; correct the line or remove it"):
            folder.evaluation_rows()


def test_draws_of_many_prompts_are_as_many_replies_as_greedy_ones() -> None:
    assert largest_call(0, 100, 10) == PROMPTS_PER_CALL * 110 == largest_call(1, 100, 10)
    assert largest_call(4, 100, 10) == PROMPTS_PER_CALL * 110 and largest_call(1000, 100, 10) == 100 + 10_000


def test_a_temperature_without_draws_is_refused_by_evaluate(
    one_set: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", str(one_set), "--data", str(data_dir / "valid.jsonl"), "--eval_temperature", "0.5"]
    assert main(["evaluate", *flags]) == 2
    assert capsys.readouterr().err == (
        "error: eval_temperature: 0.5 has no effect with eval_samples 0; set it to 1.0, or change that\n"
    )
