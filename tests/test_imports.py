"""Imports point downwards only: launch, cluster, {learner, reward}, rollout."""

import ast
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
}
ENTRY = {"launch", "tests", "benchmarks"}  # what nothing below may know
MODULES = sorted(path for package in MAY_USE for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that the file imports, none of them relatively."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports relatively"
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_its_own_package_and_lower_ones(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & (set(MAY_USE) | ENTRY) <= MAY_USE[package]
    if package != "cluster" and path.name != "actor.py":
        assert "ray" not in imported(path)


def test_advantage_and_loss_use_torch_and_nothing_else() -> None:
    for name in ("advantage", "loss"):
        assert imported(ROOT / "learner" / f"{name}.py") - sys.stdlib_module_names == {"torch"}


def test_plain_classes_load_without_ray_in_a_fresh_interpreter() -> None:
    code = "import sys, rollout.sampler, learner.learner, reward.scorer, reward.evaluation; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
