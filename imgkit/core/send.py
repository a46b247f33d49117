"""Attempts: send a request with the hooks around it, read the response, and retry as plugins ask.

A ledger reservation begins and ends in `send_once`, but for a delivered response: its reservation
stays open until `imgkit.core.lifecycle.deliver` has saved the images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeAlias, TypeVar

from imgkit.billing.reservations import ReservationGroup, reserve_may_block
from imgkit.core.context import CallContext, CallTurn, FetchedImages
from imgkit.core.cut_replies import decode_mended
from imgkit.core.interception import needs_credentials
from imgkit.core.provider_calls import call_decode, check_decoded, ensure_images, guard_decode, to_reply_error
from imgkit.core.reply_body import receive_body
from imgkit.core.retries import (
    choose_wait_s,
    classify_failure,
    is_stopping,
    pause_before_retry,
    raise_most_serious,
)
from imgkit.core.sent_secrets import clean_images, collect_secrets, refuse_secrets_in_texts
from imgkit.errors import (
    EmptyResultError,
    ImgkitError,
    OutcomeUnknownError,
    UnreadableReplyError,
)
from imgkit.models import Attempt, ImagesResponse
from imgkit.plugins.events import Call, FirstByte, Outcome, Retrying, Sent
from imgkit.plugins.table import HookTable
from imgkit.plugins.tokens import TokenNeeded
from imgkit.providers.base import DecodedImages, StreamingProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import Flow, RunBlocking, run_blocking, run_blocking_if, send_request
from imgkit.wire.messages import BytesBody, Head, HttpRequest, announces_events, hash_body
from imgkit.wire.secret_filter import SecretFilter

T = TypeVar("T")


def send_with_retries(
    context: CallContext, request: HttpRequest, read: ReplyReader | None = None
) -> Flow[FetchedImages]:
    """Send a request and read its response, again and again while the retry plugins ask for it.

    Args:
        context: the call.
        request: without credentials.
        read: reads the open reply; `read_response` by default.

    Raises:
        ImgkitError: the failure of the last attempt, or of an earlier attempt that may have been billed.
    """
    started = time.monotonic()
    failures: dict[str, int] = {}
    earlier: list[ImgkitError] = []
    record = context.options.record
    turn: CallTurn | None = None
    while True:
        sent_before = len(context.attempts)
        try:
            if record is not None:
                turn = yield from record.take_turn(context.request.n or 1)
                context.cleanup.callback(turn.release)
            fetched = yield from send_once(context, request, read or read_response)
        except ImgkitError as error:
            if turn is not None:
                turn.note_failure(error)
            kind = None if context.emitted else classify_failure(error)
            wait_s: float | None = None
            if kind is not None:
                failures[kind] = failures.get(kind, 0) + 1
                now = time.monotonic()
                outcome = Outcome(
                    kind=kind,
                    error=error,
                    number=failures[kind],
                    attempts=len(context.attempts),
                    elapsed_s=now - started,
                    remaining_s=context.deadline - now,
                )
                wait_s = choose_wait_s(context, outcome)
            if wait_s is None:
                raise_most_serious(earlier, error, was_sent=len(context.attempts) > sent_before)
            if len(context.attempts) > sent_before:
                earlier.append(error)
        else:
            if context.gate is not None:
                context.gate.note_success()
            if turn is not None:
                turn.note_success()
            return fetched
        context.core.table.notify(Retrying(outcome, wait_s), context.call)
        with suppress(ImgkitError):  # an interruption ends the next attempt, too
            yield from pause_before_retry(context, outcome, wait_s)
        if is_stopping(context):
            raise_most_serious(earlier, outcome.error, was_sent=len(context.attempts) > sent_before)


def send_once(context: CallContext, request: HttpRequest, read: ReplyReader) -> Flow[FetchedImages]:
    """Make one attempt: hooks, credentials, reservation, request, response.

    Raises:
        ImgkitError: the attempt failed; its reservation is settled, or kept if it may be billed.
    """
    table, call = context.core.table, context.call
    if not isinstance(request.body, BytesBody) and any(
        not impl.origin.is_own for impl in (*table.before_sends, *table.authenticates)
    ):
        # A signer may ask for the digest of the body in a hook, which must not read files.
        yield from run_blocking(partial(hash_body, request.body), before_sending=True)
    request = table.before_send(request, call)
    signed = yield from authenticate(request, table, call)
    credentials = collect_secrets(signed, context.request)
    if context.request is not None:
        refuse_secrets_in_texts(context.request, credentials)
    secrets = context.core.sent.remember(credentials)
    number = context.attempt = next(context.attempt_numbers)
    ledgers, record = context.core.resources.ledgers, context.options.record
    if context.mark_sent is not None:
        yield from run_blocking(partial(context.mark_sent, number), before_sending=True)
    if ledgers or record is not None:
        may_block = (record is not None and record.may_block) or reserve_may_block(ledgers)
        reserve = partial(_reserve, context, number)
        context.reservations = yield from run_blocking_if(may_block, reserve, before_sending=True)
    if context.gate is not None and context.gate.is_closed:
        yield RunBlocking(context.reservations.close)
        raise context.gate.to_error()
    started = time.monotonic()
    status: int | None = None
    error_name: str | None = None
    table.notify(Sent(request, number), call)
    context.in_flight = context.reservations.sent = True
    try:
        note_leaving = None if record is None else partial(record.mark_leaving, context.name_part(number))
        head = yield from send_request(signed, note_leaving)
        head = Head(head.status, secrets.clean_headers(head.headers))
        status = head.status
        table.notify(FirstByte(status, head.headers, time.monotonic() - started), call)
        if record is not None:
            record.note_reply(head)
        decoded = yield from read(context, head, secrets)
        context.in_flight = False
        if isinstance(decoded, JobUpdate):
            return FetchedImages(head, DecodedImages(pictures=()), update=decoded)
        return FetchedImages(head, decoded)
    except ImgkitError as error:
        secrets.clean_error(error)
        context.in_flight = isinstance(error, OutcomeUnknownError)
        error_name = type(error).__name__
        if error.maybe_billed:
            yield from keep_reservations(context, error)
        else:
            yield from settle_reservations(context, None)
            attach_problems(context, error)
            if context.mark_sent is not None:
                yield from run_blocking(partial(context.mark_sent, None))
            yield from mark_ended(context, number)
        raise
    finally:
        context.attempts.append(Attempt(status, error_name, time.monotonic() - started))


def _reserve(context: CallContext, number: int) -> ReservationGroup:
    """Reserve an attempt, and let the record of the call know that it is about to leave. May block.

    Raises:
        ImgkitError: a ledger refused, or the record cannot be written; nothing is reserved.
    """
    ledgers, record = context.core.resources.ledgers, context.options.record
    reservations = context.options.new_reservations()
    reservations.reserve(ledgers, context.request, context.call, number)
    is_stopped = context.gate is not None and context.gate.is_closed
    if record is not None and not is_stopped:
        try:
            record.mark_sending(context.name_part(number))
        except BaseException:
            reservations.close()
            raise
    return reservations


def mark_ended(context: CallContext, attempt: int = 0) -> Flow[None]:
    """Tell the record of the call that an attempt, or all of them for 0, cannot bring images any more.

    A record that cannot be written keeps the attempt as open, which costs nothing.
    """
    record = context.options.record
    if record is not None:
        with suppress(ImgkitError):
            mark = partial(record.mark_ended, context.name_part(attempt))
            yield from run_blocking_if(record.may_block, mark)


def settle_reservations(context: CallContext, response: ImagesResponse | None) -> Flow[None]:
    """Settle the reservations of the latest attempt.

    Args:
        context: the call.
        response: the delivered images; None for an attempt that cannot be billed.
    """
    if context.reservations.is_open:
        settle = partial(context.reservations.settle, response)
        yield from run_blocking_if(context.reservations.settle_may_block, settle)


def keep_reservations(
    context: CallContext, error: ImgkitError, response: ImagesResponse | None = None
) -> Flow[None]:
    """Keep the reservations of an attempt that may be billed but was not delivered.

    Args:
        context: the call.
        error: the end of the call; it gets the failures of ledgers as notes.
        response: the response, if it could be read.
    """
    if context.reservations.is_open:
        yield RunBlocking(partial(context.reservations.keep, error, response))
    attach_problems(context, error)


def attach_problems(context: CallContext, error: ImgkitError) -> None:
    """Add the failures of ledgers to the error that ends an attempt, as notes."""
    for problem in context.reservations.problems:
        error.add_note(problem)


def authenticate(request: HttpRequest, table: HookTable, call: Call) -> Flow[HttpRequest]:
    """Return the request with the credentials that a plugin adds, after fetching a token if needed.

    A request that a cassette answers stays as it is.

    Raises:
        ImgkitError: no credentials, or the token could not be fetched; nothing was sent.
    """
    if not (yield from needs_credentials(request)):
        return request
    signed = table.authenticate(request, call)
    if isinstance(signed, TokenNeeded):
        yield from run_blocking(signed.fetch, before_sending=True)
        return signed.sign(request)
    return signed


def read_response(context: CallContext, head: Head, secrets: SecretFilter) -> Flow[DecodedImages | JobUpdate]:
    """Read the open reply to its end and decode it: images, or a job that the provider accepted.

    Raises:
        ImgkitError: an error reply, or a success reply without readable images.
    """
    core = context.core
    is_success = 200 <= head.status < 300
    if is_success and announces_events(head) and isinstance(core.provider, StreamingProvider):
        # Few servers stream without being asked.
        from imgkit.core.event_reader import read_unrequested_events

        return (yield from read_unrequested_events(core.provider, context, head, secrets))
    reply, finish = yield from receive_body(context, head, secrets)
    if finish is not None and (context.new_part_files is None or reply.is_text):
        yield RunBlocking(finish)
        finish = None
    context.in_flight = False
    if not is_success:
        raise to_reply_error(core, head, reply.raw(), secrets.secrets)
    if reply.is_text and isinstance(core.provider, StreamingProvider):
        from imgkit.core.event_reader import decode_event_text
        from imgkit.wire.event_body import is_event_reply

        if is_event_reply(reply):
            return (yield from decode_event_text(core.provider, context, head, reply, secrets))
    method = partial(core.provider.decode, head, reply, core.target, secrets.secrets)
    try:
        # Decoding looks at the images. With part files they are on disk, unless the reservations hold the
        # reply in memory.
        if context.new_part_files is not None and (
            finish is not None or context.reservations.write_may_block
        ):
            decode = partial(call_decode, core, "decode", method, head, reply, secrets.secrets)
            decoded = yield from run_blocking(
                decode if finish is None else partial(_run_both, finish, decode)
            )
        else:
            with guard_decode(core, "decode", head, reply, secrets.secrets):
                decoded = method()
                check_decoded(decoded)
    except EmptyResultError as error:
        error.body = error.body or reply.raw()
        raise
    except UnreadableReplyError as error:
        decoded = decode_mended(
            error,
            lambda mended: call_decode(
                core,
                "decode",
                partial(core.provider.decode, head, mended, core.target, secrets.secrets),
                head,
                mended,
                secrets.secrets,
            ),
            reply,
            core.provider.base64_keys,
        )
    if isinstance(decoded, JobUpdate):
        return replace(decoded, state=secrets.clean_json(dict(decoded.state)))
    ensure_images(decoded, head, reply, secrets.secrets)
    return clean_images(decoded, secrets)


def _run_both(first: Callable[[], None], then: Callable[[], T]) -> T:
    """Call two functions in one turn of a thread, and return the result of the second."""
    first()
    return then()


ReplyReader: TypeAlias = Callable[[CallContext, Head, SecretFilter], Flow[DecodedImages | JobUpdate]]
