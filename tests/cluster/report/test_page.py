"""The report's page in a real browser."""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from playwright.sync_api import Page, expect

from cluster.report.bounded import LONGEST_TEXT, cut
from cluster.report.curves import POINTS
from cluster.report.data import EVALUATIONS, report_data
from cluster.report.groups import GROUPS_PER_STEP, RESPONSES_PER_GROUP, STEPS_WITH_GROUPS
from cluster.report.page import page, write_report
from cluster.settings.tree import Settings, changed
from cluster.store.run_folder import read_settings
from launch import main
from learner.samples import write_samples
from reward.metrics import TextMetrics
from rollout.text import TextRules
from rollout.types import Group, Passage, Prompt, Response, Retrieval, Version
from tests.browser import PHONE, browser, opened
from tests.cluster.report_runs import EVIL, log_group, write_rows
from tests.cluster.runs import rows

TOO_WIDE = """[...document.querySelectorAll("body *")]
    .filter((one) => !one.closest("svg, .scroll, .events, nav, .skip, .unseen"))
    .filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 80))"""
GROUND = """(one) => {
    const colour = (each) => getComputedStyle(each).backgroundColor;
    let place = one;
    while (colour(place) === "rgba(0, 0, 0, 0)") place = place.parentElement;
    let opacity = 1;
    for (let each = one; each; each = each.parentElement) opacity *= getComputedStyle(each).opacity;
    return [colour(place), getComputedStyle(one).color, opacity];
}"""


@pytest.fixture(scope="module")
def other_run(train_locally: Callable[..., Path]) -> Path:
    return train_locally("--learner.lr", 1e-3)


@pytest.fixture(scope="module", autouse=True)
def one_browser(finished_run: Path, other_run: Path) -> Iterator[None]:
    """For all tests, after the runs, which need an event loop."""
    with browser():
        yield


@contextlib.contextmanager
def report_of(*runs: Path, **view: Any) -> Iterator[Page]:
    """The report of these runs, opened."""
    target = runs[0].parent / "shown.html"
    write_report(runs, target)
    with opened(f"file://{target}", **view) as page:
        yield page


@contextlib.contextmanager
def page_of(data: dict[str, Any], folder: Path, **view: Any) -> Iterator[Page]:
    """A page of data that no run of a test's size could write."""
    target = folder / "shown.html"
    target.write_text(page(json.dumps(data)))
    with opened(f"file://{target}", **view) as shown:
        yield shown


def test_a_report_of_a_long_run_is_bounded(run: Path) -> None:
    [row] = rows(run / "metrics.jsonl")[-1:]
    steps = 4 * POINTS + 1
    (run / "metrics.jsonl").write_text("".join(json.dumps(row | {"step": n, "reward": n}) + "\n" for n in range(1, steps + 1)))
    for step in range(9, 9 + 3 * STEPS_WITH_GROUPS):
        shutil.copy(run / "samples" / "step-8.parquet", run / "samples" / f"step-{step}.parquet")
    [data] = report_data([run])["runs"]
    assert data["curves"]["size"] == 5 and len(data["curves"]["steps"]) <= POINTS
    assert data["curves"]["values"]["reward"][0] == 3 and data["curves"]["steps"][-1] == steps
    shown = sorted({group["step"] for group in data["groups"]})
    assert (shown[0], shown[-1], len(shown)) == (5, 8 + 3 * STEPS_WITH_GROUPS, STEPS_WITH_GROUPS)
    assert len(data["groups"]) <= STEPS_WITH_GROUPS * GROUPS_PER_STEP


def test_what_the_policy_wrote_is_shown_as_text(run: Path) -> None:
    log_group(run, 8, (EVIL, "a big RED cat"), (0.25, 2.0))
    write_report([run], run / "report.html")
    with opened(f"file://{run}/report.html") as page:
        article = page.locator("article")
        article.get_by_text("1 passage, 1 gold").click()
        assert article.locator(".question").inner_text().startswith("what </script><script>window.stolen = 1</script><img")
        assert [article.locator("tbody tr").nth(i).locator("td").first.inner_text() for i in (0, 1)] == [
            "a big RED cat cut",
            EVIL,
        ]
        assert article.locator("tbody mark").all_inner_texts() == ["big", "RED"]  # as F1 counts them: no case, no articles
        assert article.locator(".badge").first.inner_text() == "gold"
        assert article.locator(".plus").inner_text() == "+1.00" and article.locator(".minus").inner_text() == "-0.75"
        assert page.evaluate("window.stolen") is None
        assert page.locator("img, b").count() == page.locator("figcaption b").count()


