"""The calls of a server: each runs once, and any number of clients read its reply."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from aiohttp.web import BaseRequest, Response, StreamResponse

from imgkit.errors import ImgkitError
from imgkit.images.sources import BytesSource
from imgkit.models import ImagesResponse
from imgkit.server.envelopes import ErrorReply
from imgkit.server.frames import Frame, encode_frame, measure_frame
from imgkit.server.reply_memory import ReplyMemory, is_in_memory, write_images
from imgkit.server.silent_clients import WriteLimit, abort_connection

WHOLE_BYTES = 256 * 1024
"""Largest reply that is sent as a whole."""

MOST_ENDED = 256
"""Most calls whose reply is kept after their end, beside those that no client has."""

State: TypeAlias = Literal["running", "done", "failed", "unknown"]


class ServedCall:
    """A call, and its reply as far as it exists.

    Args:
        key: digest of the request; equal requests have equal keys.
        operation: the operation.
        model: the model as the caller names it.
        provider: the provider.
        prompt: the prompt.

    Attributes:
        id: id of the call at the server.
        state: what became of it.
        status: HTTP status of the reply, None before it is known.
        headers: headers of the reply.
        length: number of bytes of the body, None for a stream.
        readers: clients that read the reply, or wait for it.
        joined: repetitions that were given this call.
        is_delivered: a client has the whole reply.
        is_free_to_repeat: it ended with an error that cost nothing and may pass, such as a 429.
        response: the images.
        error: the problem, in words.
        code: its short name, such as "fixture_missing".
        files: files of the server that belong to the reply.
        has_links: the reply has URLs in place of the images, which keep them.
        started_at: Unix time of its start.
        elapsed_s: seconds that it took, None while it runs.
        was_sent: returns whether a request has left.
        task: the task that carries it out.
    """

    def __init__(
        self, key: str, operation: str, model: str | None, provider: str, prompt: str | None
    ) -> None:
        self.id = secrets.token_hex(6)
        self.key = key
        self.operation = operation
        self.model = model
        self.provider = provider
        self.prompt = prompt
        self.state: State = "running"
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.readers = 0
        self.joined = 0
        self.is_delivered = False
        self.is_free_to_repeat = False
        self.response: ImagesResponse | None = None
        self.error: str | None = None
        self.code: str | None = None
        self.files: list[Path] = []
        self.has_links = False
        self.started_at = time.time()
        self.elapsed_s: float | None = None
        self.was_sent: Callable[[], bool] = lambda: False
        self.task: asyncio.Task[None] | None = None
        self._started = time.monotonic()
        self._frames: list[Frame] = []
        self._is_closed = False
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_running(self) -> bool:
        """Whether the reply is not complete yet."""
        return not self._is_closed

    @property
    def has_head(self) -> bool:
        """Whether status and headers of the reply are known."""
        return self.status is not None

    def start_stream(self, headers: Mapping[str, str]) -> None:
        """Begin a reply whose length is not known."""
        self.status, self.headers = 200, dict(headers)

    def add_frame(self, frame: Frame) -> None:
        """Add a part of the reply."""
        self._frames.append(frame)
        self._wake()

    def finish(
        self,
        response: ImagesResponse,
        frame: Frame | None,
        headers: Mapping[str, str],
        files: Sequence[Path],
    ) -> None:
        """End the call with images.

        Args:
            response: the images.
            frame: the whole body, None for a stream, whose events were added.
            headers: headers of the reply.
            files: files of the server that belong to the reply.
        """
        self.response, self.state = response, "done"
        if frame is not None:
            self.status, self.headers = 200, dict(headers)
            self.length = measure_frame(frame)
            self._frames = [frame]
        self.files += files
        self._close()

    def fail(self, reply: ErrorReply, frame: Frame, *, is_free_to_repeat: bool) -> None:
        """End the call with an error.

        Args:
            reply: the error as the server sends it.
            frame: its body, or the event that ends a stream.
            is_free_to_repeat: nothing was paid, and a repetition may succeed.
        """
        self.state = "unknown" if reply.maybe_billed else "failed"
        self.is_free_to_repeat = is_free_to_repeat
        error = reply.envelope["error"]
        if isinstance(error, dict):
            self.error, self.code = str(error["message"]), str(error["code"])
        if self.has_head:
            self._frames.append(frame)
        else:
            self.status, self.headers = reply.status, dict(reply.headers)
            self._frames, self.length = [frame], measure_frame(frame)
        self._close()

    async def send(self, request: BaseRequest, extra: Mapping[str, str]) -> StreamResponse:
        """Send the reply to a client, from its beginning, while it arrives.

        Args:
            request: the request of the client.
            extra: further headers.

        Raises:
            ConnectionError: the client left, or reads too slowly.
        """
        self.readers += 1
        try:
            while not self.has_head:
                await self._wait()
            headers = {**self.headers, **extra, "x-imgkit-call-id": self.id}
            if self.length is not None and self.length <= WHOLE_BYTES:
                response = await self._send_whole(request, headers)
            else:
                response = await self._send_frames(request, headers)
            self.is_delivered = True
            return response
        except ImgkitError:  # the file of an image is gone
            abort_connection(request)
            raise ConnectionAbortedError("an image of the reply is gone") from None
        finally:
            self.readers -= 1

    async def _send_whole(self, request: BaseRequest, headers: Mapping[str, str]) -> StreamResponse:
        body = b"".join(encode_frame(self._frames[0]))
        response = Response(body=body, status=self.status or 200, headers=headers)
        await response.prepare(request)
        async with WriteLimit(request):
            await response.write_eof()
        return response

    async def _send_frames(self, request: BaseRequest, headers: Mapping[str, str]) -> StreamResponse:
        response = StreamResponse(status=self.status or 200, headers=headers)
        if self.length is not None:
            response.content_length = self.length
        await response.prepare(request)
        number = 0
        limit = WriteLimit(request)
        while True:
            while number < len(self._frames):
                async with limit:
                    for block in encode_frame(self._frames[number]):
                        await response.write(block)
                        limit.note_progress()
                number += 1
            if self._is_closed:
                break
            await self._wait()
        async with limit:
            await response.write_eof()
        return response

    async def wait_for_end(self) -> None:
        """Wait until the reply is complete."""
        while not self._is_closed:
            await self._wait()

    def is_late(self, seconds: float) -> bool:
        """Return whether no client has paid images some seconds after the end, and they are in memory."""
        return (
            self.response is not None
            and self._is_closed
            and not self.is_delivered
            and self.was_sent()
            and any(is_in_memory(image.source) for image in self.response.images)
            and time.monotonic() >= self._started + (self.elapsed_s or 0.0) + seconds
        )

    async def write_files(self) -> None:
        """Write the images to files, so that they outlive the process."""
        images = () if self.response is None else self.response.images
        paths = await asyncio.to_thread(write_images, images)
        self.files += paths
        if not self._frames:  # the call was dropped meanwhile
            await self.remove_files()

    async def remove_files(self) -> None:
        """Delete the images of the reply: the facts about it stay."""
        self._frames = []
        if self.response is not None:
            images = tuple(replace(image, source=BytesSource(b"")) for image in self.response.images)
            self.response = replace(self.response, images=images)
        files, self.files = self.files, []
        if files:
            await asyncio.to_thread(_remove, files)

    def _close(self) -> None:
        self._is_closed = True
        self.elapsed_s = time.monotonic() - self._started
        self._wake()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class CallBook:
    """The calls that run, and those that ended a moment ago.

    Args:
        repeat_s: seconds after the end of a call in which a repetition gets its reply.
        drop: forgets a call: it removes its files, and keeps images that nobody has.

    Attributes:
        memory: the memory of all replies.
    """

    def __init__(
        self, repeat_s: float, drop: Callable[[ServedCall], Coroutine[object, object, None]]
    ) -> None:
        self._repeat_s = repeat_s
        self._drop = drop
        self._calls: dict[str, list[ServedCall]] = {}
        self._drops: set[asyncio.Task[object]] = set()
        self._ended: deque[ServedCall] = deque()
        self.memory = ReplyMemory()

    @property
    def running(self) -> list[ServedCall]:
        """The calls that run."""
        return [call for calls in self._calls.values() for call in calls if call.is_running]

    @property
    def kept(self) -> list[ServedCall]:
        """All calls of which the book knows."""
        return [call for calls in self._calls.values() for call in calls]

    def find_repeated(self, key: str, retries: int | None) -> ServedCall | None:
        """Return the call that a request repeats, None for a request of its own.

        An SDK counts its repetitions. A request without such a count repeats a call only if the client of
        that call has left without its reply.

        Args:
            key: digest of the request.
            retries: the count of the client, None if it sends none.
        """
        if retries == 0:
            return None
        known = self._calls.get(key, [])
        orphans = [call for call in known if not call.readers and not call.is_delivered and not call.joined]
        orphans = orphans or [call for call in known if not call.readers and not call.is_delivered]
        found = next((call for call in orphans if not call.is_free_to_repeat), None)
        if retries is None or found is not None:
            return found
        running = min(
            (call for call in known if call.is_running), key=lambda call: call.readers, default=None
        )
        last = running or max(known, key=lambda call: call.started_at, default=None)
        return None if last is None or last.is_free_to_repeat else last

    def start(self, call: ServedCall, work: Coroutine[object, object, None]) -> None:
        """Carry out a call in a task of its own: it goes on if its client leaves."""
        self._calls.setdefault(call.key, []).append(call)
        call.task = asyncio.get_running_loop().create_task(work, name=f"imgkit call {call.id}")
        call.task.add_done_callback(lambda task: self._note_end(call))

    async def close(self) -> None:
        """Drop all calls, and wait for those that are being dropped."""
        for call in self.kept:
            self.remove(call)
            await self._drop(call)
        if self._drops:
            await asyncio.wait(self._drops)

    def _note_end(self, call: ServedCall) -> None:
        self._forget_later(call)
        self._ended.append(call)
        # A busy server forgets sooner, a call for each that ends.
        if len(self._ended) > MOST_ENDED or (self.memory.is_scarce and len(self._ended) > 1):
            oldest = self._ended.popleft()
            if oldest.is_delivered and not oldest.readers:
                self._forget(oldest)

    def _forget_later(self, call: ServedCall) -> None:
        asyncio.get_running_loop().call_later(self._repeat_s, self._forget, call)

    def _forget(self, call: ServedCall) -> None:
        if call.readers:
            self._forget_later(call)
            return
        if not self.remove(call):
            return
        task = asyncio.get_running_loop().create_task(self._drop(call))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)

    def remove(self, call: ServedCall) -> bool:
        """Forget a call without dropping it. Return whether the book knew it."""
        calls = self._calls.get(call.key, [])
        if call not in calls:
            return False
        calls.remove(call)
        if not calls:
            del self._calls[call.key]
        return True


def _remove(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
