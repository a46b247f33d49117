"""The offline backend: it answers from cassettes, simulated faults or the offline server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.backends.offline.faults import Fault, find_fault
from imgkit.backends.offline.server import OfflineServer, ServerResponse
from imgkit.errors import ConfigurationError, NotSentError
from imgkit.wire.messages import BackendOptions, Head, HttpRequest, Reply
from imgkit.wire.plain_values import show_value, to_flag, to_number, to_path, to_text
from imgkit.wire.transfer import Transfer

if TYPE_CHECKING:
    from imgkit.backends.offline.replay import Replay

CHUNK_BYTES = 64 * 1024
SILENCE_S = 1.0
"""Longest pause of the simulated fault "timeout". It shows the error without the wait."""

_MAX_SEED_DIGITS = 100
CLIENT_OPTIONS = frozenset({"fixtures", "latency_s", "seed", "simulate", "strict"})


Answer = Callable[[str, str, Mapping[str, str], bytes], ServerResponse]
"""Answers a request by its method, URL, headers and body."""


class OfflineBackend:
    """A `Backend` that answers inside the process; see `imgkit.wire.messages.Backend`.

    Args:
        options: its ``client_options`` may contain

            - ``seed``: a number or text; another seed changes every image,
            - ``latency_s``: delay of each response in seconds, 0 to 3600,
            - ``fixtures``: path of a cassette or a folder of cassettes to replay
              (`imgkit.backends.offline.replay`),
            - ``strict``: True raises `FixtureMissingError` for a request without a recording,
              False paints it,
            - ``simulate``: an HTTP status or a named fault for every request
              (`imgkit.backends.offline.faults`).

    Raises:
        ConfigurationError: an option is unknown or invalid.

    Example:
        >>> from imgkit import ImageService
        >>> with ImageService(backend="offline", client_options={"seed": 7}) as images:
        ...     images.create_image("a red fox", size="64x64")[0].width
        64
    """

    wire_errors = (ConnectionError, TimeoutError)
    unsent_errors = ()

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("offline", CLIENT_OPTIONS)
        given = options.client_options
        latency = to_number(given.get("latency_s", 0.0))
        if latency is None or not 0 <= latency <= 3600:
            raise ConfigurationError(
                "client_options.latency_s must be 0 to 3600 seconds, not "
                f"{show_value(given.get('latency_s'))}.",
                field="client_options.latency_s",
            )
        self._latency_s = float(latency)
        simulate = given.get("simulate")
        self._fault: Fault | None = find_fault(simulate) if simulate is not None else None
        self._replay = _open_replay(given.get("fixtures"))
        strict = to_flag(given.get("strict", True))
        if strict is None:
            raise ConfigurationError(
                f"client_options: strict must be True or False, not {show_value(given.get('strict'))}."
            )
        self._strict = strict
        # The salt is part of cache keys, because another seed paints other images.
        self.cache_salt = _parse_seed(given.get("seed", ""))
        self._server = OfflineServer(self.cache_salt)
        self._fake = (
            None if options.make_fake is None else _make_painting_fake(options.make_fake, self.cache_salt)
        )

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Answer a request; see `imgkit.wire.messages.Backend.open`.

        Raises:
            NotSentError: the simulated fault is a refused connection.
            FixtureMissingError: no cassette has the request, and ``strict`` is True.
        """
        fault = self._fault
        if fault is not None and fault.kind == "refused":
            raise NotSentError(
                "Could not connect. Nothing was sent, so nothing was billed. The refusal is simulated."
            )
        content = b"".join(request.body.blocks())
        aborted = threading.Event()
        transfer.on_abort(aborted.set)
        _pause(self._latency_s, aborted)
        if fault is not None and fault.kind == "silence":
            pause_s = min(SILENCE_S, transfer.remaining_s())
            _pause(pause_s, aborted)
            raise TimeoutError(
                f"simulated silence, cut short after {pause_s:.1f} s; a real server may be silent until the "
                "timeout"
            )
        if fault is not None and fault.kind == "cut":
            raise ConnectionResetError("simulated: connection closed after the request")
        if fault is not None and fault.kind == "reply":
            response = ServerResponse(fault.status, {**fault.headers}, fault.body)
        else:
            response = self._find_recording(request, content) or self._answer(request, content, aborted)
        return _OfflineReply(response, cut=fault is not None and fault.kind == "half_body")

    def _answer(self, request: HttpRequest, content: bytes, aborted: threading.Event) -> ServerResponse:
        """Return the response of the provider's own fake, or of the painting server."""
        arguments = (request.method, request.url, request.wire_headers(), content)
        if self._fake is not None:
            return self._fake(*arguments)
        return self._server.handle_request(*arguments, before_image=partial(_pause, 0, aborted))

    def _find_recording(self, request: HttpRequest, content: bytes) -> ServerResponse | None:
        """Return the recorded response to a request; None asks the server to paint."""
        if self._replay is None:
            return None
        arguments = (request.method, request.url, request.body.content_type, content)
        response = self._replay.find_response(*arguments)
        if response is None and self._strict:
            raise self._replay.build_missing_error(*arguments)
        return response

    def close(self) -> None:
        """Drop the images behind result URLs. Idempotent."""
        self._server.clear_images()


