"""Progress: ask how far a request is, beside its open reply. It never fails the call."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.reply_body import read_body
from imgkit.core.send import authenticate, send_with_retries
from imgkit.core.sent_secrets import collect_secrets
from imgkit.errors import ImgkitError
from imgkit.plugins.events import JobProgress
from imgkit.providers.job_base import ProgressProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import EffectFailed, Flow, run_parallel, send_request, sleep
from imgkit.wire.messages import Head, HttpRequest

PAUSE_S = 1.0
"""Pause before each question."""


class _Running:
    """Tells the questions that their request has ended."""

    def __init__(self) -> None:
        self.has_ended = False


def send_with_progress(
    context: CallContext, provider: ProgressProvider, request: HttpRequest
) -> Flow[FetchedImages]:
    """Send a request, and tell observers its progress until it ends.

    Raises:
        ImgkitError: as `send_with_retries`.
    """
    if context.core.options.max_in_flight < 2:  # a question would wait for the request
        return (yield from send_with_retries(context, request))
    running = _Running()
    flows: tuple[Flow[FetchedImages | None], ...] = (
        _send(context, request, running),
        _ask_until_end(context, provider, running),
    )
    ended, _ = yield from run_parallel(flows, 2, first_ends_all=True)
    if isinstance(ended, EffectFailed):
        raise ended.error
    return cast("FetchedImages", ended.value)


def _send(context: CallContext, request: HttpRequest, running: _Running) -> Flow[FetchedImages]:
    try:
        return (yield from send_with_retries(context, request))
    finally:
        running.has_ended = True


def _ask_until_end(context: CallContext, provider: ProgressProvider, running: _Running) -> Flow[None]:
    while not running.has_ended:
        yield from sleep(PAUSE_S)
        if running.has_ended:
            return
        with suppress(ImgkitError):  # the request itself goes on
            yield from _ask(context, provider)


def _ask(context: CallContext, provider: ProgressProvider) -> Flow[None]:
    core = context.core
    request: HttpRequest | None = None
    with suppress(Exception):  # a provider's bug must not cost the images
        request = provider.progress(context.request, core.target)
    if request is None:
        return
    signed = yield from authenticate(request, core.table, context.call)
    secrets = core.sent.remember(collect_secrets(signed))
    head = yield from send_request(signed)
    head = Head(head.status, secrets.clean_headers(head.headers))
    body = yield from read_body(context, head, secrets, spool=False)
    update: JobUpdate | None = None
    if head.status == 200:
        with suppress(Exception):
            update = provider.decode_progress(head, body, core.target)
    if update is not None:
        core.table.notify(JobProgress(None, update.progress, update.note, PAUSE_S), context.call)
