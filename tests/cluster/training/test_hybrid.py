"""A run that finds passages by words and by vectors, from its settings to what is shown of it."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.report.data import report_data
from launch import main
from tests.cluster.runs import rows
from tests.rollout.retrieval.encoders import bare_bert
from tests.rollout.tiny import tiny_policy

HYBRID = ("--retriever.mode", "hybrid")


@pytest.fixture(scope="module")
def run(train_locally: Callable[..., Path]) -> Path:
    return train_locally(*HYBRID)


def chat(monkeypatch: pytest.MonkeyPatch, *flags: object) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("my dinner\n"))
    return main(["chat", *map(str, flags)])


def test_samples_evaluations_and_the_report_tell_both_scores(run: Path) -> None:
    [*_, last] = sorted((run / "samples").iterdir())
    [row, *_] = pq.read_table(last).to_pylist()
    parts = zip(row["retrieval_scores"], row["dense_scores"], row["lexical_scores"], strict=True)
    assert all(score == pytest.approx(2 * dense + lexical) for score, dense, lexical in parts)
    evaluation = rows(run / "evaluations.jsonl")[-1]
    assert {f"recall_{part}@{depth}" for part in ("lexical", "dense") for depth in (1, 5, 20)} <= set(evaluation)
    [data] = report_data([run])["runs"]
    shown = data["groups"][0]["passages"][0]
    assert shown["score"] == pytest.approx(2 * shown["dense"] + shown["lexical"], abs=0.01)
    assert set(data["groups"][0]["responses"][0]["parts"]) == {"f1", "rougeL", "bleu"}


def test_a_chat_shows_both_scores_and_may_search_otherwise(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = r" +-?\d+\.\d\d"
    for flags, shown in (
        ((), rf"{number} \(lexical{number}, dense{number}\)"),
        (("--retriever.mode", "lexical"), number),
        (("--retriever.mode", "dense"), number),
        (("--retriever.path", bare_bert(tmp_path / "bert")), rf"{number} \(lexical{number}, dense{number}\)"),
    ):
        assert chat(monkeypatch, "--checkpoint", run, *flags) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and all(re.match(rf"{shown}  \S+  \w", line) for line in lines[1:]), flags


def test_a_run_that_goes_on_keeps_its_retriever(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["train", "--local", "--resume", str(run), "--learner.steps", "6", "--retriever.scale", "3"]) == 2
    assert "retriever: differs from the run's own, which a resumed run keeps; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--retriever.scale", "3"],
            "retriever.scale: 3.0 has no effect with a retriever.mode that is no hybrid",
        ),
        ([*HYBRID, "--policy.n_context", "0"], "retriever.mode: hybrid has no effect with policy.n_context 0"),
        (["--retriever.mode", "words"], "retriever.mode: 'words' is refused"),
        (["--retriever.path", "T5"], "is a t5 without modules.json, no encoder of sentences"),
        (["--retriever.path", "nowhere"], "retriever.path nowhere: is no folder, and cannot be fetched as a hub name"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    flags: list[str],
    told: str,
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_policy().save(tmp_path / "T5")
    capsys.readouterr()
    given = [flag.replace("T5", str(tmp_path / "T5")) for flag in flags]
    assert main(["train", "--local", *tiny_flags, "--run_dir", str(tmp_path / "run"), *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_an_export_searches_as_its_checkpoint_does(
    run: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--checkpoint", str(run), "--to", str(tmp_path / "exported")]) == 0
    said = []
    for checkpoint in (run, tmp_path / "exported"):
        capsys.readouterr()
        assert chat(monkeypatch, "--checkpoint", checkpoint, "--passages", data_dir / "passages.jsonl") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "dense" in said[0]


def test_two_samplers_on_ray_find_the_same_bits_as_one_in_this_process(run: Path, train: Callable[..., Path]) -> None:
    other = train(*HYBRID, "--cluster.samplers", 2, "--data.cache", run.parent / "another-cache")
    for log in sorted((run / "samples").iterdir()):
        assert pq.read_table(log) == pq.read_table(other / "samples" / log.name), log.name
