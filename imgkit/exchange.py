"""One sending of a request, with the hooks around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from imgkit.call import Call, FirstByte, Progress, Sent
from imgkit.errors import ImgkitError, OutcomeUnknownError, TransportError, UnreadableReplyError
from imgkit.flow import Flow, Open, Read
from imgkit.models import Attempt
from imgkit.plugins import HookTable
from imgkit.providers.base import Answer, Provider, Target
from imgkit.redact import SENSITIVE_HEADERS, Secret
from imgkit.wire import Head, HttpRequest

SHORTEST_SECRET = 8


@dataclass(slots=True)
class Course:
    """What one call works with and what has happened in it so far.

    Attributes:
        call: the call, as plugins see it.
        table: the plugins it began with.
        provider, target: the dialect, and where requests go.
        max_reply_bytes: largest reply that is read.
        clock: monotonic seconds.
        attempts: what was sent.
        sent: a request is with the backend and its outcome is not known yet.
    """

    call: Call
    table: HookTable
    provider: Provider
    target: Target
    max_reply_bytes: int
    clock: Callable[[], float]
    attempts: list[Attempt] = field(default_factory=list)
    sent: bool = False


def exchange(request: HttpRequest, course: Course) -> Flow[tuple[Head, Answer]]:
    """Send `request` once and read what comes back.

    Returns:
        The head of the reply and what its body says.

    Raises:
        ImgkitError: as the wire, the API or a plugin has it.
    """
    table, call = course.table, course.call
    request = table.before_send(request, call)
    signed = table.authenticate(request, call)
    secrets = _secrets_of(signed)
    began = course.clock()
    status: int | None = None
    problem: str | None = None
    table.notify(Sent(request, len(course.attempts) + 1), call)
    course.sent = True
    try:
        head = yield Open(signed)
        status = head.status
        table.notify(FirstByte(status, head.headers, course.clock() - began), call)
        body = yield from read_body(head, course)
        course.sent = False
        if not 200 <= status < 300:
            raise course.provider.error(head, body, secrets)
        return head, course.provider.decode(head, body, course.target, secrets)
    except ImgkitError as error:
        course.sent = course.sent and isinstance(error, TransportError)
        problem = type(error).__name__
        raise
    finally:
        course.attempts.append(Attempt(status, problem, course.clock() - began))


def _secrets_of(request: HttpRequest) -> tuple[Secret, ...]:
    """Return what must not come back in a message; wrapped, since frames are shown in tracebacks."""
    return tuple(
        Secret(secret)
        for name, value in request.headers.items()
        if name in SENSITIVE_HEADERS
        for secret in (value, value.rpartition(" ")[2])
        if len(secret) >= SHORTEST_SECRET  # a shorter one would blank out half of a message
    )


def read_body(head: Head, course: Course) -> Flow[bytes]:
    """Read the open reply to its end.

    Raises:
        UnreadableReplyError: larger than ``course.max_reply_bytes``.
    """
    body = bytearray()
    length = head.headers.get("content-length", "")
    expected = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    limit = course.max_reply_bytes
    try:
        while len(body) <= limit and (chunk := (yield Read())):
            body += chunk
            course.table.notify(Progress(len(body), expected), course.call)
    except OutcomeUnknownError as error:
        error.body = bytes(body)  # a part of what may be paid for
        raise
    if len(body) <= limit:
        return bytes(body)
    raise UnreadableReplyError(
        f"HTTP {head.status} with a reply of over {limit} bytes (request id "
        f"{head.request_id or 'not given'}): it was not read to its end and may have been billed. Ask for "
        "fewer or smaller pictures, or raise max_reply_bytes",
        request_id=head.request_id,
        body=bytes(body),
    )
