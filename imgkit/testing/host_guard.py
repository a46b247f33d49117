"""Refuse connections to the API by other code while a cassette replays.

A cassette answers the services of imgkit only. A test that asks the API in another way, such as by the
official SDK, would pay for each replay. Python tells an audit hook of each host name that it looks up, so
nothing is patched. Libraries that look up names outside Python, such as pycurl, stay unseen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from imgkit.core.interception import is_vcrpy_open
from imgkit.errors import ConfigurationError

_EVENT = "socket.getaddrinfo"


class _Guards:
    """The hosts that are refused now, and whether the hook is in place. Python cannot remove a hook."""

    def __init__(self) -> None:
        self.active: list[frozenset[str]] = []
        self._is_installed = False

    def install(self) -> None:
        """Add the audit hook unless it is in place."""
        if not self._is_installed:
            self._is_installed = True
            sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """Refuse to look up a guarded host. Each audit event of Python comes here, so this is quick."""
        if event == _EVENT and self.active:
            host = arguments[0].decode("latin-1") if isinstance(arguments[0], bytes) else arguments[0]
            if isinstance(host, str) and any(host.lower() in hosts for hosts in self.active):
                check_host(host)


def check_host(host: str) -> None:
    """Raise unless a cassette of vcrpy is open, which is responsible for other code.

    Raises:
        ConfigurationError: Code outside imgkit connects to this host.
    """
    if not is_vcrpy_open():
        raise ConfigurationError(
            f"A cassette of imgkit replays, and other code connects to {host!r}. The cassette answers only "
            "services of imgkit, so this request might be paid. Nothing was sent. Use an imgkit service, or "
            "a cassette of vcrpy for that code."
        )


_GUARDS = _Guards()


@contextmanager
def refuse_hosts(hosts: frozenset[str]) -> Iterator[None]:
    """Let no code of this process look up these host names.

    >>> import socket
    >>> with refuse_hosts(frozenset({"api.openai.com"})):
    ...     socket.getaddrinfo("api.openai.com", 443)
    Traceback (most recent call last):
        ...
    imgkit.errors.ConfigurationError: A cassette of imgkit replays, and other code connects to ...

    Args:
        hosts: Names in lower case.
    """
    _GUARDS.install()
    _GUARDS.active.append(hosts)
    try:
        yield
    finally:
        _GUARDS.active.remove(hosts)
