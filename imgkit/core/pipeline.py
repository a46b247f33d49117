"""The pipeline of a request: validate it for its model, open its inputs, send it, decode the response.

A request for more images than the model makes at once is split into several, which run concurrently.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from imgkit.catalogue.rules import check_inputs
from imgkit.core.context import CallContext, CallOptions, FetchedImages
from imgkit.core.core import Core
from imgkit.core.part_gate import PartGate, is_fatal
from imgkit.core.provider_calls import find_mask_polarity
from imgkit.core.responses import build_response, ensure_downloaded, merge_responses, with_warnings
from imgkit.core.send import mark_ended, send_with_retries
from imgkit.core.sent_secrets import refuse_secrets_in_texts
from imgkit.core.validation import (
    attach_warnings_to_errors,
    encode_request,
    max_images_per_request,
    validate_for_model,
)
from imgkit.errors import (
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    JobPendingError,
    ModerationBlockedError,
    NotSentError,
)
from imgkit.images.image import Image
from imgkit.images.inputs import OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    ImagesResponse,
    resolve_model,
)
from imgkit.plugins.events import Call, Started
from imgkit.plugins.table import call_plugin
from imgkit.redact import hide_members
from imgkit.runtime.flow import Finished, Flow, run_blocking, run_parallel
from imgkit.wire.headers import FIRST_IMAGE_HEADER
from imgkit.wire.messages import HttpRequest

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model
    from imgkit.core.preparation import InputRules
    from imgkit.plugins.protocols import Guard
    from imgkit.plugins.resources import Resource

GUARD_HOOK = "imgkit_guards"

MAX_PARALLEL_PARTS = 4
"""Requests of one call that run at the same time."""


class DispatchResult(NamedTuple):
    """The response to a request, and the parts that produced it.

    Attributes:
        response: all images.
        parts: contexts of the requests that succeeded, each with its own response.
    """

    response: ImagesResponse
    parts: tuple[tuple[CallContext, ImagesResponse], ...]


def dispatch(context: CallContext, request: ImageRequest) -> Flow[DispatchResult]:
    """Send a request and return its images, from the cache if it has them.

    Args:
        context: the call.
        request: the request after the `prepare` hooks.

    Raises:
        ImgkitError: the request failed; notes hold the warnings about it.
    """
    core = context.core
    request, model, warnings = validate_for_model(core, request)
    with attach_warnings_to_errors(warnings):
        yield from check_guards(context, request)
        inputs, input_warnings = yield from open_inputs(context, request, model)
        warnings += input_warnings
        start_request(context, request)
        limit = max_images_per_request(core, request) if (request.n or 1) > 1 else None
        missing = context.options.missing
        if missing is not None or (limit is not None and (request.n or 1) > limit):
            inputs = yield from upload_inputs(context, request, inputs)
            ranges = split_ranges(missing or ((0, request.n or 1),), limit or request.n or 1)
            result = yield from send_split(context, request, inputs, ranges)
        else:
            started = time.monotonic()
            inputs = context.inputs = yield from upload_inputs(context, request, inputs)
            try:
                fetched = yield from fetch_images(context, encode_request(core, request, inputs))
            except ImgkitError as error:
                if is_final(error):
                    yield from mark_ended(context)
                raise
            response = build_response(context, request, inputs, fetched, started)
            result = DispatchResult(response, ((context, response),))
    return result._replace(response=with_warnings(result.response, warnings)) if warnings else result


def check_guards(context: CallContext, request: ImageRequest) -> Flow[None]:
    """Ask the guards of the service whether the request may be sent, one after the other.

    Raises:
        ImgkitError: a guard refused or failed; nothing was sent.
    """
    for guard in context.core.resources.guards:
        check = partial(_call_guard, guard, request, context.call)
        yield from run_blocking(check, before_sending=True)


def _call_guard(guard: Resource[Guard], request: ImageRequest, call: Call) -> None:
    """Call a guard. A guard that returns a verdict has refused nothing, so its result is an error."""
    check: Callable[[ImageRequest, Call], object] = guard.thing.check
    verdict = call_plugin(guard.origin, GUARD_HOOK, check, request, call)
    if verdict is not None:
        raise guard.origin.error(
            f": check returned a {type(verdict).__name__}. Nothing was sent. Return None to let a request "
            "pass, and raise an error to refuse it.",
            hook=GUARD_HOOK,
        )


def upload_inputs(context: CallContext, request: ImageRequest, inputs: OpenedInputs) -> Flow[OpenedInputs]:
    """Return the inputs with the handles of those that the provider wants uploaded first.

    Raises:
        ImgkitError: an upload failed; nothing was paid.
    """
    uploader = context.core.uploader
    if uploader is None:
        return inputs
    from imgkit.core.uploads import send_uploads

    return (yield from send_uploads(context, uploader, request, inputs))


def start_request(context: CallContext, request: ImageRequest) -> None:
    """Record the request that is about to be sent; tell observers about the first of a call."""
    context.request = request
    if not context.started:
        context.started = True
        # Observers see its texts; what they may do with a key in them, nobody knows.
        refuse_secrets_in_texts(request, context.core.sent.known)
        context.core.table.notify(Started(_to_public_request(context.core, request)), context.call)


def _to_public_request(core: Core, request: ImageRequest) -> ImageRequest:
    """Return the request for observers: with the model that is sent, without headers and secret members."""
    members = {name: getattr(request, name) for name in ("extra_body", "model_options")}
    hidden: dict[str, Any] = {name: value and hide_members(value) for name, value in members.items()}
    model = resolve_model(request, core.target.model)
    return replace(request, model=model, extra_headers=None, **hidden)


def is_final(error: ImgkitError) -> bool:
    """Return whether no image can come any more from a request that ended with an error."""
    return isinstance(error, ModerationBlockedError) or not error.maybe_billed


def fetch_images(context: CallContext, request: HttpRequest) -> Flow[FetchedImages]:
    """Return the flow that gets the images of a request: through the cache, or straight from the API.

    Raises:
        ConfigurationError: the call asks for the cache only, and the service has none.
    """
    mode = context.cache_use.mode
    if mode != "off" and context.core.resources.cache is not None:
        from imgkit.core.cached_send import send_through_cache

        return send_through_cache(context, request, context.core.resources.cache)
    if mode == "only":
        raise ConfigurationError(
            'cache="only" is given, but this service has no cache.',
            hint='Give it one with plugins=["cache"].',
            field="cache",
        )
    if context.core.job_provider is not None:
        from imgkit.core.job_polling import submit_job

        return submit_job(context, context.core.job_provider, request)
    if context.core.progress_provider is not None:
        from imgkit.core.progress_watch import send_with_progress

        return send_with_progress(context, context.core.progress_provider, request)
    return send_with_retries(context, request)


def send_split(
    context: CallContext, request: ImageRequest, inputs: OpenedInputs, ranges: Sequence[tuple[int, int]]
) -> Flow[DispatchResult]:
    """Send several requests in place of one, concurrently.

    Args:
        context: the call.
        request: the request for all images.
        inputs: its opened inputs.
        ranges: the images of each request; see `split_ranges`.

    Raises:
        ImgkitError: no part succeeded; the most serious of their errors.
    """
    counts = [count for _, count in ranges]
    gate = PartGate()
    context.images_of_call = sum(counts)
    parts = [context.add_part(number, gate, first) for number, (first, _) in enumerate(ranges)]
    flows = tuple(
        _send_part(part, gate, _number_part(request, count, part.first_index), inputs)
        for part, count in zip(parts, counts, strict=True)
    )
    ends = yield from run_parallel(flows, min(MAX_PARALLEL_PARTS, context.core.options.max_in_flight))
    context.attempts += [attempt for part in parts for attempt in part.attempts]
    succeeded = tuple(
        (part, end.value) for part, end in zip(parts, ends, strict=True) if isinstance(end, Finished)
    )
    errors = {number: end.error for number, end in enumerate(ends) if not isinstance(end, Finished)}
    pending = [error for error in errors.values() if isinstance(error, JobPendingError)]
    if not succeeded:
        if pending:
            from imgkit.core.job_keeper import merge_pending

            raise merge_pending(pending)
        raise most_serious_error(list(errors.values()))
    responses = [response for _, response in succeeded]
    return DispatchResult(merge_responses(responses, errors, counts, context), succeeded)


def split_ranges(ranges: Iterable[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Return ranges of at most `limit` images each.

    Args:
        ranges: pairs of the number of images before a range, and the number of its images.
        limit: most images of a request.

    >>> split_ranges([(0, 5)], 2)
    [(0, 2), (2, 2), (4, 1)]
    """
    return [
        (first + start, min(limit, count - start))
        for first, count in ranges
        for start in range(0, count, limit)
    ]


