"""Progress: ask how far a request is, beside its open reply. It never fails the call."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import cast

from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.free_requests import FailedRequest, send_free_request
from imgkit.core.job_polling import Emit
from imgkit.core.provider_calls import call_for_job
from imgkit.core.send import send_with_retries
from imgkit.errors import ImgkitError
from imgkit.plugins.events import JobProgress
from imgkit.providers.job_base import ProgressProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import EffectFailed, Flow, run_parallel, sleep
from imgkit.wire.messages import HttpRequest
from imgkit.wire.urls import origin

PAUSE_S = 1.0
"""Pause before each question."""


def send_with_progress(
    context: CallContext, provider: ProgressProvider, request: HttpRequest, emit: Emit | None = None
) -> Flow[FetchedImages]:
    """Send a request, and tell observers its progress until it ends.

    Args:
        context: the call.
        provider: the provider of the service.
        request: without credentials.
        emit: receives previews.

    Raises:
        ImgkitError: as `send_with_retries`.
    """
    if context.core.options.max_in_flight < 2:  # a question would wait for the request
        return (yield from send_with_retries(context, request))
    flows: tuple[Flow[FetchedImages | None], ...] = (
        send_with_retries(context, request),
        _ask_until_end(context, provider, emit),
    )
    ended, _ = yield from run_parallel(flows, 2, first_ends_all=True)
    if isinstance(ended, EffectFailed):
        raise ended.error
    return cast("FetchedImages", ended.value)


def _ask_until_end(context: CallContext, provider: ProgressProvider, emit: Emit | None) -> Flow[None]:
    while True:
        yield from sleep(PAUSE_S)  # raises once the request has ended
        update: JobUpdate | None = None
        with suppress(ImgkitError):  # the request itself goes on
            update = yield from _ask(context, provider, wants_preview=emit is not None)
        if update is None:
            continue
        context.core.table.notify(JobProgress(None, update.progress, update.note, PAUSE_S), context.call)
        if emit is not None:
            yield from emit(update)


def _ask(context: CallContext, provider: ProgressProvider, *, wants_preview: bool) -> Flow[JobUpdate | None]:
    """Ask once.

    Raises:
        ImgkitError: the provider has a bug, or there is no key; neither may cost the images.
    """
    core, target = context.core, context.core.target
    build = partial(provider.progress, context.request, target, wants_preview=wants_preview)
    request = call_for_job(core, "progress", build)
    # The key stays at the API's own origin.
    if request is None or origin(request.url) != origin(target.base_url):
        return None
    reply = yield from send_free_request(context, request)
    if isinstance(reply, FailedRequest) or reply.head.status != 200:
        return None
    decode = partial(provider.decode_progress, reply.head, reply.body, target)
    return call_for_job(core, "decode_progress", decode)
