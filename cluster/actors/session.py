"""Start Ray on this machine, join a running cluster, or run inside a submitted job."""

import contextlib
import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.exceptions import RayError
from ray.job_config import JobConfig

from cluster.output import print_err
from cluster.settings.tree import ClusterSettings
from rollout.errors import ClusterError, first_line

Resources = dict[str, float]
PROJECT = Path(__file__).resolve().parents[2]
PROBE_SECONDS = 5.0
NOTHING: Mapping[str, str] = MappingProxyType({})
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
NOT_SHIPPED = [".git", ".venv", "runs", "tests", "**/__pycache__"]


@dataclass(frozen=True, slots=True)
class Shares:
    """Resources that Ray sets aside for one sampler, the learner and one reward actor."""

    sampler: Resources
    learner: Resources
    reward: Resources


def in_job() -> bool:
    return JOB_CONFIG in os.environ


@contextlib.contextmanager
def session(settings: ClusterSettings, namespace: str, metadata: Mapping[str, str] = NOTHING) -> Iterator[Shares]:
    """Connect to Ray for the length of the context; the dashboard shows `metadata` with its job.

    Raises ClusterError if it cannot be reached or is too small.
    """
    if ray.is_initialized():  # a test's own cluster
        yield _shares(settings)
        return
    _connect(settings, namespace, metadata)
    try:
        yield _shares(settings)
    finally:
        ray.shutdown()


def _connect(settings: ClusterSettings, namespace: str, metadata: Mapping[str, str]) -> None:
    address = os.environ.get("RAY_ADDRESS")
    arguments: dict[str, Any] = {"namespace": namespace, "logging_level": "warning", "log_to_driver": False}
    arguments["job_config"] = JobConfig(metadata=dict(metadata))
    if in_job():
        place = "the job's cluster"
        arguments |= {"address": "auto"}
    elif address in (None, "", "local"):
        place = "a local Ray"
        arguments |= {"address": "local", "include_dashboard": True, "dashboard_host": "127.0.0.1"}
        arguments |= {"num_cpus": max(os.cpu_count() or 1, _needed_cpus(settings))}  # a laptop's actors take turns
        arguments |= {"dashboard_port": settings.dashboard_port} if settings.dashboard_port else {}
    else:
        place = f"RAY_ADDRESS={address}"
        _probe(str(address))
        # nodes of a running cluster need not have our code: take it along
        arguments |= {"address": address, "runtime_env": {"working_dir": str(PROJECT), "excludes": NOT_SHIPPED}}
    try:
        context = ray.init(**arguments)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        hint = "if the cluster asks for a token, export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        raise ClusterError(f"{place}: Ray does not start or answer ({first_line(error)}); {hint}") from error
    _protect_token()
    if place != "a local Ray" and not is_token_auth_enabled():
        print_err(f"warning: {place} asks for no token: whoever reaches it runs what he likes; see docs/security.md")
    print_err(f"Ray dashboard: http://{context.dashboard_url}" if context.dashboard_url else "Ray runs without dashboard")


def _probe(address: str) -> None:
    """Ray itself waits for minutes on an address where nobody answers. Raises ClusterError."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ClusterError(f"RAY_ADDRESS={address}: is no HOST:PORT; give the address that 'ray start --head' printed")
    try:
        socket.create_connection((host, int(port)), PROBE_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"RAY_ADDRESS={address}: nobody answers ({error}); start the head or correct the address") from error


def _protect_token() -> None:
    """Ray writes the token it makes for local clusters readable by all."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _needed_cpus(settings: ClusterSettings) -> int:
    samplers = settings.fewest_samplers * settings.sampler_cpus
    return math.ceil(settings.learner_cpus + samplers + settings.rewards * settings.reward_cpus)


def _shares(settings: ClusterSettings) -> Shares:
    """Default GPU shares from what the cluster has; raises ClusterError if something asked for cannot fit."""
    total = ray.cluster_resources()
    gpus = total.get("GPU", 0.0)
    learner = settings.learner_gpus
    if learner is None:
        learner = 0.0 if gpus == 0 else 0.5 if gpus < 2 else 1.0
    sampler = settings.sampler_gpus
    if sampler is None:
        sampler = min(1.0, int(100 * max(0.0, gpus - learner) / settings.fewest_samplers) / 100)
    wanted = {"CPU": _needed_cpus(settings), "GPU": learner + settings.fewest_samplers * sampler}
    if settings.sampler_resource is not None and settings.samplers != "auto":
        wanted[settings.sampler_resource] = settings.samplers
    for resource, amount in wanted.items():
        if amount > total.get(resource, 0.0):
            has = total.get(resource, 0.0)
            raise ClusterError(
                f"cluster: {amount:g} {resource} are wanted, the cluster has {has:g}; "
                f"add nodes that have it, or lower cluster.samplers or what a sampler takes"
            )
    if settings.samplers != "auto" and not any(bears_samplers(node, settings) for node in ray.nodes() if node["Alive"]):
        raise ClusterError(
            f"cluster.sampler_label: no node is labelled {settings.sampler_label}; start one with 'ray start --labels'"
        )
    own = {} if settings.sampler_resource is None else {settings.sampler_resource: 1.0}
    return Shares(
        sampler={"CPU": settings.sampler_cpus, "GPU": sampler, **own},
        learner={"CPU": settings.learner_cpus, "GPU": learner},
        reward={"CPU": settings.reward_cpus},
    )


def bears_samplers(node: Mapping[str, Any], settings: ClusterSettings) -> bool:
    """Whether a node, as `ray.nodes()` lists it, has the label that samplers ask for."""
    if settings.sampler_label is None:
        return True
    key, _, value = settings.sampler_label.partition("=")
    return node.get("Labels", {}).get(key) == value
