"""Jobs: submit a request once, and poll the job that the provider accepts until its images are there.

A poll is free. So no failure of a poll or of a download ends a job, and none is a reason to submit again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.download import fetch_image
from imgkit.core.free_requests import FailedRequest
from imgkit.core.interception import can_answer_locally, is_intercepting
from imgkit.core.job_keeper import JobKeeper, apply_update, describe_plan, name_job, pending_error
from imgkit.core.job_requests import MAX_STEPS, grow_pause_s, poll_once
from imgkit.core.provider_calls import call_before_sending, call_for_job
from imgkit.core.repeats import add_key, find_submit, keep_submit, name_key
from imgkit.core.responses import describe_request
from imgkit.core.retries import is_stopping, pause_call
from imgkit.core.send import (
    authenticate,
    keep_reservations,
    send_with_retries,
    settle_reservations,
)
from imgkit.errors import (
    ImgkitError,
    JobPendingError,
    OutcomeUnknownError,
    UnreadableReplyError,
)
from imgkit.jobs.job import Job
from imgkit.models import count_requested_images
from imgkit.plugins.events import JobProgress
from imgkit.providers.base import DecodedImages
from imgkit.providers.job_base import ClockProvider, JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import Flow, run_blocking
from imgkit.wire.headers import LONGEST_RETRY_AFTER_S
from imgkit.wire.messages import Head, HttpRequest, hash_body

Emit: TypeAlias = Callable[[JobUpdate], Flow[None]]
"""Hands the preview of an update, if it has one, to the caller of a stream."""

STOPPED = "The run was stopped."

QUICK_POLLS = 100
"""Polls without news, or without an answer, that follow each other at once where a recording answers."""

CLOSE_S, TELLING_S = 0.1, 2.0
"""A poll that fails so close to the deadline was cut by it, and tells of the API only if it took so long."""


def submit_job(
    context: CallContext,
    provider: JobProvider,
    request: HttpRequest,
    cache_key: str | None = None,
    emit: Emit | None = None,
) -> Flow[FetchedImages]:
    """Send a request once; if the provider accepts it as a job, follow the job to its images.

    Args:
        context: the call.
        provider: the provider of the service.
        request: without credentials.
        cache_key: key of the cache entry that the images fill, None without a cache.
        emit: receives previews.

    Raises:
        JobPendingError: the deadline passed first; the job goes on.
        ImgkitError: the request or the job failed.
    """
    keeper = context.job_keeper = JobKeeper.for_service(context.core)
    context.cleanup.callback(keeper.release)
    request = add_key(context, provider, request)
    job = yield from run_blocking(partial(_new_job, context, request, cache_key), before_sending=True)
    core, call_id = context.core, _name_submit(context, request)
    name_handle = partial(provider.submit_handle, context.request, call_id, core.target)
    handle = call_before_sending(core, "submit_handle", name_handle)
    if handle is not None:
        request = call_before_sending(core, "add_handle", partial(provider.add_handle, request, handle))
    if handle is not None or job.idempotency_key is not None:
        job = job.advance(phase="sending", state=handle or {})
        if job.idempotency_key is not None:
            job = job.advance(submit=keep_submit(request))
        yield from run_blocking(partial(keeper.save_before_sending, job), before_sending=True)
    try:
        fetched = yield from send_with_retries(context, request)
    except (OutcomeUnknownError, UnreadableReplyError) as error:
        if job.phase != "sending":
            raise
        wait_s = error.retry_after_s if isinstance(error, OutcomeUnknownError) else None
        found = yield from find_submit(context, provider, job, request, wait_s)
        if isinstance(found, FailedRequest):
            error.add_note(found.problem)
            name_key(error, job)
            raise
        return (yield from _continue(context, provider, keeper, job, found, emit))
    except ImgkitError as error:
        name_key(error, job)
        yield from run_blocking(keeper.remove)
        raise
    except BaseException:
        if not context.attempts:  # interrupted before anything was sent
            keeper.remove()
        raise
    if fetched.update is None:
        yield from run_blocking(keeper.remove)
        return fetched
    job = job.advance(request_id=fetched.head.request_id)
    if job.phase != "sending":
        job = job.advance(id=name_job(context.call.id, context.attempt))
    return (yield from _continue(context, provider, keeper, job, fetched.update, emit, fetched.head))


def _name_submit(context: CallContext, request: HttpRequest) -> str:
    """Return the id of a submit; for recordings, an id that depends on the request alone."""
    core, part = context.core, context.cache_use.part
    is_recorded = core.target.host_class == "offline" or is_intercepting() or bool(core.resources.recorders)
    return f"{hash_body(request.body)[:32] if is_recorded else context.call.id}-{part}"


def _new_job(context: CallContext, request: HttpRequest, cache_key: str | None) -> Job:
    core, part = context.core, context.cache_use.part
    return Job(
        id=f"{context.call.id[:12]}-{part}",
        provider=core.provider_name,
        base_url=core.target.base_url,
        operation=context.call.operation,
        call_id=context.call.id,
        part=part,
        first_index=context.first_index,
        images=count_requested_images(context.request),
        images_of_call=context.images_of_call or count_requested_images(context.request),
        idempotency_key=request.headers.get("idempotency-key"),
        request_sha256=hash_body(request.body),
        cache_key=cache_key,
        save_to=describe_plan(context.plan),
        facts=describe_request(context, context.request, context.inputs),
        state_version=getattr(core.provider, "job_version", 1),
    )


def _continue(
    context: CallContext,
    provider: JobProvider,
    keeper: JobKeeper,
    job: Job,
    found: JobUpdate | tuple[Head, DecodedImages],
    emit: Emit | None,
    head: Head | None = None,
) -> Flow[FetchedImages]:
    """Save an accepted job, bind its reservations to it, and follow it.

    The ledgers keep the reply to the submit until the record of the job is on the disk. The record of a lost
    submit whose images are there stays as it is: it finds them again.
    """
    if isinstance(found, JobUpdate):
        job = accept_job(job, found)

    def accept() -> None:  # in one step: an interruption finds both or neither
        keeper.save(job)
        context.reservations.defer(job.id, keep_reply=not keeper.is_saved)

    yield from run_blocking(accept)
    if not isinstance(found, JobUpdate):
        return (yield from deliver_job(context, keeper, *found))
    return (yield from follow_job(context, provider, keeper, found, emit, head))


def accept_job(job: Job, update: JobUpdate) -> Job:
    """Return a job that the provider has accepted.

    The submit may have waited for minutes; a 404 counts as "not yet" from now on.
    """
    return apply_update(job.advance(phase="accepted", submit=None, submitted_at=time.time()), update)


def follow_job(
    context: CallContext,
    provider: JobProvider,
    keeper: JobKeeper,
    update: JobUpdate,
    emit: Emit | None = None,
    head: Head | None = None,
) -> Flow[FetchedImages]:
    """Poll a job until its images are there, and fetch them.

    Args:
        context: the call that follows the job.
        provider: the provider of the job.
        keeper: has the job.
        update: the latest news of the job.
        emit: receives previews.
        head: head of the reply to the submit.

    Raises:
        JobPendingError: the deadline passed, or the job cannot be asked for now; it goes on.
        ImgkitError: the job has failed.
    """
    number, steps, problem = 0, 0, ""
    while True:
        job = keeper.current
        wait_s = _choose_wait_s(context, provider, job, update, number)
        context.core.table.notify(JobProgress(job, update.progress, update.note, wait_s), context.call)
        if emit is not None:
            yield from emit(update)
        if time.monotonic() + wait_s >= context.deadline:
            raise (yield from _leave_pending(context, pending_error([job], _too_late(context, problem))))
        try:
            if isinstance(provider, ClockProvider):
                call_for_job(context.core, "pass_time", partial(provider.pass_time, job, wait_s))
                context.deadline -= wait_s
            else:
                yield from pause_call(context, wait_s)
        except ImgkitError as error:
            raise (yield from _leave_pending(context, pending_error([job], str(error)))) from error
        if is_stopping(context):
            raise (yield from _leave_pending(context, pending_error([job], STOPPED)))
        begun = time.monotonic()
        result = yield from _poll(context, provider, keeper)
        if isinstance(result, FailedRequest):
            number, now = number + 1, time.monotonic()
            is_cut = context.deadline - now < CLOSE_S and now - begun < TELLING_S
            problem = problem if is_cut else result.problem
            update = replace(update, poll_after_s=result.wait_s, preview=None)
        elif isinstance(result, JobUpdate):
            number = 0 if result.state != job.state else number + 1
            changed = apply_update(job, result)
            if changed != job or not keeper.is_saved:
                yield from run_blocking(partial(keeper.save, changed))
            is_step = result.poll_after_s is not None and result.poll_after_s <= 0
            steps = steps + 1 if is_step else 0
            pause_s = grow_pause_s(steps - MAX_STEPS) if steps > MAX_STEPS else result.poll_after_s
            update = replace(result, poll_after_s=pause_s)
        else:
            yield from run_blocking(partial(keeper.save, job.advance(phase="ready")))
            return (yield from deliver_job(context, keeper, head or result[0], result[1]))


def deliver_job(
    context: CallContext, keeper: JobKeeper, head: Head, decoded: DecodedImages
) -> Flow[FetchedImages]:
    """Fetch the images of a job that has ended. Raises as `follow_job`."""
    decoded = yield from _fetch_results(context, keeper.current, decoded)
    warnings = (*decoded.warnings, *keeper.warnings)
    return FetchedImages(head, replace(decoded, warnings=warnings))


def _poll(
    context: CallContext, provider: JobProvider, keeper: JobKeeper
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Ask for a job once; end it if it has failed.

    Raises:
        JobPendingError: as `poll_once`.
        ImgkitError: the job has failed, and its reservations have ended.
    """
    try:
        return (yield from poll_once(context, provider, keeper.current))
    except JobPendingError as error:
        raise (yield from _leave_pending(context, error)) from error.__cause__
    except ImgkitError as error:
        yield from _end_failed_job(context, keeper, error)
        raise


