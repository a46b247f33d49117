"""Progress: ask how far a request is, beside its open reply. It never fails the call."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import cast

from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.reply_body import read_body
from imgkit.core.send import authenticate, send_with_retries
from imgkit.core.sent_secrets import collect_secrets
from imgkit.errors import ImgkitError
from imgkit.plugins.events import JobProgress
from imgkit.providers.job_base import ProgressProvider
from imgkit.runtime.flow import EffectFailed, Flow, run_parallel, send_request, sleep
from imgkit.wire.messages import Head, HttpRequest

PAUSE_S = 1.0
STEP_S = 0.05
"""Pause between two questions, in steps so short that the end of the request is noticed soon."""


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
    running = _Running()
    flows: tuple[Flow[FetchedImages | None], ...] = (
        _send(context, request, running),
        _ask_until_end(context, provider, running),
    )
    ended, _ = yield from run_parallel(flows, 2)
    if isinstance(ended, EffectFailed):
        raise ended.error
    return cast("FetchedImages", ended.value)


def _send(context: CallContext, request: HttpRequest, running: _Running) -> Flow[FetchedImages]:
    try:
        return (yield from send_with_retries(context, request))
    finally:
        running.has_ended = True


def _ask_until_end(context: CallContext, provider: ProgressProvider, running: _Running) -> Flow[None]:
    until = time.monotonic() + PAUSE_S
    while not running.has_ended:
        now = time.monotonic()
        if now < until:
            yield from sleep(min(STEP_S, until - now))
            continue
        with suppress(ImgkitError):  # the request itself goes on
            yield from _ask(context, provider)
        until = time.monotonic() + PAUSE_S


def _ask(context: CallContext, provider: ProgressProvider) -> Flow[None]:
    core = context.core
    request = provider.progress(context.request, core.target)
    signed = yield from authenticate(request, core.table, context.call)
    secrets = core.sent.remember(collect_secrets(signed))
    head = yield from send_request(signed)
    head = Head(head.status, secrets.clean_headers(head.headers))
    body = yield from read_body(context, head, secrets, spool=False)
    if head.status == 200:
        update = provider.decode_progress(head, body, core.target)
        core.table.notify(JobProgress(None, update.progress, update.note, PAUSE_S), context.call)
