"""HTTP requests, replies and bodies, and the protocols of a backend.

A backend knows bytes and no API. It implements `Backend` or `AsyncBackend`, whichever suits its
library. imgkit runs both kinds under both services.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urljoin

from imgkit.errors import ConfigurationError
from imgkit.redact import HiddenDict, safe_url
from imgkit.wire.headers import REQUEST_ID_HEADERS, clean_request_id
from imgkit.wire.plain_values import show_value
from imgkit.wire.transfer import Transfer
from imgkit.wire.urls import path_and_query

BLOCK_BYTES = 256 * 1024
"""The part of a file that is in memory at a time while it is sent, in bytes."""

PLAIN_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
"""Headers whose values a repr shows."""

WHOLE_BODY_BYTES = 1024 * 1024
"""HTTP libraries get bodies up to this size as `bytes`, and larger bodies block by block."""


class Body(Protocol):
    """The content of a request. It has a known length and is the same each time it is read."""

    @property
    def content_type(self) -> str:
        """The value of the Content-Type header, "" for no header."""

    @property
    def length(self) -> int:
        """The size in bytes."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the content from its beginning, in blocks of at most about `BLOCK_BYTES`."""

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the content. Only the first use reads the content."""


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body in memory.

    Example::

        >>> BytesBody(b'{"prompt": "a fox"}', "application/json").length
        19

    Attributes:
        data: the content.
        content_type: the value of the Content-Type header, "" for no header.
    """

    data: bytes = b""
    content_type: str = ""
    _sha256: str = field(default="", init=False, repr=False, compare=False)

    @property
    def length(self) -> int:
        """The size in bytes."""
        return len(self.data)

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the content. Only the first use computes it."""
        if not self._sha256:
            object.__setattr__(self, "_sha256", hash_blocks(self))
        return self._sha256

    def blocks(self) -> Iterator[bytes]:
        """Yield the content as a single block."""
        if self.data:
            yield self.data

    def __repr__(self) -> str:
        return f"BytesBody({self.content_type or 'nothing'}, {self.length} bytes)"


def hash_body(body: Body) -> str:
    """Return the SHA-256 of a body, also of a plugin's body that lacks `Body.sha256`."""
    return body.sha256() if hasattr(body, "sha256") else hash_blocks(body)


def hash_blocks(body: Body) -> str:
    """Return the hexadecimal SHA-256 of the content of a body, which it reads block by block."""
    digest = hashlib.sha256()
    for block in body.blocks():
        digest.update(block)
    return digest.hexdigest()


class SizedBlocks:
    """A body as an iterable with a length, which HTTP libraries send block by block.

    Args:
        body: the body to iterate over. Each iteration starts at its beginning.
    """

    def __init__(self, body: Body) -> None:
        self._body = body

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        return self._body.blocks()


def whole_or_blocks(body: Body) -> bytes | SizedBlocks:
    """Return a small body as `bytes`, and a large body as an iterable of blocks with a length."""
    return b"".join(body.blocks()) if body.length <= WHOLE_BODY_BYTES else SizedBlocks(body)


