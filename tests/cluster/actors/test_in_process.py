"""All roles in one process, without Ray: the same numbers, one call after the other."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.commands.train import train_request, training
from cluster.store.failed_prompts import FailedPrompt
from cluster.watch.monitor import Stop
from launch import main
from rollout.types import Prompt
from tests.cluster.runs import DEADLINE_S, ROOT, assert_same_weights, copy_as_of, rows, without_clock


def test_a_local_run_equals_the_one_on_ray(finished_run: Path, tiny_flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--local", *tiny_flags, "--run_dir", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(finished_run / "metrics.jsonl")
    assert rows(run / "evaluations.jsonl") == rows(finished_run / "evaluations.jsonl")
    assert_same_weights(run, finished_run)


def test_a_run_on_ray_is_resumed_locally(finished_run: Path, tmp_path: Path) -> None:
    run = copy_as_of(finished_run, tmp_path / "run", 6)
    assert main(["train", "--local", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(finished_run / "metrics.jsonl")
    assert_same_weights(run, finished_run)


def test_a_local_run_is_resumed_on_ray(finished_run: Path, tiny_flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    half = [*tiny_flags, "--learner.steps", "2", "--run_dir", str(run)]
    assert main(["train", "--local", *half]) == 0
    assert main(["train", "--resume", str(run), "--learner.steps", "4"]) == 0
    assert_same_weights(run, finished_run)


@pytest.mark.parametrize("valid", [True, False])
def test_what_a_users_reward_raises_ends_in_its_own_traceback(
    valid: bool, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_reward.py").write_text("def broken(prompt, passages, responses):\n    return [1 / 0]\n")
    flags = ["--reward.extra", "[{function: 'broken_reward:broken'}]", "--run_dir", str(tmp_path / "run")]
    flags += [] if valid else ["--data.valid", "null", "--eval_every", "0"]
    with pytest.raises(ZeroDivisionError) as raised:
        main(["train", "--local", *tiny_flags, *flags])
    assert Path(raised.traceback[-1].path).name == "broken_reward.py"


def test_a_reward_of_the_wrong_form_is_told_in_one_line(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_reward.py").write_text("def odd(prompt, passages, responses):\n    return 'good'\n")
    flags = ["--reward.extra", "[{function: 'odd_reward:odd'}]", "--run_dir", str(tmp_path / "run")]
    assert main(["train", "--local", *tiny_flags, *flags]) == 2
    error = capsys.readouterr().err
    assert "returned 'good'" in error and error.count("\n") == 1


def test_rewards_with_event_loops_are_the_same_here_and_on_ray(
    train: Callable[..., Path], train_locally: Callable[..., Path]
) -> None:
    """One that runs a loop itself, in a pool of its own, and one that is awaited."""
    place = "tests.cluster.own_reward"
    extra = f"[{{function: '{place}:OwnLoop', args: {{factor: 2}}, actors: 1}}, {{function: '{place}:awaited'}}]"
    flags = ["--reward.extra", extra, "--supervised.steps", "0", "--learner.steps", "2", "--data.valid", "null"]
    flags += ["--eval_every", "0"]
    local, on_ray = train_locally(*flags), train(*flags)
    [*_, row] = rows(local / "metrics.jsonl")
    assert row["extra/OwnLoop"] == pytest.approx(2 * row["extra/awaited"]) and row["extra/awaited"] > 0
    assert without_clock(local / "metrics.jsonl") == without_clock(on_ray / "metrics.jsonl")


def test_a_local_run_leaves_no_thread_and_the_log_as_it_was(train_locally: Callable[..., Path]) -> None:
    train_locally("--supervised.steps", "0", "--learner.steps", "1")
    assert not logging.getLogger("lapdog").disabled
    for thread in (each for each in threading.enumerate() if each.name.startswith("rewards")):
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.mark.integration
def test_a_local_run_starts_no_ray(tiny_flags: list[str], tmp_path: Path) -> None:
    script = (
        "import sys, ray; sys.path.insert(0, sys.argv[1]); from launch import main; code = main(sys.argv[2:]); "
        "assert not ray.is_initialized(); sys.exit(code)"
    )
    flags = [
        "train",
        "--local",
        *tiny_flags,
        "--supervised.steps",
        "0",
        "--learner.steps",
        "1",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    command = [sys.executable, "-c", script, str(ROOT), *flags]
    ended = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=DEADLINE_S)
    assert ended.returncode == 0 and ended.stderr == "", ended.stdout + ended.stderr


def test_staleness_is_refused_where_nothing_overlaps(
    tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*tiny_flags, "--cluster.max_staleness", "2", "--learner.correction", "mask", "--run_dir", str(tmp_path / "run")]
    assert main(["train", "--local", *flags]) == 2
    assert capsys.readouterr().err == (
        "error: cluster.max_staleness: 2 has no effect with --local; set it to 0, or change that\n"
    )
    assert not (tmp_path / "run").exists()
    assert main(["train", "--local", "--dry-run", *flags]) == 2


async def test_prompts_that_fail_while_a_step_is_saved_belong_to_it(tiny_flags: list[str], tmp_path: Path) -> None:
    """A resume from there must not try them again, so they may not be cut back. Afterwards they are the next step's."""
    first, second = (
        FailedPrompt(Prompt(id=id, question="who ?", answers=("me",)), RuntimeError("no")) for id in ("first", "second")
    )
    flags = ["--local", *tiny_flags, "--supervised.steps", "0", "--run_dir", str(tmp_path / "run")]
    with training(train_request(flags, None)) as trainer:
        await trainer.start()
        await trainer.begin(next(trainer.stages()))
        assert trainer.pipeline is not None
        trainer.state.step, trainer.stop = 3, Stop("enough")
        trainer.pipeline.failed.append(first)
        await trainer.save_if_due()
        trainer.pipeline.failed.append(second)
        await trainer.batch()
    failed = [(row["step"], row["id"]) for row in rows(tmp_path / "run" / "failed_prompts.jsonl")]
    assert failed == [(3, "first"), (4, "second")]
