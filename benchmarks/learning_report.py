"""Figures of benchmarks.learning -> docs/learning.md, its PNG and its JSON."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import stdtrit

FIGURES = {
    "reward": "reward",
    "f1": "F1",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "exact_match": "exact match",
    "unique_replies": "unique replies",
}
BASELINE = "grpo"
Results = dict[str, list[dict[str, Any]]]

TEXT = """# Does it learn?

Written by `python -m benchmarks.learning`: the demo, {count} seeds ({seeds}), held-out file of 384 examples, greedy replies,
the default reward (F1 + ROUGE-L + BLEU, each in [0, 1]), whatever an arm was trained for. Every arm of a seed starts from the
same policy, that of the demo's stage 1, with a fresh optimiser and the demo's settings but for the number of updates: as many
as take {responses} sampled responses, but for *stage 1 continued*, which gets the wall time of GRPO's updates ({seconds:.0f} s,
{supervised:.0f} updates) on gold answers.

- GRPO: `learner.loss grpo`, the default: group mean and std, clipped ratio, k3 to the reference.
- Dr. GRPO: `dr_grpo`: no std, constant length, no KL.
- DAPO: `dapo`: token mean, clip-higher, no KL; groups of equal rewards are replaced (`rollout.dynamic_sampling 1`), which costs
  updates.
- REINFORCE: `reinforce`: `-r log p`, LAPDOG's route with the right sign, on samples, without a baseline.
- REINFORCE as written: the same with LAPDOG's sign, which minimises `r log p`.
- LAPDOG's patch as written: a group is the responses to one prompt with *one* of its passages; reward
  F1 + ROUGE-L + BLEU on 0..100; loss `-A log p + 0.1 (log p - log p_ref)`; top-p 0.9. Its slips in tokens (a doubled
  `<extra_id_0>`, an end token after the padding) and draws at another temperature than the log-probs' cannot be expressed here.
- the patch's loss, passages fused: that loss and reward on our groups, whose prompt reads all its passages.
- stage 1 continued: cross-entropy on gold answers.

How a reply is worded is drawn at random: a policy that always finds the detail and always words it best can expect a reward of
{ceiling:.2f}, the ceiling of the demo.

## At the end

Means over seeds.

{means}

