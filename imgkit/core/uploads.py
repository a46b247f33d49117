"""Uploads: send the input images that an API wants before the request itself."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from imgkit.core.context import CallContext
from imgkit.core.download import PAUSES_S
from imgkit.core.free_requests import FailedRequest, send_free_request
from imgkit.core.provider_calls import call_before_sending
from imgkit.errors import ConfigurationError, ImgkitError, NotSentError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest
from imgkit.providers.job_base import UploadingProvider
from imgkit.providers.job_values import Upload
from imgkit.redact import safe_url
from imgkit.runtime.flow import Flow, sleep
from imgkit.wire.headers import LONGEST_RETRY_AFTER_S, retry_after_s
from imgkit.wire.urls import origin

MAX_UPLOADS = 64
"""Uploads of one request; more are a provider that never ends."""

FIRST_POLL_S, MAX_POLL_S = 0.01, 0.25
"""Pauses of a call that waits for the upload of another."""


def send_uploads(
    context: CallContext, provider: UploadingProvider, request: ImageRequest, inputs: OpenedInputs
) -> Flow[OpenedInputs]:
    """Upload the inputs that the provider wants first; return the inputs with the API's handles.

    Nothing is paid yet, so each upload has four attempts. Concurrent calls share the upload of an input.

    Raises:
        NotSentError: an upload failed; nothing was paid.
        ImgkitError: the API refuses an upload.
    """
    core = context.core
    done: dict[str, object] = {}
    while True:
        find_next = partial(provider.next_upload, request, inputs, MappingProxyType(done), core.target)
        upload = call_before_sending(core, "next_upload", find_next)
        if upload is None:
            return replace(inputs, uploads=MappingProxyType(done))
        if upload.name in done or len(done) >= MAX_UPLOADS:
            raise ConfigurationError(
                f"Provider {core.provider_name} asks for upload {upload.name[:40]!r} again. Fix the "
                "provider: next_upload must return None once all handles are in `done`."
            )
        send = _share_upload if upload.digest else _upload
        done[upload.name] = yield from send(context, provider, upload)


def _share_upload(context: CallContext, provider: UploadingProvider, upload: Upload) -> Flow[object]:
    """Return the handle of an upload that calls of this service share: one sends it, the others wait.

    An upload that fails, or whose call is cancelled, lets the next call try.
    """
    uploads, wait_s = context.core.uploads, FIRST_POLL_S
    while not uploads.lead(upload.digest, context):
        known = uploads.find(upload.digest)
        if known is not None:
            return known.handle
        if time.monotonic() + wait_s >= context.deadline:
            raise NotSentError(
                f"A concurrent call was still uploading the input {upload.name} after "
                f"{context.call.timeout_s:g} s. Nothing was paid. Call again, or with a longer timeout_s."
            )
        yield from sleep(wait_s)
        wait_s = min(MAX_POLL_S, wait_s * 1.5)
    try:
        handle = yield from _upload(context, provider, upload)
        uploads.add(upload.digest, handle)
    finally:
        uploads.end(upload.digest, context)
    return handle


def _upload(context: CallContext, provider: UploadingProvider, upload: Upload) -> Flow[object]:
    """Send one upload and return the API's handle."""
    core = context.core
    if origin(upload.request.url) != origin(core.target.base_url):
        raise ConfigurationError(
            f"Provider {core.provider_name} uploads to {safe_url(upload.request.url)}, which is not the "
            "API's own address. Nothing was sent."
        )
    number = 0
    while True:
        result = yield from _try_upload(context, provider, upload)
        if not isinstance(result, FailedRequest):
            return result
        wait_s = result.wait_s
        if wait_s is None and number < len(PAUSES_S):
            wait_s = PAUSES_S[number] * (0.5 + random.random() / 2)
        number += 1
        is_over = wait_s is None or wait_s > LONGEST_RETRY_AFTER_S or number > len(PAUSES_S)
        if is_over or wait_s is None or time.monotonic() + wait_s >= context.deadline:
            raise NotSentError(
                f"The input {upload.name} could not be uploaded after {number} attempts: {result.problem} "
                "Nothing was paid."
            )
        yield from sleep(0.0 if core.target.host_class == "offline" else wait_s)


def _try_upload(context: CallContext, provider: UploadingProvider, upload: Upload) -> Flow[object]:
    core = context.core
    reply = yield from send_free_request(context, upload.request)
    if isinstance(reply, FailedRequest):
        return reply
    head, body, secrets = reply
    if head.status in (408, 429) or head.status >= 500:
        return FailedRequest(f"The API answered HTTP {head.status}.", retry_after_s(head.headers))
    try:
        if not 200 <= head.status < 300:
            raise core.provider.error(head, body.raw(), secrets.secrets)
        decode = partial(provider.decode_upload, upload, head, body, core.target, secrets.secrets)
        return secrets.clean_json(call_before_sending(core, "decode_upload", decode))
    except ImgkitError as error:
        secrets.clean_error(error)
        raise
