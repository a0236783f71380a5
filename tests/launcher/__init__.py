"""An interpreter that starts launch.py and Ray's workers in a tenth of the time.

Most of their start-up is the import of PyTorch, Transformers and what these bring along. A server that has imported them once
forks for each program: the client, which stands in Python's place, hands over its arguments, folder, environment and open
streams, passes signals on, and ends as the program ended. Any other program is run by the interpreter itself. Ray, PyArrow and
our own modules are imported after the fork: the first two start threads or read their environment when they are imported.

A process of which a test looks at its children, or that is itself what is tested, is started by `sys.executable`.
"""

import atexit
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STAND_IN = """#!{python} -SE
import sys
sys.path.insert(0, {here!r})
from client import main
sys.exit(main({address!r}, {python!r}, __file__, *sys.argv[1:]))
"""


@cache
def python() -> str:
    """Path of the interpreter; the server is there until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fork-"))  # a socket's path is 107 characters long at most
    stand_in, address = folder / "python", str(folder / "socket")
    stand_in.write_text(STAND_IN.format(python=sys.executable, here=str(HERE), address=address))
    stand_in.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        command = [sys.executable, str(HERE / "server.py"), str(listening.fileno())]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
    atexit.register(_end, server, folder)
    return str(stand_in)


def _end(server: "subprocess.Popen[bytes]", folder: Path) -> None:
    """The server and what it forked end when nobody holds its standard input."""
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
    shutil.rmtree(folder)