def _number_part(request: ImageRequest, count: int, first_index: int) -> ImageRequest:
    """Return the request for a part of the images; equal seeds would make equal images in all parts."""
    seed = None if request.seed is None else request.seed + first_index
    return replace(request, n=count, seed=seed)


def _send_part(
    part: CallContext, gate: PartGate, request: ImageRequest, inputs: OpenedInputs
) -> Flow[ImagesResponse]:
    """Send one request of a split call, unless another part has shown that it must fail.

    Args:
        part: context of the part.
        gate: the gate of the call.
        request: its request.
        inputs: the opened inputs of the call.
    """
    if gate.is_closed:
        raise gate.to_error()
    core, started = part.core, time.monotonic()
    part.request, part.inputs = request, inputs
    with part.cleanup:
        try:
            encoded = encode_request(core, request, inputs)
            if core.target.host_class == "offline" and part.first_index:
                number = {FIRST_IMAGE_HEADER: str(part.first_index)}
                encoded = replace(encoded, headers={**encoded.headers, **number})
            fetched = yield from fetch_images(part, encoded)
        except ImgkitError as error:
            gate.close(error)
            if is_final(error):
                yield from mark_ended(part)
            raise
        finally:
            gate.end_part(part)
    return build_response(part, request, inputs, fetched, started)


