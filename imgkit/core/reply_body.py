"""The body of an open reply: read it to its end, and hand its chunks to the ledgers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from imgkit.billing.reservations import ReservationGroup
from imgkit.core.context import CallContext
from imgkit.core.cut_replies import attach_whole_images
from imgkit.errors import OutcomeUnknownError, UnreadableReplyError
from imgkit.images.part_files import PartFiles
from imgkit.plugins.events import Progress
from imgkit.runtime.flow import Flow, ReadChunk, RunBlocking, run_blocking_if
from imgkit.wire.arriving_images import MemorySink
from imgkit.wire.json_body import JsonReply, SpoolChunks
from imgkit.wire.messages import Head
from imgkit.wire.secret_filter import SecretFilter


def read_body(
    context: CallContext, head: Head, secrets: SecretFilter, *, spool: bool = True
) -> Flow[JsonReply]:
    """Read the open reply to its end, and let the ledgers know the end.

    Args:
        context, head, secrets: as for `receive_body`.
        spool: the reply is paid for; False for a reply that can be asked for again.

    Raises:
        UnreadableReplyError, OutcomeUnknownError: as `receive_body`.
    """
    reply, finish = yield from receive_body(context, head, secrets, spool=spool)
    if finish is not None:
        yield RunBlocking(finish)
    return reply


def receive_body(
    context: CallContext, head: Head, secrets: SecretFilter, *, spool: bool = True
) -> Flow[tuple[JsonReply, Callable[[], None] | None]]:
    """Read the open reply to its end.

    Each chunk of a 2xx body goes to the ledgers as it arrives: nobody knows whether another will come.

    Args:
        context: the call.
        head: status and headers of the reply.
        secrets: removes credentials that the server repeats.
        spool: as for `read_body`.

    Returns:
        The reply, and the function that keeps its last bytes and its end, None for nothing to keep. The
        caller runs it before anything else; it may block.

    Raises:
        UnreadableReplyError: the reply exceeds the service's ``max_reply_bytes``.
        OutcomeUnknownError: the connection broke; ``error.body`` has the chunks that arrived.
    """
    core, reservations = context.core, context.reservations
    is_success = 200 <= head.status < 300
    spools = spool and is_success and reservations.wants_chunks
    part_files = context.new_part_files() if is_success and context.new_part_files is not None else None
    reply = JsonReply(
        core.provider.base64_keys if is_success else frozenset(),
        MemorySink if part_files is None else part_files.new_file,
        secrets=secrets,
    )
    expected, limit = content_length(head), core.limits.max_reply_bytes
    last: SpoolChunks = []  # the last chunk is written together with the end, which follows at once
    if spools:
        begin = partial(reservations.begin, head, secrets, part_files)
        yield from run_blocking_if(reservations.write_may_block, begin)
    try:
        while reply.length <= limit and (chunk := (yield ReadChunk())):
            spooled = reply.feed(chunk)
            del chunk  # hundreds of calls may wait for the disk here
            if spools and reply.length == expected:
                last = spooled
            elif spools and spooled:
                yield from run_blocking_if(reservations.write_may_block, partial(reservations.write, spooled))
            del spooled
            if part_files is not None and not last and part_files.should_flush:
                yield RunBlocking(part_files.write)
            core.table.notify(Progress(reply.length, expected), context.call)
    except OutcomeUnknownError as error:
        rest = last + reply.close()
        if spools:
            yield RunBlocking(partial(reservations.finish, rest))
        error.body = reply.raw()
        if is_success:
            attach_whole_images(error, error.body)
        raise
    except BaseException:  # an interruption, before the end was read
        if last:
            reservations.write(last)
        raise
    rest = last + reply.close()
    finish = None
    is_behind = part_files is not None and part_files.is_behind
    if spools or is_behind:
        finish = partial(_finish_body, reservations if spools else None, rest, part_files)
    if finish is not None and not is_behind and not reservations.write_may_block:
        finish()
        finish = None
    if reply.length <= limit:
        return reply, finish
    if finish is not None:
        yield RunBlocking(finish)
    raise UnreadableReplyError(
        f"HTTP {head.status} with a reply of over {limit} bytes (request id "
        f"{head.request_id or 'not given'}). It was not read to its end and may have been billed.",
        hint="Ask for fewer or smaller images, or raise max_reply_bytes.",
        field="max_reply_bytes",
        request_id=head.request_id,
        body=reply.raw(),
    )


def _finish_body(
    reservations: ReservationGroup | None, rest: SpoolChunks, part_files: PartFiles | None
) -> None:
    """Keep the last bytes of a reply, and write the images to disk that are there in part. May block."""
    if reservations is not None:
        reservations.finish(rest)
    if part_files is not None and part_files.is_behind:
        part_files.write()


def content_length(head: Head) -> int | None:
    """Return the Content-Length of a reply in bytes, None if it is missing or no number."""
    length = head.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