Difference to GRPO, paired by seed: mean and 95 % interval (Student's t, {count} seeds).

{differences}

**Bold**: the interval excludes 0.

{findings}

## On the way

![held-out reward over sampled responses](learning.png)

Mean over seeds, the band from the lowest to the highest seed. Responses sampled until the held-out reward first reached 2.0:

{reached}

On this demo only the end of a curve counts. REINFORCE as written has the wrong sign, and may rise first all the same:
it makes the commonest, short wording less likely, so that a longer one becomes the greedy reply, until every wording
is destroyed.
"""


def write_report(results: Results, titles: dict[str, str], seeds: Sequence[int], ceiling: float, docs: Path) -> dict[str, Any]:
    """Write learning.md, learning.png and learning.json; returns the mean held-out reward of every arm and the differences."""
    arms = sorted(titles, key=lambda arm: -_mean(results[arm], "reward"))
    differences = {arm: {name: paired(results[arm], results[BASELINE], name) for name in FIGURES} for arm in arms}
    grpo = results[BASELINE]
    supervised = results["stage-1-continued"]
    text = TEXT.format(
        count=len(seeds),
        seeds=", ".join(map(str, seeds)),
        ceiling=ceiling,
        responses=grpo[0]["curve"][-1]["responses"],
        seconds=statistics.mean(run["seconds"] for run in grpo),
        supervised=statistics.mean(run["curve"][-1]["step"] for run in supervised),
        means=_means_table(arms, titles, results),
        differences=_differences_table([arm for arm in arms if arm != BASELINE], titles, differences),
        findings=_findings(titles, differences),
        reached="\n".join(_reached(titles[arm], results[arm]) for arm in arms if results[arm][0]["curve"][-1]["responses"]),
    )
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "learning.md").write_text(text, encoding="utf-8")
    record = {"seeds": list(seeds), "ceiling": ceiling, "titles": titles, "results": results}
    (docs / "learning.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    _draw(arms, titles, results, ceiling, docs / "learning.png")
    return {
        "reward": {arm: round(_mean(results[arm], "reward"), 4) for arm in arms},
        "difference": {
            arm: [None if math.isnan(x) else round(x, 4) for x in differences[arm]["reward"]] for arm in arms if arm != BASELINE
        },
    }


def paired(arm: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean difference of the last figures, seed by seed, and half the width of its 95 % interval (NaN of one seed)."""
    differences = [a["curve"][-1][name] - b["curve"][-1][name] for a, b in zip(arm, baseline, strict=True)]
    n = len(differences)
    if n < 2:
        return differences[0], float("nan")
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(differences) / n**0.5
    return statistics.mean(differences), half


def excludes_zero(difference: tuple[float, float]) -> bool:
    mean, half = difference
    return abs(mean) > half


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(run["curve"][-1][name] for run in runs)


def _means_table(arms: Sequence[str], titles: dict[str, str], results: Results) -> str:
    lines = ["| | responses | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for arm in arms:
        figures = [f"{_mean(results[arm], name):.{2 if name == 'reward' else 1}f}" for name in FIGURES]
        lines.append(f"| {titles[arm]} | {_mean(results[arm], 'responses'):.0f} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _differences_table(
    arms: Sequence[str], titles: dict[str, str], differences: dict[str, dict[str, tuple[float, float]]]
) -> str:
    lines = ["| | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for arm in arms:
        cells = []
        for name in FIGURES:
            mean, half = differences[arm][name]
            digits = 3 if name == "reward" else 1
            cell = f"{mean:+.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
            cells.append(f"**{cell}**" if excludes_zero((mean, half)) else cell)
        lines.append(f"| {titles[arm]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _findings(titles: dict[str, str], differences: dict[str, dict[str, tuple[float, float]]]) -> str:
    """One line an arm: on which figures it lies below or above GRPO with an interval that excludes 0."""
    lines = []
    for arm, figures in differences.items():
        if arm in (BASELINE, "stage-1"):
            continue
        sure = {name: mean for name, (mean, half) in figures.items() if excludes_zero((mean, half))}
        below = ", ".join(FIGURES[name] for name, mean in sure.items() if mean < 0)
        above = ", ".join(FIGURES[name] for name, mean in sure.items() if mean > 0)
        lines.append(f"- {titles[arm]}: below GRPO on {below or 'nothing'}, above it on {above or 'nothing'}.")
    return "\n".join(lines)


def _reached(title: str, runs: Sequence[dict[str, Any]]) -> str:
    first = [next((point["responses"] for point in run["curve"] if point["reward"] >= 2.0), None) for run in runs]
    return f"- {title}: " + ", ".join("never" if value is None else str(value) for value in first)


def _column(points: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [point[name] for point in points]


def _draw(arms: Sequence[str], titles: dict[str, str], results: Results, ceiling: float, path: Path) -> None:
    """All arms with the band of their seeds; beside it their means alone, near the ceiling."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    whole, near = figure.subplots(1, 2, width_ratios=(3, 2))
    start = [run["curve"][0] for run in results["stage-1"]]
    for arm in arms:
        curves = [[first, *run["curve"]] for first, run in zip(start, results[arm], strict=True)]
        if not curves[0][-1]["responses"]:
            continue
        x = _column(min(curves, key=lambda points: points[-1]["responses"]), "responses")
        rewards = np.array([np.interp(x, _column(points, "responses"), _column(points, "reward")) for points in curves])
        (line,) = whole.plot(x, rewards.mean(0), marker=".", label=titles[arm])
        whole.fill_between(x, rewards.min(0), rewards.max(0), color=line.get_color(), alpha=0.08)
        near.plot(x, rewards.mean(0), marker=".", color=line.get_color())
    whole.axhline(
        _mean(results["stage-1-continued"], "reward"), color="grey", ls="--", label="stage 1 continued, for GRPO's wall time"
    )
    for axes in (whole, near):
        axes.axhline(ceiling, color="black", ls=":", label="ceiling")
        axes.set(xlabel="sampled responses")
    whole.set(ylabel="held-out reward (greedy)", title="The demo after stage 1")
    near.set(ylim=(ceiling - 0.16, ceiling + 0.02), title="The same, near the ceiling")
    whole.legend(fontsize="small")
    figure.savefig(path, dpi=120)
