"""What a resumed run reads is what the run was begun with."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.store.run_folder import RunFolder
from cluster.training.inputs import load_inputs
from cluster.training.resume_checks import check_inputs
from rollout.errors import DataError

OWN_REWARD = [{"function": "tests.cluster.own_reward:one_each"}]


def settings_with(folder: Path, rewards: list[dict[str, Any]], **columns: object) -> Settings:
    """Of a run on one example that has these columns beside ours."""
    file = folder / "train.jsonl"
    file.write_text(json.dumps({"id": "a", "question": "q", "answers": ["b"], **columns}) + "\n")
    return build(Settings, {"data.train": file, "policy.n_context": 0, "reward.extra": rewards})


def check(run: RunFolder, settings: Settings) -> None:
    """As a start of the run does, which may be its first."""
    inputs = load_inputs(settings)
    check_inputs(run.digests(), settings, inputs)
    run.write_digests(inputs.digests)


def test_a_column_that_rewards_read_must_not_change(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    check(run, settings_with(tmp_path, OWN_REWARD, words=8))
    check(run, settings_with(tmp_path, OWN_REWARD, words=8))
    with pytest.raises(DataError, match=r"train\.jsonl: is not what the run was begun with"):
        check(run, settings_with(tmp_path, OWN_REWARD, words=9))


def test_a_column_that_nobody_reads_may_change(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    check(run, settings_with(tmp_path, [], words=8))
    check(run, settings_with(tmp_path, [], words=9))
    check(run, settings_with(tmp_path, OWN_REWARD, words=10))  # rewards read it from here on
    check(run, settings_with(tmp_path, [], words=11))
    with pytest.raises(DataError, match=r"train\.jsonl"):
        check(run, settings_with(tmp_path, OWN_REWARD, words=11))


def test_what_is_ours_must_not_change_whoever_reads_the_rest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    check(run, settings_with(tmp_path, []))
    for rewards in ([], OWN_REWARD):
        with pytest.raises(DataError, match=r"train\.jsonl"):
            check(run, settings_with(tmp_path, rewards, gold=["p1"]))
