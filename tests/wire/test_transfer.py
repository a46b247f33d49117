"""The abort switch of a request, as backends use it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from imgkit.wire.transfer import DriverTransfer


class Wrapper:
    """An object with a descriptor, as asyncio's transports return it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()


@pytest.mark.parametrize("form", ["socket", "descriptor", "object"])
def test_an_abort_shuts_a_watched_socket_down(form: str) -> None:
    """A backend passes a socket, its descriptor, or any object that has one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transfer = DriverTransfer(5, 5, 5)
        forms: dict[str, Any] = {"socket": ours, "descriptor": ours.fileno(), "object": Wrapper(ours)}
        transfer.watch_socket(forms[form])
        transfer.abort()
        theirs.settimeout(5)
        assert theirs.recv(1) == b""
        with pytest.raises(TimeoutError):
            transfer.watch_socket(ours)
        transfer.release()


def test_a_socket_that_connects_after_the_abort() -> None:
    """Shuts it down at once, although its owner still holds it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transfer = DriverTransfer(5, 5, 5)
        transfer.abort()
        with pytest.raises(TimeoutError):
            transfer.watch_socket(ours)
        theirs.settimeout(1)
        assert theirs.recv(1) == b""


def test_a_connection_without_a_socket() -> None:
    """Libraries return None for it; there is nothing to watch."""
    transfer = DriverTransfer(5, 5, 5)
    transfer.watch_socket(None)
    transfer.abort()
    transfer.watch_socket(None)


def test_a_closed_socket_is_an_error() -> None:
    """A socket that nobody can shut down is not accepted silently."""
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        DriverTransfer(5, 5, 5).watch_socket(sock)