def _pause(wait_s: float, aborted: threading.Event) -> None:
    """Wait; raise `TimeoutError` if the transfer is aborted by then."""
    if aborted.wait(wait_s):
        raise TimeoutError("aborted")


def _parse_seed(seed: object) -> str:
    """Return the text of a seed. Raises `ConfigurationError` for anything but text and numbers."""
    plain = "" if seed is None else to_number(seed) if to_text(seed) is None else to_text(seed)
    if plain is None or (isinstance(plain, int) and abs(plain) >= 10**_MAX_SEED_DIGITS):
        raise ConfigurationError(
            f"client_options.seed must be text or a number, not {show_value(seed)}.",
            field="client_options.seed",
        )
    return str(plain)


def _open_replay(fixtures: object) -> Replay | None:
    """Return the replay of the cassettes; None without cassettes.

    Raises:
        ConfigurationError: the value is not a path, or a cassette cannot be read.
    """
    if fixtures is None:
        return None
    try:
        path = to_path(fixtures)
    except ValueError as error:
        raise ConfigurationError(
            f"client_options: fixtures must be the path of a cassette or of a folder: {error}."
        ) from None
    # Loaded on demand: most services have no cassette.
    from imgkit.backends.offline.replay import Replay

    return Replay(Path(path))


class _OfflineReply:
    """An open response; see `imgkit.wire.messages.Reply`.

    Args:
        response: the complete response.
        cut: whether the connection breaks in the middle of the body.
    """

    def __init__(self, response: ServerResponse, *, cut: bool) -> None:
        self.head = Head(response.status, response.headers)
        self._body = response.body
        self._position = 0
        self._end = len(response.body) // 2 if cut else len(response.body)
        self._cut = cut

    def read(self) -> bytes:
        """Return the next chunk; b"" at the end.

        Raises:
            ConnectionResetError: the simulated fault cuts the body here.
        """
        chunk = self._body[self._position : min(self._position + CHUNK_BYTES, self._end)]
        self._position += len(chunk)
        if not chunk and self._cut:
            raise ConnectionResetError("simulated: connection closed within the body")
        return chunk

    def close(self) -> None:
        """Discard the rest of the response."""
        self._body = b""


def _make_painting_fake(make_fake: Callable[..., Any], salt: str) -> Answer:
    """Return a function that answers requests with the fake of a provider.

    Args:
        make_fake: makes the fake, such as a subclass of `imgkit.providers.FakeApi`.
        salt: seed of the service; another seed paints other images.
    """

    def paint(prompt: str, width: int, height: int) -> bytes:
        from imgkit.painter import image_files
        from imgkit.painter.paint import Brief, paint_image

        seed = hashlib.sha256(f"{salt} {prompt} {width} {height}".encode()).hexdigest()
        brief = Brief(prompt or "a picture", width=width, height=height, seed=seed)
        return image_files.encode_image(paint_image(brief), "png", None, prompt=prompt)

    fake = make_fake(paint=paint)

    def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> ServerResponse:
        reply = fake.answer_parts(method, url, headers, body)
        if reply.status == 0:
            raise ConnectionResetError("simulated: connection closed after the request")
        headers = {"content-length": str(len(reply.body)), **reply.headers}
        return ServerResponse(reply.status, headers, reply.body)

    return answer
