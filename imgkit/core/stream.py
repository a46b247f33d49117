"""Streams: a call whose images and partial images reach the caller while the server makes them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from imgkit.core.context import CallContext, check_partial_images, parse_options, start_call
from imgkit.core.core import Core
from imgkit.core.event_reader import read_events
from imgkit.core.lifecycle import (
    apply_prepare_hooks,
    ask_for_format,
    build_request,
    call_events,
    deliver,
    open_save_plan,
)
from imgkit.core.pipeline import DispatchResult, check_guards, open_inputs, start_request, upload_inputs
from imgkit.core.provider_calls import call_before_sending
from imgkit.core.send import read_response
from imgkit.core.stream_collector import StreamCollector
from imgkit.core.stream_refusal import send_stream
from imgkit.core.validation import (
    attach_warnings_to_errors,
    check_address,
    encode_request,
    max_images_per_request,
    validate_for_model,
)
from imgkit.errors import (
    ConfigurationError,
    InvalidRequestError,
)
from imgkit.models import ImageRequest, ImagesResponse, resolve_model
from imgkit.providers.base import DecodedImages, DecodedPartialImage, StreamingProvider
from imgkit.providers.job_base import JobProvider, ProgressProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import Flow
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter


def run_stream(
    core: Core, kind: type[ImageRequest], value: object, arguments: Mapping[str, object]
) -> Flow[ImagesResponse]:
    """Carry out one operation as a stream: emit `PartialImage` and `Completed` events.

    Args:
        core, kind, value, arguments: as for `imgkit.core.lifecycle.run_call`.

    Returns:
        The response that the call without a stream would return.

    Raises:
        ImgkitError: as `imgkit.ImageService.stream_image` documents it.
    """
    request = build_request(kind, value, arguments)
    options = parse_options(arguments)
    provider = core.provider
    if not isinstance(provider, StreamingProvider | JobProvider | ProgressProvider):
        raise ConfigurationError(
            f"Provider {core.provider_name} does not stream. Use {request.operation}, or another provider."
        )
    partial_images = check_partial_images(arguments.get("partial_images"))
    context = start_call(core, request, options, partial_images or 0)
    with call_events(context):
        started = time.monotonic()
        plan = yield from open_save_plan(context)
        stream_values = {"stream": True, "partial_images": partial_images or 0}
        request = ask_for_format(core, apply_prepare_hooks(context, request), plan)
        request, model, warnings = validate_for_model(core, request, stream_values)
        _check_count(request, max_images_per_request(core, request))
        with attach_warnings_to_errors(warnings):
            yield from check_guards(context, request)
            inputs, input_warnings = yield from open_inputs(context, request, model)
            warnings += input_warnings
            inputs = context.inputs = yield from upload_inputs(context, request, inputs)
            collector = StreamCollector(context, request, inputs, plan, started, tuple(warnings))
            to_plain = partial(encode_request, core, request, inputs)
            if isinstance(provider, StreamingProvider):
                encode = partial(provider.encode_stream, request, inputs, core.target, partial_images)
                wire_request = call_before_sending(core, "encode_stream", encode)
                check_address(wire_request, resolve_model(request, core.target.model))
                start_request(context, request)
                read = partial(_read_reply, provider, collector)
                head = yield from send_stream(context, wire_request, to_plain, collector, read)
            else:
                wire_request = to_plain()
                start_request(context, request)
                head = yield from _stream_previews(context, provider, wire_request, collector)
        response = collector.build_response(head)
        result = DispatchResult(response, ((context, response),))
        response = context.response = yield from deliver(context, result, plan)
    return response


def _stream_previews(
    context: CallContext,
    provider: JobProvider | ProgressProvider,
    request: HttpRequest,
    collector: StreamCollector,
) -> Flow[Head]:
    """Follow a job, or a request with progress beside it; emit its previews and images."""
    from imgkit.core.job_polling import submit_job
    from imgkit.core.progress_watch import send_with_progress

    wanted, emitted = context.call.partial_images or 0, [b""]

    def emit_preview(update: JobUpdate) -> Flow[None]:
        """Emit a new preview; spread the previews evenly if the progress is known."""
        is_due = update.progress is None or update.progress >= (len(emitted) - 1) / wanted
        if update.preview and update.preview != emitted[-1] and len(emitted) <= wanted and is_due:
            emitted.append(update.preview)
            yield from collector.handle(Head(200, {}), DecodedPartialImage(data=update.preview))

    emit = emit_preview if wanted else None
    if isinstance(provider, JobProvider):
        fetched = yield from submit_job(context, provider, request, emit=emit)
    else:
        fetched = yield from send_with_progress(context, provider, request, emit)
    yield from collector.handle(fetched.head, fetched.decoded)
    return fetched.head


def _check_count(request: ImageRequest, limit: int | None) -> None:
    """Refuse more images than one request may ask for: a stream is one request."""
    if limit is not None and (request.n or 1) > limit:
        raise InvalidRequestError(
            {"n": f"A stream has at most {limit} images. Ask for fewer, or use {request.operation}."}
        )


def _read_reply(
    provider: StreamingProvider,
    collector: StreamCollector,
    context: CallContext,
    head: Head,
    secrets: SecretFilter,
) -> Flow[DecodedImages]:
    """Read the open reply to a stream: its events, or an error reply."""
    if not 200 <= head.status < 300:
        yield from read_response(context, head, secrets)  # raises
    return (yield from read_events(provider, collector, context, head, secrets))
