"""A server for tests of apps that speak OpenAI's Images API: in this process, offline or on a cassette."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from imgkit.errors import ConfigurationError
from imgkit.redact import format_suggestion
from imgkit.server.calls import ServedCall, State
from imgkit.server.served_service import ServedService
from imgkit.server.settings import ServerSettings, parse_routes
from imgkit.server.thread import ServerThread

STOP_S = 1.0
"""Seconds that running requests have at the end of a test."""


class AppRequest(NamedTuple):
    """A request for images that an app has sent to an `AppServer`.

    Attributes:
        operation: "create_image", "create_image_edit" or "create_image_variation".
        model: the model as the app names it, None for none.
        prompt: the whole prompt, None for a variation.
        state: "running", "done", "failed", or "unknown" for an outcome that may be billed.
        status: HTTP status of the reply, None before it is known.
        images: number of images of the reply, None without images.
        provider: the provider behind the server.
        code: short name of the error, such as "fixture_missing"; None without an error.
        error: the error in words, None without an error.
        joined: repetitions that were given the reply of this request.
        warnings: of the response.
    """

    operation: str
    model: str | None
    prompt: str | None
    state: State
    status: int | None
    images: int | None
    provider: str
    code: str | None
    error: str | None
    joined: int
    warnings: tuple[str, ...]

    @classmethod
    def from_call(cls, call: ServedCall) -> AppRequest:
        """Return the facts about a call of the server."""
        return cls(
            call.operation,
            call.model,
            call.prompt,
            call.state,
            call.status,
            None if call.response is None else len(call.response.images),
            call.provider,
            call.code,
            call.error,
            call.joined,
            () if call.response is None else tuple(call.response.warnings),
        )


class AppServer(ServerThread):
    """A server on a free port of this machine, for the test of an app that takes a base URL.

    The fixture ``imgkit_server`` is such a server. Without arguments it paints offline: no key, no network,
    no cost. An open `imgkit.testing.cassette` answers its requests, or records them. vcrpy lets the requests
    of the app to this server pass.

    Args:
        server_settings: fields of `imgkit.server.settings.ServerSettings`, by name; ``routes`` also takes
            texts such as ``["gpt-image-2=bfl:flux-2-pro"]``.
        service_settings: arguments of its `imgkit.AsyncImageService`.

    Raises:
        ImgkitError: an argument is wrong, or the server cannot listen.

    Example:
        >>> import requests
        >>> with AppServer() as server:
        ...     url = f"{server.base_url}/images/generations"
        ...     reply = requests.post(url, json={"prompt": "a fox", "size": "64x64"})
        ...     reply.status_code, server.requests[0].prompt, server.requests[0].state
        (200, 'a fox', 'done')
    """

    def __init__(self, server_settings: Mapping[str, Any] | None = None, /, **service_settings: Any) -> None:
        super().__init__(_build_settings(server_settings or {}), partial(ServedService, **service_settings))
        self._stack = ExitStack()

    @property
    def requests(self) -> list[AppRequest]:
        """The last 50 requests for images, the oldest first; malformed requests are not among them."""
        return [AppRequest.from_call(call) for call in self.last_calls]

    @property
    def misses(self) -> list[AppRequest]:
        """The requests that had no recording."""
        return [request for request in self.requests if request.code == "fixture_missing"]

    def __enter__(self) -> Self:
        super().__enter__()
        self._stack.enter_context(pass_vcrpy(self.address))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        super().__exit__(kind, error, trace)


@contextmanager
def pass_vcrpy(address: str) -> Iterator[None]:
    """Let requests to an address pass all cassettes of vcrpy: it neither records nor answers them.

    Args:
        address: such as ``"http://127.0.0.1:41234"``.
    """
    try:
        from vcr.cassette import Cassette
    except ImportError:  # without vcrpy there is no such cassette
        yield
        return
    server = urlsplit(address)

    def is_own(request: Any) -> bool:
        parts = urlsplit(request.uri)
        return parts.port == server.port and parts.hostname in ("127.0.0.1", "localhost", "::1")

    kept: dict[str, Callable[..., Any]] = {}
    for name, result in (("can_play_response_for", False), ("filter_request", None), ("append", None)):
        kept[name] = original = getattr(Cassette, name)

        def pass_own(
            cassette: Any, request: Any, *more: Any, original: Any = original, result: Any = result
        ) -> Any:
            return result if is_own(request) else original(cassette, request, *more)

        setattr(Cassette, name, pass_own)
    try:
        yield
    finally:
        for name, original in kept.items():
            setattr(Cassette, name, original)


def _build_settings(given: Mapping[str, Any]) -> ServerSettings:
    for name in given:
        if name not in ServerSettings._fields:
            raise ConfigurationError(
                f"imgkit_server_settings: {name!r} is not a setting of a server"
                f"{format_suggestion(name, ServerSettings._fields)}. Available: "
                f"{', '.join(ServerSettings._fields)}."
            )
    values = {"port": 0, "stop_s": STOP_S, **given}
    routes = values.get("routes", {})
    if not isinstance(routes, Mapping):
        values["routes"] = parse_routes(routes)
    return ServerSettings(**values)