def test_groups_are_filtered_by_step_reward_and_text(run: Path) -> None:
    write_report([run], run / "report.html")
    [data] = report_data([run])["runs"]
    with opened(f"file://{run}/report.html") as page:
        status = page.locator("#groups [role=status]")
        assert status.inner_text() == "16 groups, page 1 of 2"
        page.get_by_role("button", name="Next").click()
        assert status.inner_text() == "16 groups, page 2 of 2" and page.locator("article").count() == 8
        page.get_by_label("Step", exact=True).select_option("6")
        assert status.inner_text() == "4 groups, page 1 of 1"
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("Text").fill(data["groups"][0]["question"][:40].upper())
        wanted = [group for group in data["groups"] if data["groups"][0]["question"][:40] in group["question"]]
        assert status.inner_text().startswith(f"{len(wanted)} group")
        page.get_by_label("Text").fill("")
        page.get_by_label("Reward from").fill("1e6")
        assert status.inner_text() == "0 groups, page 1 of 1" and page.locator("article").count() == 0


def test_the_page_fits_a_phone_and_keeps_its_colours_readable(run: Path) -> None:
    write_report([run], run / "report.html")
    grounds = set()
    for colours in ("light", "dark"):
        with opened(f"file://{run}/report.html", width=PHONE, height=844, colours=colours) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE
            ground, ink = page.evaluate(
                "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
            )
            grounds.add(ground)
            assert contrast(ground, ink) > 7
    assert len(grounds) == 2


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours given as rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_everything_is_reached_by_keyboard(run: Path) -> None:
    write_report([run], run / "report.html")
    with opened(f"file://{run}/report.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        readout = page.locator("#curves output").first
        assert readout.inner_text().startswith("step 8: ")  # unread, it tells the last
        page.locator("#curves svg").first.focus()
        for key, step in (("Home", 5), ("ArrowRight", 6)):
            page.keyboard.press(key)
            assert readout.inner_text().startswith(f"step {step}: ")
        reached = set()
        for _ in range(150):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.closest('section')?.id ?? 'body'"))
        assert reached >= {"curves", "groups", "settings"}


def test_runs_are_compared_with_their_settings_side_by_side(
    run: Path, other_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(other_run, tmp_path / "second", symlinks=True)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(other)]) == 0
    with opened(f"file://{tmp_path}/report.html") as page:
        assert page.locator("h1").inner_text() == "2 runs compared"
        assert [text.split()[0] for text in page.locator("header .legend li").all_inner_texts()] == ["first", "second"]
        page.locator("#curves figure").last.scroll_into_view_if_needed()
        expect(page.locator("nav .legend")).to_be_in_viewport()
        table = page.locator("#settings table").first
        settings = [line.split("\t") for line in table.inner_text().splitlines()]
        assert ["learner.lr", "0.0001", "0.001"] in settings
        assert settings[0] == ["setting", "first", "second"]
        assert [line[0] for line in settings[1:]] == ["run_dir", "learner.lr", "keep_checkpoints"]
        assert page.locator("#curves figure").first.locator("path.line").count() == 2


def test_failures_and_replaced_actors_stand_over_the_steps(run: Path) -> None:
    lines = rows(run / "metrics.jsonl")
    lines[5] |= {"restarts": 2}
    lines[6] |= {"incarnation": 1}
    lines[7] |= {"incarnation": 1}
    write_rows(run / "metrics.jsonl", lines)
    write_rows(
        run / "events.jsonl",
        [{"time": 0, "step": 5, "text": "sampler lost: <i>it died</i>"}, {"step": 6, "text": "nobody knows when"}],
    )
    with report_of(run) as page:
        shown = [figure.inner_text().splitlines() for figure in page.locator("#incidents figure").all()]
        assert [(lines[0], lines[-1]) for lines in shown] == [("Actors replaced", "step 6: 2"), ("Restarts", "step 7: 1")]
        told = page.locator("#incidents table").inner_text().splitlines()
        assert told[0] == "time (UTC)\tstep\tevent"
        assert told[1:] == ["1970-01-01 00:00:00\t5\tsampler lost: <i>it died</i>", "–\t6\tnobody knows when"]


