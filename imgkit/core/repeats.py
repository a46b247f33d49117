"""Repeats: ask for a lost submit with the same request and idempotency key, which the API runs once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from uuid import NAMESPACE_URL, uuid5

from imgkit.core.context import CallContext
from imgkit.core.free_requests import FailedRequest
from imgkit.core.job_requests import ask_for_news, find_foreign_host, find_lost_job, grow_pause_s
from imgkit.errors import ImgkitError, OutcomeUnknownError
from imgkit.errors.root import ReceivedReply
from imgkit.jobs.job import Job
from imgkit.providers.base import DecodedImages, Provider, ReplyBody, Target
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import ACCEPT_JSON
from imgkit.redact import Secret, list_secret_members, scrub
from imgkit.runtime.flow import Flow, sleep
from imgkit.wire.messages import BytesBody, Head, HttpRequest

KEY_HEADER = "idempotency-key"
MAX_KEPT_BYTES = 128 * 1024
"""Largest body that the record of a job keeps, so that another process can repeat the submit."""

MAX_FAILURES = 4
"""Repeats that fail without a wait that the API names; another process may go on later."""


def add_key(context: CallContext, provider: JobProvider, request: HttpRequest) -> HttpRequest:
    """Return a submit with its idempotency key, if the API has such keys.

    The key is made once for each request of a call. A key of the caller stays; each further part of a split
    call has a key that follows from it.
    """
    if not _repeat_limit_s(provider):
        return request
    given, part = request.headers.get(KEY_HEADER), context.cache_use.part
    if given is not None and part == 0:
        return request
    key = str(uuid5(NAMESPACE_URL, f"imgkit:{given or context.call.id}-{part}"))
    return request.with_headers({**request.headers, KEY_HEADER: key})


def keep_submit(request: HttpRequest) -> Mapping[str, str] | None:
    """Return the JSON values that repeat a submit; None for a large body, and for one with a secret in it."""
    if not isinstance(request.body, BytesBody) or request.body.length > MAX_KEPT_BYTES:
        return None
    try:
        text = request.body.data.decode()
        has_secret = bool(list_secret_members(json.loads(text)))
    except (ValueError, RecursionError):
        return None
    kept = {"url": request.url, "body": text, "content_type": request.body.content_type}
    return None if has_secret else kept


def name_key(error: ImgkitError, job: Job) -> None:
    """Name the idempotency key of a submit on the error that ends it."""
    key = job.idempotency_key
    if key is None or not error.maybe_billed or not isinstance(error, ReceivedReply):
        return
    error.idempotency_key = key
    error.add_note(
        f"The API runs the request once under its key. The same call with extra_headers={{{KEY_HEADER!r}: "
        f"{key!r}}} collects the images."
    )


def find_submit(
    context: CallContext,
    provider: JobProvider,
    job: Job,
    request: HttpRequest | None = None,
    wait_s: float | None = None,
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Find out whether a submit whose reply was lost has arrived, by a question or by a repetition.

    A repetition starts the work if the submit has not arrived: the API runs it once.

    Args:
        context: the call.
        provider: the provider of the job.
        job: the job.
        request: the submit; None to rebuild it from the record.
        wait_s: seconds to wait first, as the API asked.

    Returns:
        News of the job, its images, or a `FailedRequest`: whether it runs stays unknown.
    """
    limit_s = _repeat_limit_s(provider)
    if not limit_s or job.idempotency_key is None:
        return (yield from find_lost_job(context, provider, job))
    if job.age_s >= limit_s:
        return FailedRequest("The API has forgotten the key of the request: a repetition would run it anew.")
    request = request or _rebuild_submit(job)
    if request is None:
        return FailedRequest(
            "The record lacks the request, whose body is large or has a secret. Call again with "
            f"the same arguments and extra_headers={{{KEY_HEADER!r}: {job.idempotency_key!r}}}."
        )
    problem = find_foreign_host(context, provider, request)
    if problem is not None:
        return FailedRequest(problem)
    return (yield from _repeat_submit(context, job, request, wait_s or 0.0))


def _repeat_submit(
    context: CallContext, job: Job, request: HttpRequest, wait_s: float
) -> Flow[FailedRequest | JobUpdate | tuple[Head, DecodedImages]]:
    """Send a submit again until the API tells its end; its waits are kept, other failures are few."""
    decode, failures = partial(_decode_repeat, context.core.provider), 0
    result = FailedRequest("The deadline of the call passed before the request could be repeated.")
    while time.monotonic() + wait_s < context.deadline:
        try:
            if wait_s:
                yield from sleep(wait_s)
            news = yield from ask_for_news(context, job, request, decode)
        except OutcomeUnknownError as error:
            news = FailedRequest(scrub(error.problem, limit=300), error.retry_after_s)
        except ImgkitError as error:
            return FailedRequest(scrub(f"The repeated request failed: {error.problem}", limit=300))
        if not isinstance(news, FailedRequest):
            return news
        result, failures = news, failures + (not news.wait_s)
        if failures >= MAX_FAILURES:
            break
        wait_s = grow_pause_s(failures) if news.wait_s is None else news.wait_s
    return result


def _decode_repeat(
    provider: Provider, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]
) -> DecodedImages | JobUpdate:
    """Decode the reply to a repeated submit as that to the first."""
    if 200 <= head.status < 300:
        return provider.decode(head, body, target, secrets)
    raise provider.error(head, body.raw(), secrets)


def _repeat_limit_s(provider: JobProvider) -> float:
    """Return the seconds in which a provider takes repeats; 0 for none. A class of its own may lack it."""
    return float(getattr(provider, "repeats_within_s", 0.0))


def _rebuild_submit(job: Job) -> HttpRequest | None:
    """Return the submit that the record of a job holds."""
    kept, key = job.submit, job.idempotency_key
    parts = [None] if kept is None else [kept.get(name) for name in ("url", "body", "content_type")]
    if key is None or not all(isinstance(part, str) for part in parts):
        return None
    url, text, content_type = map(str, parts)
    headers = {**ACCEPT_JSON, KEY_HEADER: key}
    return HttpRequest("POST", url, headers, BytesBody(text.encode(), content_type))
