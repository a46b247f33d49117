"""Servers that refuse streams: send the request for a stream, then once without a stream."""

from __future__ import annotations

import re
from collections.abc import Callable

from imgkit.core.context import CallContext
from imgkit.core.send import ReplyReader, send_with_retries
from imgkit.core.stream_collector import StreamCollector
from imgkit.errors import ApiError, BadRequestError, ImgkitError, UnknownParameterError
from imgkit.runtime.flow import Flow
from imgkit.wire.messages import Head, HttpRequest

_STREAM_WORDS = re.compile(r"(?i)\b(?:stream(?:ing|ed|s)?|partial_images)\b")


def send_stream(
    context: CallContext,
    request: HttpRequest,
    to_plain: Callable[[], HttpRequest],
    collector: StreamCollector,
    read: ReplyReader,
) -> Flow[Head]:
    """Send a request for a stream, and once without a stream if the server refuses streams.

    Args:
        context: the call.
        request: the request for a stream.
        to_plain: returns the request without a stream.
        collector: receives the events, and a warning.
        read: reads the open reply.

    Returns:
        The head of the last reply.
    """
    try:
        return (yield from send_with_retries(context, request, read)).head
    except ApiError as error:
        if context.emitted or error.maybe_billed or not _refuses_stream(error):
            raise
        refusal = str(error)[:300]
    collector.warn(f"The server refuses to stream, so imgkit asked again without a stream ({refusal})")
    try:
        return (yield from send_with_retries(context, to_plain(), read)).head
    except ImgkitError as error:
        error.add_note(f"Before this request the server refused to stream: {refusal}")
        raise


def _refuses_stream(error: ApiError) -> bool:
    """Return whether an error proves that the server made nothing, because it does not stream.

    The reply's code outranks the status: a code with a meaning of its own never refuses a stream.
    """
    if type(error) not in (ApiError, BadRequestError, UnknownParameterError):
        return False
    if error.status in (406, 415) and not isinstance(error, UnknownParameterError):
        return True
    if error.status not in (400, 406, 415, 422):
        return False
    return _STREAM_WORDS.search(str(error) if error.param is None else error.param) is not None
