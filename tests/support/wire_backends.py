"""Backends over libraries that vcrpy does not patch or patches in part, and one that cannot be built."""

from __future__ import annotations

import http.client
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

import httpx
import pycurl
import urllib3

from imgkit.backends import BackendOptions, Head, HttpRequest, Transfer
from imgkit.plugins import BackendSpec, hookimpl
from imgkit.testing.wire_server import Line, reply

NAMES = ("urllib3-based", "pycurl-based", "stdlib-based", "httpx-based", "httpx-coroutines")


def fail_when_touched(line: Line) -> None:
    """Reply with an error to a request that should never have come."""
    reply(500, {"error": {"message": "A replay has touched the server."}})(line)


class Built:
    """A base class that counts how often a backend is built.

    Attributes:
        count: number of backends since the test set it to 0.
    """

    count: ClassVar[int] = 0

    def __init__(self, options: BackendOptions) -> None:
        Built.count += 1


class WholeReply:
    """A reply in memory."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.head = Head(status, headers)
        self._chunks = [body]

    def read(self) -> bytes:
        return self._chunks.pop() if self._chunks else b""

    def close(self) -> None:
        self._chunks = []


class Urllib3Backend(Built):
    """A backend over urllib3, without requests."""

    wire_errors = (urllib3.exceptions.HTTPError, OSError)
    unsent_errors = ()

    def open(self, request: HttpRequest, transfer: Transfer) -> WholeReply:
        with urllib3.PoolManager(retries=False) as pool:
            response = pool.request(
                request.method,
                request.url,
                body=b"".join(request.body.blocks()),
                headers=request.wire_headers(),
                redirect=False,
            )
            headers = {name.lower(): value for name, value in response.headers.items()}
            return WholeReply(response.status, headers, response.data)

    def close(self) -> None:
        """Hold nothing open."""


class PycurlBackend(Built):
    """A backend over libcurl, which opens its sockets outside Python."""

    wire_errors = (pycurl.error,)
    unsent_errors = ()

    def open(self, request: HttpRequest, transfer: Transfer) -> WholeReply:
        curl, body, lines = pycurl.Curl(), bytearray(), list[str]()
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(
            pycurl.HTTPHEADER,
            [f"{name}: {value}" for name, value in request.wire_headers().items()] + ["Expect:"],
        )
        if request.method == "POST":
            curl.setopt(pycurl.POSTFIELDS, b"".join(request.body.blocks()))
        curl.setopt(pycurl.WRITEFUNCTION, body.extend)
        curl.setopt(pycurl.HEADERFUNCTION, lambda line: lines.append(line.decode("latin-1")))
        try:
            curl.perform()
            status = curl.getinfo(pycurl.RESPONSE_CODE)
        finally:
            curl.close()
        fields = (line.partition(":") for line in lines[1:] if ":" in line)
        return WholeReply(status, {name.lower(): value.strip() for name, _, value in fields}, bytes(body))

    def close(self) -> None:
        """Hold nothing open."""


class StdlibBackend(Built):
    """A backend over `http.client`, which watches its socket."""

    wire_errors = (OSError, http.client.HTTPException)
    unsent_errors = ()

    def open(self, request: HttpRequest, transfer: Transfer) -> WholeReply:
        parts = urlsplit(request.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        try:
            connection.connect()
            transfer.watch_socket(connection.sock.fileno())
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            body = b"".join(request.body.blocks())
            connection.request(request.method, path, body, request.wire_headers())
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return WholeReply(response.status, headers, response.read())
        finally:
            connection.close()

    def close(self) -> None:
        """Hold nothing open."""


class HttpxBackend(Built):
    """A backend over httpx."""

    wire_errors = (httpx.RequestError,)
    unsent_errors = ()

    def open(self, request: HttpRequest, transfer: Transfer) -> WholeReply:
        with httpx.Client(trust_env=False) as client:
            return to_reply(client.send(to_httpx(request)))

    def close(self) -> None:
        """Hold nothing open."""


class HttpxCoroutines(Built):
    """A backend over the coroutines of httpx."""

    wire_errors = (httpx.RequestError,)
    unsent_errors = ()

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncWholeReply:
        async with httpx.AsyncClient(trust_env=False) as client:
            return AsyncWholeReply(to_reply(await client.send(to_httpx(request))))

    async def aclose(self) -> None:
        """Hold nothing open."""


class AsyncWholeReply:
    """A reply in memory, read by coroutines."""

    def __init__(self, inner: WholeReply) -> None:
        self.head, self._inner = inner.head, inner

    async def read(self) -> bytes:
        return self._inner.read()

    def close(self) -> None:
        self._inner.close()


def to_httpx(request: HttpRequest) -> httpx.Request:
    """Return a request in the form of httpx."""
    content = b"".join(request.body.blocks())
    return httpx.Request(request.method, request.url, content=content, headers=request.wire_headers())


def to_reply(response: httpx.Response) -> WholeReply:
    """Return a response of httpx as a reply."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return WholeReply(response.status_code, headers, response.content)


class UnbuildableBackend:
    """A backend whose library is not installed where the tests run."""

    def __init__(self, options: BackendOptions) -> NoReturn:
        raise ImportError("This backend must not be built.")


class Backends:
    """A plugin that registers the backends of this module."""

    @hookimpl
    def imgkit_backends(self) -> list[BackendSpec]:
        classes: list[Any] = [Urllib3Backend, PycurlBackend, StdlibBackend, HttpxBackend, HttpxCoroutines]
        specs = [
            BackendSpec(
                name=name,
                target=f"{__name__}:{kind.__name__}",
                flavor="async" if hasattr(kind, "aclose") else "sync",
            )
            for name, kind in zip(NAMES, classes, strict=True)
        ]
        unbuildable = BackendSpec(name="unbuildable", target=f"{__name__}:UnbuildableBackend", flavor="sync")
        return [*specs, unbuildable]
