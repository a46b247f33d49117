"""The offline backend: bytes in, bytes out, as from a server."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from imgkit.backends.offline.faults import Fault, fault_of
from imgkit.backends.offline.server import OfflineServer, ServerReply
from imgkit.errors import ConfigurationError, NotSentError
from imgkit.wire.messages import BackendOptions, Head, HttpRequest, Reply
from imgkit.wire.transfer import Transfer

if TYPE_CHECKING:
    from imgkit.backends.offline.replay import Replay

CHUNK_BYTES = 64 * 1024
KNOBS = frozenset({"fixtures", "latency_s", "seed", "simulate", "strict"})


class OfflineBackend:
    """Answers requests from the inside of the process; see `imgkit.wire.messages.Backend`.

    Args:
        options: its ``client_options`` may hold

            - ``seed``: a number or text that changes all pictures,
            - ``latency_s``: seconds to wait before answering,
            - ``fixtures``: a cassette or a folder of them to answer from (`imgkit.backends.offline.replay`),
            - ``strict``: False to paint what is not among the fixtures, instead of a `FixtureMissingError`,
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
        self._replay = _replay(given.get("fixtures"))
        self._strict = given.get("strict", True)
        if not isinstance(self._strict, bool):
            raise ConfigurationError(f"client_options: strict must be True or False, not {self._strict!r}")
        # Part of the keys of a cache: other seeds draw other pictures.
        self.cache_salt = str(given.get("seed", ""))
        self._server = OfflineServer(self.cache_salt)

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """See `imgkit.wire.messages.Backend.open`."""
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
            answer = self._recorded(request, content) or self._server.answer(
                request.method, request.url, request.wire_headers(), content
            )
        return _OfflineReply(answer, cut=fault is not None and fault.kind == "half_body")

    def _recorded(self, request: HttpRequest, content: bytes) -> ServerReply | None:
        if self._replay is None:
            return None
        asked = (request.method, request.url, request.body.content_type, content)
        answer = self._replay.answer(*asked)
        if answer is None and self._strict:
            raise self._replay.missing(*asked)
        return answer

    def close(self) -> None:
        """Forget the pictures that were kept for URLs. Idempotent."""
        self._server.forget()

    def _wait(self, wait_s: float, transfer: Transfer) -> None:
        if wait_s > 0:
            woken = threading.Event()
            transfer.on_abort(woken.set)
            if woken.wait(wait_s):
                raise TimeoutError("aborted")


def _replay(fixtures: object) -> Replay | None:
    if fixtures is None:
        return None
    if not isinstance(fixtures, str | os.PathLike):
        raise ConfigurationError("client_options: fixtures must be the path of a cassette or of a folder")
    from imgkit.backends.offline.replay import Replay

    return Replay(Path(fixtures))


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
