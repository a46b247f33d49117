"""Streams as their callers hold them: context managers over events."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from types import GeneratorType
from typing import TYPE_CHECKING, Self

from imgkit.errors import StreamError
from imgkit.models import ImagesResponse
from imgkit.runtime.driver import Driver
from imgkit.runtime.flow import EmitEvent, Finished, Flow

if TYPE_CHECKING:
    from imgkit.models import StreamEvent
    from imgkit.runtime.async_driver import AsyncDriver

_UNOPENED = (
    "A stream is a context manager. Write `{way} images.stream_image(…) as events:` and iterate inside."
)
_ENDED = (
    "This stream is over. If it was read to its end, `response` holds its response. Call again for other "
    "images."
)
_LEFT_OPEN = "{stream} was dropped without being closed, and is closed now. `{way}` closes it in time."
_FORKED = "This stream belongs to the process that opened it. A forked child needs a stream of its own."
_OTHER_LOOP = "This stream belongs to the event loop that opened it. Read it there, or open another."
_BUSY = "Another task or thread is reading this stream. One reads at a time."


class _Stream:
    """The common part of both streams: their state, and the errors for wrong use."""

    _way: str

    def __init__(self, flow: Flow[ImagesResponse]) -> None:
        self._flow = flow
        self._open = False
        self._process = 0
        self._over = False
        self._reader = 0  # id of the thread that waits for an event, 0 for none
        self._response: ImagesResponse | None = None

    @property
    def response(self) -> ImagesResponse:
        """The response that the call without a stream would return.

        Raises:
            StreamError: the stream has not been read to its end.
        """
        if self._response is None:
            raise StreamError(
                "A stream has its response after its last event. Iterate over it until it stops."
            )
        return self._response

    def _enter(self) -> None:
        if self._open or self._over:
            raise StreamError(_ENDED if self._over else "This stream is open already.")
        self._open = True
        self._process = os.getpid()

    def _check_iteration(self) -> None:
        """Check that iteration may start or go on."""
        if self._over:
            raise StreamError(_ENDED)
        if not self._open:
            raise StreamError(_UNOPENED.format(way=self._way))

    def _start_reading(self) -> None:
        """Check that this thread may read the next event, and mark it as the reader."""
        if not self._open and not self._over:
            raise StreamError(_UNOPENED.format(way=self._way))
        if self._open and self._process != os.getpid():
            raise StreamError(_FORKED)
        if self._reader:
            raise StreamError(_BUSY)
        self._reader = threading.get_ident()

    def _unwrap(self, step: Finished[ImagesResponse] | EmitEvent) -> StreamEvent | None:
        """Return the event of a step, None at the end of the stream."""
        if isinstance(step, Finished):
            self._over = True
            self._response = step.value
            return None
        return step.event

    def _warn_left_open(self) -> None:
        warnings.warn(
            _LEFT_OPEN.format(stream=repr(self), way=self._way), ResourceWarning, stacklevel=3, source=self
        )

    def __repr__(self) -> str:
        state = "ended" if self._over else "open" if self._open else "not entered"
        return f"{type(self).__name__}({state})"


class ImageStream(_Stream):
    """The events of a stream under `ImageService`, as a context manager.

    >>> from imgkit import ImageService
    >>> with ImageService() as images:
    ...     with images.stream_image("a fox", size="64x64") as events:
    ...         for event in events:
    ...             print(type(event).__name__)
    ...     print(events.response[0].format)
    Completed
    png

    Attributes:
        response: after the last event, the response that the call without a stream would return.
    """

    _way = "with"

    def __init__(
        self, flow: Flow[ImagesResponse], start: Callable[[Flow[ImagesResponse]], Driver[ImagesResponse]]
    ) -> None:
        super().__init__(flow)
        self._start = start
        self._lock = threading.Lock()  # one thread may close what another reads
        self._driver: Driver[ImagesResponse] | None = None

    def __enter__(self) -> Self:
        self._enter()
        self._driver = self._start(self._flow)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        self._check_iteration()
        return self

    def __next__(self) -> StreamEvent:
        with self._lock:
            self._start_reading()
            driver = self._driver
        try:
            if self._over or driver is None:
                raise StopIteration
            event = self._unwrap(driver.run_until_event())
        except BaseException:
            self._over = True
            raise
        finally:
            with self._lock:
                self._reader = 0
                closed = self._driver is None
            if closed and driver is not None:
                driver.close()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Close the connection of an unfinished stream. Idempotent. Safe to call from any thread."""
        self._over = True
        with self._lock:
            driver, self._driver = self._driver, None
            busy = self._reader not in (0, threading.get_ident())
        if driver is None:
            return
        # A plugin closes the stream from within its flow.
        is_inside = isinstance(self._flow, GeneratorType) and self._flow.gi_running
        if busy or is_inside:
            driver.abort()  # the reading thread closes it
        else:
            driver.close()

    def __del__(self) -> None:
        if self._driver is not None:
            self._warn_left_open()
            self.close()


class AsyncImageStream(_Stream):
    """The events of a stream under `AsyncImageService`, as an asynchronous context manager.

    >>> import asyncio
    >>> from imgkit import AsyncImageService
    >>> async def main():
    ...     async with AsyncImageService() as images:
    ...         async with images.stream_image("a fox", size="64x64") as events:
    ...             async for event in events:
    ...                 print(type(event).__name__)
    >>> asyncio.run(main())
    Completed

    Attributes:
        response: after the last event, the response that the call without a stream would return.
    """

    _way = "async with"

    def __init__(
        self,
        flow: Flow[ImagesResponse],
        start: Callable[[Flow[ImagesResponse]], AsyncDriver[ImagesResponse]],
        run_until_event: Callable[
            [AsyncDriver[ImagesResponse]], Awaitable[Finished[ImagesResponse] | EmitEvent]
        ],
        close_driver: Callable[[AsyncDriver[ImagesResponse]], None],
    ) -> None:
        super().__init__(flow)
        self._start = start
        self._run_until_event = run_until_event
        self._close_driver = close_driver
        self._driver: AsyncDriver[ImagesResponse] | None = None

    async def __aenter__(self) -> Self:
        self._enter()
        self._driver = self._start(self._flow)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        self._check_iteration()
        return self

    async def __anext__(self) -> StreamEvent:
        if self._driver is not None and not self._driver.is_in_loop:
            raise StreamError(_OTHER_LOOP)
        self._start_reading()
        driver = self._driver
        try:
            if self._over or driver is None:
                raise StopAsyncIteration
            event = self._unwrap(await self._run_until_event(driver))
        except BaseException:
            self._over = True
            raise
        finally:
            self._reader = 0
            if self._driver is None and driver is not None:
                self._close_driver(driver)
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Close the connection of an unfinished stream. Idempotent."""
        self._over = True
        driver, self._driver = self._driver, None
        if driver is None:
            return
        if not driver.is_in_loop:
            driver.close_threadsafe(self._close_driver)
        elif self._reader:
            driver.abort()  # the reading task closes it
        else:
            self._close_driver(driver)

    def __del__(self) -> None:
        if self._driver is not None:
            self._warn_left_open()
            self._driver.close_threadsafe(self._close_driver)
