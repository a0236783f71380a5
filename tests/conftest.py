import gc
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")  # a test waits for what Prometheus sees
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on models this small, threads only wait for each other

from rollout.data.demo import write_demo  # noqa: E402  (after the environment is set)
from tests import launcher  # noqa: E402

PROCESSES = {"ray_session", "python", "head", "shell", "prometheus"}  # fixtures that are some, or start some


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pictures", type=Path, help="folder for pictures of the pages that tests open, as docs/images shows them"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What tests import stays until the end: looking through it for garbage again and again takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is done beside this process, however indirectly, is an integration."""
    for item in items:
        if PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """Takes a picture of a browser's page, where somebody asked for pictures."""
    folder = request.config.getoption("--pictures")

    def take(page: Any, name: str) -> None:
        if folder is not None:
            page.screenshot(path=folder / f"{name}.png")

    return take


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few examples of the demo world, their stories and some others."""
    whole, small = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("data")
    write_demo(whole, seed=0)
    kept = {name: _lines(whole / f"{name}.jsonl")[:count] for name, count in (("train", 40), ("valid", 8))}
    gold = {id for lines in kept.values() for line in lines for id in json.loads(line)["gold"]}
    stories = _lines(whole / "passages.jsonl")
    kept["passages"] = [line for n, line in enumerate(stories) if n < 20 or json.loads(line)["id"] in gold]
    for name, lines in kept.items():
        (small / f"{name}.jsonl").write_text("".join(lines))
    return small


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines(keepends=True)


@pytest.fixture(scope="session")
def tiny_flags(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a run that takes a few seconds: 4 supervised steps, then 4 of GRPO."""
    settings = {
        "data.train": data_dir / "train.jsonl",
        "data.valid": data_dir / "valid.jsonl",
        "data.passages": data_dir / "passages.jsonl",
        "data.cache": tmp_path_factory.mktemp("cache"),
        "policy.n_context": 2,
        "policy.tiny.d_model": 16,
        "policy.tiny.heads": 2,
        "policy.tiny.d_kv": 8,
        "policy.tiny.d_ff": 32,
        "policy.tiny.layers": 1,
        "policy.tiny.vocab_size": 300,
        "supervised.steps": 4,
        "supervised.batch_size": 4,
        "rollout.group_size": 4,
        "rollout.prompts_per_step": 4,
        "rollout.prompts_per_call": 2,
        "rollout.max_new_tokens": 6,
        "learner.steps": 4,
        "cluster.threads": 1,
        "cluster.samplers": 1,
        "cluster.rewards": 1,
        "eval_every": 3,
        "eval_limit": 6,
        "checkpoint_every": 2,
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter for launch.py in a process of its own that is there at once."""
    return launcher.python()


@pytest.fixture(scope="session")
def ray_session(python: str) -> Iterator[None]:
    """One local Ray for all tests that need it."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", python)  # by which Ray starts its workers
        ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def train(ray_session: None, tiny_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train with the tiny flags and `extra`; returns the run's folder."""
    from launch import main

    def run(*extra: object) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        assert main(["train", *tiny_flags, "--run_dir", str(folder), *map(str, extra)]) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def train_locally(tiny_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The same in this process, for what does not depend on where the actors live: it takes a tenth of the time."""
    from launch import main
    from tests.cluster.runs import without_tiny

    def run(*extra: object) -> Path:
        folder = tmp_path_factory.mktemp("local-runs") / "run"
        own = without_tiny(tiny_flags) if "--policy.path" in extra else tiny_flags
        assert main(["train", "--local", *own, "--run_dir", str(folder), *map(str, extra)]) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def finished_run(train: Callable[..., Path]) -> Path:
    return train("--keep_checkpoints", 9)
