import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from cluster.commands.train import resumed_settings
from cluster.settings.flags import Flag, parse_flags
from cluster.settings.tree import Settings
from cluster.settings.values import build, fields
from cluster.settings.yaml_file import dump, read_yaml
from launch import main
from rollout.config import Section


def choices_of(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in choices_of(part)]


CHOICES = [(name, choice) for name, field in fields(Settings) for choice in choices_of(field.annotation)]
NEEDED = {  # so that the choice has an effect
    "learner.correction_level": {"learner.correction": "mask"},
    "learner.kl_in": {"learner.kl_coef": 0.1},
}


def value_of(settings: Settings, name: str) -> object:
    section, _, leaf = name.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, leaf)


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_every_choice_can_be_given_and_comes_back_from_the_written_settings(name: str, choice: str, tmp_path: Path) -> None:
    settings = build(Settings, NEEDED.get(name, {}) | {name: choice})
    expected = (choice,) if isinstance(value_of(settings, name), tuple) else choice
    assert value_of(settings, name) == expected
    (tmp_path / "config.yaml").write_text(dump(settings.as_used()))
    again = build(Settings, read_yaml(tmp_path / "config.yaml", Settings))
    assert again == settings.as_used() and value_of(again, name) == expected


@pytest.mark.parametrize("text", ["null", "none", "None"])
def test_a_setting_that_may_be_empty_can_be_emptied(text: str) -> None:
    assert build(Settings, {"eval_limit": text}).eval_limit is None
    assert build(Settings, {"learner.baseline": text}).learner.baseline == (None if text != "none" else "none")
    assert build(Settings, {"trackers": text}).trackers == build(Settings, {"trackers": None}).trackers == ()


@pytest.mark.parametrize(
    ("given", "paths", "written"),
    [
        ("a.jsonl", ["a.jsonl"], "train: {0}/a.jsonl"),
        (["a.jsonl", "b.*"], ["a.jsonl", "b.*"], "train:\n- {0}/a.jsonl\n- {0}/b.*"),
    ],
)
def test_files_are_one_path_or_several_and_come_back_from_the_written_settings(
    given: object, paths: list[str], written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = build(Settings, {"data.train": given}).as_used()
    assert settings.data.train == tuple(tmp_path / path for path in paths) and settings.data.valid is None
    (tmp_path / "config.yaml").write_text(dump(settings))
    assert written.format(tmp_path) in dump(settings).replace("\n  ", "\n")
    assert build(Settings, read_yaml(tmp_path / "config.yaml", Settings)) == settings


@pytest.mark.parametrize(
    ("given", "sets", "written"),
    [
        ("v.jsonl", {"valid": ["v.jsonl"]}, "valid: {0}/v.jsonl"),
        (["v.jsonl"], {"valid": ["v.jsonl"]}, "valid: {0}/v.jsonl"),
        ("shards/*", {"valid": ["shards/*"]}, "valid: {0}/shards/*"),
        (
            ["dev.v1.jsonl.gz", "test.parquet", "more"],
            {"dev.v1": ["dev.v1.jsonl.gz"], "test": ["test.parquet"], "more": ["more"]},
            "valid:\n  dev.v1: {0}/dev.v1.jsonl.gz\n  test: {0}/test.parquet\n  more: {0}/more",
        ),
        (
            "{near: [a.jsonl, b.jsonl], far: c.jsonl}",
            {"near": ["a.jsonl", "b.jsonl"], "far": ["c.jsonl"]},
            "valid:\n  near:\n  - {0}/a.jsonl\n  - {0}/b.jsonl\n  far: {0}/c.jsonl",
        ),
        ({"valid": ["a", "b"]}, {"valid": ["a", "b"]}, "valid:\n  valid:\n  - {0}/a\n  - {0}/b"),
    ],
)
def test_held_out_files_are_one_set_or_several_in_their_order_and_come_back(
    given: object, sets: dict[str, list[str]], written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = build(Settings, {"data.train": "a.jsonl", "data.valid": given}).as_used()
    expected = {name: tuple(tmp_path / path for path in paths) for name, paths in sets.items()}
    assert settings.data.valid == expected and list(settings.data.valid) == list(expected)
    (tmp_path / "config.yaml").write_text(dump(settings))
    assert written.format(tmp_path) in dump(settings).replace("\n  ", "\n")
    assert build(Settings, read_yaml(tmp_path / "config.yaml", Settings)) == settings


def test_several_values_follow_a_flag_and_the_last_of_two_flags_counts() -> None:
    known = [Flag("a", "", is_several=True), Flag("b", "")]
    assert parse_flags("train", "", ["--a", "1", "2", "--b", "3"], known) == {"a": ["1", "2"], "b": "3"}
    assert parse_flags("train", "", ["--a", "1", "2", "--a", "4"], known) == {"a": "4"}
    assert parse_flags("train", "", ["--a", "1"], known) == {"a": "1"}


def test_a_list_that_may_be_null_is_a_list_and_a_choice_named_tuple_is_none() -> None:
    class Both(Section):
        numbers: tuple[int, ...] | None = None
        kind: Literal["tuple"] | None = None

    assert build(Both, {"numbers": "[1, 2]"}).numbers == (1, 2)
    assert build(Both, {"kind": "none"}).kind is None


@pytest.mark.parametrize(
    ("command", "default"),
    [("train", "[4]"), *((command, "[the checkpoint's]") for command in ("evaluate", "chat", "export"))],
)
def test_help_tells_where_a_setting_that_is_left_out_comes_from(
    command: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    defaults = dict(re.findall(r"--([\w.]+) [A-Z_]+ [^\[]*?(\[[^\]]*\])?(?= --|$)", told))
    assert defaults["policy.n_context"] == default
    if command == "chat":
        assert defaults["history"] == "[3]"  # an option of the command itself


@pytest.mark.parametrize(
    ("changed", "used"),
    [
        ({"learner.reward_aggregation": "normalize_then_sum"}, {"baseline": None, "scale_rewards": None}),
        ({"learner.importance": "none", "learner.scale_rewards": "none"}, {"importance": "none", "eps_low": None}),
        ({"learner.kl_target": "0.1", "learner.kl_coef": "0.9"}, {"kl_target": 0.1, "kl_coef": 0.9}),
        ({"learner.kl_in": "reward"}, {"kl_in": "reward", "kl_estimator": "k1"}),
        ({"learner.loss": "dapo"}, {"aggregation": "token", "eps_high": 0.28, "dual_clip": 3.0}),
        ({}, {"aggregation": "sequence", "kl_coef": 0.04, "dual_clip": 3.0}),
    ],
)
def test_a_resumed_run_uses_what_it_is_told(changed: dict[str, str], used: dict[str, object], tmp_path: Path) -> None:
    before = build(Settings, {"learner.dual_clip": 3.0} if "loss" in str(changed) or not changed else {})
    (tmp_path / "config.yaml").write_text(dump(before.as_used()))
    settings = resumed_settings(read_yaml(tmp_path / "config.yaml", Settings), changed)
    assert {name: getattr(settings.learner, name) for name in used} == used
