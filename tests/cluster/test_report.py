"""The report's data, and its page in a real browser."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.report.data import GROUPS_PER_STEP, POINTS, STEPS_WITH_GROUPS, report_data
from cluster.report.page import page, write_report
from launch import main
from learner.samples import write_samples
from rollout.types import Group, Passage, Prompt, Response, Retrieval, Version
from tests.browser import PHONE, opened
from tests.cluster.runs import rows

EVIL = '</script><script>window.stolen = 1</script><img src=x onerror="window.stolen = 2"> <b>bold</b> &lt;i&gt; \u2028'


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished_run, tmp_path / "first", symlinks=True)


def log_group(run: Path, step: int, texts: tuple[str, ...], rewards: tuple[float, ...]) -> None:
    """A sample log of one group whose prompt, passage and responses are given texts."""
    group = Group(
        prompt=Prompt(id="evil", question=f"what {texts[0]}", answers=("the Big, red dog",), gold=("p1",)),
        retrieval=Retrieval(passages=(Passage(id="p1", title="", text=texts[0]),), scores=(1.5,)),
        context_ids=(),
        responses=tuple(
            Response(text=text, token_ids=np.zeros(3, np.int32), sampler_logprobs=np.zeros(3, np.float32), finished=i == 0)
            for i, text in enumerate(texts)
        ),
        version=Version(0, step),
        rewards=np.array(rewards, np.float32),
        reward_parts={"f1": np.array(rewards, np.float32)},
    )
    shutil.rmtree(run / "samples")
    write_samples(run / "samples" / f"step-{step}.parquet", [group], torch.tensor([rewards]) - 1)


def test_a_report_holds_what_the_run_wrote(run: Path) -> None:
    [data] = report_data([run])["runs"]
    metrics = rows(run / "metrics.jsonl")
    assert data["curves"]["steps"] == [row["step"] for row in metrics]
    assert data["curves"]["values"]["reward"][4:] == [pytest.approx(row["reward"], rel=1e-4) for row in metrics[4:]]
    assert data["curves"]["values"]["truncated"][:4] == [None] * 4  # nothing is drawn in stage 1
    assert data["evaluations"] == rows(run / "evaluations.jsonl")
    assert data["stages"] == {"supervised": [1, 4], "grpo": [5, 8]} and data["settings"]["rollout.group_size"] == 4
    assert len(data["groups"]) == 4 * 4 and {len(group["responses"]) for group in data["groups"]} == {4}
    texts = {data["passages"][passage["text"]] for group in data["groups"] for passage in group["passages"]}
    assert texts == set(data["passages"])


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


def test_no_text_can_leave_the_data(run: Path) -> None:
    html = page(json.dumps({"text": EVIL}))
    assert html.count("</script>") == 2 and "\u2028" not in html and "<b>bold" not in html


def test_a_run_writes_its_report_by_itself(finished_run: Path) -> None:
    assert (finished_run / "report.html").read_text().startswith("<!doctype html>")


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
        page.locator("#curves svg").first.focus()
        page.keyboard.press("Home")
        last = rows(run / "metrics.jsonl")[4]
        readout = page.locator("#curves output").first
        assert readout.inner_text().startswith("step 5: ")
        page.keyboard.press("ArrowRight")
        assert readout.inner_text().startswith("step 6: ") and last["step"] == 5
        reached = set()
        for _ in range(150):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.closest('section')?.id ?? 'body'"))
        assert reached >= {"curves", "groups", "settings"}


def test_runs_are_compared_with_their_settings_side_by_side(
    run: Path, train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(train("--learner.lr", 1e-3), tmp_path / "second", symlinks=True)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(other)]) == 0
    with opened(f"file://{tmp_path}/report.html") as page:
        assert page.locator("h1").inner_text() == "2 runs compared"
        assert [text.split()[0] for text in page.locator("header .legend li").all_inner_texts()] == ["first", "second"]
        table = page.locator("#settings table").first
        settings = [line.split("\t") for line in table.inner_text().splitlines()]
        assert ["learner.lr", "0.0001", "0.001"] in settings
        assert [line[0] for line in settings[1:]] == ["run_dir", "learner.lr", "keep_checkpoints"]
        assert page.locator("#curves figure").first.locator("path.line").count() == 2


def test_failures_and_replaced_actors_stand_on_a_time_line(run: Path) -> None:
    lines = rows(run / "metrics.jsonl")
    lines[5] |= {"restarts": 2}
    lines[6] |= {"incarnation": 1}
    lines[7] |= {"incarnation": 1}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "events.jsonl").write_text(json.dumps({"time": 0, "step": 5, "text": "sampler lost: <i>it died</i>"}) + "\n")
    write_report([run], run / "report.html")
    with opened(f"file://{run}/report.html") as page:
        lanes = page.locator("#time-line svg")
        assert lanes.get_attribute("aria-label") == "actors replaced at steps 6; learner or driver began anew at steps 7"
        assert "1970-01-01 00:00:00\t5\tsampler lost: <i>it died</i>" in page.locator("#time-line table").inner_text()


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


def test_a_run_that_has_done_nothing_yet_has_a_report(run: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "samples")
    write_report([run], run / "report.html")
    with opened(f"file://{run}/report.html") as page:
        assert "No step was finished yet." in page.locator("#curves").inner_text()
