"""The free requests about a job: ask for its state, look for a lost submit, cancel it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from imgkit.core.context import CallContext
from imgkit.core.free_requests import FailedRequest, send_free_request
from imgkit.core.interception import can_answer_locally
from imgkit.core.job_keeper import pending_error
from imgkit.core.provider_calls import call_for_job, ensure_images
from imgkit.core.sent_secrets import clean_images
from imgkit.errors import (
    AuthenticationError,
    ImgkitError,
    JobFailedError,
    JobPendingError,
    ModerationBlockedError,
    PermissionDeniedError,
    PluginError,
    UnreadableReplyError,
)
from imgkit.jobs.job import Job
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.error_bodies import is_page
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.redact import Secret, safe_url, scrub
from imgkit.runtime.flow import Flow, sleep
from imgkit.wire.headers import retry_after_s
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.urls import origin

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""Bounds of the pauses between polls where the provider names none; jitter takes off up to a fifth."""

UNKNOWN_AT_FIRST_S = 15.0
"""Seconds after the submit in which a 404 means that not all servers of the API know the job yet."""

MAX_STEPS = 8
"""Requests about a job that follow each other at once; more are a provider that never ends."""

T = TypeVar("T")


def poll_once(
    context: CallContext, provider: JobProvider, job: Job
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Ask for a job once.

    Raises:
        JobPendingError: the job cannot be asked for now: the key is refused, the address is foreign, or the
            service was closed.
        ImgkitError: the job has failed.
    """
    core = context.core
    try:
        request = call_for_job(core, "poll", partial(provider.poll, job, core.target))
    except ImgkitError as error:
        raise pending_error([job], error.problem) from error
    problem = find_foreign_host(context, provider, request)
    if problem is not None:
        raise pending_error([job], problem)
    try:
        return (yield from ask_for_news(context, job, request, provider.decode_poll))
    except (AuthenticationError, PermissionDeniedError) as error:
        if isinstance(error, ModerationBlockedError):
            raise
        raise pending_error([job], f"The job cannot be asked for: {error}") from error


def _ask(
    context: CallContext,
    job: Job,
    request: HttpRequest,
    name: str,
    decode: Callable[[Job, Head, JsonReply, Target, tuple[Secret, ...]], T],
) -> Flow[FailedRequest | tuple[Head, T, SecretFilter]]:
    """Send a free request about a job, and decode its reply. Its host was checked.

    Args:
        context: the call.
        job: the job.
        request: without credentials.
        name: name of the provider's method that decodes the reply.
        decode: the method.
    """
    core = context.core
    try:
        reply = yield from send_free_request(context, request)
    except ImgkitError as error:  # there is no key, or the service was closed
        raise pending_error([job], f"The job cannot be asked for: {error}") from error
    if isinstance(reply, FailedRequest):
        return reply._replace(problem=f"A poll failed: {reply.problem}")
    head, body, secrets = reply
    if head.status in (408, 429) or (head.status >= 500 and not _is_final(context, job, head)):
        return FailedRequest(f"A poll was answered by HTTP {head.status}.", retry_after_s(head.headers))
    if 300 <= head.status < 400 or (head.status not in (401, 403) and is_page(body.raw())):
        return FailedRequest(f"A poll was answered by HTTP {head.status} from another server than the API.")
    if head.status == 404 and job.age_s < UNKNOWN_AT_FIRST_S:
        return FailedRequest("The API does not know the job yet (HTTP 404).")
    try:
        method = partial(decode, job, head, body, core.target, secrets.secrets)
        return head, call_for_job(core, name, method), secrets
    except (UnreadableReplyError, PluginError) as error:
        secrets.clean_error(error)
        return FailedRequest(scrub(f"A poll was not answered by the API: {error.problem}", limit=300))
    except JobFailedError as error:
        secrets.clean_error(error)
        if error.status == 404 and job.age_s < UNKNOWN_AT_FIRST_S:  # some APIs say so under status 200
            return FailedRequest("The API does not know the job yet.")
        raise
    except ImgkitError as error:
        secrets.clean_error(error)
        if 202 < head.status < 400 and not isinstance(error, ModerationBlockedError):
            return FailedRequest(f"A poll was answered by HTTP {head.status}.")
        raise


def _is_final(context: CallContext, job: Job, head: Head) -> bool:
    """Return whether a 5xx reply to a poll is the failure of the job; False if the provider cannot tell."""
    rule = getattr(context.core.provider, "failure_is_final", None)
    if rule is None:
        return False
    try:
        return bool(call_for_job(context.core, "failure_is_final", partial(rule, job, head)))
    except ImgkitError:
        return False


def ask_for_news(
    context: CallContext,
    job: Job,
    request: HttpRequest,
    decode_news: Callable[[Job, Head, JsonReply, Target, tuple[Secret, ...]], DecodedImages | JobUpdate],
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Send a request about a job, and decode its reply as `JobProvider.decode_poll` does."""

    def decode(
        job: Job, head: Head, body: JsonReply, target: Target, secrets: tuple[Secret, ...]
    ) -> DecodedImages | JobUpdate:
        result = decode_news(job, head, body, target, secrets)
        if isinstance(result, DecodedImages):
            ensure_images(result, head, body, secrets)
        return result

    answer = yield from _ask(context, job, request, "decode_poll", decode)
    if isinstance(answer, FailedRequest):
        return answer
    head, result, secrets = answer
    if isinstance(result, JobUpdate):
        note = scrub(result.note, secrets.secrets, limit=200)
        return replace(result, state=secrets.clean_json(dict(result.state)), note=note)
    return head, clean_images(result, secrets)


def ask_to_cancel(context: CallContext, provider: JobProvider, job: Job, request: HttpRequest) -> Flow[bool]:
    """Send the request that cancels a job. Return False if it is too late: the job has ended.

    Raises:
        JobPendingError: the API did not answer, or the address is foreign; the job goes on.
        ImgkitError: the API refuses.
    """
    step: HttpRequest | None = request
    for _ in range(MAX_STEPS):
        if step is None:
            return False
        problem = find_foreign_host(context, provider, step)
        if problem is not None:
            raise pending_error([job], problem)
        answer = yield from _ask(context, job, step, "decode_cancel", provider.decode_cancel)
        if isinstance(answer, FailedRequest):
            raise pending_error([job], f"The job was not cancelled. {answer.problem}")
        if not isinstance(answer[1], JobUpdate):
            return answer[1]
        job = job.advance(state=dict(answer[1].state))
        name_step = partial(provider.cancel_job, job, context.core.target)
        step = call_for_job(context.core, "cancel_job", name_step)
    raise pending_error([job], "The job was not cancelled: the provider names no last step.")


def find_lost_job(
    context: CallContext, provider: JobProvider, job: Job
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Ask whether a submit whose reply was lost has arrived.

    Returns:
        News of the job, its images, or a `FailedRequest`: whether it runs stays unknown.
    """
    core = context.core
    try:
        request = call_for_job(core, "find_lost", partial(provider.find_lost, job, core.target))
    except ImgkitError as error:
        return FailedRequest(error.problem)
    if request is None:
        return FailedRequest("The API cannot tell whether the request has arrived.")
    number = steps = 0
    while True:
        try:
            result = yield from ask_for_news(context, job, request, provider.decode_poll)
        except JobPendingError as error:
            return FailedRequest(error.problem)
        except ImgkitError as error:
            return FailedRequest(scrub(f"The API does not know the job: {error.problem}", limit=300))
        if isinstance(result, JobUpdate):
            step = job.advance(state=dict(result.state))
            again = None
            if result.poll_after_s == 0 and steps < MAX_STEPS:
                try:
                    again = call_for_job(core, "find_lost", partial(provider.find_lost, step, core.target))
                except ImgkitError:
                    return result
            if again is None or time.monotonic() >= context.deadline:
                return result
            job, request, steps = step, again, steps + 1
            continue
        if not isinstance(result, FailedRequest):
            return result
        wait_s = grow_pause_s(number) if result.wait_s is None else result.wait_s
        number += 1
        if time.monotonic() + wait_s >= context.deadline:
            return result
        try:
            yield from sleep(wait_s)
        except ImgkitError:
            return result


def grow_pause_s(number: int) -> float:
    """Return the pause after a number of polls without news, in seconds."""
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 1.3 ** min(number, 20))
    return pause_s * (1 - 0.2 * random.random())


def find_foreign_host(context: CallContext, provider: JobProvider, request: HttpRequest) -> str | None:
    """Return the problem of a poll at a host that is not the provider's, None for none."""
    target = context.core.target
    place = origin(request.url)
    if place == origin(target.base_url) or can_answer_locally(request):
        return None
    scheme, host, port = place
    is_official = target.host_class == "official" and (scheme, port) == ("https", 443)
    if is_official and any(_host_matches(host, pattern) for pattern in provider.poll_hosts):
        return None
    return (
        f"The provider names {safe_url(request.url)} as the place to ask, which is no host of "
        f"{context.core.provider_name}. Nothing was sent there, and no key."
    )


def _host_matches(host: str, pattern: str) -> bool:
    """Return whether a host is a name, or fits a pattern such as ``api.*.bfl.ai`` with one label for "*"."""
    labels, wanted = host.split("."), pattern.split(".")
    return len(labels) == len(wanted) and all(
        want in ("*", label) for label, want in zip(labels, wanted, strict=True)
    )