def test_a_run_that_has_done_nothing_yet_has_a_report(run: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "samples")
    write_report([run], run / "report.html")
    with opened(f"file://{run}/report.html") as page:
        assert "No step has been finished yet." in page.locator("#curves").inner_text()


def test_figures_that_are_not_finite_leave_gaps_in_a_page_that_is_drawn(run: Path) -> None:
    lines = rows(run / "metrics.jsonl")
    lines[5] |= {"reward": math.nan, "loss": math.inf}
    write_rows(run / "metrics.jsonl", lines)
    evaluations = rows(run / "evaluations.jsonl")
    evaluations[-1] |= {"reward": math.nan}
    write_rows(run / "evaluations.jsonl", evaluations)
    log_group(run, 8, ("one", "two", "three"), (1.0, 2.0, math.nan))
    file = run / "samples" / "step-8.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("advantage")
    pq.write_table(table.set_column(place, "advantage", pa.array([math.nan, math.inf, None], pa.float32())), file)
    [data] = report_data([run])["runs"]
    assert data["curves"]["values"]["reward"][5] is None and data["curves"]["values"]["loss"][5] is None
    with report_of(run) as page:
        assert page.locator("#curves figure").count() > 10
        rewards = [line.split("\t")[1:3] for line in page.locator("article table").inner_text().splitlines()[1:]]
        assert rewards == [["2", "–"], ["1", "–"], ["–", "–"]]


def test_a_hundred_thousand_responses_and_steps_are_drawn(run: Path, tmp_path: Path) -> None:
    data = report_data([run])
    [one] = data["runs"]
    group = one["groups"][0]
    group["responses"] = [group["responses"][0]] * 130
    one["groups"] = [group] * 1000
    many = 130_000
    one["curves"]["steps"] = list(range(many))
    one["curves"]["values"] = {"lr": [float(n) for n in range(many)]}
    with page_of(data, tmp_path) as page:
        assert page.locator("article").count() == 8 and page.locator("article").first.locator("tbody tr").count() == 130
        page.get_by_label("Steps shown").select_option("all")
        assert page.locator("#curves path.line").count() == 1


def test_a_section_that_fails_says_so_and_leaves_the_others_drawn(run: Path, tmp_path: Path) -> None:
    data = report_data([run])
    data["runs"][0]["curves"] = None
    complaints: list[str] = []
    (tmp_path / "shown.html").write_text(page(json.dumps(data)))
    with opened("about:blank", own_page=False) as shown:
        shown.on("console", lambda message: complaints.append(message.text))
        shown.goto(f"file://{tmp_path}/shown.html")
        assert "This section could not be drawn: Cannot read" in shown.locator("#curves").inner_text()
        assert shown.get_by_text("could not be drawn").count() == len(complaints) == 1 and "TypeError" in complaints[0]
        assert shown.locator("#held-out svg").count() and shown.locator("article").count() == 8
        assert shown.locator("#settings table").count() == 2


