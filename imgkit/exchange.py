"""One sending of a request, with the hooks around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from imgkit.call import Call, FirstByte, Outcome, Progress, Retrying, Sent
from imgkit.errors import (
    ConflictError,
    ImgkitError,
    NotSentError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    UnreadableReplyError,
)
from imgkit.flow import Flow, Open, Read, Run, Sleep
from imgkit.hooks.tokens import TokenNeeded
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
        deadline: by the clock.
        clock: monotonic seconds.
        attempts: what was sent.
        sent: a request is with the backend and its outcome is not known yet.
    """

    call: Call
    table: HookTable
    provider: Provider
    target: Target
    max_reply_bytes: int
    deadline: float
    clock: Callable[[], float]
    attempts: list[Attempt] = field(default_factory=list)
    sent: bool = False


def exchange(request: HttpRequest, course: Course) -> Flow[tuple[Head, Answer]]:
    """Send `request` and read what comes back, as often as the retry plugins want it.

    Returns:
        The head of the reply and what its body says.

    Raises:
        ImgkitError: as the wire, the API or a plugin has it.
    """
    began = course.clock()
    met: Counter[str] = Counter()
    while True:
        try:
            return (yield from send_once(request, course))
        except ImgkitError as error:
            kind = kind_of(error)
            if kind is None:
                raise
            met[kind] += 1
            elapsed_s = course.clock() - began
            outcome = Outcome(
                kind=kind,
                error=error,
                number=met[kind],
                attempts=len(course.attempts),
                elapsed_s=elapsed_s,
                remaining_s=course.deadline - course.clock(),
            )
            wait_s = course.table.retry_wait(outcome, course.call)
            if wait_s is None or wait_s >= outcome.remaining_s:
                raise
        course.table.notify(Retrying(outcome, wait_s), course.call)
        yield Sleep(wait_s)


def kind_of(error: ImgkitError) -> Literal["unsent", "refused", "failed", "unknown"] | None:
    """Return what a failure means for another try, None where there is nothing to ask.

    The server's ``x-should-retry: true`` widens what counts as its own failure, by 408, 409 and 5xx.
    """
    if isinstance(error, NotSentError):
        return "unsent"
    if isinstance(error, RateLimitError):
        return None if isinstance(error, QuotaExceededError) else "refused"
    if isinstance(error, ServerError):
        return "failed" if error.status in (500, 503) or error.should_retry else None
    if isinstance(error, ConflictError):
        return "failed" if error.should_retry else None
    if isinstance(error, OutcomeUnknownError):
        return "failed" if error.should_retry else "unknown"
    return None


def send_once(request: HttpRequest, course: Course) -> Flow[tuple[Head, Answer]]:
    """Send `request` with the hooks around it, and read what comes back."""
    table, call = course.table, course.call
    request = table.before_send(request, call)
    answer = table.authenticate(request, call)
    if isinstance(answer, TokenNeeded):
        yield Run(answer.fetch, before_sending=True)
        answer = answer.sign(request)
    signed = answer
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
        course.sent = isinstance(error, OutcomeUnknownError)
        problem = type(error).__name__
        raise
    finally:
        course.attempts.append(Attempt(status, problem, course.clock() - began))


def _secrets_of(signed: HttpRequest) -> tuple[Secret, ...]:
    """Return what must not come back in a message: credentials, under whatever header signing put them.

    They are wrapped, since tracebacks may show the variables of a frame.
    """
    return tuple(
        Secret(secret)
        for name, value in signed.headers.items()
        if name in SENSITIVE_HEADERS or name in signed.secret_headers
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
