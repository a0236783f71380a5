"""Runs whose index lies in parts, in actors of their own: nothing but where it lies is another."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from launch import main
from tests.cluster.head import FAST_HEALTH, STORE_BYTES, actor_processes
from tests.cluster.own_reward import HELD
from tests.cluster.runs import ROOT, Process, assert_same_weights, rows, without_clock

HOLDING = ("--reward.extra", '[{function: "tests.cluster.own_reward:that_holds", weight: 0}]')
SHARDED = ("--retriever.mode", "hybrid", "--data.shard_passages", 10, "--retriever.slice_passages", 8, *HOLDING)
IN_PARTS = ("--retriever.index_actors", 2)


@pytest.fixture(scope="module")
def whole(train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*SHARDED, "--data.cache", tmp_path_factory.mktemp("whole"))


def assert_same_run(run: Path, other: Path) -> None:
    assert without_clock(run / "metrics.jsonl") == without_clock(other / "metrics.jsonl")
    assert rows(run / "evaluations.jsonl") == rows(other / "evaluations.jsonl")
    for log in sorted((other / "samples").iterdir()):
        assert pq.read_table(log) == pq.read_table(run / "samples" / log.name), log.name
    assert_same_weights(run, other)


def test_a_run_and_an_evaluation_with_an_index_in_parts_equal_those_with_a_whole_one(
    whole: Path, train: Callable[..., Path], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(*SHARDED, *IN_PARTS, "--data.cache", tmp_path / "cache")
    told = capsys.readouterr().out
    assert "index part 1 of 2 ready on node" in told and "embedding" not in told
    assert_same_run(run, whole)
    said = []
    for parts in (2, 0):
        flags = ["--data", data_dir / "valid.jsonl", "--predictions", tmp_path / str(parts), "--retriever.index_actors", parts]
        assert main(["evaluate", "--checkpoint", str(run), *map(str, flags)]) == 0
        said.append((capsys.readouterr().out, (tmp_path / str(parts)).read_text()))
    assert said[0] == said[1]


def test_what_keeps_a_part_from_opening_is_one_line(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slice in the cache that is none."""
    flags = [*tiny_flags, *map(str, (*SHARDED, *IN_PARTS)), "--data.cache", str(tmp_path / "cache")]
    assert main(["train", *flags, "--run_dir", str(tmp_path / "one"), "--learner.steps", "1"]) == 0
    slice, *_ = (tmp_path / "cache").rglob("000000/vectors.npy")
    slice.write_text("nothing")
    capsys.readouterr()
    assert main(["train", *flags, "--run_dir", str(tmp_path / "two")]) == 2
    error = capsys.readouterr().err
    assert f"error: {slice}: cannot be read" in error and f"remove {slice.parent}, it is made again\n" in error


@pytest.fixture
def two_nodes(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Under the token that this process has already. They find the tests' rewards, which hold the run in `tmp_path` after 5
    steps."""
    for name, value in (("RAY_AUTH_MODE", "token"), ("PYTHONPATH", str(ROOT)), (HELD, f"5 {tmp_path / 'run'}")):
        monkeypatch.setenv(name, value)
    node = {"num_cpus": 3, "object_store_memory": STORE_BYTES}
    head = {"include_dashboard": False, "_system_config": FAST_HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=node | head)
    cluster.add_node(**node)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_parts_lie_on_both_nodes_and_one_that_is_lost_changes_nothing_but_clock_and_counts(
    two_nodes: Cluster, whole: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = Process("train", *tiny_flags, *SHARDED, *IN_PARTS, "--data.cache", tmp_path / "cache", "--run_dir", run)
    process.until("rl      5")
    parts = actor_processes(psutil.Process(), "IndexActor")
    assert len({part.ppid() for part in parts}) == len(parts) == 2  # each raylet has its own processes
    os.kill(parts[0].pid, signal.SIGKILL)
    Path(f"{run}.go").touch()
    process.succeed()
    assert not parts[0].is_running() or parts[0].status() == psutil.STATUS_ZOMBIE
    assert_same_run(run, whole)
    assert not (run / "failed_prompts.jsonl").exists()
