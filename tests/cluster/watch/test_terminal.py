"""What a run says, in its three output_modes."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

import launch
from cluster.store.metrics import EVALUATION_COLUMNS
from cluster.store.rows import summary_rows
from cluster.store.run_folder import RunFolder
from cluster.watch.terminal import Terminal, evaluation_line, evaluation_table, step_line
from launch import main
from tests.cluster.runs import DEADLINE_S, ROOT, Process, rows

STEP = {"step": 3, "stage": "rl", "loss": 0.5, "reward": 1.25, "reward_std": 0.5, "kl": None, "entropy": 2.0} | {
    "staleness_mean": 0.0,
    "grad_norm": 1.0,
    "lr": 1e-4,
    "seconds_step": 0.25,
}


def test_step_lines_are_aligned() -> None:
    supervised = step_line(STEP | {"stage": "supervised", "step": 12345, "reward": None})
    assert supervised.index("loss") == step_line(STEP).index("loss")
    assert len(step_line(STEP)) == len(step_line(STEP | {"step": 99999, "reward": 0.001, "loss": -12.3456}))


def test_lines_keep_what_matters_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = step_line(STEP | {"kl": 0.01})
    assert len(whole) > 80  # a file has no width
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    narrow = step_line(STEP | {"kl": 0.01})
    assert len(narrow) <= 80 and {"reward", "kl", "entropy"} < set(narrow.split()) and "lag" not in narrow
    figures = evaluation_line(dict.fromkeys(EVALUATION_COLUMNS, 12.5) | {"step": 680})
    assert len(figures) <= 80 and {"reward", "f1", "bleu"} < set(figures.split())


def test_a_loss_that_rounds_to_zero_has_no_sign() -> None:
    assert "loss   0.0000" in step_line(STEP | {"loss": -1e-9})


def test_json_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(RunFolder(tmp_path), 9, "json").step(STEP | {"loss": float("nan")})
    assert json.loads(capsys.readouterr().out)["loss"] is None


def test_a_bar_stands_on_a_terminal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    for screen, shown in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", screen)
        terminal = Terminal(RunFolder(tmp_path), 9)
        terminal.step(STEP)
        terminal.step(STEP | {"step": 4})
        terminal.close()
        assert ("4/9" in screen.getvalue() or "3/9" in screen.getvalue()) == shown


def test_the_table_ends_with_the_constant_reply() -> None:
    figures: dict[str, Any] = dict.fromkeys(("reward", "exact_match", "distinct2", "unique_replies", "recall@5"))
    row = {"step": 4, "stage": "rl", **figures, "f1": 12.345, "rougeL": 1.0, "bleu": 0.0}
    table = evaluation_table([row | {"constant_reply": {"text": "yes", "f1": 20.0, "rougeL": 30.0, "bleu": 1.0}}])
    assert table.splitlines()[-1] == "constant reply: 'yes'" and "12.35" in table.splitlines()[1]
    assert table.splitlines()[2].split() == ["constant", "reply", "20.00", "30.00", "1.00"]
    assert table.splitlines()[0].split() == ["step", "stage", "f1", "rougeL", "bleu"]  # what nobody measured takes no room


def test_the_table_of_a_long_run_shows_before_the_stages_the_best_and_the_last() -> None:
    figures: dict[str, Any] = dict.fromkeys(EVALUATION_COLUMNS) | {"constant_reply": None}
    stages = ["start", *["supervised"] * 20, *["rl"] * 200]
    rows = [{"step": i, "stage": stage, **figures, "reward": 2.0 if i == 77 else 1.0} for i, stage in enumerate(stages)]
    assert [line.split()[0] for line in evaluation_table(rows).splitlines()] == ["step", "0", "20", "77", "220"]


def test_rows_that_say_little_are_shown_all_the_same() -> None:
    rows: list[dict[str, Any]] = [{"step": i, "f1": 1.0, "reward": float(i == 3)} for i in range(20)]
    assert [row["step"] for row in summary_rows(rows)] == [0, 3, 19]
    assert evaluation_table([{"step": 1, "f1": 1.0}]).split() == ["step", "stage", "f1", "1", "1.00"]
    assert evaluation_line({"step": 1, "f1": 1.0}).split() == ["held-out", "1", "f1", "1.00"]


@pytest.mark.integration
def test_help_and_mistakes_are_told_without_torch_and_ray() -> None:
    script = (
        "import launch, sys; launch.main(['--help']); launch.main(['trian']); print(sorted({'torch', 'ray'} & {*sys.modules}))"
    )
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]" and "trian: no such command" in told.stderr


def test_a_quiet_run_says_how_it_ended_and_where_it_lies(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("--quiet", "--learner.steps", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["step", "stage", "reward"] and f"report:       {run / 'report.html'}" in lines
    assert not any(line.startswith(("supervised", "        rl", "  held-out")) for line in lines)


def test_a_run_that_speaks_json_says_what_it_writes(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--json", "--learner.steps", 1)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row for row in said if "loss" in row] == rows(run / "metrics.jsonl")
    assert [row for row in said if "examples" in row] == rows(run / "evaluations.jsonl")
    assert said[-1] == {"run_dir": str(run), "step": 5, "stopped": None, "best_step": said[-1]["best_step"]}


@pytest.mark.integration
def test_what_a_reward_prints_breaks_no_json(tiny_flags: list[str], tmp_path: Path) -> None:
    """Nor what its module prints when it is imported, nor its children."""
    (tmp_path / "loud.py").write_text(
        "import os\nprint('imported')\n"
        "def loud(prompt, passages, responses):\n"
        "    print('called')\n    os.system('echo child')\n    return [1.0] * len(responses)\n"
    )
    flags = [
        *tiny_flags,
        "--local",
        "--json",
        "--supervised.steps",
        "0",
        "--learner.steps",
        "1",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    flags += ["--reward.extra", "[{function: 'loud:loud'}]"]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "launch.py"), "train", *flags]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["step"] == 1 and all(map(json.loads, ended.stdout.splitlines()))
    assert {"imported", "called", "child"} <= set(ended.stderr.splitlines())


def test_quiet_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--quiet", "--json"]) == 2
    assert capsys.readouterr().err == "error: --quiet: does not go with --json; give one of them\n"


@pytest.mark.parametrize("options", ["", "-u"])
@pytest.mark.parametrize("flags", ["--help", "convert --help", "train --local"])
def test_output_that_finds_no_room_is_told_in_one_line(
    flags: str, options: str, python: str, tiny_flags: list[str], tmp_path: Path
) -> None:
    run = [*tiny_flags, "--run_dir", str(tmp_path / "run")] if flags.startswith("train") else []
    command = [python, *options.split(), str(ROOT / "launch.py"), *flags.split(), *run]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    expected = "error: standard output: No space left on device; check the path, its rights and the disk\n"
    assert (ended.returncode, ended.stderr) == (2, expected)
    if run:  # stopped, and saved
        assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1


@pytest.mark.parametrize("flags", ["--help", "train --local", "nosuch"])
def test_the_exit_code_is_that_of_the_mistake_where_errors_find_no_room_either(
    flags: str, python: str, tiny_flags: list[str], tmp_path: Path
) -> None:
    run = [*tiny_flags, "--run_dir", str(tmp_path / "run")] if flags.startswith("train") else []
    command = [python, str(ROOT / "launch.py"), *flags.split(), *run]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, stderr=full, timeout=DEADLINE_S).returncode == 2


def test_an_error_that_is_not_of_the_output_leaves_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def timed_out(argv: object) -> None:
        raise TimeoutError("a bug")

    monkeypatch.setitem(launch.COMMANDS, "report", timed_out)
    with pytest.raises(TimeoutError):
        main(["report"])
    assert capsys.readouterr() == ("", "")


def test_a_run_whose_output_was_lost_for_a_moment_is_saved_and_says_so(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = tqdm.write

    def full_at_the_third_step(text: str, **arguments: Any) -> None:
        if "supervised      3" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(text, **arguments)

    monkeypatch.setattr(tqdm, "write", full_at_the_third_step)
    assert main(["train", "--local", *tiny_flags, "--run_dir", str(tmp_path / "run")]) == 2
    expected = "error: standard output: No space left on device; check the path, its rights and the disk\n"
    assert capsys.readouterr().err == expected
    assert (tmp_path / "run" / "checkpoints" / "latest").resolve().name == "step-3"


def test_what_a_terminal_cannot_write_is_escaped(python: str, tiny_flags: list[str], tmp_path: Path) -> None:
    command = [python, "launch.py", "train", "--local", *tiny_flags, "--run_dir", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 0 and "\\xb1" in ended.stdout


@pytest.mark.integration
def test_closed_streams_are_nobodys_file(tiny_flags: list[str], tmp_path: Path) -> None:
    arguments = ["train", "--local", *tiny_flags, "--supervised.steps", "1", "--learner.steps", "0"]
    command = [sys.executable, str(ROOT / "launch.py"), *arguments, "--run_dir", str(tmp_path / "run")]
    closing = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", *command]
    assert subprocess.run(closing, timeout=DEADLINE_S).returncode == 0
    assert (tmp_path / "run" / ".lock").read_bytes() == b""


@pytest.mark.integration
def test_a_child_has_the_streams_that_its_parent_was_started_without() -> None:
    child = "import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))"
    parent = f"""import subprocess, sys
