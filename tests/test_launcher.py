"""What the launcher forks is what the interpreter would have started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TELLING = """import os, signal, sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
print(sys.stdin.read(), __name__, __file__, sys.argv, sys.path, os.getcwd(), sorted(os.environ.items()))
print(*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)), sorted(os.listdir("/proc/self/fd")))
print("kürze", file=sys.stderr)
if "leaves" in sys.argv:
    sys.exit(3)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGTERM)
"""
WAITING = """import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("up", flush=True)
signal.sigwait([signal.SIGUSR1])
print("met")
"""
VARIABLES = [{}, {"PYTHONIOENCODING": "ascii:replace", "PYTHONPATH": "/some:/where"}, {"PYTHONUNBUFFERED": "1"}]


@pytest.mark.parametrize("ending", ["leaves", "is killed"])
@pytest.mark.parametrize("variables", VARIABLES)
def test_a_forked_program_has_the_surroundings_of_a_started_one(
    ending: str, variables: dict[str, str], python: str, tmp_path: Path
) -> None:
    (tmp_path / "launch.py").write_text(TELLING)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
    both = [
        subprocess.run([interpreter, "launch.py", ending], cwd=tmp_path, env=environment, capture_output=True, input=b"typed")
        for interpreter in (sys.executable, python)
    ]
    started, forked = ((ended.returncode, ended.stdout.decode(), ended.stderr.decode()) for ended in both)
    assert started == forked and forked[0] == (3 if ending == "leaves" else -signal.SIGTERM)


def test_signals_reach_the_forked_program(python: str, tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text(WAITING)
    with subprocess.Popen([python, "launch.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "met\n"
    assert process.returncode == 0


def test_the_forked_program_ends_with_a_client_that_is_killed(python: str, tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text(WAITING)
    with subprocess.Popen([python, "launch.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.kill()
        assert process.stdout.read() == ""  # all that could write has ended


def test_any_other_program_is_run_by_the_interpreter(python: str) -> None:
    code = "import sys; print(sys.executable, 'torch' in sys.modules)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{sys.executable} False\n"
