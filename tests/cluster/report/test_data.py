"""What a report holds, and what it leaves out."""

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.report.bounded import LONGEST_TEXT, Excerpt, within_budget
from cluster.report.curves import POINTS
from cluster.report.data import distinct_names, report_data
from cluster.report.page import page, write_report
from launch import main
from tests.cluster.report_runs import EVIL, write_rows
from tests.cluster.runs import rows


def test_a_report_holds_what_the_run_wrote(run: Path) -> None:
    [data] = report_data([run])["runs"]
    metrics = rows(run / "metrics.jsonl")
    assert data["curves"]["steps"] == [row["step"] for row in metrics]
    assert data["curves"]["values"]["reward"][4:] == [pytest.approx(row["reward"], rel=1e-4) for row in metrics[4:]]
    assert data["curves"]["values"]["zero_variance"][:4] == [None] * 4  # nothing is drawn in stage 1
    assert data["curves"]["values"]["truncated"] == [row["truncated"] for row in metrics]  # but gold answers may be cut
    *before, last = rows(run / "evaluations.jsonl")
    readings = [[f"reads {name}", figures] for name, figures in last.pop("readings").items()]
    assert data["evaluations"] == [*before, last | {"further": readings}]
    assert data["stages"] == {"supervised": [1, 4], "rl": [5, 8]} and data["settings"]["rollout.group_size"] == 4
    assert len(data["groups"]) == 4 * 4 and {len(group["responses"]) for group in data["groups"]} == {4}
    texts = {tuple(data["passages"][passage["text"]]) for group in data["groups"] for passage in group["passages"]}
    assert texts == set(map(tuple, data["passages"])) and all(text for _, text in texts)


def test_no_text_can_leave_the_data(run: Path) -> None:
    html = page(json.dumps({"text": EVIL}))
    assert html.count("</script>") == 2 and "\u2028" not in html and "<b>bold" not in html


def test_a_run_writes_its_report_by_itself(finished_run: Path) -> None:
    assert (finished_run / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "report: names no run; give the folder of one"),
        (["nowhere"], "nowhere: holds no run (no config.yaml)"),
        (["RUN", "--output", "nowhere/report.html"], "nowhere/report.html: cannot be written"),
        (["RUN", "--outptu", "x.html"], "--outptu: unknown setting; did you mean output?"),
    ],
)
def test_a_mistake_in_asking_for_a_report_is_one_line(
    arguments: list[str],
    expected: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *[str(run) if part == "RUN" else part for part in arguments]]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_a_mean_over_steps_is_that_of_its_finite_figures(run: Path) -> None:
    [row] = rows(run / "metrics.jsonl")[-1:]
    lines = [row | {"step": n, "reward": math.nan if n % 2 else n, "loss": 1e308} for n in range(1, 2 * POINTS + 1)]
    write_rows(run / "metrics.jsonl", lines)
    [data] = report_data([run])["runs"]
    assert data["curves"]["values"]["reward"][:2] == [2, 4] and data["curves"]["values"]["loss"][0] is None


def test_the_largest_of_several_steps_is_kept_where_the_largest_matters(run: Path) -> None:
    [row] = rows(run / "metrics.jsonl")[-1:]
    lines = [row | {"step": n, "grad_norm": 1.0 + 899 * (n == 78), "reward": 4.0 * (n == 78)} for n in range(1, 4 * POINTS)]
    write_rows(run / "metrics.jsonl", lines)
    [data] = report_data([run])["runs"]
    assert max(data["curves"]["values"]["grad_norm"]) == 900 and max(data["curves"]["values"]["reward"]) == 1


