"""Typed dialogue, answered in this process."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.commands.chat import HELP
from launch import main
from rollout.sampler import SampledGroups, Sampler
from rollout.types import Mode, Prompt, Version
from tests.cluster.runs import DEADLINE_S, ROOT, rows


def answered(monkeypatch: pytest.MonkeyPatch, typed: str, *flags: object) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return main(["chat", *map(str, flags)])


def test_a_typed_question_gets_the_reply_and_passages_of_the_evaluation(
    finished_run: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = tmp_path / "replies.jsonl"
    flags = ["--data", data_dir / "valid.jsonl", "--passages", data_dir / "passages.jsonl", "--limit", 3]
    assert main(["evaluate", "--checkpoint", str(finished_run), "--predictions", str(replies), *map(str, flags)]) == 0
    capsys.readouterr()
    typed = "".join(f"{row['question']}\n" for row in rows(replies))
    assert answered(monkeypatch, typed, "--checkpoint", finished_run, "--questions") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[i] for i in range(0, 9, 3)] == [row["prediction"] or "(an empty reply)" for row in rows(replies)]
    [first, *_] = rows(replies)
    assert [line.split()[1] for line in lines[1:3]] == [passage["id"] for passage in first["passages"]]


def test_turns_are_kept_in_the_form_of_the_data(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    sample = Sampler.sample

    def listening(self: Sampler, prompts: list[Prompt], mode: Mode, version: Version) -> SampledGroups:
        asked.extend(prompt.question for prompt in prompts)
        return sample(self, prompts, mode, version)

    monkeypatch.setattr(Sampler, "sample", listening)
    typed = "hi there\n\nand you ?\n/reset\nhello\n/quit\nnever read\n"
    persona = ("--persona", "i own two cats.", "--history", 2)
    assert answered(monkeypatch, typed, "--checkpoint", finished_run, *persona) == 0
    reply = capsys.readouterr().out.splitlines()[0].replace("(an empty reply)", "")
    assert asked == [
        "persona: i own two cats. context:  Q: hi there",
        f"persona: i own two cats. context:  R: {reply} Q: and you ?",
        "persona: i own two cats. context:  Q: hello",
    ]


def test_sampled_replies_follow_the_seed(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for seed in (1, 1, 2):
        assert answered(monkeypatch, "hi\nhi\nhi\n", "--checkpoint", finished_run, "--sample", "--seed", seed) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


def test_help_says_what_the_seed_does_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    assert "--seed SEED seed of the replies that --sample draws" in " ".join(capsys.readouterr().out.split())


def test_a_file_of_fewer_passages_than_the_policy_reads_is_searched_and_moves_no_cursor(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"id": "p1", "title": "red\x1b[31m", "text": "two\n\tlines می\u200cخواهم"}) + "\n")
    assert answered(monkeypatch, "two\n", "--checkpoint", finished_run, "--passages", file) == 0
    told = capsys.readouterr()
    assert told.err == f"{file}: holds fewer passages (1) than the policy reads; no more can be found\n"
    assert told.out.splitlines()[-1].endswith("p1  red [31m: two lines می\u200cخواهم")


def test_bytes_that_are_no_text_are_read_as_far_as_they_are(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"my \xff dinner\n"), "utf-8"))
    assert main(["chat", "--checkpoint", str(finished_run)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # a reply and two passages


def test_a_person_is_shown_a_prompt(finished_run: Path, python: str) -> None:
    ours, theirs = pty.openpty()
    command = [python, str(ROOT / "launch.py"), "chat", "--checkpoint", str(finished_run), "--questions"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as chat:
        os.close(theirs)
        said = _until(ours, b"> ")
        os.write(ours, b"/exit\n")
        said += _until(ours, b"> ")
        os.write(ours, b"my dinner\n")
        said += _until(ours, b"> ")
        os.write(ours, b"\x04")  # the end of the input
        assert chat.wait(DEADLINE_S) == 0 and chat.stderr is not None and chat.stderr.read().splitlines() == [HELP.encode()] * 2
    os.close(ours)
    passages = re.findall(r"^ +\d+\.\d\d  \S+  ", said.decode(), re.M)
    assert len(passages) == 2


def _until(terminal: int, text: bytes) -> bytes:
    said, deadline = b"", time.monotonic() + DEADLINE_S
    while not said.endswith(text):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{text!r} never came: {said!r}"
        said += os.read(terminal, 4096)
    return said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--checkpoint", "nowhere"], "nowhere: no such checkpoint"),
        (["--checkpoint", "RUN", "--passages", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--checkpoint", "RUN", "--learner.lr", "1"], "--learner.lr: unknown setting"),
        (["--checkpoint", "RUN/policy"], "passages: none are known, the policy reads 4; give --passages"),
        (["--checkpoint", "RUN", "--policy.path", "x"], "holds no adapters, which alone need another model; leave it out"),
        (["--checkpoint", "RUN", "--retriever.scale", "3"], "retriever.scale: 3.0 has no effect with a retriever.mode"),
        (["--checkpoint", "RUN", "--seed", "1"], "seed: changes nothing about the most probable reply; add --sample"),
        (["--checkpoint", "RUN", "--questions", "--persona", "i ski."], "persona: is not read with --questions"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(
    flags: list[str], expected: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert answered(monkeypatch, "hi\n", *[flag.replace("RUN", str(finished_run)) for flag in flags]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