from cluster.output import prepare_streams
prepare_streams()
sys.exit(subprocess.run([sys.executable, "-c", {child!r}]).returncode)"""
    closing = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", parent]
    assert subprocess.run(closing, cwd=ROOT, timeout=DEADLINE_S).returncode == 0


@pytest.mark.parametrize("command", ["train --local", "train --dry-run", "chat --checkpoint RUN"])
def test_a_command_ends_in_silence_where_nobody_reads_on(
    command: str, python: str, finished_run: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    flags = command.replace("RUN", str(finished_run)).split()
    flags += [*tiny_flags, "--run_dir", str(tmp_path / "run")] if flags[0] == "train" else []
    with Process(*flags, python=python, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate("hi\n" * 9, timeout=DEADLINE_S)
    assert (process.returncode, errors) == (141, "")


def test_a_run_whose_reader_leaves_keeps_its_checkpoint(python: str, tiny_flags: list[str], tmp_path: Path) -> None:
    endless = ("--learner.steps", 100_000, "--checkpoint_every", 0)
    with Process("train", "--local", *tiny_flags, *endless, "--run_dir", tmp_path / "run", python=python) as process:
        process.until("supervised      2")
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGINT)  # a shell tells the whole pipeline
        assert process.wait(DEADLINE_S) == 141
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / "latest").resolve().name == f"step-{last}"
