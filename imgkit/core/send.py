"""One sending of a request, with the hooks around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Literal, TypeAlias

from imgkit.billing.reservations import ReservationGroup
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
from imgkit.images.part_files import PartFiles
from imgkit.models import Attempt, ImageRequest, ImagesResponse
from imgkit.plugins.events import Call, FirstByte, Outcome, Progress, Retrying, Sent
from imgkit.plugins.registry import HookTable
from imgkit.plugins.resources import PluginResources
from imgkit.plugins.tokens import TokenNeeded
from imgkit.providers.base import DecodedImages, Provider, Target
from imgkit.redact import SENSITIVE_HEADERS, Secret
from imgkit.runtime.flow import Flow, ReadChunk, RunBlocking, SendRequest, Sleep
from imgkit.wire.json_body import InMemory, JsonReply
from imgkit.wire.messages import Head, HttpRequest

SHORTEST_SECRET = 8


@dataclass(slots=True)
class CallContext:
    """What one call works with and what has happened in it so far.

    Attributes:
        call: the call, as plugins see it.
        table, equipment: the plugins it began with, and what they supply.
        provider, target: the dialect, and where requests go.
        max_reply_bytes: largest reply that is read.
        deadline: by the clock.
        clock: monotonic seconds.
        attempts: what was sent.
        numbers: of the sendings of the call, from 1 on; its parts share them.
        sent: a request is with the backend and its outcome is not known yet.
        request: what is asked for, once plugins have had their say.
        shared: what the call ends with came of another call with an equal request.
        account: the last sending in the ledgers; open as long as its pictures have not reached the caller.
        scratch: makes what takes the pictures of a reply to disk while they arrive; None: to memory.
        parts: the requests of the call, each with a course of its own; empty where there is only this one.
        emitted: an event of a stream has reached the caller, so nothing is sent again.
        delivered: of a stream: all that was asked for, once it has reached the caller.
    """

    call: Call
    table: HookTable
    equipment: PluginResources
    provider: Provider
    target: Target
    max_reply_bytes: int
    deadline: float
    clock: Callable[[], float]
    attempts: list[Attempt] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    sent: bool = False
    request: ImageRequest | None = None
    shared: bool = False
    account: ReservationGroup = field(default_factory=ReservationGroup)
    scratch: Callable[[], PartFiles] | None = None
    parts: list[CallContext] = field(default_factory=list)
    emitted: bool = False
    delivered: ImagesResponse | None = None

    def part(self) -> CallContext:
        """Return the course of one of several requests of the call."""
        part = replace(self, attempts=[], sent=False, account=ReservationGroup(), parts=[])
        self.parts.append(part)
        return part

    @property
    def in_doubt(self) -> bool:
        """Whether a request is with the backend whose outcome is not known."""
        return self.sent or any(part.sent for part in self.parts)

    def break_off(self, error: BaseException) -> None:
        """The call ends in its midst: what is reserved ends too. Quick."""
        for course in (self, *self.parts):
            course.account.break_off(error)


def read_response(head: Head, course: CallContext, secrets: tuple[Secret, ...]) -> Flow[DecodedImages]:
    """Read the open reply as a whole."""
    reply = yield from read_reply(head, course)
    course.sent = False
    if not 200 <= head.status < 300:
        raise course.provider.error(head, reply.raw(), secrets)
    decode = partial(course.provider.decode, head, reply, course.target, secrets)
    if course.scratch is None:
        return decode()
    answer: DecodedImages = yield RunBlocking(decode)  # which looks at pictures that are on disk
    return answer


Receive: TypeAlias = Callable[[Head, CallContext, tuple[Secret, ...]], Flow[DecodedImages]]


def send_with_retries(
    request: HttpRequest, course: CallContext, receive: Receive = read_response
) -> Flow[tuple[Head, DecodedImages]]:
    """Send `request` and read what comes back, as often as the retry plugins want it.

    Args:
        request: without credentials.
        course: the call.
        receive: reads the open reply.

    Returns:
        The head of the reply and what its body says.

    Raises:
        ImgkitError: as the wire, the API or a plugin has it.
    """
    began = course.clock()
    met: dict[str, int] = {}
    while True:
        try:
            return (yield from send_once(request, course, receive))
        except ImgkitError as error:
            kind = None if course.emitted else classify_failure(error)
            if kind is None:
                raise
            met[kind] = met.get(kind, 0) + 1
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


def classify_failure(error: ImgkitError) -> Literal["unsent", "refused", "failed", "unknown"] | None:
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


def send_once(
    request: HttpRequest, course: CallContext, receive: Receive = read_response
) -> Flow[tuple[Head, DecodedImages]]:
    """Send `request` with the hooks around it, and read what comes back."""
    table, call = course.table, course.call
    request = table.before_send(request, call)
    signed = yield from authenticate(request, table, call)
    secrets = collect_secrets(signed)
    number = next(course.numbers)
    account = yield from _reserve(course, number)
    began = course.clock()
    status: int | None = None
    problem: str | None = None
    table.notify(Sent(request, number), call)
    course.sent = account.sent = True
    try:
        head = yield SendRequest(signed)
        status = head.status
        table.notify(FirstByte(status, head.headers, course.clock() - began), call)
        decoded = yield from receive(head, course, secrets)
        course.sent = False
        return head, decoded
    except ImgkitError as error:
        course.sent = isinstance(error, OutcomeUnknownError)
        problem = type(error).__name__
        if getattr(error, "maybe_billed", False):
            yield from keep_reservations(course, error)
        else:
            yield from settle_reservations(course, None)
        raise
    finally:
        course.attempts.append(Attempt(status, problem, course.clock() - began))


def settle_reservations(course: CallContext, response: ImagesResponse | None) -> Flow[None]:
    """End the account: the pictures have reached the caller, or (None) nothing can have been billed."""
    if course.account.running:
        yield RunBlocking(partial(course.account.settle, response))


def keep_reservations(
    course: CallContext, error: ImgkitError, response: ImagesResponse | None = None
) -> Flow[None]:
    """End the account: what is, or may be, paid for has not reached the caller."""
    if course.account.running:
        yield RunBlocking(partial(course.account.keep, error, response))
    for problem in course.account.problems:
        error.add_note(problem)


def _reserve(course: CallContext, number: int) -> Flow[ReservationGroup]:
    """Return the account of the next sending, which is the course's from here on."""
    ledgers = course.equipment.ledgers
    if ledgers:
        assert course.request is not None, "a call is prepared before it is sent"
        course.account = yield RunBlocking(
            partial(ReservationGroup.reserve, ledgers, course.request, course.call, number),
            before_sending=True,
        )
    return course.account


