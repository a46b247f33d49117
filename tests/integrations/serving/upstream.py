"""An Images API on loopback that counts paid requests, and fails in each way."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from imgkit.backends.offline.server import OfflineServer, ServerResponse

Answer = Callable[["UpstreamHandler"], None]
"""A way to answer a request."""

PAGE = b"<html><h1>Bad gateway</h1></html>"


class UpstreamHandler(BaseHTTPRequestHandler):
    """A connection to the API. It counts a POST request as soon as its head has arrived."""

    protocol_version = "HTTP/1.1"
    server: UpstreamServer

    def do_POST(self) -> None:
        answer = self.server.owner.count(self.path)
        answer(self)

    def do_GET(self) -> None:
        paint(self)

    def read_body(self) -> bytes:
        """Return the body of the request."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        """Send a reply, whose head may claim another length."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def end(self) -> None:
        """Close the connection at once."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


class UpstreamServer(ThreadingHTTPServer):
    """The listener of an `Upstream`."""

    daemon_threads = True
    request_queue_size = 128
    owner: Upstream

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Expect clients that leave."""


class Upstream:
    """The API. Use it as a context manager.

    Attributes:
        paths: the paths of the POST requests that have arrived.
        body: the body of the last request that was painted.
        answer: the way in which it answers from now on.
        base_url: the address of its API.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.paths: list[str] = []
        self.answer: Answer = paint
        self.body = b""
        self.painter = OfflineServer()
        self._server = UpstreamServer(("127.0.0.1", 0), UpstreamHandler)
        self._server.owner = self
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def count(self, path: str) -> Answer:
        """Count a request; return the way to answer it."""
        with self._guard:
            self.paths.append(path)
            return self.answer

    @property
    def posts(self) -> int:
        """Number of POST requests that have arrived."""
        with self._guard:
            return len(self.paths)

    def wait_for_post(self, timeout_s: float = 60) -> None:
        """Wait until a POST request has arrived."""
        until = time.monotonic() + timeout_s
        while not self.posts:
            assert time.monotonic() < until, "No request has arrived."
            time.sleep(0.02)

    @contextmanager
    def failing(self, answer: Answer) -> Iterator[None]:
        """Count from zero, and answer in another way within the block."""
        with self._guard:
            self.paths.clear()
            self.answer = answer
        try:
            yield
        finally:
            with self._guard:
                self.answer = paint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def paint(handler: UpstreamHandler) -> None:
    """Answer with a painted image, as an Images API does."""
    reply = build_reply(handler)
    more = {name: value for name, value in reply.headers.items() if name != "content-length"}
    handler.send(reply.status, more, reply.body)


def build_reply(handler: UpstreamHandler) -> ServerResponse:
    """Read the request, and return the painted reply."""
    owner, body = handler.server.owner, handler.read_body()
    owner.body = body
    headers = {name.lower(): value for name, value in handler.headers.items()}
    return owner.painter.handle_request(
        handler.command, f"http://{headers['host']}{handler.path}", headers, body
    )


def refuse(status: int, code: str | None, *, type: str = "invalid_request_error", **headers: str) -> Answer:
    """Return an answer with the API's own error object.

    Args:
        status: HTTP status.
        code, type: fields of the error.
        headers: further headers; underscores in their names become hyphens.
    """
    error: dict[str, object] = {"message": f"Simulated: {code or status}.", "type": type, "param": None}
    error["code"] = code
    if code == "moderation_blocked":
        error["moderation_details"] = {"moderation_stage": "input", "categories": ["violence"]}
    body = json.dumps({"error": error}).encode()
    merged = {"content-type": "application/json", "x-request-id": "req_upstream"}
    merged |= {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(handler: UpstreamHandler) -> None:
        handler.read_body()
        handler.send(status, merged, body)

    return answer


def show_page(status: int) -> Answer:
    """Return an answer of a gateway: a web page."""

    def answer(handler: UpstreamHandler) -> None:
        handler.read_body()
        handler.send(status, {"content-type": "text/html"}, PAGE)

    return answer


def reply_with(body: bytes) -> Answer:
    """Return an answer of status 200 with these bytes."""

    def answer(handler: UpstreamHandler) -> None:
        handler.read_body()
        handler.send(200, {"content-type": "application/json"}, body)

    return answer


def drop_unread(handler: UpstreamHandler) -> None:
    """Close the connection before the body is read."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.close_connection = True
    handler.connection.close()


def drop(handler: UpstreamHandler) -> None:
    """Read the request, and close the connection without a reply."""
    handler.read_body()
    handler.end()


def cut(handler: UpstreamHandler) -> None:
    """Close the connection in the midst of the reply."""
    handler.read_body()
    handler.send(200, {"content-type": "application/json"}, b'{"created": 1, "data": [{"b64_', 4000)
    handler.end()


def cut_stream(handler: UpstreamHandler) -> None:
    """Close the connection within a stream, after a partial image."""
    body = build_reply(handler).body
    first, separator, _ = body.partition(b"\n\n")
    handler.send(200, {"content-type": "text/event-stream"}, first + separator + b"data: {", len(body))
    handler.end()


def stream_until_seen(file: Path) -> Answer:
    """Return an answer that sends a partial image, and its other events once the client has made a file."""

    def answer(handler: UpstreamHandler) -> None:
        body = build_reply(handler).body
        first, separator, rest = body.partition(b"\n\n")
        handler.send(200, {"content-type": "text/event-stream"}, first + separator, len(body))
        until = time.monotonic() + 20
        while not file.exists():
            if time.monotonic() > until:
                handler.end()
                return
            time.sleep(0.02)
        handler.wfile.write(rest)

    return answer


def hold_until(released: threading.Event) -> Answer:
    """Return an answer that paints the image when the event is set."""

    def answer(handler: UpstreamHandler) -> None:
        released.wait(30)
        paint(handler)

    return answer
