"""A session with Ray: what its actors get of GPUs, and what is told where it does not start."""

import contextlib
import errno
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import ray

from cluster.actors import session
from cluster.actors.session import LOCAL, gpu_shares, roles_with_gpus
from cluster.settings.actor_settings import ClusterSettings
from cluster.settings.tree import Settings
from rollout.errors import ClusterError


@pytest.mark.parametrize(
    ("gpus", "set_by_user", "learner", "sampler"),
    [
        (0, {}, 0, 0),
        (1, {}, 0.5, 0.25),  # two samplers share what the learner leaves
        (2, {}, 1, 0.5),
        (4, {}, 1, 1),  # a sampler takes at most one
        (0.5, {}, 0.5, 0),  # a reward took the other half
        (1.5, {}, 0.5, 0.5),
        (4, {"samplers": 6}, 1, 0.5),
        (4, {"learner_gpus": 3.0}, 3, 0.5),
        (4, {"sampler_gpus": 0.2}, 1, 0.2),
    ],
)
def test_learner_and_samplers_share_the_gpus_that_rewards_leave(
    gpus: float, set_by_user: dict[str, float], learner: float, sampler: float
) -> None:
    assert gpu_shares(gpus, ClusterSettings(**set_by_user)) == (learner, sampler)


@pytest.mark.parametrize(("gpus", "set_by_user", "warned"), [(1, {"learner_gpus": 1.0}, True), (1, {}, False), (0, {}, False)])
def test_samplers_without_a_gpu_are_warned_of_where_the_cluster_has_one(
    gpus: float,
    set_by_user: dict[str, float],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": gpus})
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Labels": {}, "Resources": {"CPU": 64.0}}])
    roles = roles_with_gpus(Settings(cluster=ClusterSettings(**set_by_user)))
    assert (roles["sampler"].gpus == 0) == (warned or gpus == 0)
    assert ("warning: no GPU is left for samplers" in capsys.readouterr().err) == warned


@contextlib.contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Address of one that answers its first caller so; None keeps silent."""

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(100)
            if answer is not None:
                peer.sendall(answer)
            closed.wait()

    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        closed.set()
        thread.join()


def test_what_is_no_head_is_told_at_once() -> None:
    with server(b"HTTP/1.0 400 Bad request\r\n") as address:
        with pytest.raises(ClusterError, match=f"^RAY_ADDRESS={address}: is no head of Ray; give the address that"):
            session._probe(address, deadline_s=5)
    with server(None) as address:
        with pytest.raises(ClusterError, match=f"^RAY_ADDRESS={address}: nobody answers \\(timed out\\); start the head"):
            session._probe(address, deadline_s=0.1)
    with pytest.raises(ClusterError, match=f"^RAY_ADDRESS={address}: nobody answers \\(.*refused\\); start the head"):
        session._probe(address, deadline_s=5)


@pytest.mark.integration
def test_a_head_is_told_from_other_services_of_rays(ray_session: None) -> None:
    address, [node] = ray.get_runtime_context().gcs_address, ray.nodes()
    session._probe(address, deadline_s=5)
    with pytest.raises(ClusterError, match="is no head of Ray"):
        session._probe(f"127.0.0.1:{node['NodeManagerPort']}", deadline_s=5)


@pytest.mark.parametrize(
    ("error", "place", "remedy"),
    [
        (OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x"), LOCAL, "shorter path"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/ray"), LOCAL, "let RAY_TMPDIR name a folder of yours"),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/ray/session_1"), LOCAL, "let RAY_TMPDIR name"),
        (OSError(errno.EROFS, "Read-only file system", "/home/me/.ray"), LOCAL, "let HOME name a folder of yours, or RAY_AUTH"),
        (RuntimeError("the GCS did not start"), LOCAL, "its logs lie in ray/session_latest/logs"),
        (ConnectionError("no"), "RAY_ADDRESS=1.2.3.4:6379", "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_each_failure_to_start_ray_has_its_own_remedy(error: Exception, place: str, remedy: str) -> None:
    assert remedy in session._remedy(error, place)


def test_only_what_is_started_for_the_run_is_shielded_from_stop_signals() -> None:
    masked = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))"
    with session._shielded():
        shielded = subprocess.run([sys.executable, "-c", masked], capture_output=True, text=True).stdout
    after = subprocess.run([sys.executable, "-c", masked], capture_output=True, text=True).stdout
    assert (shielded, after) == (f"[{int(signal.SIGHUP)}, {int(signal.SIGTERM)}]\n", "[]\n")
