"""A request on its way: its time limits, how to abort it, and the meaning of its failure.

Backends receive a `Transfer`. Drivers hold it as a `DriverTransfer`, with the deadline and the outcome.
"""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Protocol

from imgkit.errors import NotSentError, OutcomeUnknownError, TransportError
from imgkit.redact import scrub


class HasFileno(Protocol):
    """An object with a descriptor, such as a socket or an asyncio transport's socket."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Transfer:
    """The time limits and the abort switch of one request, as a backend sees them.

    A watchdog thread or a cancelled task may call `abort` while the backend blocks. The backend
    therefore registers everything that blocks, with `watch_socket` or `on_abort`. It calls
    `mark_unsent` where it can prove that no byte left; without that proof a failure counts as an
    unknown outcome. `mark_sent` ends that proof for good: a backend that sends a second request for
    the same call, such as a poll, cannot make the first unsent.

    Example, from the ``open`` method of a backend::

        transfer.mark_unsent()
        connection = connect(request.url, timeout=transfer.connect_timeout_s())
        transfer.mark_sent()
        transfer.watch_socket(connection)
        connection.settimeout(transfer.read_timeout_s)

    Args:
        timeout_s: seconds left for the whole call.
        connect_timeout_s: seconds for one connection, TLS included.
        read_timeout_s: longest silence in seconds before and between the parts of a reply.

    Attributes:
        note_leaving: called by `mark_sent`, once. A backend leaves it alone.
    """

    def __init__(self, timeout_s: float, connect_timeout_s: float, read_timeout_s: float) -> None:
        self.read_timeout_s = read_timeout_s
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._abort_callbacks: list[Callable[[], None]] = []
        self._handles: list[socket.socket] = []
        self._unsent = False
        self._sent = False
        self._aborted = False
        self.note_leaving: Callable[[], object] | None = None

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline, never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def connect_timeout_s(self) -> float:
        """Return the seconds that connecting may take now."""
        return max(0.001, min(self._connect_timeout_s, self.remaining_s()))

    def mark_unsent(self) -> None:
        """Record the proof that no byte of the request has left. Has no effect after `mark_sent`."""
        self._unsent = not self._sent

    def mark_sent(self) -> None:
        """Record that bytes of the request may leave from now on. This is final.

        Raises:
            NotSentError: imgkit cannot write that down; the request must not leave.
        """
        note_leaving, self.note_leaving = self.note_leaving, None
        if note_leaving is not None:
            note_leaving()
        self._sent = True
        self._unsent = False

    def on_abort(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the transfer is aborted, or now if it was.

        The callback must be quick and thread-safe.
        """
        with self._lock:
            if not self._aborted:
                self._abort_callbacks.append(callback)
                return
        callback()

    def watch_socket(self, sock: HasFileno | int | None) -> None:
        """Shut a socket down when the transfer is aborted, even if TLS wraps it by then.

        The transfer keeps a duplicate of the descriptor, because the original may go. Wrapping a
        socket in TLS takes the descriptor away from its first owner. An HTTP library may close its
        own descriptor while it still reads a reply.

        Args:
            sock: a socket, any other object with ``fileno()``, or a descriptor. None has no effect:
                libraries return it for a connection without a socket.

        Raises:
            TimeoutError: the transfer is aborted already.
            OSError: the socket is closed.
        """
        if sock is None:
            return
        # os.dup does not duplicate sockets on Windows.
        handle = socket.socket(fileno=socket.dup(sock if isinstance(sock, int) else sock.fileno()))
        with self._lock:
            if not self._aborted:
                self._handles.append(handle)
                return
        shut_down_socket(handle)
        handle.close()
        raise TimeoutError("The request was aborted before it was connected.")

    def abort(self) -> None:
        """Stop everything that blocks. Thread-safe and idempotent."""
        with self._lock:
            if self._aborted:
                return
            self._aborted = True
            callbacks, self._abort_callbacks = self._abort_callbacks, []
            # Under the lock, because `release` must not close a handle meanwhile.
            for handle in self._handles:
                shut_down_socket(handle)
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                # A bug of one backend must not end the watchdog of the other calls.
                warnings.warn(
                    f"Aborting a request failed ({_format_exception(error)}).", RuntimeWarning, stacklevel=2
                )

    def shut_down(self) -> None:
        """Shut the sockets of a finished request down, which ends an upload that still runs."""
        with self._lock:
            for handle in self._handles:
                shut_down_socket(handle)


