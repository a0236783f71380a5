"""A submitted run as one sees it in Ray's dashboard, in a real browser."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import opened
from tests.cluster.head import Head
from tests.cluster.runs import ROOT

SAMPLER = re.compile(r"^Sampler\[\d+\]$")
NAMES = tuple(re.compile(rf"^{name}$") for name in ("Learner", "Records", r"Reward\[\d+\]"))


def test_the_dashboard_shows_the_job_its_actors_and_what_they_do(
    head: Head, tiny_flags: list[str], tmp_path: Path, picture: Callable[[Page, str], None]
) -> None:
    launch = ["python", "launch.py", "train", "--run_dir", str(tmp_path / "demo"), *tiny_flags]
    launch += ["--learner.steps", "9996", "--checkpoint_every", "0", "--cluster.samplers", "2"]
    head.submit(head.with_token, launch, "--submission-id", "demo", "--no-wait", "--working-dir", str(ROOT))
    cookie = {"name": "ray-authentication-token", "value": head.token, "url": head.jobs}
    with opened(f"{head.jobs}/#/jobs", width=1400, height=620, cookies=[cookie], own_page=False) as page:
        expect(page.get_by_text(re.compile(r"rl \d+/10000, reward \d"))).to_be_visible()
        picture(page, "dashboard-jobs")

        page.goto(f"{head.jobs}/#/jobs/demo")
        page.get_by_text("User-provided metadata").wait_for()
        page.get_by_role("link", name="Expand").or_(page.get_by_text("Expand")).first.click()
        for shown in ('"run": "demo"', '"model": "small T5, from scratch"', '"step": "'):
            expect(page.get_by_text(shown).first).to_be_visible()
        expect(page.locator(".MuiDialog-container")).to_have_css("opacity", "1")  # it fades in
        picture(page, "dashboard-job")

        page.set_viewport_size({"width": 1400, "height": 870})
        page.goto(f"{head.jobs}/#/actors")
        samplers = page.get_by_role("cell", name=SAMPLER)  # those that found no place in time have successors
        for cell in (samplers.nth(1), *(page.get_by_role("cell", name=name).first for name in NAMES)):
            expect(cell).to_be_visible()
        picture(page, "dashboard-actors")

        sampler = page.get_by_role("row").filter(has=page.get_by_role("cell", name=SAMPLER)).filter(has_text="ALIVE")
        sampler.first.get_by_role("link").first.click()
        page.set_viewport_size({"width": 1400, "height": 1100})
        page.get_by_text("stderr").first.click()
        expect(page.get_by_text(re.compile(r"INFO sample: 2 prompts, \d+ tokens in")).first).to_be_visible()
        picture(page, "dashboard-log")
    assert head.job("stop", "demo").wait() == 0
