"""A server that answers what a test tells it to."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """body: what is not bytes is written as JSON. hangs: it is announced and never sent."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


@dataclass
class Scripted:
    """replies: one a request, the last of them to all further ones. asked: what was sent, in order."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that does not wait for its answer is part of the script."""


@contextmanager
def scripted(*replies: Reply) -> Iterator[Scripted]:
    script, ended = Scripted(replies=list(replies)), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            script.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            script.tokens.append(self.headers["Authorization"])
            reply = script.replies.pop(0) if len(script.replies) > 1 else script.replies[0]
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.hangs:
                ended.wait()
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/retrieve"
    try:
        yield script
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
