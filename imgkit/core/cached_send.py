"""A call through a cache: found there, waited for, or made by one caller for all.

Equal requests that run at once, in one process or in several, are paid for once. Whoever comes second waits
for the first one, and shares what came of it: the pictures, or the error.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from imgkit.core import download
from imgkit.core.cache_entries import from_entry, from_failure, is_whole, to_entry, to_failure
from imgkit.core.config import Core
from imgkit.core.context import CacheUse, Fetched
from imgkit.core.send import CallContext, send_with_retries
from imgkit.errors import (
    CacheMissError,
    ConfigurationError,
    ImgkitError,
    NotSentError,
    OutcomeUnknownError,
    UnreadableReplyError,
)
from imgkit.plugins.events import CacheHit
from imgkit.plugins.protocols import Busy, CacheStore, Entry, Failure, Hit, Lease
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import describe_error
from imgkit.providers.base import DecodedImages
from imgkit.redact import SENSITIVE_HEADERS
from imgkit.runtime.flow import Flow, RunBlocking, Sleep
from imgkit.wire.messages import Body, Head, HttpRequest
from imgkit.wire.multipart import Field, MultipartBody


def fetch(
    core: Core, course: CallContext, request: HttpRequest, use: CacheUse, cleanup: ExitStack
) -> Flow[Fetched]:
    """Return the answer to a request: from the cache if there is one that has it, else from the API.

    Raises:
        ConfigurationError: ``cache="only"``, and there is no cache.
        ImgkitError: what the cache or the exchange raises.
    """
    supplied = course.equipment.cache
    if use.mode == "off" or supplied is None:
        if use.mode == "only":
            raise ConfigurationError(
                'cache="only", but this service has no cache: give it one with plugins=["cache"]'
            )
        return Fetched(*(yield from send_with_retries(request, course)))
    from imgkit.core.cached_send import send_through_cache

    return (yield from send_through_cache(core, course, request, supplied, use, cleanup))


FORMAT = "imgkit-cache-1"
"""Part of every key: other rules make other keys."""

FIRST_POLL_S, LONGEST_POLL_S = 0.01, 0.25

_NOT_IN_KEY = SENSITIVE_HEADERS | {"openai-organization", "openai-project", "user-agent"}
_UNKNOWN = (
    "a call with an equal request was broken off after it had been sent: a picture may have been made and "
    "billed. Calling again pays for another one"
)
_DAMAGED = (
    "the reply to a call with an equal request was damaged, so it was not kept; that call has what arrived. "
    "Calling again pays for another one"
)


def send_through_cache(
    core: Core,
    course: CallContext,
    request: HttpRequest,
    supplied: Resource,
    use: CacheUse,
    cleanup: ExitStack,
) -> Flow[Fetched]:
    """Return the answer to a request that goes through a cache.

    Raises:
        CacheMissError: ``cache="only"``, and it is not there.
        NotSentError: another call was making it for all the time that this one had.
        ImgkitError: what the exchange raises, for this call or for the one that it waited for.
    """
    key = cache_key(request, core, use.salt)
    found = yield from _find(supplied, key, use, course)
    if isinstance(found, str):
        head, answer = yield from send_with_retries(request, course)
        return Fetched(head, replace(answer, warnings=(*answer.warnings, found)))
    if isinstance(found, Lease):
        return (yield from _fill_cache(core, course, request, supplied, found, use, cleanup))
    entry, (head, answer) = found
    course.table.notify(CacheHit(key, max(0.0, time.time() - entry.created_at)), course.call)
    return Fetched(head, answer, cached=True)


def _find(
    supplied: Resource, key: str, use: CacheUse, course: CallContext
) -> Flow[Lease | tuple[Entry, tuple[Head, DecodedImages]] | str]:
    """Ask the store until it has the entry, or a lease; or return what is wrong with it."""
    newer_than = time.time() if use.mode == "refresh" else None
    waited_for, wait_s = "", FIRST_POLL_S
    while True:
        answer = yield RunBlocking(
            partial(_ask, supplied, key, newer_than, waited_for),
            before_sending=True,
        )
        if isinstance(answer, str):
            if use.mode == "only":
                raise CacheMissError(f"{answer}. Nothing was sent: mend the cache, or call without cache=")
            return answer
        if isinstance(answer, Lease):
            if use.mode == "only":
                yield RunBlocking(answer.close)
                raise CacheMissError(
                    'cache="only", and the cache has no reply to this request: call without cache= to have '
                    "one made"
                )
            return answer
        if isinstance(answer, Hit):
            try:
                return answer.entry, from_entry(answer.entry)
            except ValueError:
                newer_than = max(newer_than or 0.0, answer.entry.created_at)  # not as it was written: a miss
                continue
        if answer.failure is not None:
            course.shared = True
            raise from_failure(answer.failure)
        waited_for = answer.holder or waited_for
        if course.clock() + wait_s >= course.deadline:
            raise NotSentError(
                f"another call with an equal request was still running after {course.call.timeout_s:g} s; "
                "this one sent nothing: call again, or with a longer timeout_s"
            )
        yield Sleep(wait_s)
        wait_s = min(LONGEST_POLL_S, wait_s * 1.5)


def _ask(supplied: Resource, key: str, newer_than: float | None, waited_for: str) -> Hit | Lease | Busy | str:
    """Return what a store says, or what is wrong with it."""
    store: CacheStore = supplied.thing
    try:
        answer = store.try_lease(key, newer_than=newer_than, waited_for=waited_for)
    except ImgkitError:
        raise
    except Exception as error:
        return _trouble(supplied, error)
    if isinstance(answer, Hit | Lease | Busy):
        return answer
    return _trouble(supplied, TypeError(f"try_lease returned a {type(answer).__name__}"))


class CacheLease:
    """A lease, and how it ends."""

    def __init__(self, store: CacheStore, lease: Lease, course: CallContext) -> None:
        self._store = store
        self._lease = lease
        self._course = course
        self._ended = False

    def commit(self, entry: Entry) -> None:
        """Keep the entry."""
        self._ended = True
        try:
            self._store.commit(self._lease, entry)
        finally:
            self._store.abandon(self._lease)  # nothing if it was committed

    def abandon(self, failure: Failure | None) -> None:
        """End the lease without an entry."""
        if not self._ended:
            self._ended = True
            self._store.abandon(self._lease, failure)

    def break_off(self) -> None:
        """The call ends in its midst: those who wait may go on, unless something may have been paid for."""
        course = self._course
        paid = course.sent or any(attempt.error is None for attempt in course.attempts)
        self.abandon(to_failure(OutcomeUnknownError(_UNKNOWN)) if paid else None)


def _fill_cache(
    core: Core,
    course: CallContext,
    request: HttpRequest,
    supplied: Resource,
    lease: Lease,
    use: CacheUse,
    cleanup: ExitStack,
) -> Flow[Fetched]:
    """Make the entry for all who want it."""
    held = CacheLease(supplied.thing, lease, course)
    course.scratch = None  # an entry is made of bytes in memory
    cleanup.callback(_quietly, held.break_off)
    try:
        head, answer = yield from send_with_retries(request, course)
    except ImgkitError as error:
        # Whoever waits has settings of its own, and may have the key that this call lacks.
        failure = None if isinstance(error, ConfigurationError) else to_failure(error)
        yield RunBlocking(partial(_quietly, held.abandon, failure))
        raise
    troubles: list[str] = []
    answer = yield from _downloaded(core, answer, held, troubles)
    if not troubles:
        if is_whole(answer):
            assert course.request is not None, "a call is prepared before it is sent"
            entry = to_entry(course.request, core.target.model, head, answer, time.time())
            problem = yield RunBlocking(partial(_attempt, supplied, held.commit, entry))
            troubles += [problem] if problem else []
        else:
            failure = to_failure(UnreadableReplyError(_DAMAGED, request_id=head.request_id))
            yield RunBlocking(partial(_quietly, held.abandon, failure))
            troubles.append("the reply is damaged, and was not kept in the cache")
    return Fetched(head, replace(answer, warnings=(*answer.warnings, *troubles)))


def _downloaded(
    core: Core, answer: DecodedImages, held: CacheLease, troubles: list[str]
) -> Flow[DecodedImages]:
    """Return the answer with those pictures here that came as URLs, which soon lead nowhere."""
    pictures = []
    for picture in answer.pictures:
        if picture.data is None and not troubles:
            try:
                picture = replace(picture, data=(yield from download.fetch(core, picture.url or "")))
            except ImgkitError as error:
                yield RunBlocking(partial(_quietly, held.abandon, to_failure(error)))
                troubles.append(f"the reply was not kept in the cache: {error}")
        pictures.append(picture)
    return replace(answer, pictures=tuple(pictures))


def _quietly(end: Callable[..., None], *arguments: Any) -> None:
    """End a lease where the call has an error of its own to tell; the lease then ends with the process."""
    try:
        end(*arguments)
    except Exception:
        return


def _attempt(supplied: Resource, method: Callable[..., None], *arguments: Any) -> str | None:
    """Call a method of a store; return what is to be told if it fails: the pictures are there even so."""
    try:
        method(*arguments)
    except Exception as error:
        return _trouble(supplied, error)
    return None


def _trouble(supplied: Resource, error: Exception) -> str:
    return f"the cache of {supplied.origin} failed, and the call went on without it ({describe_error(error)})"


def cache_key(request: HttpRequest, core: Core, salt: str = "0") -> str:
    """Return the key of a request: 64 hexadecimal digits, equal for requests that mean the same.

    In it are provider, address, host class, what the body says, digests of its files, headers of the caller's
    own, and the replica. Not in it are credentials, organisation, file names, and how a form is delimited.
    """
    digest = hashlib.sha256()
    for text in _meaning(request, core, salt):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)  # lengths keep neighbours apart
    return digest.hexdigest()


def _meaning(request: HttpRequest, core: Core, salt: str) -> Iterator[str]:
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
        yield from ("body", request.body.content_type, _digest(request.body))


def _digest(body: Body) -> str:
    digest = hashlib.sha256()
    for block in body.blocks():
        digest.update(block)
    return digest.hexdigest()