def _hide_values(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for a repr: only `PLAIN_HEADERS` keep their values."""
    return {name: value if name in PLAIN_HEADERS else "…" for name, value in headers.items()}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A complete HTTP request. A backend adds nothing that changes its meaning.

    Example::

        >>> request = HttpRequest("POST", "https://api.example/v1", body=BytesBody(b"{}"))
        >>> request.wire_headers()["content-length"]
        '2'

    Attributes:
        method: "POST", "PUT", "GET" or "DELETE". Only the first two send their body.
        url: the absolute URL, already quoted. Its bytes may be signed, so a backend keeps them.
        headers: values by lower-case name, read-only. Content-Type and Content-Length come from the
            body.
        body: the content.
        public_peer_only: refuse a peer outside the public internet before sending a byte
            (`imgkit.wire.addresses.is_public`).
        secret_headers: names of the headers that signing has set. No repr or log shows their values.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    body: Body = BytesBody()
    public_peer_only: bool = False
    secret_headers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        # A copy that nobody can change: a hook must return another request, which imgkit checks.
        if isinstance(self.headers, Mapping):
            object.__setattr__(self, "headers", MappingProxyType(HiddenDict(self.headers)))

    @property
    def sends_body(self) -> bool:
        """Whether the method sends the body."""
        return self.method in ("POST", "PUT")

    @property
    def path_and_query(self) -> str:
        """Path and query of the URL, byte for byte."""
        return path_and_query(self.url)

    def wire_headers(self) -> dict[str, str]:
        """Return all headers to send, including the headers of the body. The repr hides their values."""
        headers = HiddenDict(self.headers)
        if self.sends_body:
            if self.body.content_type:
                headers["content-type"] = self.body.content_type
            headers["content-length"] = str(self.body.length)
        return headers

    def with_headers(
        self, headers: Mapping[str, str], secret_headers: frozenset[str] | None = None
    ) -> HttpRequest:
        """Return the same request with other headers.

        Each call makes some of these copies, and `dataclasses.replace` takes longer.

        Args:
            headers: all headers, by lower-case name.
            secret_headers: names of the headers that signing has set. None keeps the names.
        """
        secret = self.secret_headers if secret_headers is None else secret_headers
        return HttpRequest(self.method, self.url, headers, self.body, self.public_peer_only, secret)

    def __repr__(self) -> str:
        # The path of a result URL may grant access.
        place = safe_url(self.url if self.sends_body else f"{urljoin(self.url, '/')}…")
        return (
            f"HttpRequest({self.method} {place}, {_hide_values(self.headers)}, "
            f"{self.body.content_type or 'no body'}, {self.body.length} bytes)"
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The status and the headers of a reply.

    Example::

        >>> Head(200, {"x-request-id": "req_1"}).request_id
        'req_1'

    Attributes:
        status: HTTP status.
        headers: values by lower-case name; the values of a repeated header are joined by ", ".
    """

    status: int
    headers: Mapping[str, str]

    @property
    def request_id(self) -> str | None:
        """The API's id of the call: `x-request-id`, or the header of Azure, AWS, fal or Comfy Router.

        It is one line of at most `imgkit.wire.headers.REQUEST_ID_LIMIT` characters.
        """
        found = (self.headers.get(name) for name in REQUEST_ID_HEADERS)
        return clean_request_id(next(filter(None, found), None))

    def __repr__(self) -> str:
        return f"Head({self.status}, {_hide_values(self.headers)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """The options that a service passes to the constructor of its backend.

    Example::

        >>> BackendOptions(reuse_connections=True).max_in_flight
        256

    Attributes:
        proxy: URL of the proxy for the API host, None for a direct connection. It may hold a name and
            a password, which go to the proxy alone.
        ca: path of a PEM file or folder, or an `ssl.SSLContext`; None for certifi's bundle.
            `imgkit.backends.tls_context` takes any of them.
        reuse_connections: keep connections open, idle for up to 1.5 seconds. By default each request opens
            a connection, because a stale one can leave the fate of a paid request unknown.
        max_in_flight: number of requests that the service sends at once.
        client_options: options of this backend alone, as the caller gave them.
        make_fake: for the offline backend: makes the provider's own fake, None for OpenAI's dialect.
    """

    proxy: str | None = field(default=None, repr=False)
    ca: Any = None
    reuse_connections: bool = False
    max_in_flight: int = 256
    client_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    make_fake: Callable[..., Any] | None = field(default=None, repr=False)

    def refuse_unknown(self, backend: str, known: frozenset[str] = frozenset()) -> None:
        """Raise if the caller gave client options that a backend does not know.

        Example::

            >>> BackendOptions(client_options={"http2": True}).refuse_unknown("mine", frozenset({"http2"}))

        Args:
            backend: name of the backend, for the message.
            known: names of the client options that the backend knows.

        Raises:
            ConfigurationError: an option is unknown. The message names it.
        """
        unknown = sorted(show_value(name)[1:-1] for name in self.client_options if name not in known)
        if unknown:
            remedy = f"It knows: {', '.join(sorted(known))}." if known else "It has no client options."
            raise ConfigurationError(
                f"client_options: {backend} does not know {', '.join(unknown)}. {remedy}"
            )


class Reply(Protocol):
    """An open reply of a synchronous backend."""

    head: Head

    def read(self) -> bytes:
        """Return the next bytes as soon as some have arrived; b"" at the end."""

    def close(self) -> None:
        """Drop the rest of the reply. Idempotent; never raises; never waits."""


class AsyncReply(Protocol):
    """An open reply of an asynchronous backend."""

    head: Head

    async def read(self) -> bytes:
        """Return the next bytes as soon as some have arrived; b"" at the end."""

    def close(self) -> None:
        """Drop the rest of the reply. Idempotent; never raises; never waits."""


@runtime_checkable
class Backend(Protocol):
    """A transport with blocking calls. Many threads use it at once.

    Example::

        class HelloReply:
            def __init__(self):
                self.head = Head(200, {})
                self._chunks = [b'{"data": []}']

            def read(self):
                return self._chunks.pop() if self._chunks else b""

            def close(self):
                pass


        class HelloBackend:
            wire_errors = (OSError,)
            unsent_errors = (ConnectionRefusedError,)
            capabilities = frozenset({"unsent"})

            def open(self, request, transfer):
                return HelloReply()

            def close(self):
                pass

    Attributes:
        wire_errors: the library's exceptions that leave `open` and `read`. imgkit turns them into an
            `imgkit.OutcomeUnknownError`.
        unsent_errors: the errors among them that prove that no byte of the request left. imgkit
            turns them into an `imgkit.NotSentError`.
        capabilities: optional; the keys of `imgkit.backends.CAPABILITIES` that hold for the class, none
            by default.
    """

    wire_errors: tuple[type[Exception], ...]
    unsent_errors: tuple[type[Exception], ...]

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Send `request` and return as soon as the head of the reply has arrived.

        The backend follows no redirect, sends no cookie, reads no environment and repeats nothing.
        It limits connecting to ``transfer.connect_timeout_s()`` and silence to
        ``transfer.read_timeout_s``. It registers everything that blocks with `transfer`.

        Args:
            request: the complete request.
            transfer: time limits and abort switch of the request.

        Raises:
            Exception: one of `wire_errors`. Any other exception counts as a bug of the backend.
        """

    def close(self) -> None:
        """Close every connection. Idempotent."""


@runtime_checkable
class ForkAware(Protocol):
    """A backend that can go on in a forked child."""

    def after_fork(self) -> None:
        """Drop the parent's connections in a forked child, without a word to their peers."""


@runtime_checkable
class AsyncBackend(Protocol):
    """A transport with coroutines. Many tasks of one event loop use it at once.

    `Backend` has an example; here ``open`` and the reply's ``read`` are coroutines, and ``aclose``
    takes the place of ``close``.

    Attributes:
        wire_errors, unsent_errors, capabilities: as in `Backend`.
    """

    wire_errors: tuple[type[Exception], ...]
    unsent_errors: tuple[type[Exception], ...]

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncReply:
        """Send `request` as `Backend.open` does. Cancelling the task aborts the request."""

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""


def announces_events(head: Head) -> bool:
    """Return whether the Content-Type of a reply announces server-sent events."""
    return head.headers.get("content-type", "").lstrip().lower().startswith("text/event-stream")
