"""What only a process of its own can show: signals, exit codes, a sampler that dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.runs import rows

ROOT = Path(__file__).parent.parent.parent


def launch(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_from_which_the_run_goes_on(tiny_flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = launch("train", *tiny_flags, "--run_dir", run, "--learner.steps", 100_000, "--checkpoint_every", 0)
    assert process.stdout is not None
    for line in process.stdout:
        if "grpo      6" in line:
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"--resume {run}" in output and "Traceback" not in errors
    last = rows(run / "metrics.jsonl")[-1]["step"]
    assert os.readlink(run / "checkpoints" / "latest") == f"step-{last}"


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    process = launch("train", "--learner.lrr", "1", "--run_dir", tmp_path / "run")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and output == ""
    assert errors == "error: --learner.lrr: unknown setting; did you mean learner.lr?\n"
    assert not (tmp_path / "run").exists()
