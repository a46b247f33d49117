"""Bridges: an asynchronous backend with blocking calls, and a blocking backend with coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from imgkit.errors import ServiceClosedError
from imgkit.runtime.async_driver import in_thread
from imgkit.runtime.driver import JOIN_TIMEOUT_S, marks_leaving
from imgkit.wire.messages import AsyncBackend, AsyncReply, Backend, ForkAware, Head, HttpRequest, Reply
from imgkit.wire.transfer import Transfer

T = TypeVar("T")


class Aborted(Exception):
    """A bridged request was aborted: by its deadline, or because its service was closed."""


class LoopBackend:
    """An asynchronous backend with blocking calls, which runs on a background loop of its own."""

    def __init__(self, inner: AsyncBackend) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self.replies: set[_LoopReply] = set()

    @property
    def marks_leaving(self) -> bool:
        """Whether the backend tells when a request leaves."""
        return marks_leaving(self._inner)

    @property
    def wire_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend, and the error of an aborted request."""
        return (*self._inner.wire_errors, Aborted)

    @property
    def unsent_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend that prove that nothing was sent."""
        return self._inner.unsent_errors

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """See `imgkit.wire.messages.Backend.open`."""
        waiter = _Waiter(self)
        transfer.on_abort(waiter.cancel)
        reply = _LoopReply(waiter.wait(lambda: self._inner.open(request, transfer)), waiter)
        self.replies.add(reply)
        return reply

    def close(self) -> None:
        """Close the backend, then end the loop and its thread. Idempotent."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self._aclose(), loop)
        concurrent.futures.wait([closing], timeout=JOIN_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=JOIN_TIMEOUT_S)

    async def _aclose(self) -> None:
        for reply in list(self.replies):  # interrupted calls may not have closed theirs yet
            reply.inner.close()
        await self._inner.aclose()

    def after_fork(self) -> None:
        """Forget the parent's loop in a forked child: its thread is not here, and its selector is shared."""
        self._lock = threading.Lock()
        if self._loop is not None:
            _inherited_loops.append(self._loop)
        self._loop = self._thread = None
        if isinstance(self._inner, ForkAware):
            self._inner.after_fork()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop. The first call starts it."""
        with self._lock:
            if self._closed:
                raise ServiceClosedError("This service is closed. Make a new one.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="imgkit-loop", daemon=True
                )
                self._thread.start()
            return self._loop

    def call_soon(self, fn: Callable[[], None]) -> None:
        """Call `fn` on the loop's thread, if the loop still runs."""
        loop = self._loop
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(fn)


class _Waiter:
    """Waits in a plain thread for the coroutines of one request. Another thread may cancel it."""

    def __init__(self, backend: LoopBackend) -> None:
        self.backend = backend
        self._future: concurrent.futures.Future[Any] | None = None
        self._cancelled = False

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop = self.backend.loop()
        future = self._future = asyncio.run_coroutine_threadsafe(work(), loop)
        if self._cancelled:
            future.cancel()
        try:
            result: T = future.result()
            return result
        except concurrent.futures.CancelledError:
            raise Aborted("aborted") from None
        except BaseException:
            future.cancel()  # after Ctrl-C in this thread, the task must not go on alone
            concurrent.futures.wait([future], timeout=JOIN_TIMEOUT_S)
            raise

    def cancel(self) -> None:
        self._cancelled = True
        if self._future is not None:
            self._future.cancel()


class _LoopReply:
    def __init__(self, inner: AsyncReply, waiter: _Waiter) -> None:
        self.head: Head = inner.head
        self.inner = inner
        self._waiter = waiter

    def read(self) -> bytes:
        try:
            return self._waiter.wait(self._read)
        except ServiceClosedError:
            # The request was sent, so its outcome is unknown; this error would hide that.
            raise Aborted("closed") from None

    def close(self) -> None:
        self._waiter.backend.call_soon(self._close)  # a closing backend closes its replies itself

    def _close(self) -> None:
        self._waiter.backend.replies.discard(self)
        self.inner.close()

    async def _read(self) -> bytes:
        return await self.inner.read()


class ThreadBackend:
    """A blocking backend with coroutines, which runs in threads of the service's executor."""

    def __init__(self, inner: Backend, executor: Callable[[], Executor]) -> None:
        self._inner = inner
        self._executor = executor

    @property
    def marks_leaving(self) -> bool:
        """Whether the backend tells when a request leaves."""
        return marks_leaving(self._inner)

    @property
    def wire_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend."""
        return self._inner.wire_errors

    @property
    def unsent_errors(self) -> tuple[type[Exception], ...]:
        """The errors of the backend that prove that nothing was sent."""
        return self._inner.unsent_errors

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncReply:
        """See `imgkit.wire.messages.AsyncBackend.open`."""
        reply = await in_thread(self._executor(), lambda: self._inner.open(request, transfer), transfer.abort)
        return _ThreadReply(reply, self._executor, transfer)

    async def aclose(self) -> None:
        """Close the backend. Idempotent."""
        self._inner.close()


class _ThreadReply:
    def __init__(self, inner: Reply, executor: Callable[[], Executor], transfer: Transfer) -> None:
        self.head: Head = inner.head
        self._inner = inner
        self._executor = executor
        self._transfer = transfer

    async def read(self) -> bytes:
        return await in_thread(self._executor(), self._inner.read, self._transfer.abort)

    def close(self) -> None:
        self._inner.close()


_inherited_loops: list[object] = []
"""Loops of the parent process. A forked child keeps them so that no finalizer closes them."""


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
