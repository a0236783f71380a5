import json
import math
from pathlib import Path

import pytest

from benchmarks.learning import ARMS, PATCH, Arm, best_expected_reward, settings_of
from benchmarks.learning_report import FIGURES, excludes_zero, paired, write_report
from benchmarks.patch_reward import f1_rouge_bleu
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.settings.yaml_file import dump
from rollout.types import Prompt

DOCS = Path(__file__).parents[2] / "docs"


def run_of(*rewards, responses=100):
    points = [{"step": i + 1, "responses": responses * i, **dict.fromkeys(FIGURES, r)} for i, r in enumerate(rewards)]
    return {"seconds": 2.0, "curve": points}


def test_differences_are_paired_by_seed():
    # 2, 3, 4 beyond the baseline: mean 3, std 1; Student's t of 2 degrees of freedom is 4.3027
    arm, baseline = [run_of(12.0), run_of(23.0), run_of(34.0)], [run_of(10.0), run_of(20.0), run_of(30.0)]
    assert paired(arm, baseline, "f1") == (3.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))
    assert excludes_zero((3.0, 2.5)) and excludes_zero((-3.0, 2.5)) and not excludes_zero((3.0, 3.1))


def test_a_single_seed_has_no_interval():
    mean, half = paired([run_of(3.0)], [run_of(1.0)], "bleu")
    assert mean == 2 and math.isnan(half) and not excludes_zero((mean, half))


def test_the_report_of_a_single_seed_is_plain_json_without_intervals(tmp_path):
    results = {name: [run_of(0.0, 1.0)] for name in ("stage-1", *ARMS)}
    summary = write_report(results, {name: name for name in results}, [3], 2.0, tmp_path)
    json.dumps(summary, allow_nan=False)
    assert "nan" not in (tmp_path / "learning.md").read_text()


def test_the_report_says_where_an_arm_is_above_and_below(tmp_path):
    results = {name: [run_of(0.0, 1.0), run_of(0.0, 1.1)] for name in ("stage-1", *ARMS)}
    results["reinforce"] = [run_of(0.0, 0.5), run_of(0.0, 0.6)]
    results["dapo"] = [run_of(0.0, 2.0), run_of(0.0, 2.1)]
    results["stage-1-continued"] = [run_of(0.2, responses=0), run_of(0.3, responses=0)]
    titles = {name: name for name in results}
    summary = write_report(results, titles, [0, 1], 2.0, tmp_path)
    text = (tmp_path / "learning.md").read_text()
    assert "- reinforce: below GRPO on reward, F1" in text and "- dapo: below GRPO on nothing, above it on reward" in text
    assert "- dapo: 100, 100" in text and "- grpo: never, never" in text and "- stage-1-continued: never" not in text
    assert summary["difference"]["reinforce"][0] == -0.5
    assert (tmp_path / "learning.png").stat().st_size > 10_000


def test_the_documented_table_is_the_one_of_the_recorded_figures(tmp_path):
    recorded = json.loads((DOCS / "learning.json").read_text(encoding="utf-8"))
    write_report(recorded["results"], recorded["titles"], recorded["seeds"], recorded["ceiling"], tmp_path)
    assert (tmp_path / "learning.md").read_text() == (DOCS / "learning.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in ARMS if name != "stage-1-continued"])
def test_every_arm_is_a_run_that_our_settings_allow(name, tmp_path):
    used = {"data.train": tmp_path / "train.jsonl", "data.passages": tmp_path / "passages.jsonl", "supervised.steps": 600}
    (tmp_path / "config.yaml").write_text(dump(build(Settings, used)))
    arm = Arm(ARMS[name].title, ARMS[name].settings)
    settings = build(Settings, settings_of(arm, tmp_path, tmp_path, 3, 40))
    assert (settings.seed, settings.learner.steps, settings.supervised_steps) == (3, 40, 0)
    for key, value in arm.settings.items():
        section, _, leaf = key.partition(".")
        if key != "reward.extra":
            assert getattr(getattr(settings, section), leaf) == value
    assert settings.rollout.prompts_per_step * settings.rollout.group_size == 128


def test_the_ceiling_is_what_the_best_wording_can_expect():
    assert best_expected_reward(0) == pytest.approx(2.104, abs=5e-4)


def test_the_patchs_reward_pays_bleu_a_hundredfold():
    prompt = Prompt(id="1", question="?", answers=("the red hat .",))
    assert f1_rouge_bleu(prompt, (), ["the red hat .", "no"]) == [pytest.approx(1 + 1 + 100), 0]
    assert PATCH["reward.f1"] == PATCH["reward.rouge"] == PATCH["reward.bleu"] == 0
