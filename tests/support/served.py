"""A server of the test's process, and plain HTTP clients for it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imgkit.server.served_service import ServedService
from imgkit.server.settings import ServerSettings
from imgkit.server.thread import ServerThread
from tests.support.wire_server import Script, WireServer

SETTINGS = ServerSettings(port=0, stop_s=0.5)
GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


class Received(NamedTuple):
    """A reply as a client sees it.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        body: the whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The JSON value."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of the envelope."""
        error: dict[str, Any] = self.json["error"]
        return error


def send(
    server: ServerThread,
    path: str,
    body: object = None,
    *,
    method: str | None = None,
    **headers: str,
) -> Received:
    """Send a request; a mapping is sent as JSON, bytes as they are."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"content-type": "application/json"} if data is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    parts = urlsplit(server.address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, given)
        reply = connection.getresponse()
        names = {name.lower(): value for name, value in reply.getheaders()}
        return Received(reply.status, names, reply.read())
    finally:
        connection.close()


def exchange(server: ServerThread, data: bytes, *, ends: bool = False) -> bytes:
    """Send bytes as they are, with the server's own host for ``{H}``; return all that comes back.

    Args:
        server: the server.
        data: the bytes, with a request that ends the connection.
        ends: send no more afterwards, and say so.
    """
    with open_socket(server) as connection:
        connection.sendall(data.replace(b"{H}", server.address.removeprefix("http://").encode()))
        if ends:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def open_socket(server: ServerThread) -> socket.socket:
    """Return a connection to a server."""
    parts = urlsplit(server.address)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes a connection."""
    received = b""
    with suppress(ConnectionError):
        while block := connection.recv(65536):
            received += block
    return received


def request_bytes(method: str, target: str, *headers: str, body: bytes = b"", host: str = "{H}") -> bytes:
    """Return a request that ends its connection."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1") + body


def find_status(received: bytes) -> int:
    """Return the status of a reply, 0 for none."""
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else 0


def find_error(received: bytes) -> dict[str, Any]:
    """Return the error of a reply's envelope."""
    error: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    return error


def form(**parts: object) -> tuple[bytes, str]:
    """Return a form and its content type: texts as they are, bytes as files, lists as several files."""
    boundary, lines = "imgkit-test-boundary", []
    for name, value in parts.items():
        for number, each in enumerate(value if isinstance(value, list) else [value]):
            field = f"{name}[]" if isinstance(value, list) else name
            file = f'; filename="../../{number}.png"' if isinstance(each, bytes) else ""
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n'
            head += "Content-Type: image/png\r\n\r\n" if isinstance(each, bytes) else "\r\n"
            lines.append(head.encode() + (each if isinstance(each, bytes) else str(each).encode()) + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def serve_offline(folder: Path, settings: ServerSettings = SETTINGS) -> ServerThread:
    """Return a server that paints offline."""
    return ServerThread(settings, partial(ServedService, "offline", state_folder=folder))


@contextmanager
def serve_before(
    folder: Path, *scripts: Script, settings: ServerSettings = SETTINGS, **arguments: object
) -> Iterator[tuple[ServerThread, WireServer]]:
    """Run a server in front of a scripted API; the API counts the paid requests."""
    given: dict[str, Any] = {"retry": False, **arguments}
    with WireServer(*scripts) as api:
        make_service = partial(
            ServedService,
            backend="aiohttp",
            base_url=api.base_url,
            api_key="sk-upstream-0123456789abcdef",
            model="gpt-image-2",
            state_folder=folder,
            **given,
        )
        with ServerThread(settings, make_service) as server:
            yield server, api
