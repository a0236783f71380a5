"""Does it learn? Losses side by side on the demo, from one stage 1 a seed, with equal budgets of sampled responses.

    pip install -r requirements.txt -r requirements-test.txt
    python -m benchmarks.learning [--seeds 0 1 2 3 4] [--steps 40] [--runs runs/learning] [--docs docs]

Runs that are finished are not repeated, one that was interrupted is resumed. Afterwards every kept checkpoint is evaluated on
the whole held-out file with the default reward, whatever it was trained for, and docs/learning.{md,png,json} are written.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.learning_report import Results, write_report
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.run_folder import read_settings
from reward.config import RewardSettings
from reward.evaluation import evaluate
from reward.metrics import TextMetrics
from reward.scorer import MetricScorer, Scorer
from rollout.data import demo
from rollout.data.dataset import read_prompts
from rollout.policy.loading import DTYPES, load_policy
from rollout.retrieval.open import open_retriever
from rollout.sampler import Sampler
from rollout.text import ENGLISH
from rollout.types import Prompt, Version

ROOT = Path(__file__).parent.parent
KEPT_STEPS = (2, 4, 7, 10, 14, 20, 30)
PATCH_LOSS = {"importance": "none", "kl_estimator": "k1", "kl_coef": 0.1}
PATCH_REWARD = [{"function": "benchmarks.patch_reward:f1_rouge_bleu"}]
PER_CALL = 48


@dataclass(frozen=True)
class Arm:
    """One way to go on from stage 1. settings: dotted names; single_passages: a group's context is one passage alone."""

    title: str
    settings: dict[str, Any]
    single_passages: bool = False


