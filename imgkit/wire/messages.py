"""What travels: requests, replies, bodies, and what a backend is.

A backend knows bytes and no API. It implements one of the two protocols below, in the colour that
its library has; imgkit runs either colour under either service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

from imgkit.errors import ConfigurationError
from imgkit.redact import safe_headers, safe_url
from imgkit.wire.transfer import Transfer

BLOCK_BYTES = 256 * 1024
"""How much of a file is in memory at a time while it is sent."""

WHOLE_BODY_BYTES = 1024 * 1024
"""Bodies up to this size go to the HTTP library as one `bytes`, larger ones block by block."""


class Body(Protocol):
    """The content of a request: of known length, and the same each time it is read."""

    @property
    def content_type(self) -> str:
        """Value of the Content-Type header, "" for none."""

    @property
    def length(self) -> int:
        """Size in bytes."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the content from its beginning, in pieces of at most about `BLOCK_BYTES`."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body that is in memory already."""

    data: bytes = b""
    content_type: str = ""

    @property
    def length(self) -> int:
        """Size in bytes."""
        return len(self.data)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content, whole."""
        if self.data:
            yield self.data

    def __repr__(self) -> str:
        return f"BytesBody({self.content_type or 'nothing'}, {self.length} bytes)"


class SizedBlocks:
    """A body as an iterable with a length, which HTTP libraries send block by block."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        return self._body.blocks()


def whole_or_blocks(body: Body) -> bytes | SizedBlocks:
    """Return a small body as one `bytes`, a large one as an iterable of blocks with a length."""
    return b"".join(body.blocks()) if body.length <= WHOLE_BODY_BYTES else SizedBlocks(body)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request, complete: a backend adds nothing that changes its meaning.

    Attributes:
        method: "POST" or "GET".
        url: absolute, already quoted.
        headers: by lower-case name. Content-Type and Content-Length come from the body.
        body: the content.
        public_peer_only: refuse, before a byte is sent, a peer whose address is not globally
            routable (`imgkit.wire.addresses.is_public`).
        secret_headers: names of the headers that signing has set; their values are never shown.
    """

    method: Literal["GET", "POST"]
    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    body: Body = BytesBody()
    public_peer_only: bool = False
    secret_headers: frozenset[str] = frozenset()

    def wire_headers(self) -> dict[str, str]:
        """Return all headers as they are sent, those of the body included."""
        headers = dict(self.headers)
        if self.method == "POST":
            if self.body.content_type:
                headers["content-type"] = self.body.content_type
            headers["content-length"] = str(self.body.length)
        return headers

    def with_headers(
        self, headers: Mapping[str, str], secret_headers: frozenset[str] | None = None
    ) -> HttpRequest:
        """Return the same request with other headers.

        Each call has some of these made, and `dataclasses.replace` takes longer.

        Args:
            headers: all of them, by lower-case name.
            secret_headers: names of those that signing has set; as they were if None.
        """
        secret = self.secret_headers if secret_headers is None else secret_headers
        return HttpRequest(self.method, self.url, headers, self.body, self.public_peer_only, secret)

    def __repr__(self) -> str:
        headers = safe_headers(self.headers, self.secret_headers)
        return (
            f"HttpRequest({self.method} {safe_url(self.url)}, {headers}, "
            f"{self.body.content_type or 'no body'}, {self.body.length} bytes)"
        )


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a reply.

    Attributes:
        status: HTTP status.
        headers: by lower-case name; repeated ones joined by ", ".
    """

    status: int
    headers: Mapping[str, str]

    @property
    def request_id(self) -> str | None:
        """The API's id of the call: `x-request-id`, or Azure's `apim-request-id`."""
        return self.headers.get("x-request-id") or self.headers.get("apim-request-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """What every backend is built with.

    Attributes:
        proxy: URL of the proxy for the API host, None for a direct connection.
        ca: path of a PEM file or folder, or an `ssl.SSLContext`; None for certifi's bundle.
        reuse_connections: keep connections open. Otherwise each request has one of its own, so that a
            stale kept-alive connection can not leave the fate of a paid request unknown.
        max_in_flight: how many requests the service sends at once.
        client_options: what only this backend understands, as the caller gave it.
    """

    proxy: str | None = field(default=None, repr=False)
    ca: Any = None
    reuse_connections: bool = False
    max_in_flight: int = 256
    client_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def refuse_unknown(self, backend: str, known: frozenset[str] = frozenset()) -> None:
        """Refuse client options that a backend does not know.

        Raises:
            ConfigurationError: naming them.
        """
        unknown = sorted(str(name) for name in self.client_options if name not in known)
        if unknown:
            there = f"it knows {', '.join(sorted(known))}" if known else "it has none"
            raise ConfigurationError(f"client_options: {backend} knows no {', '.join(unknown)}; {there}")


class Reply(Protocol):
    """An open reply of a synchronous backend."""

    head: Head

    def read(self) -> bytes:
        """Return what has arrived next, as soon as something has; b"" at the end."""

    def close(self) -> None:
        """Give up what is left. Idempotent; never raises; never waits."""


class AsyncReply(Protocol):
    """An open reply of an asynchronous backend."""

    head: Head

    async def read(self) -> bytes:
        """Return what has arrived next, as soon as something has; b"" at the end."""

    def close(self) -> None:
        """Give up what is left. Idempotent; never raises; never waits."""


@runtime_checkable
class Backend(Protocol):
    """A transport with blocking calls, used from many threads at once.

    Attributes:
        errors: the library's exceptions that leave `open` and `read`; they become outcomes.
        unsent_errors: those of them that prove that no byte of the request left.
    """

    errors: tuple[type[Exception], ...]
    unsent_errors: tuple[type[Exception], ...]

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Send `request` and return as soon as the head of the reply is there.

        Follows no redirect, sends no cookie, reads no environment, repeats nothing. Bounds
        connecting by ``transfer.connect_timeout_s()`` and silence by ``transfer.read_timeout_s``,
        and gives `transfer` a way to abort what blocks.
        """

    def close(self) -> None:
        """Close every connection. Idempotent."""


@runtime_checkable
class AsyncBackend(Protocol):
    """A transport with coroutines, used from many tasks of one event loop.

    Attributes:
        errors, unsent_errors: as in `Backend`.
    """

    errors: tuple[type[Exception], ...]
    unsent_errors: tuple[type[Exception], ...]

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncReply:
        """As `Backend.open`; cancelling the task aborts the request."""

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
