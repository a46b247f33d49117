"""One request on its way: how long it may take, how it is aborted, what its failure means."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable

from imgkit.errors import NotSentError, OutcomeUnknownError, TransportError
from imgkit.redact import scrub


class Transfer:
    """The life of one request on the wire, shared by a driver and a backend.

    The driver makes it, the watchdog or a cancelled task may `abort` it from another thread, and
    the backend tells it what blocks (`watch_socket`, `on_abort`) and, where it can prove it, that
    nothing left (`mark_unsent`). Without that proof a failure is an unknown outcome.

    Args:
        timeout_s: seconds that the whole call may still take.
        connect_timeout_s: seconds for one connection, TLS included.
        read_timeout_s: longest silence in seconds while a reply is awaited or read.
    """

    def __init__(self, timeout_s: float, connect_timeout_s: float, read_timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.read_timeout_s = read_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._aborts: list[Callable[[], None]] = []
        self._handles: list[socket.socket] = []
        self._unsent = False
        self.aborted = False
        self.request_id: str | None = None

    def for_next_request(self) -> Transfer:
        """Return a transfer for the next request of the same call: same deadline, clean record."""
        fresh = Transfer(self.timeout_s, self._connect_timeout_s, self.read_timeout_s)
        fresh.deadline = self.deadline
        return fresh

    def remaining_s(self) -> float:
        """Seconds left until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def connect_timeout_s(self) -> float:
        """Seconds that connecting may take now."""
        return max(0.001, min(self._connect_timeout_s, self.remaining_s()))

    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    def mark_unsent(self) -> None:
        """Record the proof that no byte of the request has left."""
        self._unsent = True

    def mark_sent(self) -> None:
        """Record that from here on bytes of the request may have left."""
        self._unsent = False

    def on_abort(self, abort: Callable[[], None]) -> None:
        """Call `abort` (quick, thread-safe) when the transfer is aborted; at once if it was."""
        with self._lock:
            if not self.aborted:
                self._aborts.append(abort)
                return
        abort()

    def watch_socket(self, fileno: int) -> None:
        """Shut the socket down when the transfer is aborted, whatever wraps it by then.

        A duplicate of the descriptor is kept: wrapping a socket in TLS takes the descriptor away
        from its first owner, and an HTTP library may close its own while a reply is still read.
        """
        handle = socket.socket(fileno=socket.dup(fileno))  # os.dup knows no sockets on Windows
        with self._lock:
            if not self.aborted:
                self._handles.append(handle)
                return
        shut_down(handle)
        handle.close()
        raise TimeoutError("aborted before it was connected")

    def abort(self) -> None:
        """Stop whatever blocks. Thread-safe, idempotent."""
        with self._lock:
            if self.aborted:
                return
            self.aborted = True
            aborts, self._aborts = self._aborts, []
            for handle in self._handles:  # under the lock, so that none is closed meanwhile
                shut_down(handle)
        for abort in aborts:
            try:
                abort()
            except Exception as error:  # a backend's fault; the other calls must keep their watchdog
                warnings.warn(f"aborting a request failed ({describe(error)})", RuntimeWarning, stacklevel=2)

    def shut_down(self) -> None:
        """Shut the connection of a request that is over, whatever of it still lingers."""
        with self._lock:
            for handle in self._handles:
                shut_down(handle)

    def release(self) -> None:
        """Let go of what was watched; called once when the reply is done with."""
        with self._lock:
            self._aborts.clear()
            self.close_after_fork()
            self._handles.clear()

    def close_after_fork(self) -> None:
        """Close the duplicates; in a forked child the parent's transfer goes on without them."""
        for handle in self._handles:
            handle.close()

    def to_error(self, cause: BaseException, *, unsent: bool = False) -> TransportError:
        """Return what `cause` means for the caller and for money.

        Args:
            cause: what the HTTP library raised.
            unsent: the kind of `cause` alone proves that nothing left.

        Returns:
            `NotSentError` with proof, else `OutcomeUnknownError`.
        """
        if self.expired():
            what = f"no complete answer within {self.timeout_s:g} s"
        else:
            what = "the service was closed, or the call aborted" if self.aborted else describe(cause)
        if unsent or self._unsent:
            return NotSentError(
                f"could not connect: {what}. Nothing was sent, so nothing was billed.",
                permanent=_is_permanent(cause),
            )
        return OutcomeUnknownError(
            f"{what}. The request may have been received, so a picture may have been made and "
            f"billed; it is not repeated by itself"
            + (f" (request id {self.request_id})." if self.request_id else "."),
            request_id=self.request_id,
        )


def _is_permanent(cause: BaseException | None) -> bool:
    """Whether connecting again cannot help: the certificate is not trusted, or the name does not exist."""
    seen: list[object] = [cause]
    for one in seen:  # grows: HTTP libraries wrap errors in causes, contexts, reasons and arguments
        if isinstance(one, ssl.SSLCertVerificationError):
            return True
        if isinstance(one, socket.gaierror):
            return one.errno == socket.EAI_NONAME
        if isinstance(one, BaseException) and len(seen) < 50:
            inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            seen.extend(more for more in inner if isinstance(more, BaseException) and more not in seen)
    return False


def describe(error: BaseException) -> str:
    """Return type and text of a library's exception, scrubbed."""
    text = scrub(str(error), limit=200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shut_down(handle: socket.socket) -> None:
    """End both directions of a connection, which wakes whatever blocks on it."""
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # already disconnected: that is what was wanted
