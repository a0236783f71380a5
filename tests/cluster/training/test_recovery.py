"""Signals, and actors, nodes and drivers that die or freeze in the midst of a run: nothing is lost."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from cluster.store.checkpoint import Checkpoints, verify
from launch import main
from rollout.data.group_file import read_groups
from tests.cluster.head import FAST_HEALTH, STORE_BYTES, actor_processes
from tests.cluster.own_reward import HELD
from tests.cluster.runs import DEADLINE_S, Process, assert_same_weights, rows, without_clock

HOLDING = ("--reward.extra", '[{function: "tests.cluster.own_reward:that_holds", weight: 0}]')
LONGER = ("--learner.steps", 12, "--cluster.samplers", 2, "--cluster.rewards", 2, *HOLDING)


@pytest.fixture(scope="module")
def undisturbed(train: Callable[..., Path]) -> Path:
    return train(*LONGER)


@pytest.fixture
def held(tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Process]:
    """Begins a run of LONGER in a process, in the folder `run`. Once it has so many steps, it gets to no other step and to the
    end of no evaluation before `let_go`: what happens to it in between happens then, however long that takes."""

    def begin(steps: int, *flags: object) -> Process:
        run = tmp_path / "run"
        monkeypatch.setenv(HELD, f"{steps} {run}")
        return Process("train", *tiny_flags, *LONGER, *flags, "--run_dir", run)

    return begin


def let_go(run: Path) -> None:
    Path(f"{run}.go").touch()


@pytest.mark.slow
@pytest.mark.parametrize("actor", ["SamplerActor", "RewardActor", "LearnerActor"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_an_actor_that_is_lost_changes_nothing_but_clock_and_counts(
    actor: str, sent: signal.Signals, undisturbed: Path, held: Callable[..., Process], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = held(9, *(("--cluster.call_deadline_s", 20) if sent == signal.SIGSTOP else ()))
    process.until("rl      9")
    victim = actor_processes(psutil.Process(process.pid), actor)[0]
    os.kill(victim.pid, sent)
    let_go(run)
    process.succeed()
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE  # Ray leaves a frozen one behind
    assert without_clock(run / "metrics.jsonl") == without_clock(undisturbed / "metrics.jsonl")
    assert rows(run / "evaluations.jsonl") == rows(undisturbed / "evaluations.jsonl")
    assert_same_weights(run, undisturbed)
    metrics = rows(run / "metrics.jsonl")
    assert sum(row["restarts"] for row in metrics) >= 1
    assert metrics[-1]["incarnation"] == (1 if actor == "LearnerActor" else 0)
    assert not (run / "failed_prompts.jsonl").exists()


@pytest.mark.slow
def test_a_learner_lost_before_the_first_checkpoint_starts_over(
    undisturbed: Path, held: Callable[..., Process], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = held(3, "--checkpoint_every", 100)
    process.until("supervised      3")
    assert not list((run / "checkpoints").glob("step-*"))
    os.kill(actor_processes(psutil.Process(process.pid), "LearnerActor")[0].pid, signal.SIGKILL)
    let_go(run)
    process.succeed()
    assert {row["incarnation"] for row in rows(run / "metrics.jsonl")} == {1}
    assert without_clock(run / "metrics.jsonl") == without_clock(undisturbed / "metrics.jsonl")
    assert_same_weights(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (signal.SIGTERM, "rl      7"),
        (signal.SIGINT, "rl      7"),
        (signal.SIGKILL, "rl      7"),
        (signal.SIGTERM, "supervised      4"),
        (signal.SIGTERM, "rl     16"),
    ],
)
def test_a_driver_that_is_stopped_or_killed_is_resumed_to_the_same_end(
    sent: signal.Signals, line: str, undisturbed: Path, held: Callable[..., Process], tmp_path: Path
) -> None:
    run, process = tmp_path / "run", held(int(line.split()[-1]))
    process.until(line)
    process.send_signal(sent)
    if sent == signal.SIGKILL:
        assert process.wait() == -signal.SIGKILL
        let_go(run)
    else:
        process.until("once more leaves at once")
        let_go(run)
        assert f"--resume {run}" in process.succeed()
        last = rows(run / "metrics.jsonl")[-1]["step"]
        assert os.readlink(run / "checkpoints" / "latest") == f"step-{last}"
    assert main(["train", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(undisturbed / "metrics.jsonl")
    assert rows(run / "evaluations.jsonl") == rows(undisturbed / "evaluations.jsonl")
    assert_same_weights(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_process_group_ends_in_a_checkpoint_too(
    sent: signal.Signals, undisturbed: Path, held: Callable[..., Process], tmp_path: Path
) -> None:
    """As systemd, Slurm and a closed terminal send it: Ray's own processes must outlive it until all is saved."""
    run, process = tmp_path / "run", held(7)
    process.until("rl      7")
    os.killpg(process.pid, sent)
    process.until("once more leaves at once")
    let_go(run)
    assert f"--resume {run}" in process.succeed()
    last = rows(run / "metrics.jsonl")[-1]
    assert os.readlink(run / "checkpoints" / "latest") == f"step-{last['step']}" and last["incarnation"] == 0
    assert main(["train", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(undisturbed / "metrics.jsonl")
    assert_same_weights(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("now", [(), ("--rollout.group_size", "2")])
def test_with_staleness_a_killed_run_loses_no_prompt_and_keeps_what_was_sampled(
    now: tuple[str, ...], tiny_flags: list[str], ray_session: None, tmp_path: Path
) -> None:
    """Also where the groups that were kept were sampled under other settings: their prompts come again."""
    run = tmp_path / "run"
    ahead = "--cluster.samplers", 3, "--cluster.max_staleness", 3, "--supervised.steps", 0, "--learner.correction", "mask"
    often = "--learner.steps", 100_000, "--checkpoint_every", 1, "--keep_checkpoints", 1000, "--eval_every", 0
    process = Process("train", *tiny_flags, *ahead, *often, "--run_dir", run)
    process.until("rl     30")
    while not json.loads((run / "checkpoints" / "latest" / "state.json").read_text())["ready"]:
        process.until("rl ")
    process.kill()
    process.wait()
    states = [(path, verify(path)) for path in (run / "checkpoints").glob("step-*")]
    path, state = max(((path, state) for path, state in states if state.ready), key=lambda each: each[1].step)
    Checkpoints(run / "checkpoints", keep=1000).discard_after(state.step)
    kept = read_groups(path / "groups.parquet")
    assert [group.prompt.id for group in kept] == [saved.prompt.id for saved in state.ready]
    last = state.step + 10
    assert main(["train", "--resume", str(run), "--learner.steps", str(last), *now]) == 0
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == list(range(1, last + 1))
    assert_trained_once(run, prompts=40)


@pytest.mark.slow
def test_a_stop_during_start_up_leaves_a_run_that_can_be_resumed(
    undisturbed: Path, held: Callable[..., Process], tmp_path: Path
) -> None:
    run, process = tmp_path / "run", held(0)
    process.until("run folder:")
    process.send_signal(signal.SIGTERM)
    process.until("once more leaves at once")
    let_go(run)
    assert f"--resume {run}" in process.succeed()
    assert not (run / "metrics.jsonl").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(undisturbed / "metrics.jsonl")
    assert_same_weights(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_second_signal_leaves_at_once(sent: signal.Signals, code: int, tiny_flags: list[str], tmp_path: Path) -> None:
    process = Process("train", *tiny_flags, "--run_dir", tmp_path / "run", "--learner.steps", 100_000)
    process.until("rl      6")
    os.kill(actor_processes(psutil.Process(process.pid), "LearnerActor")[0].pid, signal.SIGSTOP)  # its step never ends
    process.send_signal(sent)
    process.until("once more leaves at once")
    process.send_signal(sent)
    assert process.wait(timeout=DEADLINE_S) == code


@pytest.fixture
def three_nodes(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head for the learner, two nodes with places for three samplers each, under the token that this process has already."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE_BYTES, "_system_config": FAST_HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(**WORKER)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


WORKER = {"num_cpus": 5, "resources": {"places": 3}, "labels": {"role": "sampler"}, "object_store_memory": STORE_BYTES}
PLACES = ("--cluster.sampler_resource", "places", "--cluster.sampler_label", "role=sampler")
ELASTIC = (
    *PLACES,
    "--cluster.samplers",
    "auto",
    "--cluster.max_staleness",
    1,
    "--supervised.steps",
    0,
    "--cluster.call_deadline_s",
    20,
)


@pytest.mark.slow
def test_samplers_follow_the_nodes_and_no_prompt_is_lost(three_nodes: Cluster, tiny_flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = Process("train", *tiny_flags, *ELASTIC, "--learner.steps", 100_000, "--checkpoint_every", 50, "--run_dir", run)
    process.until("samplers: 1 -> 6, nodes: 3")
    process.until("rl     20")
    leaving, *_ = sorted(three_nodes.worker_nodes, key=lambda node: node.unique_id)
    three_nodes.remove_node(leaving, allow_graceful=False)
    process.until("samplers: 6 -> 3, nodes: 2")
    three_nodes.add_node(**WORKER)
    process.until("samplers: 3 -> 6, nodes: 3")
    process.send_signal(signal.SIGTERM)
    process.succeed()
    assert_trained_once(run, prompts=40)


def assert_trained_once(run: Path, prompts: int, failed: int = 0) -> None:
    """Every prompt that was taken from the order was trained on once, or is kept for later, but those that failed."""
    logs = [pq.read_table(file, columns=["epoch", "id"]).to_pylist() for file in (run / "samples").glob("*.parquet")]
    trained = Counter(key for log in logs for key in {(row["epoch"], row["id"]) for row in log})
    state = json.loads((run / "checkpoints" / "latest" / "state.json").read_text())
    ready = [prompt for prompt, *_ in state["ready"]]
    kept = {(epoch, id) for epoch, id, *_ in state["pending"] + state["filtered"] + ready}
    assert set(trained.values()) == {1} and not trained.keys() & kept
    assert len(trained) + len(kept) + failed == prompts * state["order"]["epoch"] + state["order"]["position"]


KILLER = "--reward.extra", '[{function: "tests.cluster.own_reward:that_kills_the_learner_at_a_prompt"}]'
POISON = "--reward.extra", '[{function: "tests.cluster.own_reward:that_dies_of_a_prompt"}]'
UNJUDGED = "--reward.extra", '[{function: "tests.cluster.own_reward:that_raises_at_a_held_out_prompt"}]'
BROKEN = "--reward.extra", '[{function: "tests.cluster.own_reward:that_raises"}]'


def test_a_prompt_that_fails_three_times_is_set_aside_and_the_run_goes_on(train: Callable[..., Path]) -> None:
    run = train("--supervised.steps", 0, *POISON, "--cluster.rewards", 2)
    [failed] = rows(run / "failed_prompts.jsonl")
    assert (failed["id"], failed["step"], failed["file"]) == ("train-23", 2, "train")
    assert "lost its replica" in failed["error"]
    assert len(rows(run / "metrics.jsonl")) == 4
    assert_trained_once(run, prompts=40, failed=1)


def test_a_held_out_prompt_that_cannot_be_rewarded_is_left_out_of_all_evaluations(train: Callable[..., Path]) -> None:
    run = train("--supervised.steps", 0, *UNJUDGED)
    [failed] = rows(run / "failed_prompts.jsonl")
    assert (failed["id"], failed["step"], failed["file"]) == ("valid-3", 0, "valid")
    evaluations = rows(run / "evaluations.jsonl")
    assert len(evaluations) == 3 and {row["examples"] for row in evaluations} == {5}
    assert len(rows(run / "metrics.jsonl")) == 4


def test_too_many_failed_prompts_end_the_run_with_the_first_cause(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--supervised.steps", "0", "--cluster.max_failed_prompts", "2", *BROKEN, "--run_dir", str(tmp_path / "run")]
    flags += ["--eval_every", "0"]
    index = tiny_flags.index("--data.valid")
    assert main(["train", *tiny_flags[:index], *tiny_flags[index + 2 :], *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cluster.max_failed_prompts: 3 prompts failed, 2 may; the first was 'train-")
    assert "that_raises" in error and error.count("\n") == 1


def test_a_held_out_file_of_which_nothing_can_be_rewarded_ends_the_run_and_is_tried_again_when_that_is_mended(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *tiny_flags, "--supervised.steps", "0", *BROKEN, "--run_dir", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cluster.max_failed_prompts: 6 prompts failed, none of data.valid is left; the first was ")
    assert main(["train", "--resume", str(run), "--reward.extra", "none"]) == 0
    assert {row["examples"] for row in rows(run / "evaluations.jsonl")} == {6}


@pytest.mark.slow
def test_a_batch_that_the_learner_never_survives_ends_the_run(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--supervised.steps", "0", *KILLER, "--run_dir", str(tmp_path / "run")]
    assert main(["train", *tiny_flags, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: learner: ") and "5 times without getting beyond step 1" in error