def authenticate(request: HttpRequest, table: HookTable, call: Call) -> Flow[HttpRequest]:
    """Return a request with the credentials that a plugin has for it."""
    answer = table.authenticate(request, call)
    if isinstance(answer, TokenNeeded):
        yield RunBlocking(answer.fetch, before_sending=True)
        return answer.sign(request)
    return answer


def collect_secrets(signed: HttpRequest) -> tuple[Secret, ...]:
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


def read_reply(head: Head, course: CallContext) -> Flow[JsonReply]:
    """Read the open reply to its end; a success reply is told to the ledgers while it arrives.

    Raises:
        UnreadableReplyError: larger than ``course.max_reply_bytes``.
    """
    success = 200 <= head.status < 300
    account = course.account
    spools = success and account.spools
    scratch = course.scratch() if success and course.scratch is not None else None
    reply = JsonReply(
        getattr(course.provider, "base64_keys", frozenset()) if success else frozenset(),
        InMemory if scratch is None else scratch.new,
    )
    length = head.headers.get("content-length", "")
    expected = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    limit = course.max_reply_bytes
    if spools:
        yield RunBlocking(partial(account.begin, head))
    try:
        while reply.length <= limit and (chunk := (yield ReadChunk())):
            news = reply.feed(chunk)
            del chunk  # hundreds of calls may wait for the disk here
            if spools and news:  # each chunk at once: nobody knows whether there will be another
                yield RunBlocking(partial(account.write, news))
            del news
            if scratch is not None and scratch.due:
                yield RunBlocking(scratch.write)
            course.table.notify(Progress(reply.length, expected), course.call)
    except OutcomeUnknownError as error:
        yield from _closed(reply, account, spools)
        error.body = reply.raw()  # a part of what may be paid for
        raise
    yield from _closed(reply, account, spools)
    if scratch is not None and scratch.used:
        yield RunBlocking(scratch.write)
    if reply.length <= limit:
        return reply
    raise UnreadableReplyError(
        f"HTTP {head.status} with a reply of over {limit} bytes (request id "
        f"{head.request_id or 'not given'}): it was not read to its end and may have been billed. Ask for "
        "fewer or smaller pictures, or raise max_reply_bytes",
        request_id=head.request_id,
        body=reply.raw(),
    )


def _closed(reply: JsonReply, account: ReservationGroup, spools: bool) -> Flow[None]:
    news = reply.close()
    if spools:
        yield RunBlocking(partial(account.finish, news))
