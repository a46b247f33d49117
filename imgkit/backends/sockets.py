"""TLS settings and proxy passwords for all HTTP backends, and sockets that a forked child inherits."""

from __future__ import annotations

import base64
import os
import re
import select
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from urllib.parse import unquote, urlsplit

import certifi

from imgkit.errors import ConfigurationError
from imgkit.wire.plain_values import show_value
from imgkit.wire.transfer import HasFileno

REUSE_S = 1.5
"""Longest idle time in seconds of a connection that carries a further request.

Servers close idle connections after two seconds or more (gunicorn 2, Node and uvicorn 5, nginx 75), and a
request that meets such an end has an unknown outcome.
"""


def tls_context(ca: str | os.PathLike[str] | ssl.SSLContext | None) -> ssl.SSLContext:
    """Return a TLS context that verifies certificates.

    Equal paths share a context. Neither ``SSL_CERT_FILE`` nor ``SSLKEYLOGFILE`` is read.

    Args:
        ca: a PEM file, a folder with the hashed names of ``openssl rehash``, an `ssl.SSLContext` to
            return unchanged, or None for certifi's bundle.

    Raises:
        ConfigurationError: the file or folder has no readable certificates.

    Example:
        >>> tls_context(None).verify_mode
        <VerifyMode.CERT_REQUIRED: 2>
    """
    if isinstance(ca, ssl.SSLContext):
        return ca
    try:
        return _load_context(certifi.where() if ca is None else os.fspath(ca))
    except (OSError, TypeError, ValueError) as error:
        reason = "there are none in the form of PEM"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"ca: No certificates can be read from {show_value(ca)} ({reason}).",
            hint="Pass a PEM file, a folder prepared by openssl rehash, or an ssl.SSLContext.",
            field="ca",
        ) from None


@cache
def _load_context(path: str) -> ssl.SSLContext:
    # Not ssl.create_default_context, which reads the environment. Loading takes tens of
    # milliseconds, so the context is shared.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if os.path.isdir(path):
        # OpenSSL reads the folder during a handshake, and ignores all other names.
        if not any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(path)):
            raise ValueError("The folder has no hashed names.")
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
    return context


def proxy_authorization(proxy: str | None) -> dict[str, str]:
    """Return the header with the name and the password of a proxy's URL, {} without them.

    Send it to the proxy only: with the request over http, with CONNECT over https.

    Args:
        proxy: `BackendOptions.proxy`.

    Example:
        >>> proxy_authorization("http://ann:p%40ss@proxy.example:3128")
        {'proxy-authorization': 'Basic YW5uOnBAc3M='}
    """
    parts = urlsplit(proxy or "")
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def close_inherited_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close the descriptors of inherited sockets in a forked child.

    The connections stay up: their peers still talk to the parent process.
    """
    for inherited in list(sockets):
        try:
            os.close(inherited.detach())
        except OSError:
            continue  # closed before the fork


def has_input(sock: HasFileno | None) -> bool:
    """Return whether an idle connection has bytes to read, or its end: it cannot carry another request.

    Args:
        sock: its socket, None for a closed connection.
    """
    if sock is None or sock.fileno() < 0:
        return True
    if isinstance(sock, ssl.SSLSocket) and sock.pending():  # decrypted with the end of the last reply
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock.fileno()], [], [], 0)[0])
    watched = select.poll()  # select() refuses high descriptors
    watched.register(sock.fileno(), select.POLLIN)
    return bool(watched.poll(0))


def may_carry_more(status: int) -> bool:
    """Return whether a connection may carry another request after a reply.

    An API may refuse an upload before it has read it: the rest, or the next request, is then discarded.

    >>> may_carry_more(200), may_carry_more(413)
    (True, False)

    Args:
        status: HTTP status of the reply.
    """
    return 200 <= status < 300