def _leave_pending(context: CallContext, error: JobPendingError) -> Flow[JobPendingError]:
    """Leave the reservations to the job; return the error that names it, with the failures of its record."""
    yield from run_blocking(context.reservations.leave)
    for warning in context.job_keeper.warnings if context.job_keeper is not None else ():
        error.add_note(warning)
    return error


def _choose_wait_s(
    context: CallContext, provider: JobProvider, job: Job, update: JobUpdate, number: int
) -> float:
    """Return the pause before the next poll; none where a recording or a local fake answers."""
    if number < QUICK_POLLS and _is_answered_locally(context, provider, job):
        return 0.0
    if update.poll_after_s is not None:
        return min(max(0.0, update.poll_after_s), LONGEST_RETRY_AFTER_S)
    return grow_pause_s(number)


def _is_answered_locally(context: CallContext, provider: JobProvider, job: Job) -> bool:
    core = context.core
    if core.target.host_class == "offline":
        return not isinstance(provider, ClockProvider)
    try:
        return can_answer_locally(call_for_job(core, "poll", partial(provider.poll, job, core.target)))
    except ImgkitError:
        return False


def _too_late(context: CallContext, problem: str) -> str:
    text = f"The provider was still at work after {context.call.timeout_s:g} s."
    return f"{text} {problem}" if problem else text


