"""The files of examples/cluster/, against the schemas and linters of those who read them."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.commands.train import TrainOptions
from cluster.settings.flags import flags_of, parse_flags
from cluster.settings.tree import Settings
from cluster.settings.values import build, split
from tests.cluster.runs import ROOT

FOLDER = ROOT / "examples" / "cluster"
PAGE = ROOT / "docs" / "cluster.md"
BIN = Path(sys.executable).parent
FAKE_RAY = '#!/bin/sh\nprintf "%s\\n" "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN_PATH" "${RAY_AUTH_TOKEN-none}" "$@"\n'
KUBERNETES = "1.34"


def run(script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **variables}
    return subprocess.run([FOLDER / script, *arguments], env=environment, text=True, capture_output=True, timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """PATH, on which a `ray` comes first that prints how it was called."""
    ray = tmp_path / "bin" / "ray"
    ray.parent.mkdir()
    ray.write_text(FAKE_RAY)
    ray.chmod(0o755)
    return f"{ray.parent}:{os.environ['PATH']}"


@pytest.mark.integration
def test_the_scripts_pass_shellcheck() -> None:
    scripts = sorted(FOLDER.glob("*.sh"))
    assert len(scripts) == 3 and all(os.access(script, os.X_OK) for script in scripts)
    subprocess.run([BIN / "shellcheck", *scripts], check=True)


@pytest.mark.integration
def test_the_dockerfile_passes_hadolint() -> None:
    subprocess.run([BIN / "hadolint", FOLDER / "Dockerfile"], check=True)


def test_the_dockerfile_installs_the_torch_of_the_requirements() -> None:
    torch = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    assert f" {torch}\n" in (FOLDER / "Dockerfile").read_text()


def test_the_images_user_may_write_in_the_projects_folder() -> None:
    before, _, after = (FOLDER / "Dockerfile").read_text().partition("\nWORKDIR ")
    folder = after.split()[0]
    assert before.endswith(f"--uid 1000 ray && install --directory --owner=ray --group=ray {folder}")
    assert "\nCOPY --chown=ray . .\nUSER 1000\n" in after


@pytest.mark.integration
def test_the_head_makes_its_token_once_and_for_its_owner_alone(tmp_path: Path, path: str) -> None:
    token = tmp_path / "new" / "token"
    first = run("head.sh", PATH=path, HOME=str(tmp_path), RAY_AUTH_TOKEN_PATH=str(token))
    assert first.returncode == 0 and f"made the token {token}" in first.stdout
    made = token.read_text()
    assert len(made) == 64 and int(made, 16) and token.stat().st_mode & 0o777 == 0o600
    assert made not in first.stdout + first.stderr

    token.chmod(0o644)
    second = run("head.sh", PATH=path, HOME=str(tmp_path), RAY_AUTH_TOKEN_PATH=str(token))
    assert token.read_text() == made and token.stat().st_mode & 0o777 == 0o600 and "made" not in second.stdout


@pytest.mark.integration
def test_the_head_listens_on_loopback_and_asks_for_the_token(tmp_path: Path, path: str) -> None:
    started = run("head.sh", "--num-cpus=4", PATH=path, HOME=str(tmp_path), RAY_AUTH_TOKEN="another", RAY_PORT="7000")
    said = started.stdout.splitlines()
    assert said[1:4] == ["token", str(tmp_path / ".ray" / "auth_token"), "none"]
    assert said[4:7] == ["start", "--head", "--block"]
    assert {"--port=7000", "--dashboard-host=127.0.0.1", "--dashboard-port=8265", "--num-cpus=4"} < set(said)


@pytest.mark.integration
def test_a_worker_joins_the_head_with_its_token(tmp_path: Path, path: str) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    joined = run("worker.sh", "--labels=role=sampler", PATH=path, HOME="/", RAY_HEAD="head", RAY_AUTH_TOKEN_PATH=str(token))
    said = joined.stdout.splitlines()
    assert said[:4] == ["token", str(token), "none", "start"] and token.stat().st_mode & 0o777 == 0o600
    assert {"--address=head:6379", "--block", "--labels=role=sampler"} < set(said)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("variables", "message"),
    [({}, "RAY_HEAD is not set: name the machine that runs head.sh"), ({"RAY_HEAD": "head"}, "no token; copy the head's")],
)
def test_a_worker_without_head_or_token_is_refused_in_one_line(
    variables: dict[str, str], message: str, tmp_path: Path, path: str
) -> None:
    refused = run("worker.sh", PATH=path, HOME=str(tmp_path), **variables)
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.rstrip("\n").endswith(message)


@pytest.mark.integration
def test_a_run_is_started_once_and_then_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = run("start_or_resume.sh", str(folder), "--seed", "3", PYTHON="echo")
    assert started.stdout == f"launch.py train --run_dir {folder} --seed 3\n"
    folder.mkdir()
    (folder / "config.yaml").touch()
    assert run("start_or_resume.sh", str(folder), "--seed", "3", PYTHON="echo").stdout == f"launch.py train --resume {folder}\n"
    assert run("start_or_resume.sh", PYTHON="echo").returncode == 2


def test_the_unit_starts_the_scripts_and_starts_them_again() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / "ray@.service")
    service = unit["Service"]
    assert service["Restart"] == "always"
    assert service["Environment"].startswith(f"PATH={service['WorkingDirectory']}/.venv/bin:")
    for instance in ("head", "worker"):
        script = service["ExecStart"].split()[0].replace("%i", instance)
        assert (ROOT / Path(script).relative_to(service["WorkingDirectory"])).is_file()


def test_the_launchers_file_meets_rays_own_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in config[commands][-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def document(name: str) -> dict[str, Any]:
    """The only one of a file: what is in it is deleted together."""
    (found,) = yaml.safe_load_all((FOLDER / name).read_text())
    return dict(found)


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    job = document("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    return job


def groups(rayjob: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    yield from (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])


def pods(rayjob: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of the job and the one for files."""
    for group in groups(rayjob):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
    yield document("files.yaml")


