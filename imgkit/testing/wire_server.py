"""A server on loopback that follows scripts, byte by byte, one connection after another.

A script is a function that gets a `Line`, the connection, after the request has been read. `reply`, `raw`,
`drop`, `reset`, `hang` and `drip` make scripts; `WireServer` counts what came::

    with WireServer(reply(500, {"error": {"message": "no"}}), reply(200, answer)) as server:
        ...
    assert server.posts == 2
    server.assert_consumed()
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

Script = Callable[["Line"], None]


class Line:
    """One accepted connection, and the request that was read from it.

    Attributes:
        connection: the socket.
        closing: set when the server is closing.
        head, body: of the request.
    """

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.connection = connection
        self.closing = closing
        self.head = b""
        self.body = b""

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.connection.sendall(data)

    def wait(self, wait_s: float) -> bool:
        """Wait; True if the server is closing."""
        return self.closing.wait(wait_s)

    def until_client_leaves(self) -> None:
        """Read and throw away until the client hangs up, or the server closes."""
        self.connection.settimeout(0.02)
        while not self.closing.is_set():
            try:
                if not self.connection.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def read_request(self) -> bool:
        """Read one request; return False if the client has left."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.connection.recv(65536)
            if not chunk:
                return False
            data += chunk
        self.head, _, rest = data.partition(b"\r\n\r\n")
        length = int(self.headers.get("content-length", "0"))
        parts = [rest]
        missing = length - len(rest)
        while missing > 0:
            chunk = self.connection.recv(1 << 20)
            if not chunk:
                break
            parts.append(chunk)
            missing -= len(chunk)
        self.body = b"".join(parts)
        return True

    @property
    def request_line(self) -> str:
        """Method, target and version."""
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, by lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class WireServer:
    """Each connection gets the next script; the last one is used for all that follow.

    Args:
        scripts: what to do with connections.
        tls: an `ssl.SSLContext` with a certificate, for https.
        read_first: read the request before its script begins.

    Attributes:
        lines: the connections that brought a request, in order.
        accepted: how many connections there were.
        port: picked by the system.
    """

    def __init__(self, *scripts: Script, tls: Any = None, read_first: bool = True) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self._read_first = read_first
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.lines: list[Line] = []
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What a service takes as its ``base_url``."""
        return f"{self.origin}/v1"

    def assert_consumed(self) -> None:
        """Fail unless every script has had its connection."""
        assert self.accepted >= len(self._scripts), (
            f"{len(self._scripts) - self.accepted} of {len(self._scripts)} scripts were never asked for"
        )

    @property
    def posts(self) -> int:
        """How many POST requests came."""
        return sum(line.request_line.startswith("POST ") for line in self.lines)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
                self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(connection, script), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, script: Script) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            line = Line(connection, self._closing)
            if self._read_first:
                if not line.read_request():
                    return
                with self._lock:
                    self.lines.append(line)
            script(line)
        except OSError:
            pass  # the client went away, as some tests want it to
        finally:
            connection.close()

    def close(self) -> None:
        """Stop, and wait for the scripts to end."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def head(status: int, headers: dict[str, str]) -> bytes:
    """Return the head of a reply as bytes."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(status: int = 200, body: Any = b"", **headers: str) -> Script:
    """Answer; `body` is bytes or a JSON value."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    whole = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-request-id": "req_test",
        "connection": "close",
        **named,
    }
    return lambda line: line.send(head(status, whole) + content)


def raw(data: bytes) -> Script:
    """Send these bytes and close."""
    return lambda line: line.send(data)


def drop(line: Line) -> None:
    """Close after the request, without a word."""


def reset(line: Line) -> None:
    """Reset the connection after the request."""
    line.reset()


def hang(line: Line) -> None:
    """Read the request and stay silent until the client leaves."""
    line.until_client_leaves()


def drip(data: bytes, first: bytes = b"", every_s: float = 0.02) -> Script:
    """Send `first` at once and `data` one byte at a time, for ever slow."""

    def script(line: Line) -> None:
        line.send(first)
        for byte in data:
            line.send(bytes([byte]))
            if line.wait(every_s):
                return
        line.until_client_leaves()

    return script