def test_what_lies_beside_runs_is_left_out_of_a_comparison_and_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").touch()
    assert main(["report", str(run), str(tmp_path / "mlflow.db"), str(run), "--output", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'mlflow.db'}: holds no run (no config.yaml); left out\n"
    assert "runs compared" not in (tmp_path / "x.html").read_text().partition('id="data"')[2].partition("</script>")[0]


def test_a_folder_named_like_a_column_adds_none(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "seed=3")
    [data] = report_data([moved])["runs"]
    assert set(data["groups"][0]["responses"][0]["parts"]) == {"f1", "rougeL", "bleu"}


def test_rows_that_lack_a_figure_are_reported_without_it(run: Path) -> None:
    lines = [{"step": row["step"], "stage": row["stage"]} for row in rows(run / "metrics.jsonl")]
    write_rows(run / "metrics.jsonl", lines)
    [data] = report_data([run])["runs"]
    assert data["seconds"] == 0 and set(data["curves"]["values"]["restarts"]) == {None}


def test_only_the_longest_texts_are_cut_to_keep_a_budget() -> None:
    texts = [Excerpt("x" * length) for length in (10, 20, 1000, 2000)]
    limit = LONGEST_TEXT // 32
    assert [text.partition("…")[0] for text in within_budget(texts, 400)] == [*texts[:2], *["x" * limit] * 2]
    assert within_budget(texts, sum(map(len, texts))) == texts and within_budget([], 400) == []


def test_runs_of_one_name_are_told_apart_by_the_folders_above(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / name / "run", symlinks=True)
    data = report_data([tmp_path / "a" / "run", tmp_path / "b" / "run", run])
    assert [one["name"] for one in data["runs"]] == ["a/run", "b/run", "first"]
    paths = [Path("/x/a/run"), Path("/y/a/run"), Path("/y/b/run")]
    assert distinct_names(paths) == ["x/a/run", "y/a/run", "y/b/run"]
    assert distinct_names([Path("/run"), Path("/run")]) == ["run", "run"]


def test_a_reward_of_ones_own_has_its_curve_though_the_last_step_lacks_it(run: Path) -> None:
    lines = rows(run / "metrics.jsonl")
    lines[5] |= {"extra/brevity": 0.5}
    write_rows(run / "metrics.jsonl", lines)
    data = report_data([run])
    assert data["runs"][0]["curves"]["values"]["extra/brevity"][5] == 0.5
    assert "extra/brevity" in [curve["key"] for curve in data["curves"]]


@pytest.mark.parametrize("order", ["RUN --output FILE", "--output FILE RUN", "--output=FILE RUN"])
def test_the_runs_may_stand_before_and_after_the_flag(order: str, finished_run: Path, tmp_path: Path) -> None:
    words = order.replace("RUN", str(finished_run)).replace("FILE", str(tmp_path / "x.html")).split()
    assert main(["report", *words]) == 0 and (tmp_path / "x.html").stat().st_size > 10_000


def test_files_that_are_no_sample_logs_are_counted(run: Path) -> None:
    first, second, *_ = sorted((run / "samples").glob("step-*.parquet"))
    table = pq.read_table(first)
    pq.write_table(table.drop_columns(["epoch"]), first)
    pq.write_table(table.set_column(table.column_names.index("tokens"), "tokens", table["id"]), second)
    [data] = report_data([run])["runs"]
    assert data["unreadable_samples"] == 2 and len({group["step"] for group in data["groups"]}) == 2


def test_evaluations_without_a_reward_are_shown_and_are_not_the_best(run: Path) -> None:
    lines = [{"step": step, "stage": "rl", "f1": 1.0} for step in range(1, 301)]
    write_rows(run / "evaluations.jsonl", lines)
    [data] = report_data([run])["runs"]
    assert data["evaluated"] == 300 and data["evaluations"][-1] == lines[-1]


def test_reports_written_at_once_are_whole_and_leave_no_draft(run: Path) -> None:
    target = run / "report.html"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_report([run], target), range(16)))
    assert target.read_text().rstrip().endswith("</html>") and not list(run.glob(".report*"))


def test_a_report_that_cannot_be_written_says_so_and_leaves_no_draft(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    assert main(["report", str(run)]) == 2
    assert capsys.readouterr().err.endswith("cannot be written (Is a directory); make room or mend the rights\n")
    assert not list(run.glob(".report*"))