def test_pods_and_volume_meet_kubernetes_own_schema(rayjob: dict[str, Any]) -> None:
    for each in (document("volume.yaml"), *pods(rayjob)):
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_every_pod_mounts_the_volume_and_nothing_else(rayjob: dict[str, Any]) -> None:
    volume = document("volume.yaml")
    assert volume["kind"] == "PersistentVolumeClaim" and volume["spec"]["accessModes"] == ["ReadWriteMany"]
    claim = {"claimName": volume["metadata"]["name"]}
    for pod in pods(rayjob):
        (container,) = pod["spec"]["containers"]
        # /dev/shm is KubeRay's: it mounts it with the size of the pod's memory
        assert pod["spec"]["volumes"] == [{"name": "shared", "persistentVolumeClaim": claim}]
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]


def test_every_pod_has_the_same_image_and_user(rayjob: dict[str, Any]) -> None:
    first, *others = pods(rayjob)
    for pod in others:
        assert pod["spec"]["containers"][0]["image"] == first["spec"]["containers"][0]["image"]
        assert pod["spec"]["securityContext"] == first["spec"]["securityContext"]


def test_the_jobs_own_fields_are_those_of_kuberay(rayjob: dict[str, Any]) -> None:
    job = {"entrypoint", "runtimeEnvYAML", "rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    job |= {"backoffLimit"}
    worker = {"groupName", "replicas", "minReplicas", "maxReplicas"}
    group = {"rayStartParams", "template"}
    spec = rayjob["spec"]
    head, *workers = groups(rayjob)
    assert set(spec) == job
    assert set(spec["rayClusterSpec"]) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(head) == group and all(set(each) == worker | group for each in workers)
    assert all(isinstance(value, str) for each in groups(rayjob) for value in each["rayStartParams"].values())
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_pages_patch_raises_the_samplers_replicas(rayjob: dict[str, Any]) -> None:
    said = re.search(r"kubectl patch raycluster NAME --type json -p '(.+)'", PAGE.read_text())
    assert said is not None
    (patch,) = json.loads(said[1])
    _, spec, group, number, field = patch["path"].split("/")
    samplers = rayjob["spec"]["rayClusterSpec"][group][int(number)]
    assert (patch["op"], spec, field, samplers["groupName"]) == ("replace", "spec", "replicas", "samplers")
    assert samplers["replicas"] < patch["value"] <= samplers["maxReplicas"]


def test_the_job_asks_for_the_ray_of_the_requirements(rayjob: dict[str, Any]) -> None:
    assert f"ray[default]=={rayjob['spec']['rayClusterSpec']['rayVersion']}\n" in (ROOT / "requirements.txt").read_text()


def test_the_job_has_time_to_save(rayjob: dict[str, Any]) -> None:
    assert int(yaml.safe_load(rayjob["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


def settings_of(rayjob: dict[str, Any]) -> Settings:
    script, _, *flags = shlex.split(rayjob["spec"]["entrypoint"])
    assert (ROOT / Path(script).relative_to("/home/ray/lapdog-ray")).is_file()
    return build(
        Settings, split(TrainOptions, parse_flags("train", None, flags, [*flags_of(TrainOptions), *flags_of(Settings)]))[1]
    )


def test_the_learner_of_the_job_fits_on_its_own_pod_alone(rayjob: dict[str, Any]) -> None:
    cluster = settings_of(rayjob).cluster
    rewards = cluster.rewards * cluster.reward_cpus
    _, learner, samplers = (group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups(rayjob))
    assert int(samplers["cpu"]) < cluster.learner_cpus <= int(learner["cpu"]) - rewards
    assert cluster.learner_gpus == int(learner["nvidia.com/gpu"])


def test_the_samplers_of_the_job_fit_on_theirs_alone(rayjob: dict[str, Any]) -> None:
    cluster = settings_of(rayjob).cluster
    _, learner, samplers = groups(rayjob)
    resources = json.loads(json.loads(samplers["rayStartParams"]["resources"]))  # KubeRay gives it to a shell
    assert cluster.samplers == "auto" and list(resources) == [cluster.sampler_resource]
    assert "resources" not in learner["rayStartParams"]
    limits = samplers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert resources["sampler"] * (cluster.sampler_gpus or 0) == int(limits["nvidia.com/gpu"])
