"""The repetition of attempts: which failures may be repeated, the pauses before, and the error at the end."""

from __future__ import annotations

import time
from typing import Literal, Never, TypeAlias

from imgkit.core.context import CallContext
from imgkit.errors import (
    ApiError,
    ConflictError,
    ImgkitError,
    NotSentError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from imgkit.plugins.events import Outcome
from imgkit.runtime.flow import Flow, sleep

FailureKind: TypeAlias = Literal["unsent", "refused", "failed", "unknown"]

GATE_POLL_S = 0.05
"""Seconds between two looks at the gate of a split call."""

RECORD_POLL_S = 0.25
"""Seconds between two looks at the record of a call that pauses."""


def choose_wait_s(context: CallContext, outcome: Outcome) -> float | None:
    """Return the seconds to wait before the next attempt, None to end the call.

    A retry plugin that fails ends the call; its failure becomes a note on the error of the attempt.
    """
    try:
        wait_s = context.core.table.retry_wait(outcome, context.call)
    except ImgkitError as problem:
        outcome.error.add_note(str(problem))
        return None
    return None if wait_s is None or wait_s >= outcome.remaining_s else wait_s


def raise_most_serious(earlier: list[ImgkitError], error: ImgkitError, *, was_sent: bool) -> Never:
    """Raise the error that ends the attempts of a request, from an except block.

    An attempt that may be billed outweighs all others. An attempt that was sent outweighs a later one that
    a plugin stopped.

    Args:
        earlier: errors of the earlier attempts that were sent.
        error: the error of the last attempt.
        was_sent: the last attempt was sent.
    """
    chosen = error if was_sent or not earlier else earlier[-1]
    chosen = next((each for each in (chosen, *earlier) if each.maybe_billed), chosen)
    earlier.clear()  # the traceback of an error holds the frames that hold this list
    try:
        if chosen is not error:
            chosen.add_note(f"A later attempt of this call failed, too. {error}")
            raise chosen from error
        raise chosen
    finally:
        del chosen, error


def classify_failure(error: ImgkitError) -> FailureKind | None:
    """Return the kind of a failed attempt, None for a failure that no plugin may retry.

    A `ServerError` is free by the provider's rule (see `to_reply_error`). The server's
    ``x-should-retry: true`` marks a 408, 409 or 5xx as its own failure. A reply with images is final.
    """
    if isinstance(error, ApiError | OutcomeUnknownError) and error.status and error.images:
        return None
    if isinstance(error, NotSentError):
        return "unsent"
    if isinstance(error, RateLimitError):
        # A gateway that gave up may report a rate limit, too.
        return None if isinstance(error, QuotaExceededError) or error.maybe_billed else "refused"
    if isinstance(error, ServerError):
        return "failed" if error.status >= 500 or error.should_retry else None
    if isinstance(error, ConflictError):
        return "failed" if error.should_retry else None
    if isinstance(error, OutcomeUnknownError):
        return "failed" if error.should_retry else "unknown"
    return None


def pause_before_retry(context: CallContext, outcome: Outcome, wait_s: float) -> Flow[None]:
    """Wait before the next attempt.

    A part of a split call stops waiting when the gate of the call closes. While the server fails, only one
    part repeats its request after its pause; the others wait until that part has ended. A call of a run that
    was stopped waits no longer.
    """
    gate, record = context.gate, context.options.record
    if gate is None and record is None:
        yield from sleep(wait_s)
        return
    until, current_round = time.monotonic() + wait_s, 0 if gate is None else gate.round
    waits_for_other = gate is not None and outcome.kind == "failed" and not gate.claim_retry(context)
    while not (gate is not None and gate.is_closed) and not (record is not None and record.is_stopped):
        if gate is not None and waits_for_other:
            until = context.deadline if gate.round == current_round else 0.0
        now = time.monotonic()
        if now >= until:
            return
        yield from sleep(min(RECORD_POLL_S if gate is None else GATE_POLL_S, until - now))


def is_stopping(context: CallContext) -> bool:
    """Return whether a call should send nothing again, and leave its job pending."""
    record = context.options.record
    return record is not None and record.is_stopping


def pause_call(context: CallContext, wait_s: float) -> Flow[None]:
    """Wait; a call with a record looks up now and then whether it should stop."""
    if context.options.record is None:
        yield from sleep(wait_s)
        return
    until = time.monotonic() + wait_s
    while not is_stopping(context) and (rest_s := until - time.monotonic()) > 0:
        yield from sleep(min(RECORD_POLL_S, rest_s))
