"""A token-protected Ray head in processes of its own."""

import contextlib
import os
import random
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

FAST_HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}  # a node that is gone refuses at once
STORE_BYTES = 150 << 20
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class Head:
    def __init__(self, folder: Path, environment: dict[str, str] | None = None):
        self.token = secrets.token_hex(32)
        path = folder / "token"
        path.touch(mode=0o600)
        path.write_text(self.token)
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
        python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # of the jobs
        self.with_token = os.environ | python | (environment or {}) | own
        others = (*own, "RAY_AUTH_TOKEN")
        self.without_token = {name: value for name, value in os.environ.items() if name not in others} | {"HOME": str(folder)}
        gcs, dashboard, agent, grpc, self.metrics, client = free_ports(6)
        self.address, self.jobs = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        ports = {
            "port": gcs,
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": grpc,
            "metrics-export-port": self.metrics,
            "ray-client-server-port": client,
        }
        flags = [f"--{name}={port}" for name, port in ports.items()]
        start = [*RAY, "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats", *flags]
        self._log = (folder / "head.log").open("w+")
        self._process = subprocess.Popen(start, env=self.with_token, stdout=self._log, stderr=self._log)

    def wait_until_up(self) -> None:
        """The dashboard comes last."""
        patient = requests.Session()
        patient.mount("http://", HTTPAdapter(max_retries=Retry(total=100, backoff_factor=0.1, backoff_max=1)))
        patient.get(f"{self.jobs}/api/version", timeout=60)

    def submit(self, environment: dict[str, str], entrypoint: list[str], *flags: str) -> "subprocess.CompletedProcess[str]":
        command = [*RAY, "job", "submit", "--address", self.jobs, *flags, "--", *entrypoint]
        return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)

    def job(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [*RAY, "job", *arguments, "--address", self.jobs]
        return subprocess.Popen(command, env=self.with_token, text=True, stdout=subprocess.PIPE)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def free_ports(count: int) -> list[int]:
    """Of those that neither Ray's workers (to 19999) nor the system (from 32768) hand out: nobody takes them meanwhile."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.SystemRandom().randrange(20000, 32768)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
    return ports


def actor_processes(ancestor: psutil.Process, actor_class: str) -> list[psutil.Process]:
    """Its descendants that are actors of a class."""
    found = []
    for child in ancestor.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "".join(child.cmdline()[:1]).startswith(f"ray::{actor_class}"):
                found.append(child)
    return found
