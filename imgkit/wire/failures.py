"""Causes of failed connections: the exceptions of all HTTP libraries in the same words."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from imgkit.redact import scrub

CLOSED_NAMES = frozenset(
    [
        *("ClientPayloadError", "ConnectionClosed", "ContentLengthError", "EndOfStream", "IncompleteRead"),
        *("IncompleteReadError", "InvalidChunkLength", "RemoteDisconnected", "ServerDisconnectedError"),
        "TransferEncodingError",
    ]
)
"""Exceptions of HTTP libraries for a connection that ended too early."""

INVALID_NAMES = frozenset(
    [
        *("BadHttpMessage", "BadStatusLine", "ClientResponseError", "HeaderParsingError", "InvalidHeader"),
        *("LineTooLong", "UnknownProtocol", "UnknownTransferEncoding"),
    ]
)
"""Exceptions of HTTP libraries for a reply that is not valid HTTP."""

NO_ROUTE = frozenset([errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL])
UNKNOWN_NAME = frozenset([socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)])
NO_TLS = re.compile(r"WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG")
MAX_CHAIN = 50

_BAD_ENCODING = re.compile(r"(?i)content-encoding|the body of the reply is not")
_REFUSED = re.compile(r"(?i)\bconnection refused\b")  # libraries on curl have no class for it
_TUNNEL = re.compile(r"(?i)tunnel connection failed: (\d{3}[^'\")]{0,80})")


class Failure(NamedTuple):
    """The cause of a failure.

    Attributes:
        reason: the cause, a sentence.
        hint: the remedy if nothing was sent, "" for none.
        field: the argument of a service that the remedy changes.
        permanent: another attempt will fail too.
    """

    reason: str
    hint: str = ""
    field: str | None = None
    permanent: bool = False


class Route(NamedTuple):
    """The way of a request.

    Attributes:
        url: URL of the request, "" if unknown.
        proxy: URL of its proxy, None for a direct connection.
        connect_timeout_s, read_timeout_s: its time limits in seconds.
    """

    url: str = ""
    proxy: str | None = None
    connect_timeout_s: float = 0.0
    read_timeout_s: float = 0.0

    @property
    def server(self) -> str:
        """Host and port of the server, for a message."""
        return _format_place(self.url) or "the server"

    @property
    def peer(self) -> str:
        """Host and port of the first peer, for a message: the proxy or the server."""
        return f"the proxy {_format_place(self.proxy)}" if self.proxy else self.server


def explain_failure(cause: BaseException, route: Route, *, unsent: bool) -> Failure:
    """Return the cause of a failed request in words that are the same for all HTTP libraries.

    Example:
        >>> route = Route("http://127.0.0.1:9/v1/images")
        >>> explain_failure(ConnectionRefusedError(), route, unsent=True)[:2]
        ('Nothing listens at 127.0.0.1:9.', 'Is the server running? Check base_url.')

    Args:
        cause: the exception of the HTTP library.
        route: the way of the request.
        unsent: no byte of the request has left.
    """
    chain = list(iterate_chain(cause))
    failure = _explain_connecting(chain, route) if unsent else None
    return failure or _explain_reply(chain, route) or Failure(f"{_format_exception(cause)}.")


def iterate_chain(cause: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it wraps in causes, contexts, reasons and arguments."""
    chain: list[BaseException] = [cause]
    # The list grows in the loop.
    for error in chain:
        yield error
        if len(chain) < MAX_CHAIN:
            inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
            chain += [found for found in inner if isinstance(found, BaseException) and found not in chain]


def _explain_connecting(chain: list[BaseException], route: Route) -> Failure | None:
    """Return the cause of a failure to connect, None if the exceptions tell none."""
    for explain in (_explain_tunnel, _explain_tls, _explain_name):
        for error in chain:
            if (failure := explain(error, route)) is not None:
                return failure
    hint, field = ("Is the proxy running? Check its address.", "proxy") if route.proxy else ("", "base_url")
    if any(isinstance(error, ConnectionRefusedError) or _REFUSED.search(str(error)) for error in chain):
        hint = hint or "Is the server running? Check base_url."
        return Failure(f"Nothing listens at {route.peer}.", hint, field)
    if any(isinstance(error, OSError) and error.errno in NO_ROUTE for error in chain):
        hint = "Check your network connection."
        return Failure(f"No network leads to {route.peer}.", hint, field)
    if _is_timeout(chain):
        hint = hint or "Check base_url and your network connection."
        seconds = f" within {route.connect_timeout_s:g} s" if route.connect_timeout_s else " in time"
        return Failure(f"{_capitalize(route.peer)} accepted no connection{seconds}.", hint, field)
    if _is_closed(chain):
        hint = hint or "Check base_url: its scheme, host and port."
        return Failure(f"{_capitalize(route.peer)} closed the connection at once.", hint, field)
    return None


