"""Figures of held-out prompts whose replies and draws are known."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.actors.ports import GroupRef
from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.failed_prompts import FailedPrompt
from cluster.store.run_folder import RunFolder
from cluster.training import held_out
from cluster.training.held_out import HeldOutEvaluations
from cluster.training.inputs import Inputs
from cluster.training.rollout_client import InflightCall, Outcome, Rollout
from reward.config import RewardSettings
from reward.evaluation import Evaluation, evaluate
from reward.scorer import MetricScorer, Scorer
from rollout.types import Draws, Mode, Prompt, SampleReport, Version
from tests.reward.groups import make_group


def measure(tmp_path: Path, **values: Any) -> str:
    settings = build(Settings, {"data.language": "ja", "policy.n_context": 0, **values})
    inputs = Inputs(
        train=[], valid={"valid": [Prompt(id="a", question="?", answers=("b",))]}, digests={"valid": "digest"}, language="ja"
    )
    actors = cast(Any, None)
    return HeldOutEvaluations(settings, inputs, RunFolder(tmp_path), actors, actors).measure


def test_figures_are_measured_otherwise_where_mecab_comes_or_a_rewards_or_our_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "measured_reward.py"
    module.write_text("def one(prompt, passages, responses):\n    return [1.0] * len(responses)\n")
    extra = {"reward.extra": [{"function": "measured_reward:one"}]}
    monkeypatch.setattr("rollout.text.importlib.util.find_spec", lambda name: None)
    measures = [measure(tmp_path), measure(tmp_path, **extra)]
    module.write_text(module.read_text().replace("1.0", "2.0"))
    measures.append(measure(tmp_path, **extra))
    monkeypatch.setattr("rollout.text.importlib.util.find_spec", lambda name: object())
    measures.append(measure(tmp_path, **extra))
    monkeypatch.setattr(held_out, "code_digest", lambda packages: "another")
    measures.append(measure(tmp_path, **extra))
    assert len(set(measures)) == len(measures) and measure(tmp_path, **extra) == measures[-1]


@dataclass
class Said:
    """A client of prompts whose replies are known; mode: of which of them."""

    replies: dict[Mode, dict[str, list[str]]]
    mode: Mode = "greedy"
    calls: list[tuple[Mode, list[str]]] = field(default_factory=list)

    async def outcome(self, call: InflightCall) -> Outcome:
        prompts, said = call.prompts, self.replies[self.mode]
        self.calls.append((self.mode, [prompt.id for prompt in prompts]))
        failed = [FailedPrompt(prompt, ValueError("no")) for prompt in prompts if prompt.id not in said]
        answered = [replace(make_group(said[each.id], each.answers), prompt=each) for each in prompts if each.id in said]
        groups = tuple(GroupRef(group.prompt, group, group.version) for group in Scorer(RewardSettings()).score_all(answered))
        nothing = SampleReport(version=Version(0, 0), figures={})
        return Outcome([Rollout(groups, nothing, None)], failed)


class Measured:
    """Records that are measured in this process."""

    async def evaluate(
        self, constant_reply: str | None, temperature: float, greedy: Sequence[GroupRef], drawn: Sequence[GroupRef]
    ) -> Evaluation:
        groups, draws = ([each.reference for each in some] for some in (greedy, drawn))
        return evaluate(groups, constant_reply, MetricScorer(RewardSettings()), draws, temperature)


async def test_draws_of_known_replies_have_the_figures_that_one_works_out() -> None:
    prompts = [Prompt(id=id, question="?", answers=(answer,)) for id, answer in (("a", "left right"), ("b", "up"), ("c", "x"))]
    drawn = {"a": ["left right", "left", "down"], "b": ["down", "down", "left"]}
    client = Said({"greedy": {"a": ["left"], "b": ["up"]}, "draw": drawn})
    evaluation, failed = await held_out.evaluate(
        client,
        Measured(),
        prompts,
        None,
        most_failed=1,
        draws=Draws(3, 0.7),  # type: ignore[arg-type]  # as they are used
    )
    assert evaluation is not None and [each.prompt.id for each in failed] == ["c"]
    assert client.calls == [("greedy", ["a", "b", "c"]), ("draw", ["a", "b"])]
    two_thirds = 100 * 2 / 3  # of precision 1 and recall 1/2
    assert evaluation.figures["f1"] == pytest.approx((two_thirds + 100) / 2)
    average, best = (evaluation.figures["draws"][name] for name in ("avg@3", "best@3"))
    assert average["f1"] == pytest.approx(((100 + two_thirds + 0) / 3 + 0) / 2) and average["exact_match"] == pytest.approx(
        100 / 6
    )
    assert best["f1"] == best["exact_match"] == 50
    assert average["intervals"]["f1"] == pytest.approx([0, (100 + two_thirds) / 3]) and best["intervals"]["f1"] == [0, 100]
