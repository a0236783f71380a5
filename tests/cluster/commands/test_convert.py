"""`convert` on the command line; what each format becomes is shown in tests/rollout/data/convert/."""

import gzip
import json
from pathlib import Path

import pytest

from launch import main
from rollout.data.dataset import read_prompts


def test_several_files_become_one_and_what_was_done_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"q{i} ?", "answer": ["yes"], "split": "dev"} for i in range(3)] + [{"question": "q3 ?"}]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.json").write_text(json.dumps(rows[2:]))
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows[:2])).encode()))
    target = tmp_path / "out.parquet"
    assert main(["convert", "--input", str(tmp_path / "in"), "--output", str(target)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote 3 examples to {target}, read as nq-open",
        f"left out, without an answer: 1, the first {tmp_path / 'in' / 'b.json'}:2",
        "not kept: split (3)",
    ]
    assert [prompt.question for prompt in read_prompts(target)] == ["q0 ?", "q1 ?", "q2 ?"]


def test_a_format_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"id": 1, "text": "a", "contents": '"T"\nb'}]))
    for name, text in (("auto", "b"), ("contents", "b"), ("dpr", "a")):
        command = ["convert", "--from", name, "--input", str(tmp_path / "in.json"), "--output", str(tmp_path / "out.jsonl")]
        assert main(command) == 0
        assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == text
    assert "wrote 1 passages to" in capsys.readouterr().out


def test_examples_and_passages_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 1, "contents": "b"}\n')
    assert main(["convert", "--input", str(tmp_path / "?.jsonl"), "--output", str(tmp_path / "out.jsonl")]) == 2
    told = f"error: {tmp_path / 'b.jsonl'}: holds passages, the files before examples; convert them one by one\n"
    assert capsys.readouterr().err == told and not (tmp_path / "out.jsonl").exists()