def _explain_tunnel(error: BaseException, route: Route) -> Failure | None:
    """Return the cause if the proxy refused to connect to the server."""
    if type(error).__name__ == "ClientHttpProxyError":
        status = f"{getattr(error, 'status', '')} {getattr(error, 'message', '')}"
    elif found := _TUNNEL.search(str(error)):
        status = found[1]
    else:
        return None
    status = scrub(status, limit=80).rstrip(". ")
    hint = "Ask its owner, or use another proxy."
    if status.startswith("407"):
        hint = "Put name and password into the URL of the proxy: http://NAME:PASSWORD@HOST:PORT."
    proxy = route.peer if route.proxy else "the proxy"
    return Failure(f"{_capitalize(proxy)} refuses to connect to {route.server}: {status}.", hint, "proxy")


def _explain_tls(error: BaseException, route: Route) -> Failure | None:
    # Exceptions of aiohttp derive from those of ssl, without their attributes.
    detail = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    if not isinstance(error, ssl.SSLError) or not isinstance(detail, str) or "_EOF_" in detail:
        return None
    way = f" through {route.peer}" if route.proxy else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = scrub(detail, limit=200).rstrip(". ")
        text = f"The certificate of {route.server}{way} is not trusted: {problem}."
        return Failure(text, *_choose_certificate_hint(problem), permanent=True)
    text = scrub(detail, limit=200).replace("_", " ").lower().rstrip(". ")
    if NO_TLS.search(detail):
        text = "it does not speak TLS"
        hint = "Check base_url: http:// in place of https://, or another port?"
    else:
        hint = "Check base_url, and the TLS versions that the server accepts."
    return Failure(f"TLS with {route.server}{way} failed: {text}.", hint, "base_url")


def _choose_certificate_hint(problem: str) -> tuple[str, str]:
    """Return the remedy for an untrusted certificate, and the argument that it changes."""
    if "expired" in problem or "not yet valid" in problem:
        return "Ask the server's owner to renew it, and check the clock of this machine.", "base_url"
    if "mismatch" in problem.lower():
        return "Check base_url: the certificate belongs to another name.", "base_url"
    return "If you trust its authority, pass ca=… with the authority's certificate.", "ca"


def _explain_name(error: BaseException, route: Route) -> Failure | None:
    """Return the cause if the first peer's name leads to no address."""
    url, field, place = route.url, "base_url", "base_url"
    if route.proxy:
        url, field, place = route.proxy, "proxy", "the address of the proxy"
    name = scrub(urlsplit(url).hostname or "of the server", limit=100)
    if isinstance(error, UnicodeError):
        return Failure(f"The host name {name} is not valid.", f"Check {place}.", field)
    if not isinstance(error, socket.gaierror):
        return None
    if error.errno in UNKNOWN_NAME:
        is_final = error.errno == socket.EAI_NONAME
        return Failure(f"The host name {name} is unknown.", f"Check {place}.", field, is_final)
    hint = f"Check your network connection and {place}."
    return Failure(f"The name server gives no answer about the host {name}.", hint, field)


def _explain_reply(chain: list[BaseException], route: Route) -> Failure | None:
    """Return the cause of a reply that did not arrive whole, None if the exceptions tell none."""
    for error in chain:
        if str(error).startswith("simulated"):
            return Failure(f"S{str(error)[1:]}.")
        if _BAD_ENCODING.search(str(error)):
            return Failure(f"The reply of {route.server} cannot be decompressed.")
        if type(error).__name__ in INVALID_NAMES:
            return Failure(f"The reply of {route.server} is not valid HTTP.")
    if _is_timeout(chain):
        seconds = f" for {route.read_timeout_s:g} s" if route.read_timeout_s else ""
        return Failure(f"{_capitalize(route.server)} was silent{seconds}.")
    if _is_closed(chain):
        return Failure(f"{_capitalize(route.server)} closed the connection before its reply was complete.")
    return None


def _is_timeout(chain: list[BaseException]) -> bool:
    return any(isinstance(error, TimeoutError) or "Timeout" in type(error).__name__ for error in chain)


def _is_closed(chain: list[BaseException]) -> bool:
    return any(
        isinstance(error, ConnectionError | ssl.SSLEOFError | EOFError)
        or type(error).__name__ in CLOSED_NAMES
        for error in chain
    )


def _format_place(url: str | None) -> str:
    """Return host and port of a URL, "" if it has none."""
    try:
        parts = urlsplit(url or "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    host = f"[{host}]" if ":" in host else host
    port = port or {"https": 443, "http": 80}.get(parts.scheme.lower())
    return scrub(f"{host}:{port}" if port else host, limit=120) if host else ""


def _capitalize(text: str) -> str:
    return f"The{text[3:]}" if text.startswith("the ") else text


def _format_exception(error: BaseException) -> str:
    """Return the type and the scrubbed text of a library's exception."""
    text = scrub(str(error), limit=200).rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
