"""Stands in the place of a program that the server forks."""

import json
import os
import signal
import socket
import struct

SERVED = ("launch.py", "default_worker.py")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, python: str, stand_in: str, *arguments: str) -> int:
    """The exit code of the program that the interpreter's `stand_in` was given, once it has ended."""
    if not arguments or os.path.basename(arguments[0]) not in SERVED:
        os.execv(python, [python, *arguments])
    ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    with socket.socket(socket.AF_UNIX) as server:
        for number in set(PASSED_ON) - set(ignored):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        server.connect(address)
        umask = os.umask(0)
        program = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ), "umask": umask}
        request = json.dumps(program | {"python": stand_in, "ignored": ignored}).encode()
        socket.send_fds(server, [struct.pack("!I", len(request))], [0, 1, 2])
        server.sendall(request)
        code = int(server.recv(16) or -signal.SIGKILL)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
