"""A run is what it holds and what it reads, not where that lies: runs, data and models that were moved go on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.report.data import report_data
from cluster.store.run_folder import RunFolder
from launch import main
from tests.cluster.runs import assert_same_weights, copy_as_of, rows, without_clock, without_tiny

FILES = ("train", "valid", "passages")
SHORT = ("--supervised.steps", 1, "--learner.steps", 2, "--checkpoint_every", 1, "--keep_checkpoints", 9, "--eval_every", 0)
ADAPTED = ("--policy.lora.rank", 2, "--learner.lr", "0.01", "--data.valid", "null")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def resume(run: Path, *flags: object) -> list[str]:
    return [*map(str, ("train", "--local", "--resume", run, *flags))]


def data_flags(folder: Path) -> list[str]:
    return [part for name in FILES for part in (f"--data.{name}", str(folder / f"{name}.jsonl"))]


def assert_same_run(one: Path, other: Path) -> None:
    assert without_clock(one / "metrics.jsonl") == without_clock(other / "metrics.jsonl")
    assert rows(one / "evaluations.jsonl") == rows(other / "evaluations.jsonl")


def adapters_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "latest" / "policy" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(train_locally: Callable[..., Path]) -> Path:
    return train_locally("--keep_checkpoints", 9, "--supervised.steps", 1, "--learner.steps", 3)


def other_weights(model: Path, target: Path) -> Path:
    """A copy of a model that says something else."""
    weights = load_file(shutil.copytree(model, target) / "model.safetensors")
    weights["shared.weight"] += 0.1
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture(scope="module")
def adapted(whole: Path, train_locally: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of adapters on a model that lies beside it, as `base`."""
    base = shutil.copytree(whole / "policy", tmp_path_factory.mktemp("model") / "base")
    return train_locally("--policy.path", base, *SHORT, *ADAPTED)


