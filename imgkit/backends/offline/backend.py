"""The offline backend: bytes in, bytes out, as from a server."""

from __future__ import annotations

import threading

from imgkit.backends.offline.faults import Fault, fault_of
from imgkit.backends.offline.server import OfflineServer, ServerReply
from imgkit.errors import ConfigurationError, NotSentError
from imgkit.transfer import Transfer
from imgkit.wire import BackendOptions, Head, HttpRequest, Reply

CHUNK_BYTES = 64 * 1024
KNOBS = frozenset({"latency_s", "seed", "simulate"})


class OfflineBackend:
    """Answers requests from the inside of the process; see `imgkit.wire.Backend`.

    Args:
        options: its ``client_options`` may hold

            - ``seed``: a number or text that changes all pictures,
            - ``latency_s``: seconds to wait before answering,
            - ``simulate``: an HTTP status or a named fault (`imgkit.backends.offline.faults`) that every
              request meets.

    Raises:
        ConfigurationError: an unknown or impossible option.
    """

    errors = (ConnectionError, TimeoutError)
    unsent_errors = ()

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("offline", KNOBS)
        given = options.client_options
        latency = given.get("latency_s", 0.0)
        if isinstance(latency, bool) or not isinstance(latency, int | float) or not 0 <= latency <= 3600:
            raise ConfigurationError(f"client_options: latency_s must be 0 to 3600 seconds, not {latency!r}")
        self._latency_s = float(latency)
        simulate = given.get("simulate")
        self._fault: Fault | None = fault_of(simulate) if simulate is not None else None
        # Part of the keys of a cache: other seeds draw other pictures.
        self.cache_salt = str(given.get("seed", ""))
        self._server = OfflineServer(self.cache_salt)

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """See `imgkit.wire.Backend.open`."""
        fault = self._fault
        if fault is not None and fault.kind == "refused":
            raise NotSentError(
                "could not connect: simulated refusal. Nothing was sent, so nothing was billed."
            )
        content = b"".join(request.body.blocks())
        self._wait(self._latency_s, transfer)
        if fault is not None and fault.kind == "silence":
            self._wait(transfer.remaining_s(), transfer)
            raise TimeoutError("simulated silence")
        if fault is not None and fault.kind == "cut":
            raise ConnectionResetError("simulated: connection closed after the request")
        if fault is not None and fault.kind == "reply":
            answer = ServerReply(fault.status, {**fault.headers}, fault.body)
        else:
            answer = self._server.answer(request.method, request.url, request.wire_headers(), content)
        return _OfflineReply(answer, cut=fault is not None and fault.kind == "half_body")

    def close(self) -> None:
        """Forget the pictures that were kept for URLs. Idempotent."""
        self._server.forget()

    def _wait(self, wait_s: float, transfer: Transfer) -> None:
        if wait_s > 0:
            woken = threading.Event()
            transfer.on_abort(woken.set)
            if woken.wait(wait_s):
                raise TimeoutError("aborted")


class _OfflineReply:
    def __init__(self, answer: ServerReply, *, cut: bool) -> None:
        self.head = Head(answer.status, answer.headers)
        self._body = answer.body
        self._position = 0
        self._end = len(answer.body) // 2 if cut else len(answer.body)
        self._cut = cut

    def read(self) -> bytes:
        chunk = self._body[self._position : min(self._position + CHUNK_BYTES, self._end)]
        self._position += len(chunk)
        if not chunk and self._cut:
            raise ConnectionResetError("simulated: connection closed within the body")
        return chunk

    def close(self) -> None:
        self._body = b""
