"""RewardActor: a Ray shell round Scorer and the evaluation."""

import os
import time
from pathlib import Path
from typing import Any

import ray

from reward.config import RewardSettings
from reward.constant_reply import best_constant_reply
from reward.evaluation import evaluate
from reward.scorer import Scorer, reward_range
from rollout.data.group_file import read_groups, write_groups
from rollout.logs import log_what_is_done
from rollout.types import Group, Prompt, ScoreReport


class RewardActor:
    def __init__(self, name: str, settings: RewardSettings):
        self._name, self._settings = name, settings

    def __repr__(self) -> str:
        return f"Reward[{self._name}]"

    def ping(self) -> tuple[str, int]:
        """Node and process, if alive."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def ready(self) -> None:
        """Import the user's rewards. An error here reaches the driver as itself, one in __init__ would not."""
        self._log = log_what_is_done()
        self._scorer = Scorer(self._settings)
        self._log.info("%s: ready", self)

    def score(self, *groups: Group) -> tuple[ScoreReport | Group, ...]:
        """A report, then every group with its rewards."""
        start = time.perf_counter()
        scored = [self._scorer.score(group) for group in groups]
        seconds = time.perf_counter() - start
        self._log.info("scored %d groups in %.3f s", len(groups), seconds)
        ranges = tuple(reward_range(group) for group in scored)
        return ScoreReport(reward_ranges=ranges, figures={"seconds_reward": seconds}), *scored

    def evaluate(self, constant_reply: str | None, *groups: Group) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The figures of a file's greedy replies, scored before, and a row for every reply with its passages."""
        self._log.info("evaluating %d replies", len(groups))
        return evaluate(groups, constant_reply, self._scorer), [_prediction(group) for group in groups]

    def constant_reply(self, prompts: list[Prompt], seed: int) -> str:
        self._log.info("searching the best constant reply among the answers to %d prompts", len(prompts))
        return best_constant_reply(prompts, seed)

    def write_groups(self, path: Path, *groups: Group) -> None:
        write_groups(path, groups)

    def read_groups(self, path: Path) -> tuple[None | Group, ...]:
        """None, then every group of a file."""
        return None, *read_groups(path)


def _prediction(group: Group) -> dict[str, Any]:
    return {
        "id": group.prompt.id,
        "question": group.prompt.question,
        "answers": group.prompt.answers,
        "prediction": group.responses[0].text,
        "passages": [
            {"id": passage.id, "title": passage.title, "text": passage.text, "score": score}
            for passage, score in zip(group.retrieval.passages, group.retrieval.scores, strict=True)
        ],
    }