def test_sample_files_that_cannot_be_read_are_counted_and_left_out(run: Path) -> None:
    whole = (run / "samples" / "step-8.parquet").read_bytes()
    (run / "samples" / "step-8.parquet").write_bytes(whole[: len(whole) // 2])
    (run / "samples" / "step-7.parquet").write_bytes(b"")
    with report_of(run) as page:
        assert "2 of the sample files could not be read." in page.locator("#groups").inner_text()
        assert page.locator("#groups [role=status]").inner_text() == "8 groups, page 1 of 1"
    for step in (5, 6):
        (run / "samples" / f"step-{step}.parquet").write_bytes(b"PAR1")
    with report_of(run) as page:
        assert page.locator("#groups p").all_inner_texts() == ["4 of the sample files could not be read."]


def test_long_names_fit_a_phone(run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["policy"]["path"] = "/shared/models/flan_t5_base_" + "finetuned_on_dialogue_" * 5
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    log_group(run, 8, ("x" * 300, "y" * 300), (0.25, 2.0), id="0123456789abcdef" * 4, title="T" * 120)
    write_rows(run / "events.jsonl", [{"time": 0, "step": 5, "text": "z" * 200}])
    one = run.rename(tmp_path / ("one_run_" * 12))
    other = shutil.copytree(one, tmp_path / ("another_run_" * 12), symlinks=True)
    for runs in ([one], [one, other]):
        with report_of(*runs, width=PHONE, height=844) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE
            for details in page.locator("summary").all():
                details.click()
            page.locator("#curves svg[role=img]").first.focus()
            page.keyboard.press("End")
            assert page.locator("#curves output").first.inner_text().startswith("step 8: ")
            assert page.evaluate("document.documentElement.scrollWidth") == PHONE
            assert page.evaluate(TOO_WIDE) == []


def test_a_chart_of_runs_with_other_steps_reads_each_at_its_last_step(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "second", symlinks=True)
    lines = rows(other / "metrics.jsonl")
    write_rows(run / "metrics.jsonl", [row | {"loss": float(row["step"])} for row in lines])
    write_rows(other / "metrics.jsonl", [row | {"step": 3 * row["step"], "loss": 100.0 + row["step"]} for row in lines])
    with report_of(run, other) as page:
        page.get_by_label("Steps shown").select_option("all")
        figure = page.locator("#curves figure").filter(has_text="what was minimised")
        figure.locator("svg[role=img]").focus()
        told = []
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight", "End"):
            page.keyboard.press(key)
            told.append(" ".join(figure.locator("output").inner_text().split()))
        assert told == [
            "step 1: first 1",
            "step 2: first 2",
            "step 3: first 3 second 101",
            "step 4: first 4 second 101 (step 3)",
            "step 24: first 8 (step 8) second 108",
        ]
        label = figure.locator("svg[role=img]").get_attribute("aria-label")
        assert label == "Loss, what was minimised: first 1 to 8, second 101 to 108"


def test_compared_runs_are_told_apart_by_name_and_line_not_by_colour_alone(run: Path, tmp_path: Path) -> None:
    data = report_data([run])
    data["runs"] = [data["runs"][0] | {"name": f"run-{n}"} for n in range(18)]
    with page_of(data, tmp_path) as page:
        drawn = page.locator("#curves figure").first.locator("path.line")
        look = "(lines) => lines.map((line) => [line.getAttribute('stroke'), line.getAttribute('stroke-dasharray')].join())"
        looks = drawn.evaluate_all(look)
        assert len(looks) == len(set(looks)) == 18
        assert looks[8].split(",")[0] == looks[0].split(",")[0] and looks[0].endswith(",") and not looks[8].endswith(",")
        assert page.locator("header .legend line").evaluate_all(look) == looks
        named = page.locator("#held-out tbody td.run").all_inner_texts()
        assert page.locator("#held-out th").all_inner_texts()[:2] == ["run", "step"]
        assert set(named) == {f"run-{n}" for n in range(18)}


@pytest.fixture
def long_run(run: Path) -> Path:
    """Incidents at every step, many evaluations and events, many long responses, endless texts."""
    [row], steps = rows(run / "metrics.jsonl")[-1:], 20 * POINTS
    often = {"restarts": 1, "requeued": 2, "skipped": 1}
    write_rows(run / "metrics.jsonl", [row | often | {"step": n, "incarnation": n} for n in range(1, steps + 1)])
    evaluation = rows(run / "evaluations.jsonl")[-1]
    floor = evaluation["constant_reply"] | {"text": "endless " * 20_000}
    figures = {"constant_reply": floor, "stage": "rl"}
    lines = [evaluation | figures | {"step": 10 * n, "reward": 9.0 if n == 777 else n / 1000} for n in range(1000)]
    lines[1]["stage"] = "supervised"
    write_rows(run / "evaluations.jsonl", lines)
    events = [{"time": n, "step": n, "text": "endless " * 2000} for n in range(1, 1001)]
    write_rows(run / "events.jsonl", events)
    failed = [{"step": n, "id": "endless " * 2000, "question": "endless " * 2000} for n in range(1, 1001)]
    write_rows(run / "failed_prompts.jsonl", failed)
    count, zeros = 80, np.zeros(3)
    groups = [
        Group(
            prompt=Prompt(id=f"{n}", question=f"{n} " + "q" * 5000, answers=("a" * 5000,)),
            retrieval=Retrieval(
                passages=tuple(Passage(id=f"{n}-{k}", title="t", text=f"{n} {k} " + "p" * 5000) for k in range(30)),
                scores=(1.0,) * 30,
            ),
            context_ids=(),
            responses=(Response(text="r" * 5000, token_ids=zeros, sampler_logprobs=zeros, mask=zeros, finished=True),) * count,
            version=Version(0, 1),
            rewards=np.linspace(0, 1, count, dtype=np.float32),
            reward_parts={name: np.linspace(0, 1, count, dtype=np.float32) for name in ("f1", "rougeL", "bleu")},
        )
        for n in range(GROUPS_PER_STEP)
    ]
    shutil.rmtree(run / "samples")
    write_samples(run / "samples" / "step-1.parquet", groups, [[0.0] * count] * GROUPS_PER_STEP)
    for step in range(2, STEPS_WITH_GROUPS + 1):
        shutil.copy(run / "samples" / "step-1.parquet", run / "samples" / f"step-{step}.parquet")
    return run


def test_the_page_of_a_long_run_is_small_and_drawn(long_run: Path) -> None:
    data = report_data([long_run])["runs"][0]
    counts = [data["curves"]["values"][name] for name in ("restarts", "requeued", "skipped", "restarted", "failed_prompts")]
    assert [values[0] for values in counts] == [20, 40, 20, 19, 20] and {len(values) for values in counts} == {POINTS}
    kept = [row["step"] for row in data["evaluations"]]
    assert len(kept) <= EVALUATIONS and {0, 10, 7770, 9990} <= set(kept) and kept == sorted(kept)
    assert max(b - a for a, b in zip(kept, kept[1:], strict=False)) <= 60
    rewards = [one["reward"] for one in data["groups"][0]["responses"]]
    assert len(rewards) == RESPONSES_PER_GROUP and {0.0, 1.0} <= set(rewards) and data["groups"][0]["drawn"] == 80
    with report_of(long_run) as page:
        assert (long_run.parent / "shown.html").stat().st_size < 8e6
        assert page.locator("#incidents figure").count() == 5
        assert "10,000" in page.locator(".fact").filter(has_text="Actors replaced").inner_text()
        assert "198 of 1,000 evaluations are drawn; 802 are left out here" in page.locator("#held-out").inner_text()
        assert "7,770 rl (best)" in page.locator("#held-out table").inner_text()
        assert (
            "64 of 80 responses: the best, the worst and others evenly between." in page.locator("article").first.inner_text()
        )
        assert "20 of 30 passages" in page.locator("article").first.inner_text()
        assert "The last 400 of 1,000 events; all are in events.jsonl" in page.locator("#incidents").inner_text()
        assert page.locator("article").count() == 8 and page.locator("#curves figure").count() > 10


def test_a_long_text_is_cut_and_says_by_how_much(run: Path) -> None:
    assert cut("abcdef", 4) == "abcd… (2 characters more)" and cut("abcd", 4) == "abcd"
    log_group(run, 8, ("w" * (LONGEST_TEXT + 1500), "short"), (0.25, 2.0))
    with report_of(run) as page:
        assert page.locator(".question").inner_text().endswith("w… (1,505 characters more)")
        assert page.locator("article tbody tr").last.inner_text().split("\t")[0].startswith("www")
        assert "w… (1,500 characters more)" in page.locator("article tbody tr").last.inner_text()


def test_responses_outside_the_filter_and_signed_figures_stay_readable(run: Path) -> None:
    log_group(run, 8, ("a big RED cat", "no"), (0.25, 2.0))
    for colours in ("light", "dark"):
        with report_of(run, colours=colours) as page:
            for low in ("", "1"):
                page.get_by_label("Reward from").fill(low)
                texts = page.locator("article td, article td mark, article .badge.cut, article td.plus, article td.minus").all()
                assert len(texts) > 10 and page.locator(".minus").count() == page.locator(".plus").count() == 1
                for ground, ink, opacity in (text.evaluate(GROUND) for text in texts):
                    assert contrast(ground, ink) >= 4.5 and opacity == 1
            assert page.locator("tr.other").inner_text().startswith("a big RED cat\n(outside the filter)")


def test_turning_to_the_last_page_keeps_the_focus(run: Path) -> None:
    with report_of(run) as page:
        assert page.locator("#groups [aria-live]").count() == 0
        for name in ("Next", "Previous"):
            button = page.get_by_role("button", name=name)
            button.focus()
            for _ in range(3):  # the last of them lead nowhere
                page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.textContent") == name
            assert button.get_attribute("aria-disabled") == "true"
        assert page.locator("#groups [role=status]").inner_text() == "16 groups, page 1 of 2"


def test_a_group_shows_its_weights_and_the_titles_of_its_passages(run: Path) -> None:
    log_group(run, 41, ("one", "two"), (0.25, 2.0), title="The <b>Old</b> Mill", incarnation=2)
    with report_of(run) as page:
        assert "weights of step 41, incarnation 2" in page.locator("article header").inner_text()
        page.get_by_text("1 passage, 1 gold").click()
        assert page.locator(".passage strong").inner_text() == "The <b>Old</b> Mill"
        assert page.locator(".passage").inner_text().endswith("The <b>Old</b> Mill one")
        page.get_by_label("Text").fill("old</b> mill")
        assert page.locator("article").count() == 1
    log_group(run, 41, ("one", "two"), (0.25, 2.0))
    with report_of(run) as page:
        assert "weights of step 41" in page.locator("article header").inner_text()
        assert "incarnation" not in page.locator("article header").inner_text()
        assert page.locator("article").count() == 1 and page.locator(".passage strong").count() == 0


def test_the_head_says_what_its_minutes_are(run: Path) -> None:
    lines = rows(run / "metrics.jsonl")
    write_rows(run / "metrics.jsonl", [row | {"seconds_step": 60.0} for row in lines])
    with report_of(run) as page:
        assert page.locator(".fact").first.inner_text().splitlines() == ["Steps", "8", "8 min of training steps"]


def test_templates_of_the_family_are_no_changed_settings(run: Path) -> None:
    settings = read_settings(run / "config.yaml")
    assert settings.policy.prompt_template and not [name for name in changed(settings) if "template" in name]
    assert {"data.train", "policy.n_context", "rollout.group_size"} <= set(changed(settings))
    policy = settings.policy.model_copy(update={"prompt_template": "{question}"})
    assert "policy.prompt_template" in changed(settings.model_copy(update={"policy": policy}))  # a chat model's, not a T5's
    policy = policy.model_copy(update={"path": "some/model"})
    assert "policy.prompt_template" not in changed(settings.model_copy(update={"policy": policy}))
    assert changed(Settings()) == []
    with report_of(run) as page:
        assert "policy.prompt_template" not in page.locator("#settings table").first.inner_text()
        assert "rollout.group_size\t4\t8" in page.locator("#settings table").first.inner_text()


def test_a_column_has_as_many_decimals_as_its_largest_figure_and_bars_begin_at_one_edge(run: Path) -> None:
    log_group(run, 8, ("one", "two", "three", "four"), (2.0, 0.00551, -0.004, 0.25))
    lines = rows(run / "evaluations.jsonl")
    write_rows(run / "evaluations.jsonl", [row | {"f1": f1} for row, f1 in zip(lines[:2], (0.781, 70.52), strict=True)])
    with report_of(run) as page:
        cells = [row.inner_text().split("\t")[1:4:2] for row in page.locator("article tbody tr").all()]
        assert cells == [["2.00", "2.00"], ["0.25", "0.25"], ["0.01", "0.01"], ["0.00", "0.00"]]
        edges = page.locator("article .bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().left)")
        assert max(edges) - min(edges) < 0.5
        heads = page.locator("#held-out th").all_inner_texts()
        shown = [
            row.locator("td").nth(heads.index("f1")).inner_text().splitlines()[0]
            for row in page.locator("#held-out tbody tr").all()[:2]
        ]
        assert shown == ["0.8", "70.5"]


def test_a_stage_is_shown_by_itself_or_beside_the_other_with_the_same_steps_in_all_charts(run: Path) -> None:
    with report_of(run) as page:
        for view, first, last in (("rl", 5, 8), ("supervised", 1, 4), ("all", 1, 8)):
            page.get_by_label("Steps shown").select_option(view)
            figure = page.locator("#curves figure").filter(has_text="what was minimised")
            figure.locator("svg[role=img]").focus()
            for key, step in (("Home", first), ("End", last)):
                page.keyboard.press(key)
                assert figure.locator("output").inner_text().startswith(f"step {step}: ")
            assert figure.locator("line.stage").count() == (view == "all")


def test_stages_that_runs_begin_at_different_steps_are_laid_over_each_other(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "second", symlinks=True)
    lines = rows(other / "metrics.jsonl")
    write_rows(other / "metrics.jsonl", lines[:4] + [row | {"step": row["step"] + 40} for row in lines[4:]])
    with report_of(run, other) as page:
        assert "counted from the beginning of the stage" in page.locator("#curves").inner_text()
        assert page.locator("#curves output").first.inner_text().startswith("step 4: ")


def test_the_mean_over_neighbours_does_not_reach_into_the_other_stage(run: Path) -> None:
    [line, *_] = rows(run / "metrics.jsonl")
    stages = [("supervised", 0.0)] * 200 + [("rl", 1.0)] * 200
    lines = [line | {"step": step, "stage": stage, "loss": loss} for step, (stage, loss) in enumerate(stages, 1)]
    write_rows(run / "metrics.jsonl", lines)
    with report_of(run) as page:
        page.get_by_label("Steps shown").select_option("all")
        drawn = page.locator("#curves figure").filter(has_text="what was minimised").locator("path.line").get_attribute("d")
    assert drawn is not None and drawn.count("M") == 2
    heights = {float(point.split()[1]) for point in re.findall(r"[\d.]+ [\d.]+", drawn)}
    assert len(heights) == 2


@pytest.mark.parametrize(
    ("marks", "texts"),
    [
        ([1, 1.0002, 1.0004], ["1.0000", "1.0002", "1.0004"]),
        ([1e-5, 1.25e-5, 1.5e-5], ["1.00e-5", "1.25e-5", "1.50e-5"]),
        ([0, 4e-4, 8e-4, 12e-4], ["0", "0.0004", "0.0008", "0.0012"]),
        ([0.001, 0.0010005, 0.001001], ["0.0010000", "0.0010005", "0.0010010"]),
        ([0, 2500, 5000], ["0", "2,500", "5,000"]),
        ([-0.5, 0, 0.5], ["-0.5", "0", "0.5"]),
        ([2e6, 4e6], ["2e6", "4e6"]),
    ],
)
def test_marks_of_an_axis_can_be_told_apart(run: Path, marks: list[float], texts: list[str]) -> None:
    with report_of(run) as page:
        assert page.evaluate("(marks) => tickTexts(marks)", marks) == texts


def test_marked_words_are_those_that_f1_counts(run: Path) -> None:
    texts = [
        "Don't go!",
        "isn't it",
        "a well-known place",
        "dont",
        "l’été ﬁn",
        "the end.",
        "créa an éa",
        "the",
        "3.5 C++ -5.",
        "C",
    ]
    texts += [
        "红色的船，iPhone 15。",
        "東京タワー",
        "เรือสีแดง",
        "नीली नाव",
        "القارب الأزرق",
        "İSTANBUL IŞIK",
        "cafe\u0301",
        "👍🏽!",
        "10,000",
        "It's called 東京, –5 or 1.000,50",
        "Paris\u200b, ３．５ and A-",
        "1/2, 1\u00a0000, C++11 <5",
        "ལྷ་ས",
    ]
    answers = [
        "don't stop",
        "well known",
        "l’été",
        "End",
        "éa",
        "35 C++",
        "船",
        "塔 tower",
        "สี",
        "नाव",
        "القارب",
        "istanbul",
        "café",
    ]
    with report_of(run) as page:
        for language in ("en", "fr", "zh", "tr", "und"):
            metrics = TextMetrics(TextRules.of(language))
            wanted = page.evaluate("([all, language]) => all.flatMap((one) => words(one, language))", [answers, language])
            for text in texts:
                assert page.evaluate("([text, language]) => words(text, language)", [text, language]) == (
                    metrics.rules.answer_tokens(text)
                )
                marked = page.evaluate(
                    "([text, wanted, language]) => marked(text, new Set(wanted), language)"
                    ".filter((part) => part.tagName).map((part) => part.textContent)",
                    [text, wanted, language],
                )
                assert bool(marked) == any(metrics.f1(text, answer) for answer in answers)
        assert page.evaluate(
            "marked('红色的船。', new Set(['船']), 'zh').map((part) => part.textContent ?? part).join('|')"
        ) == ("|红||色||的||船|。")
