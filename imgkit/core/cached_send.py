"""Single flight: a request goes through the cache, and concurrent identical calls share one request.

The first caller gets a lease and sends the request. The others, in this process or in another, wait and
share the result: the images, or the error.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from imgkit.cache.flights import Flight, join_flight
from imgkit.core.cache_entries import from_entry, from_failure, is_whole, to_entry, to_failure
from imgkit.core.cache_lease import CacheLease, describe_store_failure
from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.core import Core
from imgkit.core.download import fetch_image
from imgkit.core.send import send_with_retries
from imgkit.errors import (
    BudgetExceededError,
    CacheMissError,
    ConfigurationError,
    ImgkitError,
    JobPendingError,
    NotSentError,
    OutcomeUnknownError,
    UnreadableReplyError,
)
from imgkit.plugins.events import CacheHit
from imgkit.plugins.protocols import Busy, CacheStore, Entry, Hit, Lease
from imgkit.plugins.resources import Resource
from imgkit.providers.base import DecodedImages
from imgkit.redact import SENSITIVE_HEADERS
from imgkit.runtime.flow import Flow, run_blocking, sleep
from imgkit.wire.messages import HttpRequest, hash_body
from imgkit.wire.multipart import Field, MultipartBody

if TYPE_CHECKING:
    from imgkit.core.job_keeper import JobKeeper

FORMAT = "imgkit-cache-1"
"""Part of every key: a change of the rules changes all keys."""

FIRST_POLL_S, MAX_POLL_S = 0.01, 0.25

_NOT_IN_KEY = SENSITIVE_HEADERS | {"openai-organization", "openai-project", "user-agent"}
_LOST = (
    "The process of an identical call died after it had sent its request, and no whole reply was found. "
    "An image may have been made and billed."
)
_DAMAGED = (
    "The reply to a concurrent identical call was damaged and is not in the cache. That call has the bytes "
    "that arrived. Calling again pays for another image."
)


class StoreFailed(Exception):
    """The cache store raised an error or broke its protocol. The message says so for a warning."""


def send_through_cache(
    context: CallContext, request: HttpRequest, cache: Resource[CacheStore]
) -> Flow[FetchedImages]:
    """Return the images of a request from the cache, from a concurrent call, or from the API.

    A store that fails costs a warning: the request is sent without it.

    Raises:
        CacheMissError: ``cache="only"``, and the cache has no entry.
        NotSentError: a concurrent identical call was still running at this call's deadline.
        ImgkitError: the failure of the request, of this call or of the one that it waited for.
    """
    key = cache_key(request, context.core, context.cache_use.salt)
    flight = join_flight(cache.thing, key)
    context.cleanup.callback(flight.leave)
    found = yield from _find_entry_or_lease(context, cache, key, flight)
    if isinstance(found, FetchedImages):
        return found
    if context.core.job_provider is not None:
        from imgkit.core.job_joining import claim_job_of_entry

        keeper = yield from claim_job_of_entry(context, key)
        if keeper is not None:
            return (yield from _fill_cache(context, request, found, key, keeper))
    if found.lost_attempt:
        return (yield from _take_over(context, found, key))
    return (yield from _fill_cache(context, request, found, key))


def _find_entry_or_lease(
    context: CallContext, cache: Resource[CacheStore], key: str, flight: Flight
) -> Flow[CacheLease | FetchedImages]:
    """Ask the store, and the equal calls of this process, until there is an entry or a lease.

    Raises:
        ImgkitError: as `send_through_cache`.
    """
    mode = context.cache_use.mode
    newer_than = time.time() if mode == "refresh" else None
    waited_for, wait_s, problem = "", FIRST_POLL_S, ""
    while True:
        ask = partial(_try_lease, cache, key, newer_than, waited_for, flight)
        answer = yield from run_blocking(ask, before_sending=True)
        if isinstance(answer, StoreFailed):
            problem = str(answer)
            if mode == "only":
                raise CacheMissError(
                    f"{problem}. Nothing was sent.", hint="Repair the cache, or call without cache=…"
                )
            if flight.lead():
                return CacheLease(context, cache, None, flight, problem)
            answer = Busy(waited_for)
        if isinstance(answer, Lease):
            if mode == "only" and not answer.lost_attempt:
                yield from run_blocking(answer.close)
                raise CacheMissError(
                    'cache="only" is given, but the cache has no reply to this request.',
                    hint="Call without cache=… to have one made.",
                    field="cache",
                )
            if flight.lead():
                # A refresh that did not wait for the dead process wants another image.
                wants_lost = mode != "refresh" or waited_for == answer.holder
                return CacheLease(context, cache, answer, flight, wants_lost=wants_lost)
            yield from run_blocking(answer.close)
            answer = Busy(waited_for)
        if isinstance(answer, Hit):
            entry = answer.entry
            try:
                head, decoded = from_entry(entry)
            except ValueError:
                newer_than = max(newer_than or 0.0, entry.created_at)  # an unreadable entry is a miss
                continue
            age_s = max(0.0, time.time() - entry.created_at)
            context.core.table.notify(CacheHit(key, age_s), context.call)
            return _with_warnings(FetchedImages(head, decoded, cached=True), [problem] if problem else [])
        if answer.failure is not None:
            context.shared = True
            raise from_failure(answer.failure)
        waited_for = answer.holder or waited_for
        if time.monotonic() + wait_s >= context.deadline:
            raise _waited_too_long_error(context)
        yield from sleep(wait_s)
        wait_s = min(MAX_POLL_S, wait_s * 1.5)


def _try_lease(
    cache: Resource[CacheStore], key: str, newer_than: float | None, waited_for: str, flight: Flight
) -> Hit | Lease | Busy | StoreFailed:
    """Ask the store once, unless an equal call of this process has ended: its outcome comes first.

    A failure of the store is returned: only errors of imgkit's own tree enter a flow.
    """
    if isinstance(flight.outcome, Entry):
        return Hit(flight.outcome)
    if flight.outcome is not None:
        return Busy(waited_for, flight.outcome)
    try:
        answer = cache.thing.try_lease(key, newer_than=newer_than, waited_for=waited_for)
    except ImgkitError:
        raise
    except Exception as error:
        return StoreFailed(describe_store_failure(cache, error))
    if isinstance(answer, Busy) and (entry := flight.entry) is not None:
        return Hit(entry)  # it arrived meanwhile, and the store could not keep it
    if isinstance(answer, Hit | Lease | Busy):
        return answer
    broken = TypeError(f"try_lease returned a {type(answer).__name__}")
    return StoreFailed(describe_store_failure(cache, broken))


def _fill_cache(
    context: CallContext, request: HttpRequest, lease: CacheLease, key: str, keeper: JobKeeper | None = None
) -> Flow[FetchedImages]:
    """Send a request and store its images for all callers that wait for the lease.

    Args:
        context: the call.
        request: without credentials.
        lease: the lease of the cache entry.
        key: key of the entry.
        keeper: has a pending job for the entry, which is followed in place of a new request; None for none.
    """
    context.new_part_files = None  # an entry is made of bytes in memory
    context.mark_sent = lease.mark_sent
    context.cleanup.callback(lease.abort)
    try:
        fetched = yield from _send(context, request, key, keeper)
    except ImgkitError as error:
        # A waiting caller has settings of its own: it may have the key or the budget that this call lacks.
        is_own = isinstance(error, ConfigurationError | BudgetExceededError) or (
            isinstance(error, NotSentError) and context.gate is not None and context.gate.is_closed
        )
        # A waiting caller that finds the record of a job follows the job to its own deadline.
        keeper = context.job_keeper
        is_own = is_own or (isinstance(error, JobPendingError) and keeper is not None and keeper.has_record)
        failure = None if is_own else to_failure(error)
        yield from run_blocking(partial(lease.abandon, failure))
        raise
    return (yield from _store_images(context, lease, fetched))


def _send(
    context: CallContext, request: HttpRequest, key: str, keeper: JobKeeper | None
) -> Flow[FetchedImages]:
    """Return the flow that sends a request, or follows the pending job of an equal one."""
    core = context.core
    if core.progress_provider is not None:
        from imgkit.core.progress_watch import send_with_progress

        return send_with_progress(context, core.progress_provider, request)
    if core.job_provider is None:
        return send_with_retries(context, request)
    from imgkit.core.job_joining import join_job
    from imgkit.core.job_polling import submit_job

    if keeper is not None:
        return join_job(context, core.job_provider, keeper)
    return submit_job(context, core.job_provider, request, key)


def _store_images(context: CallContext, lease: CacheLease, fetched: FetchedImages) -> Flow[FetchedImages]:
    """Download the images that a reply only names, store them all, and end the lease."""
    head = fetched.head
    decoded, download_error = yield from _download_all(context, fetched.decoded)
    warnings = []
    if download_error is not None:
        yield from run_blocking(partial(lease.abandon, to_failure(download_error)))
        warnings.append(f"The reply was not kept in the cache: {download_error}")
    elif is_whole(decoded):
        entry = to_entry(context.request, context.core.target.model, head, decoded, time.time())
        yield from run_blocking(partial(lease.commit, entry))
    else:
        failure = to_failure(UnreadableReplyError(_DAMAGED, request_id=head.request_id))
        yield from run_blocking(partial(lease.abandon, failure))
        warnings.append("The reply is damaged and was not kept in the cache.")
    return _with_warnings(fetched._replace(decoded=decoded), [*lease.warnings, *warnings])


def _take_over(context: CallContext, lease: CacheLease, key: str) -> Flow[FetchedImages]:
    """Return the images of a request that a dead process sent, from the reply in the spool.

    Raises:
        OutcomeUnknownError: the spool has no whole reply; callers that wait get the same error.
        NotSentError: another process still had the reply open at the deadline.
        CacheMissError: ``cache="only"``, and the spool has no whole reply.
    """
    from imgkit.core.recovery import drop_record, find_lost_reply  # few calls need it

    context.cleanup.callback(lease.abort)
    find = partial(find_lost_reply, context.core.resources.ledgers, lease.lost_attempt)
    lost = yield from run_blocking(find, before_sending=True)
    while lost.record is not None and lost.record.state == "running":
        if time.monotonic() + FIRST_POLL_S >= context.deadline:
            raise _waited_too_long_error(context)
        yield from sleep(FIRST_POLL_S)
        lost = yield from run_blocking(find, before_sending=True)
    if lost.record is not None and lost.decoded is not None:
        context.core.table.notify(CacheHit(key, 0.0), context.call)
        fetched = FetchedImages(lost.head, lost.decoded, cached=True)
        stored = yield from _store_images(context, lease, fetched)
        if lease.is_stored:
            yield from run_blocking(partial(drop_record, lost.record))
        return stored
    if context.cache_use.mode == "only":
        yield from run_blocking(partial(lease.abandon, None))
        raise CacheMissError(_LOST, hint="Call without cache=… to have another image made.", field="cache")
    folder = None if lost.record is None else str(lost.record.folder)
    kept = f" The received part is kept in {folder}. Run `imgkit recover` to restore it." if folder else ""
    error = OutcomeUnknownError(
        f"{_LOST}{kept} Calling again pays for another image.",
        request_id=lost.head.request_id,
        spool_path=folder,
    )
    yield from run_blocking(partial(lease.abandon, to_failure(error)))
    raise error


def _waited_too_long_error(context: CallContext) -> NotSentError:
    return NotSentError(
        f"A concurrent identical call was still running after {context.call.timeout_s:g} s. "
        "This call sent nothing. Call again, or with a longer timeout_s."
    )


def _download_all(
    context: CallContext, decoded: DecodedImages
) -> Flow[tuple[DecodedImages, ImgkitError | None]]:
    """Fetch the bytes of images at URLs, up to the first failure: the cache keeps no URL.

    Returns:
        The images, and the failure if there was one.
    """
    images = list(decoded.pictures)
    failure: ImgkitError | None = None
    for index, image in enumerate(images):
        if image.data is None:
            try:
                data = yield from fetch_image(context.core, image.url or "", context.deadline)
            except ImgkitError as error:
                failure = error
                break
            images[index] = replace(image, data=data)
    return replace(decoded, pictures=tuple(images)), failure


def _with_warnings(fetched: FetchedImages, warnings: list[str]) -> FetchedImages:
    decoded = replace(fetched.decoded, warnings=(*fetched.decoded.warnings, *warnings))
    return fetched._replace(decoded=decoded)


def cache_key(request: HttpRequest, core: Core, salt: str = "0") -> str:
    """Return the key of a request: 64 hexadecimal digits, equal for requests with the same meaning.

    The key covers provider, address, host class, body, digests of files, the caller's own headers and
    the replica. It does not cover credentials, organization, file names and the boundary of a form.
    """
    digest = hashlib.sha256()
    for text in _key_parts(request, core, salt):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)  # lengths keep neighbours apart
    return digest.hexdigest()


def _key_parts(request: HttpRequest, core: Core, salt: str) -> Iterator[str]:
    yield from (FORMAT, core.provider_name, core.target.base_url, core.target.host_class, salt)
    yield str(getattr(core.backend, "cache_salt", ""))
    yield from (request.method, request.url)
    for name, value in sorted(request.headers.items()):
        if name not in _NOT_IN_KEY:
            yield from ("header", name, value)
    if isinstance(request.body, MultipartBody):
        for part in request.body.parts:
            if isinstance(part, Field):
                yield from ("field", part.name, part.value)
            else:
                yield from ("file", part.name, part.media_type, part.content.sha256)
    else:
        yield from ("body", request.body.content_type, hash_body(request.body))
