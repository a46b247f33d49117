"""An Images API as a process of its own: the offline server behind the standard library's HTTP server.

``python -m tests.support.api_server`` takes a free port of the loopback interface, prints its base URL
and serves until its standard input closes. As a proxy it answers for any host, so that what is recorded
through it has the same URLs each time.

A request whose prompt has ``(fault: NAME)`` meets that fault (`imgkit.backends.offline.faults`);
``(fault once: NAME)``, the first time only. Faults repeat key and organization, as the API does.
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
"""Seconds that the process may take to end."""

FAULT = re.compile(rb"\(fault( once)?: ([a-z_]+)\)")


PRIVATE = {"set-cookie": "session=cookie-CANARY; Path=/", "openai-organization": "org-CANARY"}
"""Headers that are in each reply, and must not be on a cassette."""


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the offline server; http.server honours ``Connection: close`` by itself."""

    protocol_version = "HTTP/1.1"
    server_version = f"imgkit-api-server/{imgkit.__version__}"
    disable_nagle_algorithm = True
    server: Server

    def version_string(self) -> str:
        return self.server_version  # without the version of Python

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
        """Say nothing: the only line on standard output is the base URL."""


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = OfflineServer()
        self._met: set[bytes] = set()

    def fault(self, headers: dict[str, str], body: bytes) -> ServerResponse | None:
        """Return the fault that a request asks for, if there is one left for it."""
        found = FAULT.search(body)
        if found is None or (found[1] and body in self._met):
            return None
        self._met.add(body)
        fault = find_fault(found[2].decode())
        said = json.loads(fault.body)
        who = f"key {headers.get('authorization')}, organization {headers.get('openai-organization')}"
        said["error"]["message"] += f" ({who})"
        content = json.dumps(said).encode()
        return ServerResponse(fault.status, {**fault.headers, "content-length": str(len(content))}, content)


@contextmanager
def running() -> Iterator[str]:
    """Run the server as a process; yields its base URL."""
    command = [sys.executable, "-m", "tests.support.api_server"]
    with child_processes() as children:
        process = children.start(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError(f"the server did not start: {' '.join(command)}")
        yield base_url
        process.stdin.close()
        process.wait(STOP_S)


def main() -> None:
    """Serve until standard input closes."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)  # noqa: T201 - what it is for
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
        server.shutdown()


if __name__ == "__main__":
    main()
