"""Responses: build them from decoded replies, merge the parts of a call, save their images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import PurePath

from imgkit.catalogue.pricing import NOTHING, compute_cost, sum_costs
from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.core import Core
from imgkit.core.download import fetch_image
from imgkit.errors import ImgkitError, JobPendingError, SaveError
from imgkit.images.image import Image
from imgkit.images.inputs import OpenedInputs
from imgkit.images.names import asked_format, explain_other_name
from imgkit.images.part_files import PartFile
from imgkit.images.saving import SavePlan
from imgkit.images.sniff import EXTENSIONS
from imgkit.images.sources import BytesSource, UrlSource
from imgkit.models import (
    Cost,
    CreateImageVariationRequest,
    ImageRequest,
    ImagesResponse,
    Meta,
    Usage,
    field_names,
    is_amount,
    resolve_model,
    sent_parameters,
)
from imgkit.providers.base import DecodedImage, DecodedImages
from imgkit.runtime.flow import Flow, run_blocking, run_blocking_if
from imgkit.wire.json_values import is_data_url


def build_response(
    context: CallContext,
    request: ImageRequest,
    inputs: OpenedInputs,
    fetched: FetchedImages,
    started: float,
) -> ImagesResponse:
    """Return the response that the caller of an operation gets.

    Args:
        context: the call and its attempts.
        request: the request as it was sent.
        inputs: the input images that were sent.
        fetched: the decoded reply and its source.
        started: start of the request in monotonic seconds.
    """
    core, head, decoded = context.core, fetched.head, fetched.decoded
    meta = Meta(
        operation=context.call.operation,
        call_id=context.call.id,
        backend=core.backend_name,
        provider=core.provider_name,
        model=resolve_model(request, core.target.model),
        status=head.status,
        request_id=head.request_id,
        attempts=tuple(context.attempts),
        cached=fetched.cached,
        elapsed_s=time.monotonic() - started,
        rate_limits={
            name.removeprefix("x-ratelimit-"): value
            for name, value in head.headers.items()
            if name.startswith("x-ratelimit-")
        },
    )
    facts = describe_request(context, request, inputs) if context.facts is None else context.facts
    about = _sidecar_facts(core, facts, meta, decoded)
    return ImagesResponse(
        images=tuple(_to_image(core, index, image, about) for index, image in enumerate(decoded.pictures)),
        created=decoded.created,
        usage=decoded.usage,
        meta=meta,
        warnings=decoded.warnings,
        cost=_find_cost(core, request, fetched),
        background=decoded.background,
        output_format=decoded.output_format,
        size=decoded.size,
        quality=decoded.quality,
        extra=decoded.extra,
    )


def _to_image(core: Core, index: int, decoded: DecodedImage, about: Mapping[str, object]) -> Image:
    # The source keeps the link itself, which may need the key that the server put into it.
    url = decoded.url and core.sent.all.clean_text(decoded.url)
    if decoded.source is not None:
        source = decoded.source
    elif decoded.data is not None:
        source = BytesSource(decoded.data)
    else:
        source = UrlSource(decoded.url or "", core.fetch, url or "")
    return Image(
        index=index,
        url=url,
        revised_prompt=decoded.revised_prompt,
        extra=decoded.extra,
        about=about,
        source=source,
    )


def describe_request(context: CallContext, request: ImageRequest, inputs: OpenedInputs) -> dict[str, object]:
    """Return the facts that a sidecar records about a request. They hold no secret."""
    core = context.core
    is_variation = context.call.operation == CreateImageVariationRequest.operation
    return {
        **({"name": _name_variation(request)} if is_variation else {}),
        "prompt": None if isinstance(request, CreateImageVariationRequest) else request.prompt,
        "model": resolve_model(request, core.target.model),
        "parameters": core.sent.all.clean_json(sent_parameters(request)),
        "inputs": {
            file.field: {"sha256": file.sha256, "format": file.kind.format, "bytes": file.length}
            for file in inputs.files
        },
    }


def _sidecar_facts(
    core: Core, request_facts: Mapping[str, object], meta: Meta, decoded: DecodedImages
) -> dict[str, object]:
    """Return the facts that a sidecar records about an image. They hold no secret."""
    usage = decoded.usage
    return {
        "operation": meta.operation,
        **request_facts,
        "backend": meta.backend,
        "provider": meta.provider,
        "offline": core.target.host_class == "offline",
        "request_id": meta.request_id,
        "call_id": meta.call_id,
        "created": decoded.created,
        "usage": {name: count for name in field_names(Usage) if (count := getattr(usage, name))}
        if usage
        else None,
    }


def _name_variation(request: ImageRequest) -> str:
    """Return the name of a variation's file: that of the input with "-variation"."""
    image = getattr(request, "image", None)
    if isinstance(image, list | tuple) and image:
        image = image[0]  # the edit that emulates it takes several
    name = getattr(image, "path", None) or getattr(image, "name", None) or image
    if not isinstance(name, str | PathLike) or (isinstance(name, str) and is_data_url(name)):
        return "image-variation"
    return f"{PurePath(os.fsdecode(name)).stem or 'image'}-variation"


