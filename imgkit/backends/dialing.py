"""Connections for http.client: a deadline can end them, their peer is checked, their heads are complete."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

from imgkit.errors import DownloadBlockedError
from imgkit.wire.addresses import BLOCKED_HINT, NOT_PUBLIC, is_public
from imgkit.wire.transfer import Transfer

SEND_GAP_S = 30.0
"""Maximum seconds per block of an upload; the connect timeout is too short for it."""

SMALL_BODY_BYTES = 16 * 1024
"""Maximum size of a body that leaves in the same packet as its head."""

_INTERIM_STATUSES = frozenset(range(102, 200))

SocketAddress: TypeAlias = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""An address of a host, as `socket.getaddrinfo` returns it."""

open_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All open sockets, for a forked child to close."""


def dial(
    host: str,
    port: int,
    timeout_s: float,
    transfer: Transfer | None,
    *,
    public_only: bool = False,
    options: Iterable[tuple[int, int, int | bytes]] = (),
) -> socket.socket:
    """Connect to the first address of a host that accepts, within a single timeout.

    Args:
        host: name or address, without brackets.
        port: the port.
        timeout_s: seconds for all addresses together.
        transfer: watches the socket, None for no transfer.
        public_only: whether to refuse addresses outside the public internet.
        options: level, name and value of further options of the socket.

    Raises:
        DownloadBlockedError: an address is not public, but must be.
        socket.gaierror: the name is unknown, or the name server did not answer in time.
        OSError: no address accepted.
    """
    deadline = time.monotonic() + timeout_s
    last_error: OSError = OSError("the name has no addresses")
    addresses = _resolve_host(host, port, deadline)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        if public_only and not is_public(str(address[0])):
            if transfer is not None:
                transfer.mark_unsent()
            raise DownloadBlockedError(f"{host} is not fetched: {NOT_PUBLIC}.", hint=BLOCKED_HINT)
        sock = socket.socket(family, kind, protocol)
        try:
            for option in (*options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)):
                sock.setsockopt(*option)
            if transfer is not None:
                transfer.watch_socket(sock)
            # Each address gets an equal share of the remaining time.
            share_s = (deadline - time.monotonic()) / (len(addresses) - index)
            sock.settimeout(max(0.001, share_s))
            sock.connect(address)
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            last_error = error
    raise last_error


def _resolve_host(host: str, port: int, deadline: float) -> Sequence[SocketAddress]:
    """Return the addresses of a host.

    A host name is looked up in a separate thread, because the resolver has no timeout.

    Args:
        host: name or address.
        port: the port.
        deadline: monotonic time in seconds.

    Raises:
        socket.gaierror: the name is unknown, or the name server did not answer in time.
    """
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        results: list[Sequence[SocketAddress] | OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            results.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            results.append(error)

    thread = threading.Thread(target=look_up, name="imgkit-resolver", daemon=True)
    thread.start()
    thread.join(max(0.001, deadline - time.monotonic()))
    no_answer = socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")
    result = results[0] if results else no_answer
    if isinstance(result, Exception):
        raise result if isinstance(result, socket.gaierror) else socket.gaierror(str(result))
    return result


class SinglePacketMixin:
    """A mix-in of http.client's connections that sends a head and a small body as a single packet."""

    _head: bytes | None = None
    """Head of a request, held back until the body starts."""

    def request(self, *args: object, **kwargs: object) -> None:
        """Send a request."""
        self._head = b""
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]  # a mix-in
        finally:
            head, self._head = self._head, None
        # A request without a body has not called `send` a second time.
        if head:
            self.send(head)

    def send(self, data: Any) -> None:
        """Send a head and a small body together; http.client would send them separately."""
        head = self._head
        if head == b"":
            self._head = data
            return
        self._head = None
        if head and len(data) <= SMALL_BODY_BYTES:
            data = head + data
        elif head:
            super().send(head)  # type: ignore[misc]  # a mix-in
        super().send(data)  # type: ignore[misc]  # a mix-in


class StrictResponse(http.client.HTTPResponse):
    """A response that requires a complete, final head.

    http.client accepts half a head as an empty response, and 103 (early hints) as a final status.
    """

    def begin(self) -> None:
        """Read heads until a final status.

        Raises:
            RemoteDisconnected: the connection was closed within a head.
        """
        buffered = cast(Any, self.fp).peek()
        is_complete = b"\r\n\r\n" in buffered
        if is_complete and buffered[9:10] != b"1":
            super().begin()
            return
        while True:
            stream = self.fp
            self.fp = cast(Any, _HeadReader(stream))
            try:
                super().begin()
            finally:
                if isinstance(self.fp, _HeadReader) or self.status in _INTERIM_STATUSES:
                    self.fp = stream
            if self.status not in _INTERIM_STATUSES:
                return
            # Without headers, `begin` reads the next head.
            self.headers = cast(Any, None)


class _HeadReader:
    """A stream that raises `RemoteDisconnected` when it ends within a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close
        self.flush = stream.flush

    def readline(self, limit: int = -1) -> bytes:
        """Return the next line of the head.

        Raises:
            RemoteDisconnected: the stream ended within the line.
        """
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit:
            raise http.client.RemoteDisconnected("The connection was closed within the head of the response.")
        return line
