"""Imports what takes long and forks for each client. Argument: the file descriptor of the socket to listen at."""

import contextlib
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import struct
import sys
import types
from typing import Any, NoReturn, cast

HEAVY = """torch torch.distributed.tensor nltk rouge_score.rouge_scorer sacrebleu bm25s peft pydantic jinja2 yaml tqdm
transformers transformers.models.t5.modeling_t5 transformers.models.llama.modeling_llama google.protobuf.message""".split()
HEAD = struct.Struct("!I")  # bytes of the request that follows


class Server:
    """`serve` returns in the processes that it forks, with what they are to run, and never in its own."""

    def __init__(self, listening: socket.socket):
        self._listening = listening
        self._selector = selectors.PollSelector()
        self._processes: dict[socket.socket, tuple[int, int]] = {}  # and their pidfds, by the client that waits for them
        for each in (listening, sys.stdin):
            self._selector.register(each, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any]:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    self._close()
                elif key.fileobj is self._listening:
                    program = self._fork()
                    if program is not None:
                        return program
                elif key.data is not None:
                    self._tell_end(key.data)
                elif key.fileobj in self._processes:  # and did not end at the same time
                    self._pass_on(key.fileobj)

    def _fork(self) -> dict[str, Any] | None:
        client, _ = self._listening.accept()
        head, streams, *_ = socket.recv_fds(client, HEAD.size, 3)
        request = client.recv(HEAD.unpack(head)[0], socket.MSG_WAITALL) if head else b""
        process = os.fork() if request else None
        if process == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            for each in (client, self._listening, *self._processes):
                each.close()
            for _, pidfd in self._processes.values():
                os.close(pidfd)
            return dict(json.loads(request))
        for stream in streams:
            os.close(stream)
        if process is not None:
            self._processes[client] = process, os.pidfd_open(process)
            self._selector.register(client, selectors.EVENT_READ)
            self._selector.register(self._processes[client][1], selectors.EVENT_READ, client)
        return None

    def _pass_on(self, client: Any) -> None:
        """Signals; a client that was killed takes its process with it."""
        numbers = client.recv(16)
        for number in numbers or [signal.SIGKILL]:
            signal.pidfd_send_signal(self._processes[client][1], number)
        if not numbers:
            self._selector.unregister(client)

    def _tell_end(self, client: socket.socket) -> None:
        process, pidfd = self._processes.pop(client)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self._selector.unregister(pidfd)
        os.close(pidfd)
        if client in self._selector.get_map():
            self._selector.unregister(client)
            with contextlib.suppress(BrokenPipeError):
                client.send(str(code).encode())
        client.close()

    def _close(self) -> NoReturn:
        for process, pidfd in self._processes.values():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(process, 0)
        sys.exit()


def become(program: dict[str, Any], paths: list[str]) -> None:
    """This process, as Python would have started it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in program["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.umask(program["umask"])
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    sys.executable = program["python"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        made = stream(number, name, getattr(sys, name))
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = ["", *own, *paths]


def stream(number: int, name: str, servers: io.TextIOWrapper) -> io.TextIOWrapper:
    """Standard input, output or error anew, as CPython's create_stdio makes it."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    errors = servers.errors or "" if number == 2 or not encoding else errors or "strict"
    unbuffered = number > 0 and bool(os.environ.get("PYTHONUNBUFFERED"))
    binary: Any = open(number, "wb" if number else "rb", 0 if unbuffered else -1, closefd=False)
    (binary if unbuffered else binary.raw).name = f"<{name}>"
    text: Any = io.TextIOWrapper(
        binary,
        encoding or servers.encoding,
        errors,
        newline="\n",
        line_buffering=not unbuffered and (number == 2 or binary.isatty()),
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )
    text.mode = "w" if number else "r"
    return cast(io.TextIOWrapper, text)


def run(arguments: list[str]) -> None:
    """The script that the first argument names, as __main__."""
    script = os.path.abspath(arguments[0])
    sys.argv[:] = arguments
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = script
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    exec(code, main.__dict__)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in sys.path[1:] if path not in own]
    for name in HEAVY:
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads, of which a fork keeps one"
    gc.freeze()
    program = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    become(program, paths)
    run(program["arguments"])