class DriverTransfer(Transfer):
    """A `Transfer` with the members that drivers use.

    Attributes:
        request_id: the API's id of the call, None until the head of the reply arrives.
        url: scheme, host and port of the request, "" until a driver sends it.
        proxy: URL of the proxy that the request goes through, None for a direct connection.
        abort_at: when the watchdog aborts the transfer, by `time.monotonic`; its deadline or earlier.
    """

    def __init__(
        self, timeout_s: float, connect_timeout_s: float, read_timeout_s: float, proxy: str | None = None
    ) -> None:
        super().__init__(timeout_s, connect_timeout_s, read_timeout_s)
        self.request_id: str | None = None
        self.url = ""
        self.proxy = self._own_proxy = proxy
        self.abort_at = self._deadline

    @property
    def timeout_s(self) -> float:
        """The time limit of the whole call in seconds."""
        return self._timeout_s

    @property
    def deadline(self) -> float:
        """The end of that time, by `time.monotonic`."""
        return self._deadline

    @property
    def aborted(self) -> bool:
        """The transfer was aborted, by its deadline or by the caller."""
        return self._aborted

    def is_expired(self) -> bool:
        """Return whether the deadline has passed."""
        return time.monotonic() >= self._deadline

    def for_next_request(self) -> DriverTransfer:
        """Return a transfer for the next request of the same call, with the same deadline."""
        transfer = DriverTransfer(
            self._timeout_s, self._connect_timeout_s, self.read_timeout_s, self._own_proxy
        )
        transfer._deadline = transfer.abort_at = self._deadline
        return transfer

    def begin(self, url: str, *, direct: bool) -> None:
        """Note the request that is about to be sent, for the messages of its failure.

        Args:
            url: its URL.
            direct: it goes through no proxy.
        """
        # The rest may grant access.
        self.url = "/".join(url.split("/", 3)[:3]).partition("?")[0]
        self.proxy = None if direct else self._own_proxy

    def abort_within(self, wait_s: float) -> None:
        """Let the watchdog abort this transfer after `wait_s` seconds, if its deadline is not earlier."""
        self.abort_at = min(self.abort_at, time.monotonic() + wait_s)

    def release(self) -> None:
        """Forget the callbacks and close the watched sockets, once the reply is closed."""
        with self._lock:
            self._abort_callbacks.clear()
            self.close_after_fork()

    def close_after_fork(self) -> None:
        """Close the duplicated descriptors. A forked child calls this; its parent keeps its own."""
        for handle in self._handles:
            handle.close()

    def to_error(self, cause: BaseException, *, unsent: bool = False) -> TransportError:
        """Return the error for a failed request: whether it may have been received and billed.

        Args:
            cause: the exception of the HTTP library.
            unsent: the type of `cause` alone proves that no byte left, unless the transfer is marked as sent.

        Returns:
            A `NotSentError` with proof, otherwise an `OutcomeUnknownError`.
        """
        from imgkit.wire.failures import Failure, Route, explain_failure  # only failures load it

        is_unsent = self._unsent or (unsent and not self._sent)
        route = Route(self.url, self.proxy, self._connect_timeout_s, self.read_timeout_s)
        failure = explain_failure(cause, route, unsent=is_unsent)
        if self.is_expired():
            failure = Failure(f"No complete reply arrived within {self._timeout_s:g} s.")
        elif self._aborted:
            failure = Failure("The service was closed, or the call was aborted.")
        error: NotSentError | OutcomeUnknownError
        if is_unsent:
            error = NotSentError(
                f"Could not connect. Nothing was sent, so nothing was billed. {failure.reason}",
                permanent=failure.permanent,
                hint=failure.hint or None,
                field=failure.field,
            )
        else:
            request_id = f" (request id {self.request_id})" if self.request_id else ""
            error = OutcomeUnknownError(
                f"The outcome is unknown. {failure.reason} The API may have received the request, and made "
                f"and billed an image. imgkit does not repeat it by itself{request_id}.",
                request_id=self.request_id,
            )
        error.reason = failure.reason
        return error


def _format_exception(error: BaseException) -> str:
    """Return the type and the scrubbed text of a library's exception."""
    text = scrub(str(error), limit=200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shut_down_socket(handle: socket.socket) -> None:
    """Shut down both directions of a connection, which wakes every thread that blocks on it."""
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # disconnected already