def _find_cost(core: Core, request: ImageRequest, fetched: FetchedImages) -> Cost:
    if fetched.cached:
        return Cost(amount=NOTHING, note="from the cache: nothing was sent")
    if core.target.host_class == "offline":
        return Cost(amount=NOTHING, note="offline: nothing is billed")
    told = fetched.decoded.cost
    if told is not None and (told.amount is None or is_amount(told.amount)):
        return told
    name = resolve_model(request, core.target.model)
    model = core.catalogue.find_model(name, core.target.host_class)
    count = len(fetched.decoded.pictures)
    cost = compute_cost(fetched.decoded.usage, model, request.operation, request, count)
    is_readable = cost.amount is None or is_amount(cost.amount)
    return cost if is_readable else Cost(note="the counts of the reply make no amount")


def warn_of_missing_images(response: ImagesResponse, requested: int) -> ImagesResponse:
    """Return a response with a warning if it has fewer images than were requested."""
    count = len(response.images)
    if count >= requested:
        return response
    text = f"{requested} images were requested, {count} arrived."
    return replace(response, warnings=(text, *response.warnings))


def warn_of_other_formats(
    response: ImagesResponse, request: ImageRequest, plan: SavePlan | None
) -> Flow[ImagesResponse]:
    """Return a response with a warning if its images have another format than was requested.

    Images that are still at a URL do not count, and a file whose name asked for the format has a warning
    already.
    """
    own_value = getattr(request, "output_format", None)  # variations have no such field
    wanted = (request.extra_body or {}).get("output_format") or own_value
    images = [
        image
        for image in response.images
        if not isinstance(image.source, UrlSource) or image.source.is_fetched
    ]
    if not isinstance(wanted, str) or not images or (plan is not None and asked_format(plan) is not None):
        return response
    if all(isinstance(image.source, BytesSource) for image in images):
        formats = list(map(_read_format, images))
    else:
        formats = yield from run_blocking(lambda: list(map(_read_format, images)))
    asked = next((name for name, suffixes in EXTENSIONS.items() if f".{wanted.lower()}" in suffixes), "")
    others = dict.fromkeys(found for found in formats if found is not None and found != (asked or wanted))
    texts = [
        f"{wanted[:20]} was requested, but {found} arrived. Saved files get the extension of their content."
        for found in others
    ]
    return replace(response, warnings=(*texts, *response.warnings)) if texts else response


def _read_format(image: Image) -> str | None:
    """Return the format of a saved image, None if its file is gone: the image is paid for all the same."""
    try:
        return image.format
    except (ImgkitError, OSError):
        return None


def merge_responses(
    responses: list[ImagesResponse],
    errors: Mapping[int, ImgkitError],
    counts: list[int],
    context: CallContext,
) -> ImagesResponse:
    """Merge the responses of a split call into one.

    Args:
        responses: responses of the parts that succeeded, in order; at least one.
        errors: errors of the other parts, by their number.
        counts: number of images that each part asked for.
        context: the call.
    """
    images = _number_images(responses, errors, counts)
    warnings = dict.fromkeys(warning for response in responses for warning in response.warnings)
    for number, error in errors.items():
        first = sum(counts[:number])
        missing = f"Images {first + 1} to {first + counts[number]} of {sum(counts)} are missing"
        warnings[f"{missing}: {type(error).__name__}: {error}"] = None
    return replace(
        responses[0],
        images=images,
        usage=sum_usage(response.usage for response in responses),
        meta=replace(
            responses[0].meta,
            attempts=tuple(context.attempts),
            elapsed_s=max(response.meta.elapsed_s for response in responses),
            cached=all(response.meta.cached for response in responses),
        ),
        warnings=tuple(warnings),
        cost=sum_costs(response.cost for response in responses),
        errors=tuple(errors.values()),
    )