def _end_failed_job(context: CallContext, keeper: JobKeeper, error: ImgkitError) -> Flow[None]:
    """End the reservations of a job that has failed, and forget it."""
    if error.maybe_billed:
        yield from keep_reservations(context, error)
    else:
        yield from settle_reservations(context, None)
    yield from run_blocking(keeper.remove)


def _fetch_results(context: CallContext, job: Job, decoded: DecodedImages) -> Flow[DecodedImages]:
    """Fetch the images at URLs at once: most links live for minutes.

    Raises:
        JobPendingError: an image could not be fetched; the job can be collected again.
    """
    images = list(decoded.pictures)
    for index, image in enumerate(images):
        if image.data is None and image.source is None and image.url:
            sign = partial(_sign_download, context) if image.with_key else None
            try:
                data = yield from fetch_image(context.core, image.url, context.deadline, sign)
            except ImgkitError as error:
                problem = f"The provider has made the images, but image {index} could not be fetched: {error}"
                raise (yield from _leave_pending(context, pending_error([job], problem))) from error
            images[index] = replace(image, data=data)
    return replace(decoded, pictures=tuple(images))


def _sign_download(context: CallContext, request: HttpRequest) -> Flow[HttpRequest]:
    """Return a request for a result at the API's own origin, with the credentials."""
    return (yield from authenticate(request, context.core.table, context.call))