@pytest.fixture
def with_own_base(adapted: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of that run as of its second step, whose model was moved; and where that lies now."""
    before = RunFolder(adapted).settings().policy.path
    assert before is not None
    run, base = copy_as_of(adapted, tmp_path / "run", 2), shutil.copytree(before, tmp_path / "base")
    for config in (run / "config.yaml", *run.glob("checkpoints/step-*/policy/adapter_config.json")):
        assert before in config.read_text()
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace(before, str(tmp_path / "gone")))
    return run, base


def test_a_run_that_was_moved_with_all_it_reads_inside_goes_on_as_if_it_had_stayed(
    whole: Path, data_dir: Path, tmp_path: Path
) -> None:
    begun = copy_as_of(whole, tmp_path / "begun", 2)
    shutil.copytree(data_dir, begun / "data")
    config = begun / "config.yaml"
    named = config.read_text().replace(f"valid: {data_dir}/valid.jsonl", f"valid: {{dialog: [{data_dir}/valid.jsonl]}}")
    config.write_text(named.replace(str(data_dir), f"{begun}/data"))
    moved = begun.rename(tmp_path / "renamed")
    assert main(resume(moved)) == 0
    assert_same_run(moved, whole)
    assert_same_weights(moved, whole)
    assert str(begun) not in (moved / "config.yaml").read_text()
    [reported] = report_data([moved])["runs"]
    assert reported["settings"]["data.train"] == str(moved / "data" / "train.jsonl")


def test_a_demo_run_can_be_moved_before_and_after_its_files_are_made(tiny_flags: list[str], tmp_path: Path) -> None:
    start = next(place for place, flag in enumerate(tiny_flags) if flag == "--data.cache")
    flags, one = [*tiny_flags[start:], *map(str, SHORT), "--eval_limit", "2"], tmp_path / "one"
    assert main(["train", "--local", *flags, "--run_dir", str(one)]) == 0
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(one / "config.yaml", begun)  # as a kill before all else leaves it
    moved = copy_as_of(one, tmp_path / "before", 2).rename(tmp_path / "moved")
    for run, place in ((begun, "one"), (moved, "before")):
        assert main(resume(run)) == 0
        assert_same_run(run, one)
        assert_same_weights(run, one)
        assert place not in {part for line in (run / "config.yaml").read_text().splitlines() for part in line.split("/")}


def test_moved_data_and_cache_are_found_by_their_content(
    whole: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, own = copy_as_of(whole, tmp_path / "run", 2), shutil.copytree(data_dir, tmp_path / "own")
    lines = (own / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "other.jsonl").write_text("".join(lines[1:]))
    refused = error_of(capsys, *resume(run, "--data.train", tmp_path / "other.jsonl"))
    assert "other.jsonl: is not what the run was begun with" in refused
    assert main(resume(run, *data_flags(own), "--data.cache", tmp_path / "cache")) == 0
    assert_same_run(run, whole)
    assert_same_weights(run, whole)
    now = RunFolder(run).settings().data
    assert now.passages == (own / "passages.jsonl",) and now.cache == tmp_path / "cache"
    shutil.rmtree(own)
    gone = f"error: data.train: {own}/train.jsonl: no such file; give --data.train, where the same files lie now\n"
    assert error_of(capsys, *resume(run)) == gone
    assert "data: differs from the run's own" in error_of(capsys, *resume(run, "--data.valid", "none"))


def test_a_moved_model_of_adapters_is_named_and_then_taken(
    with_own_base: tuple[Path, Path], adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, base = with_own_base
    gone = f"error: policy.path: {tmp_path}/gone is there no more; give --policy.path, where the same model lies now\n"
    export = ["export", "--checkpoint", run, "--to", tmp_path / "taken", "--keep-adapters"]
    assert error_of(capsys, *resume(run)) == gone and error_of(capsys, *export) == gone
    assert main([*map(str, export), "--policy.path", str(base)]) == 0
    assert str(base) in (tmp_path / "taken" / "adapter_config.json").read_text()
    assert main(resume(run, "--policy.path", base)) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(adapted / "metrics.jsonl")
    expected = adapters_of(adapted)
    assert all(torch.equal(weights, expected[name]) for name, weights in adapters_of(run).items())
    assert str(base) in (run / "checkpoints" / "latest" / "policy" / "adapter_config.json").read_text()
    for older in ("step-2", "latest"):  # the checkpoint's own settings name the old place, the run's the new one
        target = str(tmp_path / older)
        assert main(["export", "--checkpoint", str(run / "checkpoints" / older), "--to", target]) == 0


def test_a_replaced_model_of_adapters_is_refused_wherever_it_is_read(
    with_own_base: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, base = with_own_base
    other = other_weights(base, tmp_path / "other")
    replaced = f"{other} is not the model that the run was begun with; put it back, or name it by --policy.path"
    for dry in ((), ("--dry-run",)):
        assert error_of(capsys, *resume(run, "--policy.path", other, *dry)) == f"error: policy.path: {replaced}\n"
    alone = shutil.copytree(run / "checkpoints" / "latest", tmp_path / "alone", symlinks=True)
    for checkpoint in (run, alone):
        for command in (["export", "--to", tmp_path / "taken"], ["chat", "--policy.n_context", 0], ["evaluate", "--data", "x"]):
            given = (*command, "--checkpoint", checkpoint, "--policy.path", other)
            refused = error_of(capsys, *given)
            assert f"{other}: is not the model that " in refused and "put it back, or name it by --policy.path" in refused
    assert main(["export", "--checkpoint", str(alone), "--to", str(tmp_path / "taken"), "--policy.path", str(base)]) == 0


def test_a_reference_may_move_and_not_change_once_its_stage_has_begun(
    whole: Path, train_locally: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, reference = whole / "policy", other_weights(whole / "policy", tmp_path / "reference")
    adapters = ("--policy.path", base, "--learner.reference_path", reference, *SHORT, *ADAPTED)
    run, moved = train_locally(*adapters), tmp_path / "moved"
    reference.rename(moved)
    assert "give --learner.reference_path, where the same model lies now" in error_of(capsys, *resume(run))
    replaced = error_of(capsys, *resume(run, "--learner.reference_path", base))
    assert replaced.startswith(f"error: learner.reference_path: {base} is not the model that the run was begun with")
    assert main(resume(run, "--learner.reference_path", moved, "--learner.steps", 3)) == 0
    assert RunFolder(run).settings().learner.reference_path == str(moved)


@pytest.mark.parametrize("name", ["data.train", "data.valid", "data.passages", "data.cache", "policy.path", "resume"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_relative_path_is_refused_in_a_job(
    name: str,
    dry: tuple[str, ...],
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cluster.commands.train.in_job", lambda: True)
    given = ("train", "--local", *without_tiny(tiny_flags), "--run_dir", tmp_path / "run", f"--{name}", "here", *dry)
    expected = f"error: {name}: here lies in the job's temporary copy; give an absolute path that all nodes see\n"
    assert error_of(capsys, *given) == expected


def test_in_a_job_absolute_paths_and_names_of_the_hub_are_taken(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.commands.train.in_job", lambda: True)
    given = ["train", "--local", "--dry-run", *without_tiny(tiny_flags), "--run_dir", str(tmp_path / "run")]
    assert main([*given, "--data.cache", "~/.cache/lapdog-ray"]) == 0
    assert "is no model folder or hub name" in error_of(capsys, *given, "--policy.path", "nobody/nothing")
