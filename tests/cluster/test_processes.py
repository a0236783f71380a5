"""What only a process of its own can show: exit codes, the token of a cluster."""

from pathlib import Path

from tests.cluster.runs import Process


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    process = Process("train", "--learner.lrr", "1", "--run_dir", tmp_path / "run")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and output == ""
    assert errors == "error: --learner.lrr: unknown setting; did you mean learner.lr?\n"
    assert not (tmp_path / "run").exists()
