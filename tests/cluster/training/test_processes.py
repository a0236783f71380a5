"""What only a process of its own can show: exit codes, and who gets into a cluster with a token."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.actors import session
from tests.cluster.head import Head
from tests.cluster.runs import DEADLINE_S, ROOT, Process, rows


@pytest.mark.integration
def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    process = Process("train", "--learner.lrr", "1", "--run_dir", tmp_path / "run")
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2 and output == ""
    assert errors == "error: --learner.lrr: unknown setting; did you mean learner.lr?\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_actors_run_the_code_of_their_driver_wherever_the_command_is_typed(
    python: str, tiny_flags: list[str], tmp_path: Path
) -> None:
    for package in ("rollout", "reward", "learner"):
        (tmp_path / "other" / package).mkdir(parents=True)
        (tmp_path / "other" / package / "__init__.py").write_text("raise RuntimeError('another checkout')")
    flags = [*tiny_flags, "--supervised.steps", "1", "--learner.steps", "1", "--eval_every", "0"]
    Process("train", *flags, "--run_dir", tmp_path / "run", python=python, cwd=tmp_path / "other").succeed()
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_the_token_that_ray_makes_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    session._protect_token()
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_cluster_with_a_token_lets_in_nobody_without_it(head: Head, tiny_flags: list[str], tmp_path: Path) -> None:
    run, print_it = tmp_path / "run", [sys.executable, "-c", "print('it ran')"]
    refused = head.submit(head.without_token, print_it)
    assert refused.returncode != 0 and "Authentication" in refused.stderr + refused.stdout
    assert "it ran" not in refused.stdout

    flags = ["train", *tiny_flags, "--run_dir", str(run), "--supervised.steps", "0", "--learner.steps", "1"]
    joining = [sys.executable, str(ROOT / "launch.py"), *flags]
    address = {"RAY_ADDRESS": head.address}
    refused = subprocess.run(joining, env=head.without_token | address, text=True, capture_output=True, timeout=120)
    last_line = refused.stderr.splitlines()[-1]  # after Ray's own warnings
    assert refused.returncode == 2 and last_line.startswith(f"error: RAY_ADDRESS={head.address}: ")
    assert "export RAY_AUTH_MODE=token" in last_line and not run.exists()

    submitted = head.submit(head.with_token, joining)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    texts = [submitted.stdout, *(file.read_bytes().decode(errors="ignore") for file in run.rglob("*") if file.is_file())]
    assert not any(head.token in text for text in texts)


@pytest.mark.slow
def test_a_job_that_is_stopped_saves_and_goes_on_when_it_is_resumed(head: Head, tiny_flags: list[str], tmp_path: Path) -> None:
    run, launch = tmp_path / "run", [sys.executable, str(ROOT / "launch.py"), "train"]
    time_to_save = "--runtime-env-json", '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}'
    flags = [*tiny_flags, "--run_dir", str(run), "--learner.steps", "100000", "--checkpoint_every", "0"]
    head.submit(head.with_token, [*launch, *flags], "--submission-id", "one", "--no-wait", *time_to_save)
    logs = head.job("logs", "one", "--follow")
    assert logs.stdout is not None
    assert any("rl      6" in line for line in logs.stdout)
    assert head.job("stop", "one").wait() == 0
    assert f"--resume {run}" in logs.stdout.read()
    last = rows(run / "metrics.jsonl")[-1]["step"]
    assert (run / "checkpoints" / "latest").readlink() == Path(f"step-{last}")
    resumed = head.submit(head.with_token, [*launch, "--resume", str(run), "--learner.steps", str(last)])
    assert resumed.returncode == 0, resumed.stdout
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == list(range(1, last + 5))
