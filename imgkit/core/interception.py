"""Interception: a test tool answers requests in place of the backend, for every service of the process.

`imgkit.testing.cassette` is such a tool. It stands between a call and its driver, so it needs to know no
HTTP library, and it joins services that exist already.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.runtime.flow import Effect, Finished, Flow, advance, run_blocking
from imgkit.wire.messages import ForkAware, HttpRequest

T = TypeVar("T")


class Interceptor(Protocol):
    """A tool that answers requests, or lets the backend send them."""

    def intercept(self, flow: Flow[T]) -> Flow[T]:
        """Return the flow of a call with its requests answered. It advances `flow` by `advance_for`."""

    def can_answer(self, request: HttpRequest) -> bool:
        """Return whether this request would be answered now, without sending it."""

    def may_send(self, request: HttpRequest) -> bool:
        """Return whether the backend may get this request. It may block: it reads the body."""


class _Advancing(threading.local):
    """The flow that advances in this thread. A call keeps the interceptor that it started with."""

    interceptor: Interceptor | None = None


_interceptors: list[Interceptor] = []
_advancing = _Advancing()


@contextmanager
def intercept_services(interceptor: Interceptor) -> Iterator[None]:
    """Let an interceptor see the requests of all services; an inner interceptor takes the place of an outer.

    Args:
        interceptor: sees the requests of calls that start from now on.
    """
    _interceptors.append(interceptor)
    try:
        yield
    finally:
        _interceptors.remove(interceptor)


def is_intercepting() -> bool:
    """Return whether an interceptor is active."""
    return bool(_interceptors)


def advance_for(interceptor: Interceptor, flow: Flow[T], result: object) -> Effect | Finished[T]:
    """Advance a flow, which asks its interceptor by `can_answer_locally` and `needs_credentials`.

    Args:
        interceptor: answers the requests of the flow.
        flow, result: as for `imgkit.runtime.flow.advance`.
    """
    outer, _advancing.interceptor = _advancing.interceptor, interceptor
    try:
        return advance(flow, result)
    finally:
        _advancing.interceptor = outer


def can_answer_locally(request: HttpRequest) -> bool:
    """Return whether the interceptor of this flow would answer a request without sending it."""
    interceptor = _advancing.interceptor
    return interceptor is not None and interceptor.can_answer(request)


def needs_credentials(request: HttpRequest) -> Flow[bool]:
    """Return whether a request may be sent. A replay needs no key and fetches no token."""
    interceptor = _advancing.interceptor
    if interceptor is None:
        return True
    return (yield from run_blocking(partial(interceptor.may_send, request), before_sending=True))


def is_vcrpy_open() -> bool:
    """Return whether a cassette of vcrpy patches the HTTP libraries now."""
    stubs, client = sys.modules.get("vcr.stubs"), sys.modules.get("http.client")
    return (
        stubs is not None
        and client is not None
        and issubclass(client.HTTPConnection, stubs.VCRHTTPConnection)
    )


def intercept_call(flow: Flow[T], backend: object, backend_name: str, *, reaches_network: bool) -> Flow[T]:
    """Return the flow of a call as the active interceptor changes it; the flow itself if there is none.

    Args:
        flow: a flow that has not started.
        backend, backend_name: the backend of the service.
        reaches_network: the backend sends requests.

    Raises:
        ConfigurationError: a cassette of vcrpy is open, and vcrpy does not patch this backend.
    """
    if _interceptors:
        return _interceptors[-1].intercept(flow)
    if reaches_network and is_vcrpy_open() and not getattr(backend, "is_patched_by_vcrpy", False):
        raise ConfigurationError(
            f"A cassette of vcrpy is open, and vcrpy does not intercept the backend {backend_name!r}. "
            "This request would be sent, paid and not recorded. Nothing was sent.",
            hint="Use imgkit.testing.cassette() or @pytest.mark.imgkit_cassette, which intercept every "
            'backend; or use backend="requests" or backend="aiohttp".',
            field="backend",
        )
    return flow


def find_call_error(error: BaseException) -> ImgkitError | None:
    """Return the error of a call for which a test tool has raised an exception of its own, None for none.

    Such an exception reaches the code under test unhandled. A server answers with the error of the call.

    Args:
        error: the exception; its attribute ``call_error`` holds the error.
    """
    found = getattr(error, "call_error", None)
    return found if isinstance(found, ImgkitError) else None


class DeferredBackend:
    """A backend of either flavor that is built for its first request, so a replay builds none.

    Args:
        build: builds the backend.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._backend: Any = None
        self._lock = threading.Lock()

    @property
    def wire_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend; none before it is built."""
        return () if self._backend is None else self._backend.wire_errors

    @property
    def unsent_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend that prove that nothing was sent; none before it is built."""
        return () if self._backend is None else self._backend.unsent_errors

    @property
    def is_patched_by_vcrpy(self) -> bool:
        """Whether vcrpy intercepts the backend."""
        return bool(getattr(self._get_backend(), "is_patched_by_vcrpy", False))

    def open(self, request: HttpRequest, transfer: Any) -> Any:
        """Send a request with the backend; the result of an asynchronous backend is a coroutine."""
        return self._get_backend().open(request, transfer)

    def close(self) -> None:
        """Close the backend if it was built."""
        if self._backend is not None:
            self._backend.close()

    async def aclose(self) -> None:
        """Close the asynchronous backend if it was built."""
        if self._backend is not None:
            await self._backend.aclose()

    def after_fork(self) -> None:
        """Drop the parent's connections in a forked child."""
        self._lock = threading.Lock()
        if isinstance(self._backend, ForkAware):
            self._backend.after_fork()

    def _get_backend(self) -> Any:
        with self._lock:
            if self._backend is None:
                self._backend = self._build()
            return self._backend
