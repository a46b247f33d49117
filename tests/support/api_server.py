"""An Images API in a process of its own: the offline server behind the standard library's HTTP server.

``python -m tests.support.api_server`` listens on a free loopback port, prints its base URL and serves until
its standard input closes. As a proxy it replies for any host, so recordings have the same URLs each time.

A prompt with ``(fault: NAME)`` triggers that fault of `imgkit.backends.offline.faults`;
``(fault once: NAME)`` triggers it the first time only. Faults repeat key and organization, like the API.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE
from typing import Any

import imgkit
from imgkit.backends.offline.faults import find_fault
from imgkit.backends.offline.server import OfflineServer, ServerResponse
from tests.support.processes import child_processes

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 10
"""Maximum time for the process to exit, in seconds."""

FAULT = re.compile(rb"\(fault( once)?: ([a-z_]+)\)")


PRIVATE = {"set-cookie": "session=cookie-CANARY; Path=/", "openai-organization": "org-CANARY"}
"""Headers of each reply that no cassette may contain."""


class Handler(BaseHTTPRequestHandler):
    """A handler that passes requests to the offline server; http.server honors ``Connection: close``."""

    protocol_version = "HTTP/1.1"
    server_version = f"imgkit-api-server/{imgkit.__version__}"
    disable_nagle_algorithm = True
    server: Server

    def version_string(self) -> str:
        # Leave out the version of Python.
        return self.server_version

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdecimal():
            self.close_connection = True
            self.send_error(411)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxied = self.path.startswith("http://")
        url = self.path if proxied else f"http://{self.headers.get('host', 'localhost')}{self.path}"
        body = self.rfile.read(int(length))
        reply = self.server.fault(headers, body) or self.server.api.handle_request(
            self.command, url, headers, body
        )
        self.send_response(reply.status)
        for name, value in {**reply.headers, **PRIVATE}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the base URL is the only line on standard output."""


class Server(ThreadingHTTPServer):
    """An HTTP server with a thread per connection."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = OfflineServer()
        self._used_faults: set[bytes] = set()

    def fault(self, headers: dict[str, str], body: bytes) -> ServerResponse | None:
        """Return the fault that a request asks for; return None if there is none or it is used up."""
        match = FAULT.search(body)
        if match is None or (match[1] and body in self._used_faults):
            return None
        self._used_faults.add(body)
        fault = find_fault(match[2].decode())
        error_body = json.loads(fault.body)
        sender = f"key {headers.get('authorization')}, organization {headers.get('openai-organization')}"
        error_body["error"]["message"] += f" ({sender})"
        content = json.dumps(error_body).encode()
        return ServerResponse(fault.status, {**fault.headers, "content-length": str(len(content))}, content)


@contextmanager
def running() -> Iterator[str]:
    """Run the server in a child process and yield its base URL; kill it if it does not exit."""
    command = [sys.executable, "-m", "tests.support.api_server"]
    with child_processes() as children:
        process = children.start(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError(f"The server did not start: {' '.join(command)}")
        yield base_url
        process.stdin.close()
        process.wait(STOP_S)


def main() -> None:
    """Serve until standard input closes."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)  # noqa: T201 - the base URL for the parent
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
        server.shutdown()


if __name__ == "__main__":
    main()
