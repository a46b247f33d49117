"""What both HTTP backends need of sockets: TLS settings made once, and descriptors after a fork."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from typing import Any

import certifi

from imgkit.errors import ConfigurationError


def tls_context(ca: Any) -> ssl.SSLContext:
    """Return a context that checks certificates.

    Args:
        ca: a PEM file or folder, an `ssl.SSLContext` to use as it is, or None for certifi's bundle.
            Neither ``SSL_CERT_FILE`` nor ``SSLKEYLOGFILE`` is read.

    Raises:
        ConfigurationError: no certificates there.
    """
    if isinstance(ca, ssl.SSLContext):
        return ca
    try:
        return _context(certifi.where() if ca is None else os.fspath(ca))
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"ca: no certificates can be read from {str(ca)[:200]!r} ({type(error).__name__}): give a PEM "
            "file, a folder, or an ssl.SSLContext"
        ) from None


@cache
def _context(path: str) -> ssl.SSLContext:
    # Not ssl.create_default_context: that one reads the environment. Making one takes tens of
    # milliseconds, and it can be shared.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if os.path.isdir(path):
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
    return context


def close_descriptors(sockets: Iterable[socket.socket]) -> None:
    """In a forked child: close inherited sockets without a word to their peers, who talk to the parent."""
    for known in list(sockets):
        try:
            os.close(known.detach())
        except OSError:
            continue  # closed before the fork
