"""The work of a server's calls: from the request of a caller to the frames of its reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from imgkit.core.interception import find_call_error
from imgkit.errors import ImgkitError
from imgkit.models import Completed, ImagesResponse, Operation, PartialImage
from imgkit.server.asked import AskedCall
from imgkit.server.borders import FILES_PATH
from imgkit.server.calls import CallBook, ServedCall
from imgkit.server.envelopes import ErrorReply, build_bug_reply, build_error_reply, may_repeat
from imgkit.server.frames import (
    Item,
    build_error_event,
    build_event_frame,
    build_json_frame,
    find_source,
    list_files,
)
from imgkit.server.history import History, find_cost
from imgkit.server.late_reservations import LateReplies
from imgkit.server.received_bodies import ReceivedBody
from imgkit.server.reply_memory import write_images
from imgkit.server.result_files import ResultFiles
from imgkit.server.served_service import (
    IN_MEMORY_BYTES,
    ReplyPlan,
    ServedProvider,
    ServedProviders,
    ServedRecord,
    keep_partial,
)
from imgkit.server.settings import ServerSettings

JSON_HEADERS = {"content-type": "application/json", "cache-control": "no-store"}
EVENT_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}


class ServerContext(NamedTuple):
    """The state of a running server, which all its requests share.

    Attributes:
        settings: its settings.
        providers: the providers behind it.
        folder: folder for its files.
        book: its calls.
        results: the images behind its result URLs.
        history: its last calls.
        late_replies: its replies that the spools do not have yet.
    """

    settings: ServerSettings
    providers: ServedProviders
    folder: Path
    book: CallBook
    results: ResultFiles
    history: History
    late_replies: LateReplies


class CallRunner:
    """Carries out the calls of a server.

    Args:
        context: the server.

    Attributes:
        must_leave_jobs: calls leave their jobs to a later process, and send nothing more.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self.must_leave_jobs = False

    def start(
        self, operation: Operation, asked: AskedCall, body: ReceivedBody, key: str, root: str
    ) -> ServedCall:
        """Begin a call and return it.

        Args:
            operation: the operation.
            asked: the call.
            body: holds its input images.
            key: digest of the request.
            root: address of the server as the caller names it, for result URLs.
        """
        context = self._context
        served = context.providers.find(asked.provider)
        prompt = getattr(asked.request, "prompt", None)
        call = ServedCall(key, operation, asked.model, served.service.provider_name, prompt)
        context.history.note_start(call)
        context.book.start(call, self._carry_out(call, asked, body, served, root))
        return call

    async def _carry_out(
        self, call: ServedCall, asked: AskedCall, body: ReceivedBody, served: ServedProvider, root: str
    ) -> None:
        """Carry out a call; whatever happens, its clients get a reply.

        `body` holds the input images: their files live as long as it.
        """
        record = ServedRecord(served.pace, lambda: self.must_leave_jobs)
        context, service, cache = self._context, served.service, self._context.settings.cache
        call.was_sent = lambda: record.was_sent and service.may_cost
        plan = ReplyPlan.for_call(context.folder, call.id, context.book.memory)
        try:
            # A stream is never in the cache, and the use "only" sends nothing.
            if asked.is_stream and service.can_stream and cache != "only":
                await self._stream(call, asked, served, plan, record)
            else:
                response = await service.carry_out(asked.request, plan, record, cache, context.late_replies)
                if asked.is_stream:
                    self._emit_images(call, response)
                else:
                    if asked.by_url:
                        await asyncio.to_thread(write_images, response.images)
                    self._finish_json(call, response, asked, root)
        except ImgkitError as error:
            self._fail_with(call, error, record)
        except asyncio.CancelledError as error:
            self._fail(call, build_bug_reply(error, call.id, was_begun=True))
            raise
        except Exception as error:
            if (known := find_call_error(error)) is not None:
                self._fail_with(call, known, record)
                return
            self._fail(call, build_bug_reply(error, call.id, was_begun=True))
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"imgkit call {call.id} failed", "exception": error}
            )
        finally:
            context.history.note_end(call)

    def _finish_json(self, call: ServedCall, response: ImagesResponse, asked: AskedCall, root: str) -> None:
        items = []
        call.has_links = asked.by_url
        for image in response.images:
            members = {"revised_prompt": image.revised_prompt} if image.revised_prompt else {}
            if asked.by_url:
                url = f"{root}{FILES_PATH}{self._context.results.add(image, was_paid=call.was_sent())}"
                items.append(Item(None, {"url": url, **members}))
            else:
                items.append(Item(find_source(image), members))
        files = [] if asked.by_url else list_files(response.images)
        call.finish(response, build_json_frame(response, items), _reply_headers(call, response), files)

    def _emit_images(self, call: ServedCall, response: ImagesResponse) -> None:
        """End the stream of a provider that has no streams: its images are events at the end."""
        call.start_stream({**EVENT_HEADERS, **_reply_headers(call, response, {})})
        for image in response.images:
            last = response.usage if image is response.images[-1] else None
            event = Completed(image, last, response.created, meta=response.meta)
            call.add_frame(build_event_frame(call.operation, event))
        files = list_files(response.images)
        call.finish(response, None, {}, files)

    async def _stream(
        self,
        call: ServedCall,
        asked: AskedCall,
        served: ServedProvider,
        plan: ReplyPlan,
        record: ServedRecord,
    ) -> None:
        stream = served.service.open_stream(asked.request, plan, record, asked.partial_images)
        async with stream as events:
            async for event in events:
                if isinstance(event, PartialImage):
                    event = await self._keep_partial(event, call)
                else:
                    call.files += list_files([event.image])
                if not call.has_head:
                    call.start_stream(EVENT_HEADERS)
                call.add_frame(build_event_frame(call.operation, event))
        response = stream.response
        if response is None:
            raise ConnectionAbortedError("the stream has no response")
        call.finish(
            response, None, {}, [path for path in list_files(response.images) if path not in call.files]
        )

    async def _keep_partial(self, event: PartialImage, call: ServedCall) -> PartialImage:
        source = event.image.source
        if source.length > IN_MEMORY_BYTES:
            kept = await asyncio.to_thread(keep_partial, self._context.folder, source)
        else:
            kept = keep_partial(self._context.folder, source)
        path = getattr(kept, "path", None)
        call.files += [path] if path is not None else []
        return PartialImage(event.index, replace(event.image, source=kept, path=None))

    def _fail_with(self, call: ServedCall, error: ImgkitError, record: ServedRecord) -> None:
        # A call that has sent nothing shares the failure of an equal call, and its repetitions.
        was_repeated = record.was_repeated or not record.was_sent
        reply = build_error_reply(error, call.id, was_repeated=was_repeated)
        self._fail(call, reply, is_free_to_repeat=may_repeat(error))

    def _fail(self, call: ServedCall, reply: ErrorReply, *, is_free_to_repeat: bool = False) -> None:
        headers = {**JSON_HEADERS, **reply.headers}
        frame = build_error_event(reply.envelope) if call.has_head else (json.dumps(reply.envelope).encode(),)
        call.fail(reply._replace(headers=headers), frame, is_free_to_repeat=is_free_to_repeat)


def _reply_headers(
    call: ServedCall, response: ImagesResponse, base: Mapping[str, str] = JSON_HEADERS
) -> dict[str, str]:
    headers = {**base, "x-request-id": response.meta.request_id or call.id}
    call.response = response
    cost = find_cost(call)
    if cost is not None:
        headers["x-imgkit-cost-usd"] = f"{cost:f}"
    if response.meta.cached:
        headers["x-imgkit-cached"] = "true"
    return headers