def _number_images(
    responses: list[ImagesResponse], errors: Mapping[int, ImgkitError], counts: list[int]
) -> tuple[Image, ...]:
    """Return all images with their indexes; the images of a pending job keep their places free."""
    is_pending = any(isinstance(error, JobPendingError) for error in errors.values())
    numbers = [number for number in range(len(counts)) if number not in errors]
    images: list[Image] = []
    for number, response in zip(numbers, responses, strict=True):
        first = sum(counts[:number]) if is_pending else len(images)
        images += [replace(image, index=first + index) for index, image in enumerate(response.images)]
    return tuple(images)


def with_warnings(response: ImagesResponse, warnings: Iterable[str]) -> ImagesResponse:
    """Return a response with these warnings in front of its own."""
    return replace(response, warnings=(*warnings, *response.warnings))


def sum_usage(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the sum of several usages, None if any is unknown. A count that one of them lacks is None."""
    known: list[Usage] = []
    for usage in usages:
        if usage is None:
            return None
        known.append(usage)
    if not known:
        return None
    sums: dict[str, int | None] = {}
    for name in field_names(Usage):
        if name != "extra":
            counts = [getattr(usage, name) for usage in known]
            sums[name] = None if None in counts else sum(counts)
    return Usage(**sums, extra=known[0].extra)


def ensure_downloaded(core: Core, image: Image, deadline: float) -> Flow[Image]:
    """Return the image with its bytes in memory or on disk, fetched from its URL if necessary.

    Raises:
        DownloadError: the URL was refused, has expired, or could not be fetched.
    """
    if isinstance(image.source, UrlSource) and not image.source.is_fetched:
        data = yield from fetch_image(core, image.source.url, deadline)
        return replace(image, source=BytesSource(data))
    return image


def save_image(image: Image, plan: SavePlan, count: int) -> Image:
    """Save an image and return it with its path, to be read from its file; see `SavePlan.write`."""
    path = plan.write(image, count)
    source = image.source
    return replace(
        image, path=path, source=source.finish_saving(path) if isinstance(source, PartFile) else source
    )


def _save_and_explain(image: Image, plan: SavePlan, count: int) -> tuple[Image, str | None]:
    """Save an image that has no file yet; return it with a warning if its name is not the one asked for."""
    if image.path is None:
        image = save_image(image, plan, count)
    path = image.path
    return image, None if path is None else explain_other_name(plan, image, path, count)


def load_into_memory(image: Image) -> Image:
    """Copy a temporary image into memory: its part file is deleted when the call ends."""
    source = image.source
    return replace(image, source=BytesSource(source.read())) if isinstance(source, PartFile) else image


def save_all(
    context: CallContext, response: ImagesResponse, plan: SavePlan, count: int | None = None
) -> Flow[ImagesResponse]:
    """Save those images of a response that have no file yet. A failure never costs another image.

    Args:
        context: the call.
        response: the images.
        plan: their names.
        count: number of images of the call, None for those of the response.

    Raises:
        SaveError: an image could not be saved; ``error.response`` has all images and paths.
    """
    images: list[Image] = []
    warnings: list[str] = []
    first_error: ImgkitError | None = None
    for image in response.images:
        try:
            if image.path is None:
                image = yield from ensure_downloaded(context.core, image, context.deadline)
            save = partial(_save_and_explain, image, plan, count or len(response.images))
            image, warning = yield from run_blocking_if(plan.may_block(image), save)
            warnings += filter(None, [warning])
        except ImgkitError as error:
            first_error = first_error or error
            image = load_into_memory(image)
        images.append(image)
    warnings = [text for text in dict.fromkeys(warnings) if text not in response.warnings]
    response = replace(response, images=tuple(images), warnings=(*response.warnings, *warnings))
    if first_error is None:
        return response
    unsaved = tuple(image for image in images if image.path is None)
    raise SaveError(
        f"{len(unsaved)} of {len(images)} images could not be saved. {first_error.problem}",
        hint=" ".join([*filter(None, [first_error.hint]), "The whole reply is in error.response."]),
        images=unsaved,
        response=response,
    ) from first_error
