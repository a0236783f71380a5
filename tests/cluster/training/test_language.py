"""A run in another language: its language is decided once, told, kept, and found again by whoever reads the run."""

import io
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.watch.series import of_evaluation
from cluster.watch.terminal import evaluation_line, evaluation_table
from launch import main
from tests.cluster.runs import rows

PASSAGES = ["红色的船属于王船长。", "蓝色的船属于李船长。", "图书馆周末不开门。"]
QUESTIONS = ["红色的船属于谁？", "谁拥有蓝色的船？", "图书馆周末开门吗？"]
TINY = "--policy.tiny.d_model 16 --policy.tiny.d_ff 16 --policy.tiny.heads 1 --policy.tiny.layers 1 --supervised.steps 1"
RUN = "--rollout.prompts_per_step 4 --rollout.group_size 2 --learner.steps 1 --policy.n_context 2 --rollout.max_new_tokens 4"


def write(file: Path, lines: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def chinese_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three questions that find a passage, and one that shares no character with any."""
    folder = tmp_path_factory.mktemp("chinese")
    passages = [{"id": f"p{i}", "text": text} for i, text in enumerate(PASSAGES)]
    asked = [
        {"id": f"q{i}", "question": question, "answers": [PASSAGES[i]], "gold": [f"p{i}"]}
        for i, question in enumerate(QUESTIONS)
    ]
    asked.append({"id": "lost", "question": "hello ?", "answers": ["hi"], "gold": ["p2"]})
    data = {
        "--data.train": write(folder / "train.jsonl", asked),
        "--data.valid": write(folder / "valid.jsonl", asked),
        "--data.passages": write(folder / "passages.jsonl", passages),
        "--data.cache": folder / "cache",
        "--run_dir": folder / "run",
    }
    flags = [str(part) for pair in data.items() for part in pair]
    assert main(["train", "--local", "--quiet", *TINY.split(), *RUN.split(), *flags]) == 0
    return folder / "run"


def test_the_language_is_decided_told_and_kept(chinese_run: Path) -> None:
    assert yaml.safe_load((chinese_run / "config.yaml").read_text())["data"]["language"] == "zh"
    told = [row["text"] for row in rows(chinese_run / "events.jsonl") if "data.language" in row["text"]]
    assert told == ["data.language zh: words or characters, by script; no stop words; BLEU on sacrebleu's zh tokens"]
    assert main(["train", "--local", "--quiet", "--resume", str(chinese_run), "--learner.steps", "2"]) == 0
    texts = [row["text"] for row in rows(chinese_run / "events.jsonl")]
    assert sum("data.language" in text for text in texts) == sum("4 of 4 examples stand in" in text for text in texts) == 1


def test_a_question_that_finds_nothing_is_read_alone_and_counts_as_missed(chinese_run: Path) -> None:
    evaluation = rows(chinese_run / "evaluations.jsonl")[0]
    assert evaluation["recall@1"] == evaluation["recall@20"] == 75
    assert evaluation["constant_reply"]["text"] in PASSAGES and evaluation["constant_reply"]["bleu"] > 0
    read = {row["id"]: row["passage_ids"] for row in pq.read_table(chinese_run / "samples" / "step-2.parquet").to_pylist()}
    assert read["lost"] == [] and read["q2"] == ["p2"] and read["q0"] == ["p0", "p1"]
    assert "图书馆周末不开门" in (chinese_run / "report.html").read_text(encoding="utf-8")


def test_chat_searches_in_the_runs_language(
    chinese_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("图书馆\nhello\n"))
    assert main(["chat", "--checkpoint", str(chinese_run), "--questions"]) == 0
    found = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert found == ["p2"]  # and nothing for the second


def test_a_language_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", "--data.language", "jp"]) == 2
    refused = "data.language: 'jp' is refused: it is no code of ISO 639-1; give one as en, zh, ja, ko, or auto"
    assert refused in capsys.readouterr().err


def test_the_demo_is_english(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run"]) == 0
    assert "language: en" in capsys.readouterr().out


def test_a_bleu_that_is_unknown_is_shown_as_absent() -> None:
    row = dict.fromkeys(EVALUATION_COLUMNS, 1.0) | {"step": 3, "stage": "rl", "bleu": None}
    said = row | {"constant_reply": {"text": "i am very good", "reward": 0.5, "f1": 2.0, "rougeL": 2.0, "bleu": 3.0}}
    assert "bleu" not in evaluation_line(row)
    head, own, floor, _ = evaluation_table([said]).splitlines()
    assert own[head.index("bleu") : head.index("bleu") + 4].strip() == "–" and "3.00" in floor
    assert "bleu" not in evaluation_table([row | {"constant_reply": None}])
    shown = [(name, labels.get("score")) for name, labels, _ in of_evaluation(said)]
    assert ("constant_reply_score_ratio", "bleu") in shown and ("held_out_score_ratio", "bleu") not in shown