def most_serious_error(errors: list[ImgkitError]) -> ImgkitError:
    """Return the error of a call whose parts all failed.

    An error that may be billed comes first, then one that was sent. Among those, an error that stopped the
    other parts outweighs one that a later attempt might have mended.
    """
    chosen = min(
        errors,
        key=lambda error: (not error.maybe_billed, isinstance(error, NotSentError), not is_fatal(error)),
    )
    others = [error for error in errors if error is not chosen]
    if others:
        chosen.add_note(
            f"{len(others)} more requests of this call ended without images. One of them: {others[0]}"
        )
    return chosen


def open_inputs(
    context: CallContext, request: ImageRequest, model: Model | None
) -> Flow[tuple[OpenedInputs, list[str]]]:
    """Open the input images of a request and prepare them for the model.

    Images that are still at a URL are fetched first.

    Returns:
        The inputs, and warnings about them.

    Raises:
        InvalidRequestError: an input cannot be read or does not fit; nothing was sent.
    """
    if isinstance(request, CreateImageRequest):
        return OpenedInputs(), []
    core = context.core
    sources: dict[str, object] = {}
    for field, source in _input_fields(request):
        if isinstance(source, ImageReference):
            _check_reference(core, request, field)
        elif isinstance(source, Image):
            source = yield from ensure_downloaded(core, source, context.deadline)
        sources[field] = source
    from imgkit.core.preparation import InputRules  # loads the code that looks at pixels

    facts = None if model is None else model.inputs
    polarity = find_mask_polarity(core, request)
    is_hard = getattr(core.provider, "hard_masks", False)
    rules = InputRules.from_facts(facts, polarity, hard_mask=is_hard)
    prepare = partial(_prepare_inputs, sources, rules, context.options, context.deadline, context.cleanup)
    inputs, warnings = yield from run_blocking(prepare, before_sending=True)
    if model is not None and facts is not None:
        warnings = [*warnings, *check_inputs(inputs, model, core.on_unsupported, date.today())]
    return inputs, warnings


def _input_fields(
    request: CreateImageEditRequest | CreateImageVariationRequest,
) -> Iterator[tuple[str, object]]:
    images = request.image if isinstance(request.image, tuple) else (request.image,)
    for index, image in enumerate(images):
        yield ("image" if len(images) == 1 else f"image.{index}"), image
    if isinstance(request, CreateImageEditRequest):
        for name in ("mask", "markup"):
            if (image := getattr(request, name)) is not None:
                yield name, image


def _prepare_inputs(
    sources: dict[str, object],
    rules: InputRules,
    options: CallOptions,
    deadline: float,
    cleanup: ExitStack,
) -> tuple[OpenedInputs, list[str]]:
    """Open every input that is more than a reference, and prepare them all. May block."""
    from imgkit.core.preparation import prepare_inputs

    opened = {
        field: source
        if isinstance(source, ImageReference)
        else options.open_input(source, field, cleanup, deadline)
        for field, source in sources.items()
    }
    mask, markup = opened.pop("mask", None), opened.pop("markup", None)
    return prepare_inputs(
        tuple(opened.values()), mask, markup, rules=rules, how=options.prepare, cleanup=cleanup
    )


def _check_reference(core: Core, request: ImageRequest, field: str) -> None:
    """Refuse an `ImageReference` where the operation or the provider takes none."""
    takes = isinstance(request, CreateImageEditRequest) and core.provider.takes_references
    if not takes:
        what = f"{request.operation} of provider {core.provider_name}"
        raise InvalidRequestError({field: f"{what} does not take an ImageReference. Give the image itself."})
