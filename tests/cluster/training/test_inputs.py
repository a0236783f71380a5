"""What a resumed run reads is what the run was begun with."""

import gzip
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


def test_what_is_said_of_all_inputs_is_said_with_them_whoever_stored_the_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"question": "q", "answers": ["b"], "gold": ["gone"], "target": "b"}) + "\n")
    passages = tmp_path / "passages.jsonl"
    passages.write_text(f"{json.dumps({'id': 1, 'text': 'fern', 'answers': ['b']})}\n" * 2)
    files = {"data.train": train, "data.valid": train, "data.passages": passages, "data.cache": tmp_path / "cache"}
    settings = build(Settings, files | {"policy.n_context": 1, "data.language": "en"})
    for _ in range(2):
        inputs = load_inputs(settings)
        assert [text.partition("; ")[0].replace(str(tmp_path), "") for text in inputs.told] == [
            "/train.jsonl: not read: target",
            "/train.jsonl: 1 of 1 examples stand in /train.jsonl, too",
            "/passages.jsonl: not read: answers",
            "/passages.jsonl:2: passage id '1' stands on line 1 already",
            "/train.jsonl: 1 gold ids of 1 of 1 examples are of no passage, and left out of recall: 'gone'",
        ]
    assert capsys.readouterr() == ("", "")


def test_passages_may_be_spread_and_packed_otherwise(tmp_path: Path) -> None:
    run, train = RunFolder(tmp_path), tmp_path / "train.jsonl"
    train.write_text(json.dumps({"question": "q", "answers": ["b"]}) + "\n")
    lines = [json.dumps({"id": name, "text": f"the {name} fern"}) + "\n" for name in "abcd"]

    def settings(*files: tuple[str, str]) -> Settings:
        for name, text in files:
            (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        paths = [tmp_path / name for name, _ in files]
        return build(Settings, {"data.train": train, "data.passages": paths, "data.cache": tmp_path / "cache"})

    check(run, settings(("p.jsonl", "".join(lines))))
    check(run, settings(("1.jsonl", lines[0]), ("2.jsonl.gz", "".join(lines[1:]))))
    with pytest.raises(DataError, match=r"2\.jsonl and 1 more: is not what the run was begun with"):
        check(run, settings(("2.jsonl", "".join(lines[1:])), ("1.jsonl.gz", lines[0])))


def test_what_is_ours_must_not_change_whoever_reads_the_rest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    check(run, settings_with(tmp_path, []))
    for rewards in ([], OWN_REWARD):
        with pytest.raises(DataError, match=r"train\.jsonl"):
            check(run, settings_with(tmp_path, rewards, gold=["p1"]))
