"""Start Ray on this machine, join a running cluster, or run inside a submitted job."""

import contextlib
import math
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.exceptions import RayError, RpcError
from ray.job_config import JobConfig

from cluster.actors.job import STOP_SIGNALS, in_job
from cluster.actors.roles import RoleKind, Roles, roles_of
from cluster.output import print_err
from cluster.settings.actor_settings import ClusterSettings
from cluster.settings.tree import Settings
from rollout.errors import ClusterError, first_line
from rollout.identity import PROJECT

LOCAL = "a local Ray"
OF_ITS_OWN = (None, "", "local")  # RAY_ADDRESS of a run that starts a Ray
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # with empty settings (RFC 9113, 3.4)
HTTP2_SETTINGS = 4
NOT_SHIPPED = [".git", ".venv", "runs", "tests", "**/__pycache__"]


def surroundings() -> tuple[str, ...]:
    """What makes settings of a Ray of one's own useless, as `check_effects` calls it."""
    if in_job():
        return ("a Ray job",)
    return () if os.environ.get("RAY_ADDRESS") in OF_ITS_OWN else ("RAY_ADDRESS",)


@contextlib.contextmanager
def session(settings: Settings, namespace: str, metadata: Mapping[str, str], probe_s: float) -> Iterator[Roles]:
    """Connect to Ray for the length of the context; the dashboard shows `metadata` with its job. probe_s: seconds that a head
    may take to answer.

    Raises ClusterError if it cannot be reached or is too small.
    """
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # a call's error is met at its first result, not at each
    if ray.is_initialized():  # the caller's own, as in a notebook
        yield roles_with_gpus(settings)
        return
    _connect(settings, namespace, metadata, probe_s)
    try:
        yield roles_with_gpus(settings)
    finally:
        ray.shutdown()


def _connect(settings: Settings, namespace: str, metadata: Mapping[str, str], probe_s: float) -> None:
    address = os.environ.get("RAY_ADDRESS")
    arguments: dict[str, Any] = {"namespace": namespace, "logging_level": "warning", "log_to_driver": False}
    arguments["job_config"] = OwnCodeFirst(metadata=dict(metadata))
    if in_job():
        place = "the job's cluster"
        arguments |= {"address": "auto"}
    elif address in OF_ITS_OWN:
        place = LOCAL
        arguments |= {"address": "local", "include_dashboard": True, "dashboard_host": "127.0.0.1"}
        arguments |= {"num_cpus": max(os.cpu_count() or 1, _cpus(roles_of(settings)))}  # a laptop's actors take turns
        port = settings.cluster.dashboard_port
        arguments |= {"dashboard_port": port} if port else {}
    else:
        place = f"RAY_ADDRESS={address}"
        _probe(str(address), probe_s)
        # nodes of a running cluster need not have our code: take it along
        arguments |= {"address": address, "runtime_env": {"working_dir": str(PROJECT), "excludes": NOT_SHIPPED}}
    try:
        with _shielded() if place == LOCAL else contextlib.nullcontext():
            context = ray.init(**arguments)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        remedy = _remedy(error, place)
        raise ClusterError(f"{place}: Ray does not start or answer ({first_line(error)}); {remedy}") from error
    _protect_token()
    if place != LOCAL and not is_token_auth_enabled():
        print_err(f"warning: {place} asks for no token: whoever reaches it runs what he likes; see docs/security.md")
    print_err(f"Ray dashboard: http://{context.dashboard_url}" if context.dashboard_url else "Ray runs without dashboard")


class OwnCodeFirst(JobConfig):
    """Lets workers look for modules in this clone before the folder in which the command was typed, which Ray puts first."""

    def _serialize(self) -> str:
        if not self._runtime_env_has_working_dir():
            self._py_driver_sys_path.append(str(PROJECT))
        return super()._serialize()


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Processes that are started inside never meet a stop signal that is sent to the whole process group or control group, as
    systemd and Slurm do: the run needs them to save itself. Ray does the same for SIGINT."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS} - {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _probe(address: str, deadline_s: float) -> None:
    """Ray itself waits for minutes on an address where nobody answers. Raises ClusterError."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ClusterError(f"RAY_ADDRESS={address}: is no HOST:PORT; give the address that 'ray start --head' printed")
    try:
        with socket.create_connection((host, int(port)), deadline_s) as peer:
            peer.settimeout(deadline_s)
            peer.sendall(HTTP2_GREETING)
            answers_as_ray = os.environ.get("RAY_USE_TLS") == "1" or peer.recv(9)[3:4] == bytes([HTTP2_SETTINGS])
    except OSError as error:
        raise ClusterError(f"RAY_ADDRESS={address}: nobody answers ({error}); start the head or correct the address") from error
    if not answers_as_ray or _is_no_head(address):
        raise ClusterError(f"RAY_ADDRESS={address}: is no head of Ray; give the address that 'ray start --head' printed")


def _is_no_head(address: str) -> bool:
    """Whether another service of Ray's answers there, such as the one for clients at port 10001."""
    from ray._raylet import GRPC_STATUS_CODE_UNIMPLEMENTED, GcsClient  # type: ignore[attr-defined]  # compiled

    try:
        GcsClient(address=address)
    except RayError as error:  # any other is a matter of tokens, which is met again when Ray connects
        return isinstance(error, RpcError) and bool(error.rpc_code == GRPC_STATUS_CODE_UNIMPLEMENTED)
    return False


