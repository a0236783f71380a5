"""A metric stands in one table; row, documentation, series and charts follow from it."""

import re
from pathlib import Path

import pytest

from cluster.actors.ports import GroupRef, UpdateCall
from cluster.report.curves import charts, curves
from cluster.settings.tree import Settings
from cluster.store import metrics
from cluster.store.checkpoint import RunState
from cluster.store.metrics import EVALUATION_COLUMNS, HELD_OUT, METRICS, Chart, Metric, documented, metrics_line, to
from cluster.store.rows import Row
from cluster.training.pipeline import Batch
from cluster.training.rollout_client import Rollout
from cluster.training.step_record import metrics_row
from cluster.watch import series
from cluster.watch.series import all_series, of_step
from learner.update_metrics import UpdateMetrics
from rollout.types import Prompt, SampleReport, ScoreReport, Version

ROOT = Path(__file__).parents[3]
UPDATE = UpdateMetrics(
    loss=0.5,
    reward=1.0,
    reward_std=0.25,
    reward_parts={"f1": 0.75, "extra/brevity": 0.25},
    kl=0.0,
    kl_coef=0.04,
    kl_to_sampler=0.0,
    clip_fraction=0.0,
    corrected=0.0,
    entropy=2.0,
    ratios={"ratio_p01": 1.0, "ratio_p50": 1.0, "ratio_p99": 1.0, "ratio_max": 1.0},
    grad_norm=3.0,
    lr=1e-4,
    zero_variance=0.0,
    truncated=0.5,
    response_tokens=40,
    skipped=0,
    peak_memory_mb=100.0,
    padding=0.125,
)
SAMPLED = {"sampled_groups": 1, "sampled_tokens": 20, "seconds_sync": 0.5, "bytes_sync": 8, "peak_memory_mb_sampler": 50.0}


def batch_of(*calls: tuple[dict[str, float], dict[str, float]]) -> Batch:
    """Of calls that report these figures, of sampling and of scoring."""
    prompts = [Prompt(id=f"q{i}", question="", answers=("a",), epoch=i) for i in range(len(calls))]
    groups = [GroupRef(prompt, None, Version(0, 0), 1.0) for prompt in prompts]
    made = [
        Rollout(
            (group,),
            SampleReport(version=Version(0, 0), figures=sampled),
            ScoreReport(reward_ranges=(1.0,), figures=scored),
        )
        for group, (sampled, scored) in zip(groups, calls, strict=True)
    ]
    return Batch(groups, [0, 2], made, filtered=3)


def row_of(*calls: tuple[dict[str, float], dict[str, float]]) -> Row:
    stage = Settings().stages()[-1]
    return metrics_row(RunState(step=5), stage, batch_of(*calls), UpdateCall(UPDATE, 1.0), seconds_step=4.0, restarts=2)


ONE = (SAMPLED | {"seconds_sample": 1.0, "top_p_mass": 0.9, "padding_sample": 0.25}, {"seconds_reward": 2.0})
OTHER = (SAMPLED | {"seconds_sample": 3.0, "top_p_mass": 0.7, "padding_sample": 0.75}, {"seconds_reward": 0.5})


def test_figures_of_calls_become_one_as_the_table_says() -> None:
    row = row_of(ONE, OTHER)
    assert (row["seconds_sample"], row["seconds_reward"], row["sampled_groups"]) == (4.0, 2.5, 2)  # sum
    assert (row["top_p_mass"], row["padding_sample"], row["peak_memory_mb_sampler"]) == (0.7, 0.5, 50.0)  # min, mean, max


def test_figures_of_a_step_keep_their_names_and_the_tables_order() -> None:
    row = row_of(ONE, OTHER)
    assert [key for key in row if key != "extra/brevity"] == [each.name for each in METRICS if each.name != "extra/NAME"]
    assert list(row)[list(row).index("bleu") + 1] == "extra/brevity"
    assert (row["step"], row["epoch"], row["staleness_mean"], row["staleness_max"], row["restarts"]) == (5, 1, 1.0, 2, 2)
    assert (row["tokens_per_s"], row["groups_per_s"], row["padding_update"], row["rougeL"]) == (10.0, 0.5, 0.125, None)


@pytest.mark.parametrize(("name", "where"), [("seconds_sampel", 0), ("loss", 1)])
def test_a_figure_that_no_metric_of_calls_is_named_after_is_refused(name: str, where: int) -> None:
    figures = [dict(part) for part in OTHER]
    figures[where][name] = 1.0
    with pytest.raises(ValueError, match=f"{name}: cluster/store/metrics.py has no metric that arises so; add it there"):
        row_of(ONE, (figures[0], figures[1]))


def test_a_figure_of_a_step_that_no_metric_is_named_after_is_refused() -> None:
    with pytest.raises(ValueError, match="los: cluster/store/metrics.py has no metric"):
        metrics_line(dict.fromkeys((each.name for each in METRICS if each.over_calls is None), 0.0) | {"los": 1.0}, [])


def test_a_new_metric_is_one_line_of_the_table_and_one_figure_where_it_arises(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = Chart("Throughput", "Cache hits", over_steps="max")
    new = Metric("cache_hits", "contexts found in the cache", chart, to("cache_hits_total"), unit="contexts", over_calls="sum")
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, new))
    row = row_of((ONE[0] | {"cache_hits": 4}, ONE[1]), (OTHER[0] | {"cache_hits": 3}, OTHER[1]))
    assert row["cache_hits"] == 7
    assert ("cache_hits_total", {}, 7) in list(of_step(row))
    assert "cache_hits_total" in [each.name for each in all_series()]
    assert "| cache_hits_total | contexts found in the cache |  |" in series.documented()
    assert "| cache_hits | contexts found in the cache | contexts | sum |" in documented()
    shown = [chart for chart in charts(row) if chart["key"] == "cache_hits"]
    assert [(each["title"], each["about"]) for each in shown] == [("Cache hits", "contexts found in the cache, in contexts")]
    assert curves([row])["values"]["cache_hits"] == [7.0]


def test_where_gold_answers_are_trained_on_nothing_was_sampled_or_scored() -> None:
    row = row_of(ONE, OTHER) | {"reward": None}
    shown = {(name, *labels.values()): value for name, labels, value in of_step(row)}
    assert shown["groups_total", "sampler"] == shown["groups_total", "reward"] == 0 and shown["groups_total", "learner"] == 2
    assert curves([row])["values"]["seconds_reward"] == [None]


def test_series_have_base_units() -> None:
    shown = {(name, *labels.values()): value for name, labels, value in of_step(row_of(ONE, OTHER))}
    assert (shown["peak_memory_bytes", "learner"], shown["peak_memory_bytes", "sampler"]) == (100e6, 50e6)
    assert (shown["reward_part", "f1"], shown["reward_part", "extra/brevity"], shown["steps_total",]) == (0.75, 0.25, 1.0)


def test_the_documented_figures_are_those_of_the_tables() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text()
    for each in documented().split("\n\n"):
        assert each in page, "write it anew: python -m cluster.store.metrics"


def test_names_are_unique_and_columns_are_held_out_figures() -> None:
    for names in ([each.name for each in METRICS], [each.name for each in HELD_OUT], [each.name for each in all_series()]):
        assert len(names) == len(set(names)) and all(re.fullmatch(r"[\w@/]+", name) for name in names)
    assert EVALUATION_COLUMNS == (
        "reward",
        "f1",
        "rougeL",
        "bleu",
        "exact_match",
        "distinct2",
        "unique_replies",
        "recall@5",
        "gap_closed",
    )
