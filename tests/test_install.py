"""`pip install .`, which a clone refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.integration
@pytest.mark.parametrize("way", [[], ["--editable"]])
def test_pip_installs_nothing_and_says_in_one_line_how_the_project_is_run(way: list[str], tmp_path: Path) -> None:
    flags = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "install", *flags, *way, str(ROOT)]
    refused = subprocess.run(pip, capture_output=True, text=True)
    told = [line.strip() for line in (refused.stdout + refused.stderr).splitlines() if "LAPDOG-Ray" in line]
    assert refused.returncode != 0 and list(tmp_path.iterdir()) == []
    assert told == [
        "LAPDOG-Ray is not installed but run from its clone: pip install -r requirements.txt, then python launch.py"
    ]
