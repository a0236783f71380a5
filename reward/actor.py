"""Ray shells round what is pure: RewardActor scores, ExtraRewardActor measures one extra reward, RecordsActor keeps records."""

import os
import time
from pathlib import Path
from typing import cast

import numpy as np
import ray

from reward.config import ExtraReward, RewardSettings
from reward.constant_reply import best_constant_reply
from reward.evaluation import Evaluation, evaluate
from reward.extra import LoadedReward
from reward.scorer import Measured, MetricScorer, Scorer, reward_range
from rollout.data.group_file import read_groups, write_groups
from rollout.identity import PROJECT, Identity, code_digest
from rollout.logs import log_what_is_done
from rollout.text import TextRules
from rollout.types import Group, Prompt, ScoreReport


class _Alive:
    def ping(self) -> Identity:
        """Who it is, if alive."""
        return Identity(ray.get_runtime_context().get_node_id(), os.getpid(), code_digest(), str(PROJECT))


class RewardActor(_Alive):
    """Scores groups."""

    def __init__(self, name: str, settings: RewardSettings, rules: TextRules):
        self._name, self._settings, self._rules = name, settings, rules

    def __repr__(self) -> str:
        return f"Reward[{self._name}]"

    def ready(self) -> None:
        """Import the user's rewards. An error here reaches the driver as itself, one in __init__ would not."""
        self._log = log_what_is_done()
        self._scorer = Scorer(self._settings, self._rules)
        self._log.info("%s: ready", self)

    def score(self, n_groups: int, *groups_then_measured: Group | Measured) -> tuple[ScoreReport | Group, ...]:
        """A report, then every group with its rewards.

        The groups are followed by what ExtraRewardActors measured of them, one mapping from each: references, which Ray
        resolves only where they are arguments by themselves.
        """
        start = time.perf_counter()
        groups = cast(tuple[Group, ...], groups_then_measured[:n_groups])
        scored = self._scorer.score_all(groups, cast(tuple[Measured, ...], groups_then_measured[n_groups:]))
        seconds = time.perf_counter() - start
        self._log.info("scored %d groups in %.3f s", n_groups, seconds)
        ranges = tuple(reward_range(group) for group in scored)
        return ScoreReport(reward_ranges=ranges, figures={"seconds_reward": seconds}), *scored


class ExtraRewardActor(_Alive):
    """Measures one extra reward, in a pool of its own."""

    def __init__(self, name: str, extra: ExtraReward):
        self._name, self._extra = name, extra

    def __repr__(self) -> str:
        return f"Reward[{self._extra.short_name}/{self._name}]"

    def ready(self) -> None:
        """Import the user's reward and make its class. An error here reaches the driver as itself."""
        self._log = log_what_is_done()
        self._loaded = LoadedReward(self._extra)
        self._log.info("%s: ready", self)

    def measure(self, *groups: Group) -> tuple[ScoreReport, dict[str, list[np.ndarray]]]:
        """A report without ranges, and the values by the name that they are logged under, float64 [G] for each group."""
        start = time.perf_counter()
        values = self._loaded.measure(groups)
        seconds = time.perf_counter() - start
        self._log.info("measured %d groups in %.3f s", len(groups), seconds)
        return ScoreReport(reward_ranges=(), figures={"seconds_reward": seconds}), {self._extra.column: values}


class RecordsActor(_Alive):
    """Evaluates scored groups, searches the constant reply, and writes and reads group files; runs none of the user's code."""

    def __init__(self, settings: RewardSettings, rules: TextRules):
        self._settings, self._rules = settings, rules

    def __repr__(self) -> str:
        return "Records"

    def ready(self) -> None:
        self._log = log_what_is_done()
        self._metrics = MetricScorer(self._settings, self._rules)
        self._log.info("%s: ready", self)

    def evaluate(self, constant_reply: str | None, temperature: float, n_greedy: int, *greedy_then_drawn: Group) -> Evaluation:
        """Of a file's greedy replies, and of those drawn at a temperature behind them, all scored before."""
        greedy, drawn = greedy_then_drawn[:n_greedy], greedy_then_drawn[n_greedy:]
        self._log.info("evaluating %d replies, and draws for %d prompts", len(greedy), len(drawn))
        return evaluate(greedy, constant_reply, self._metrics, drawn, temperature)

    def constant_reply(self, prompts: list[Prompt], seed: int) -> str:
        self._log.info("searching the best constant reply among the answers to %d prompts", len(prompts))
        return best_constant_reply(prompts, seed, rules=self._rules)

    def write_groups(self, path: Path, *groups: Group) -> None:
        write_groups(path, groups)

    def read_groups(self, path: Path) -> tuple[None | Group, ...]:
        """None, then every group of a file."""
        return None, *read_groups(path)