PATCH = {f"learner.{name}": value for name, value in PATCH_LOSS.items()} | {
    "rollout.top_p": 0.9,
    **{f"reward.{name}": 0 for name in ("f1", "rouge", "bleu")},
    "reward.extra": json.dumps(PATCH_REWARD),
}
INVERTED = {f"reward.{name}": -1 for name in ("f1", "rouge", "bleu")}
ARMS = {
    "stage-1-continued": Arm("stage 1 continued", {"learner.loss": "sft"}),
    "reinforce": Arm("REINFORCE", {"learner.loss": "reinforce"}),
    "reinforce-as-written": Arm("REINFORCE as written", {"learner.loss": "reinforce"} | INVERTED),
    "patch": Arm("LAPDOG's patch as written", PATCH, single_passages=True),
    "patch-fused": Arm("the patch's loss, passages fused", PATCH),
    "grpo": Arm("GRPO", {}),
    "dr_grpo": Arm("Dr. GRPO", {"learner.loss": "dr_grpo"}),
    "dapo": Arm("DAPO", {"learner.loss": "dapo", "rollout.dynamic_sampling": 1}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=40, help="updates of every arm but stage 1 continued")
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    results: Results = {arm: [] for arm in ["stage-1", *ARMS]}
    for seed in options.seeds:
        folder = (options.runs / f"seed-{seed}").resolve()
        stage_1 = folder / "stage-1"
        train(stage_1, {"seed": seed, "learner.steps": 0, "eval_every": 0, "checkpoint_every": 0})
        results["stage-1"].append(figures_of(stage_1, seed, newest_only=True))
        for name in sorted(ARMS, key=lambda name: name == "stage-1-continued"):  # which takes as long as GRPO did
            run = folder / name
            train(run, settings_of(ARMS[name], stage_1, folder, seed, options.steps))
            results[name].append(figures_of(run, seed))
            print(f"seed {seed} {name}: held-out reward {results[name][-1]['curve'][-1]['reward']:.3f}", flush=True)
    ceiling = statistics.mean(best_expected_reward(seed) for seed in options.seeds)
    titles = {"stage-1": "end of stage 1"} | {name: arm.title for name, arm in ARMS.items()}
    print(json.dumps({"bench": "learning", **write_report(results, titles, options.seeds, ceiling, options.docs)}))


def settings_of(arm: Arm, stage_1: Path, folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """Of a run that goes on from stage 1's policy on the same examples; nothing is evaluated while it runs."""
    used = read_settings(stage_1 / "config.yaml")
    [train], [passages] = used.data.train or (), used.data.passages or ()
    settings = demo.SETTINGS | {
        "seed": seed,
        "data.train": train,
        "data.passages": passages,
        "policy.path": str(stage_1 / "checkpoints" / "latest" / "policy"),
        "supervised.steps": 0,
        "learner.steps": steps,
        "eval_every": 0,
        "checkpoint_every": 1,
        "keep_checkpoints": 1000,
    }
    if arm.single_passages:
        settings["data.train"] = write_single_passages(used, folder / "single-passages.jsonl")
    if arm.settings.get("learner.loss") == "sft":
        settings["rollout.prompts_per_step"] = used.supervised.batch_size
        settings["learner.steps"] = steps_of_equal_time(folder / "grpo", stage_1)
    return settings | arm.settings


def train(run: Path, settings: dict[str, Any]) -> None:
    """Run launch.py to its end, from the newest checkpoint if there is one; a run of other settings is begun anew."""
    steps = settings["learner.steps"] or demo.SETTINGS["supervised.steps"]
    if (run / "config.yaml").exists() and not _same_algorithm(read_settings(run / "config.yaml"), settings):
        shutil.rmtree(run)
    rows = read_rows(run / "metrics.jsonl")
    if rows and rows[-1]["step"] == steps and (run / "checkpoints" / f"step-{steps}").is_dir():
        return
    if (run / "checkpoints" / "latest").exists():
        flags = ["--resume", str(run)]
    else:
        shutil.rmtree(run, ignore_errors=True)
        flags = [part for name, value in (settings | {"run_dir": run}).items() for part in (f"--{name}", str(value))]
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:
        subprocess.run([sys.executable, "launch.py", "train", *flags], cwd=ROOT, stdout=out, stderr=out, check=True)


def _same_algorithm(used: Settings, settings: dict[str, Any]) -> bool:
    wanted = build(Settings, demo.SETTINGS | {name: str(value) for name, value in settings.items()}).as_used()
    return all(getattr(used, name) == getattr(wanted, name) for name in ("seed", "learner", "rollout", "reward"))


def steps_of_equal_time(run: Path, stage_1: Path) -> int:
    """Supervised updates that fit into the wall time of a run's updates, by stage 1's median."""
    spent = sum(row["seconds_step"] for row in read_rows(run / "metrics.jsonl"))
    return round(spent / statistics.median(row["seconds_step"] for row in read_rows(stage_1 / "metrics.jsonl")))


def write_single_passages(used: Settings, path: Path) -> Path:
    """Every example once with each of the passages that would be fused for it, as LAPDOG's patch forms its groups."""
    assert used.data.train is not None and used.data.passages is not None
    prompts = read_prompts(used.data.train)
    retriever = open_retriever(used.data, used.policy.n_context)
    with path.open("w", encoding="utf-8") as out:
        for prompt, retrieval in zip(prompts, retriever.retrieve(prompts), strict=True):
            for k, passage in enumerate(retrieval.passages):
                row = {"id": f"{prompt.id}/{k}", "question": prompt.question, "answers": prompt.answers}
                alone = {"id": passage.id, "title": passage.title, "text": passage.text}
                out.write(json.dumps(row | {"passages": [alone]}) + "\n")
    return path


def figures_of(run: Path, seed: int, newest_only: bool = False) -> dict[str, Any]:
    """Held-out figures over responses sampled, {"seconds": of all updates, "curve": [{"step", "responses", figures}]}.

    The last point is the newest one within the budget, which is what an arm without dynamic sampling draws.
    """
    rows = read_rows(run / "metrics.jsonl")
    done = run / "curve.json"
    if not done.exists():
        settings = read_settings(run / "config.yaml")
        group, budget = settings.rollout.group_size, len(rows) * settings.rollout.prompts_per_step
        sampled = settings.learner.loss != "sft" and settings.learner.steps > 0
        prompts, responses = 0, {}
        for row in rows:
            prompts += settings.rollout.prompts_per_step + row["filtered"]
            if prompts <= budget:
                responses[row["step"]] = prompts * group if sampled else 0
        last = max(responses)
        steps = [last] if newest_only else [step for step in KEPT_STEPS if step < last] + [last]
        curve = [{"step": step, "responses": responses[step], **held_out(run, step, seed)} for step in steps]
        done.write_text(json.dumps(curve), encoding="utf-8")
        for checkpoint in (run / "checkpoints").glob("step-*"):
            if checkpoint.name != f"step-{rows[-1]['step']}":
                shutil.rmtree(checkpoint)
    return {"seconds": sum(row["seconds_step"] for row in rows), "curve": json.loads(done.read_text(encoding="utf-8"))}


def held_out(run: Path, step: int, seed: int) -> dict[str, float]:
    """Figures of a checkpoint's greedy replies to the demo's held-out file, with all passages fused."""
    settings = build(Settings, demo.SETTINGS | {"seed": seed})
    data = run.parent / "stage-1" / "data"
    passages = settings.data.with_values(passages=(data / "passages.jsonl",), language="en")
    retriever = open_retriever(passages, settings.policy.n_context)
    policy = load_policy(run / "checkpoints" / f"step-{step}" / "policy", settings.policy, DTYPES["float32"], "cpu")
    sampler = Sampler(policy, retriever, settings.rollout, seed)
    prompts: Sequence[Prompt] = read_prompts(data / "valid.jsonl")
    calls = [prompts[i : i + PER_CALL] for i in range(0, len(prompts), PER_CALL)]
    groups = [group for call in calls for group in sampler.sample(call, "greedy", Version(0, step)).groups]
    scored = Scorer(RewardSettings()).score_all(groups)
    evaluation = evaluate(scored, None, MetricScorer(RewardSettings()))
    return {name: value for name, value in evaluation.figures.items() if isinstance(value, float)}


def best_expected_reward(seed: int) -> float:
    """Mean over the held-out file of what the best wording of the right detail earns, its answer's wording being random."""
    world = demo.generate(seed)
    stories = {passage.id: passage for passage in world.passages}
    return statistics.mean(_best_wording(stories[prompt.gold[0]].title) for prompt in world.valid)


@cache
def _best_wording(title: str) -> float:
    kind, detail = next((k, x) for k in demo.KINDS for x in k.details.split() if k.title.format(x=x) == title)
    chances = demo.wordings(kind, detail)
    own = TextMetrics(ENGLISH)
    earned = {(t, a): own.f1(t, a) + own.rouge_l(t, a) + own.bleu(t, a) for t in chances for a in chances}
    return max(sum(chance * earned[t, a] for a, chance in chances.items()) for t in chances)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