def _remedy(error: Exception, place: str) -> str:
    """What helps where Ray does not start or answer."""
    if "AF_UNIX path length" in str(error):
        return "name a folder with a shorter path in RAY_TMPDIR, such as /tmp"
    if isinstance(error, OSError) and error.filename is not None:
        if Path(error.filename).name in (".ray", "auth_token") or Path(error.filename) == Path.home():
            return "Ray keeps its token there: let HOME name a folder of yours, or RAY_AUTH_TOKEN_PATH a file"
        return "let RAY_TMPDIR name a folder of yours"
    if place == LOCAL:
        return "its logs lie in ray/session_latest/logs of RAY_TMPDIR or /tmp"
    return "if the cluster asks for a token, export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"


def _protect_token() -> None:
    """Ray writes the token it makes for local clusters readable by all."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _cpus(roles: Roles) -> int:
    return math.ceil(sum(role.count * role.cpus for role in roles.values()))


def roles_with_gpus(settings: Settings) -> Roles:
    """Default GPU shares from what the cluster has; raises ClusterError if something asked for cannot fit."""
    cluster, total, roles = settings.cluster, ray.cluster_resources(), roles_of(settings)
    shared = (RoleKind.LEARNER, RoleKind.SAMPLER)
    others = sum(role.count * (role.gpus or 0.0) for role in roles.values() if role.kind not in shared)
    learner, sampler = gpu_shares(total.get("GPU", 0.0) - others, cluster)
    if total.get("GPU") and sampler == 0 and cluster.sampler_gpus is None:
        print_err(
            "warning: no GPU is left for samplers: they run on CPUs; add one, or lower cluster.learner_gpus or a reward's gpus"
        )
    wanted = {"CPU": _cpus(roles), "GPU": learner + others + cluster.fewest_samplers * sampler}
    if cluster.sampler_resource is not None and cluster.samplers != "auto":
        wanted[cluster.sampler_resource] = cluster.samplers
    _check_fits(wanted, total)
    if cluster.samplers != "auto" and not any(bears_samplers(node, cluster) for node in ray.nodes() if node["Alive"]):
        raise ClusterError(
            f"cluster.sampler_label: no node is labelled {cluster.sampler_label}; start one with 'ray start --labels'"
        )
    return roles | {kind: replace(roles[kind], gpus=gpus) for kind, gpus in zip(shared, (learner, sampler), strict=True)}


def gpu_shares(gpus: float, settings: ClusterSettings) -> tuple[float, float]:
    """Of the learner and of each sampler, out of the GPUs that rewards leave."""
    learner, sampler = settings.learner_gpus, settings.sampler_gpus
    if learner is None:
        learner = 0.0 if gpus <= 0 else min(gpus, 0.5) if gpus < 2 else 1.0
    if sampler is None:
        sampler = min(1.0, int(100 * max(0.0, gpus - learner) / settings.fewest_samplers) / 100)
    return learner, sampler


def _check_fits(wanted: Mapping[str, float], total: Mapping[str, float]) -> None:
    for resource, amount in wanted.items():
        if amount > (has := total.get(resource, 0.0)) + 1e-9:
            raise ClusterError(
                f"cluster: {amount:g} {resource} are wanted, the cluster has {has:g}; "
                f"add nodes that have it, or lower cluster.samplers or what a sampler takes"
            )


def bears_samplers(node: Mapping[str, Any], settings: ClusterSettings) -> bool:
    """Whether a node, as `ray.nodes()` lists it, has the label that samplers ask for."""
    if settings.sampler_label is None:
        return True
    key, _, value = settings.sampler_label.partition("=")
    return node.get("Labels", {}).get(key) == value
