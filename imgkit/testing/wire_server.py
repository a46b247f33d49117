"""A scripted HTTP server on loopback for tests: exact bytes, faults, slow replies.

A script is a function of a `Line`, the accepted connection. The server calls it after it has read the
request. `reply`, `raw`, `drop`, `reset`, `hang`, `tunnel` and `drip` return or are scripts.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Self

from imgkit.providers.fakes import FakeApi, FakeRequest

_CERTIFICATES = Path(__file__).with_name("certificates")

CA_FILE = _CERTIFICATES / "ca.pem"
"""The certificate authority of `server_tls`. Trust it in a test: ``BackendOptions(ca=CA_FILE)``."""

Script = Callable[["Line"], None]


class Line:
    """An accepted connection and its request.

    A script of your own receives a `Line`::

        def script(line):
            line.send(head(200, {"content-length": "2"}) + b"{}")

    Attributes:
        connection: The socket.
        closing: Event that the server sets when it closes.
        head, body: Head and body of the request, as bytes.
    """

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.connection = connection
        self.closing = closing
        self.head = b""
        self.body = b""

    def send(self, data: bytes) -> None:
        """Send the bytes."""
        self.connection.sendall(data)

    def wait(self, wait_s: float) -> bool:
        """Wait for `wait_s` seconds or until the server closes; return True if the server closes."""
        return self.closing.wait(wait_s)

    def until_client_leaves(self) -> None:
        """Read and discard data until the client disconnects or the server closes."""
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
        """Make the next close send RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def read_request(self) -> bool:
        """Read the next request; return False if the client has disconnected."""
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
        """Method, target and HTTP version of the request."""
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """The request headers, by lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class WireServer:
    """A server that runs a script per connection; the last script also serves all further connections.

    >>> import imgkit
    >>> with WireServer(reply(500, {"error": {"message": "no", "code": "server_error"}})) as server:
    ...     with imgkit.ImageService("requests", base_url=server.base_url, retry=False) as service:
    ...         try:
    ...             service.create_image("a fox")
    ...         except imgkit.ServerError as error:
    ...             print(error.status, server.posts)
    500 1

    Args:
        scripts: Scripts, in the order of the connections.
        tls: True for https with the kit's certificate (`CA_FILE`), or an `ssl.SSLContext`.
        read_first: Read the request before the script runs.

    Attributes:
        lines: Connections that sent a request, in order.
        accepted: Number of accepted connections.
        port: Port that the operating system chose.
    """

    def __init__(self, *scripts: Script, tls: bool | ssl.SSLContext = False, read_first: bool = True) -> None:
        self._scripts = list(scripts)
        self._tls = server_tls() if tls is True else tls
        self._read_first = read_first
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.lines: list[Line] = []
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._accept_thread = threading.Thread(target=self._accept, daemon=True)
        self._accept_thread.start()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the server."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The ``base_url`` to pass to a service."""
        return f"{self.origin}/v1"

    def assert_consumed(self) -> None:
        """Fail unless every script has had a connection."""
        assert self.accepted >= len(self._scripts), (
            f"{len(self._scripts) - self.accepted} of {len(self._scripts)} scripts had no connection."
        )

    @property
    def posts(self) -> int:
        """Number of POST requests received."""
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
            # Some tests make the client disconnect.
            pass
        finally:
            connection.close()

    def close(self) -> None:
        """Close the server and wait for its threads, at most 5 s each."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accept_thread.join(5)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@cache
def server_tls(host: str = "localhost") -> ssl.SSLContext:
    """Return the TLS settings of a server, with a certificate that `CA_FILE` has signed.

    Args:
        host: "localhost", for 127.0.0.1 and ::1 too; or "elsewhere", for elsewhere.invalid alone.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATES / f"{host}.pem")
    return context


def head(status: int, headers: dict[str, str]) -> bytes:
    r"""Return the head of a reply as bytes.

    >>> head(200, {"content-length": "0"})
    b'HTTP/1.1 200 Status\r\ncontent-length: 0\r\n\r\n'
    """
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(status: int = 200, body: Any = b"", **headers: str) -> Script:
    """Return a script that sends a complete reply and closes the connection.

    ::

        with WireServer(reply(429, {"error": {"message": "slow down"}}, retry_after="1")) as server:
            ...

    Args:
        status: HTTP status.
        body: Bytes, or a JSON value.
        headers: Further headers; underscores in their names become hyphens.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    merged = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-request-id": "req_test",
        "connection": "close",
        **more,
    }
    return lambda line: line.send(head(status, merged) + content)


def raw(data: bytes) -> Script:
    """Return a script that sends the bytes and closes the connection."""
    return lambda line: line.send(data)


def drop(line: Line) -> None:
    """Close the connection after the request, without a reply."""


def reset(line: Line) -> None:
    """Reset the connection after the request."""
    line.reset()


def hang(line: Line) -> None:
    """Read the request and stay silent until the client disconnects."""
    line.until_client_leaves()


def tunnel(line: Line) -> None:
    """Serve a CONNECT request as a proxy does: relay bytes between client and target until either leaves."""
    host, _, port = line.request_line.split(" ")[1].rpartition(":")
    with socket.create_connection((host, int(port))) as target:
        line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peers = {line.connection: target, target: line.connection}
        while not line.closing.is_set():
            readable, _, _ = select.select(list(peers), [], [], 0.02)
            for source in readable:
                data = _receive_available(source)
                if not data:
                    return
                peers[source].sendall(data)


def _receive_available(sock: socket.socket) -> bytes:
    """Return the bytes that have arrived, including those that TLS has already decrypted."""
    data = sock.recv(65536)
    while isinstance(sock, ssl.SSLSocket) and sock.pending():
        data += sock.recv(sock.pending())
    return data


def drip(data: bytes, first: bytes = b"", every_s: float = 0.02) -> Script:
    """Return a script that sends `first` at once and then `data` byte by byte.

    Args:
        data: Bytes to send slowly.
        first: Bytes to send at once.
        every_s: Pause after each byte, in seconds.
    """

    def script(line: Line) -> None:
        line.send(first)
        for byte in data:
            line.send(bytes([byte]))
            if line.wait(every_s):
                return
        line.until_client_leaves()

    return script


def serve_fake(fake: FakeApi) -> WireServer:
    """Return a server that answers with a fake. Use it as a context manager.

    ::

        fake = BflProvider.fake("lost_poll")
        with serve_fake(fake) as server:
            with ImageService("requests", provider="bfl", base_url=server.base_url) as images:
                images.create_image("a red fox")
        assert fake.count["POST /v1/flux-2-pro"] == 1

    Args:
        fake: such as ``BflProvider.fake()``.
    """

    def script(line: Line) -> None:
        method, target, _ = line.request_line.split(" ")
        lines = line.head.decode("latin-1").split("\r\n")[1:]
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
        }
        url = f"http://{headers.get('host', '127.0.0.1')}{target}"
        answer = fake.answer(FakeRequest(method, url, headers, line.body))
        if answer.status == 0:
            return
        merged = {"content-length": str(len(answer.body)), "connection": "close", **answer.headers}
        line.send(head(answer.status, merged) + answer.body)

    return WireServer(script)
