"""Imports point downwards only: launch, the rooms of cluster, {learner, reward}, rollout; no test meets a benchmark."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_USE = {
    "rollout": {"rollout"},
    "reward": {"reward", "rollout"},
    "learner": {"learner", "rollout"},
    "cluster": {"cluster", "learner", "reward", "rollout"},
    "benchmarks": {"benchmarks", "cluster", "learner", "reward", "rollout", "launch"},
    "tests": {"tests", "cluster", "learner", "reward", "rollout", "launch"},
}
ROOMS = ["settings", "actors", "store", "report", "watch", "training", "commands"]  # of cluster, each may use those before it
ON_RAY = {f"{package}/actor.py" for package in ("rollout", "reward", "learner")} | {"cluster/watch/prometheus.py"}


def of(*packages: str) -> list[str]:
    """Their modules, as paths."""
    return sorted(str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py"))


@functools.cache
def imported(path: str) -> set[str]:
    """Dotted names of what a file imports, of modules and from them, none of it relatively."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def test_a_module_imports_its_own_package_and_lower_ones() -> None:
    for path in of(*MAY_USE):
        may_use = MAY_USE[path.partition("/")[0]] | ({"benchmarks"} if path.startswith("tests/benchmarks/") else set())
        assert packages(path) & {*MAY_USE, "launch"} <= may_use, path


def test_ray_is_imported_where_actors_are_made_and_metrics_exported() -> None:
    on_ray = {path for path in ("launch.py", *of("rollout", "reward", "learner", "cluster")) if "ray" in packages(path)}
    assert {path for path in on_ray if not path.startswith("cluster/actors/")} <= ON_RAY


def test_a_room_of_cluster_imports_lower_ones() -> None:
    for path in of("cluster"):
        room = Path(path).parts[1]
        above = ROOMS[ROOMS.index(room) + 1 :] if room in ROOMS else ROOMS
        assert {name.split(".")[1] for name in imported(path) if name.startswith("cluster.")}.isdisjoint(above), path


def test_cluster_has_no_other_rooms() -> None:
    names = {path.stem for path in (ROOT / "cluster").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__pycache__"} == {*ROOMS, "output"}


def test_no_test_is_imported() -> None:
    for path in of("tests", "benchmarks"):
        assert not [name for name in imported(path) if name.startswith("tests.") and ".test_" in name], path


def test_advantage_and_loss_use_torch_and_nothing_else() -> None:
    for name in ("advantage", "loss"):
        packages = {module.partition(".")[0] for module in imported(f"learner/{name}.py")}
        assert packages - sys.stdlib_module_names == {"torch"}


@pytest.mark.integration
def test_plain_classes_load_without_ray_in_a_fresh_interpreter() -> None:
    code = "import sys, rollout.sampler, learner.learner, reward.scorer, reward.evaluation; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.integration
def test_a_report_and_a_conversion_load_no_torch() -> None:
    code = "import sys, cluster.commands.report, cluster.commands.convert; print({'torch', 'ray'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stdout == "set()\n"
