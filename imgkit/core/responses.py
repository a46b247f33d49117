"""From an answer to what the caller holds: pictures, how they came about, and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imgkit.catalogue.pricing import NOTHING, compute_cost, sum_costs
from imgkit.core import download
from imgkit.core.config import Core
from imgkit.core.context import Fetched
from imgkit.core.send import CallContext
from imgkit.errors import ImgkitError, SaveError
from imgkit.images.image import Image
from imgkit.images.inputs import OpenedInputs
from imgkit.images.part_files import PartFile
from imgkit.images.saving import SavePlan
from imgkit.images.sources import BytesSource, UrlSource
from imgkit.models import Cost, ImageRequest, ImagesResponse, Meta, Usage, field_names, sent_parameters
from imgkit.providers.base import DecodedImages
from imgkit.runtime.flow import Flow, RunBlocking


def ensure_downloaded(core: Core, image: Image) -> Flow[Image]:
    """Return the image with its bytes here, fetched if they are still at a URL."""
    if isinstance(image.source, UrlSource) and not image.source.here:
        data = yield from download.fetch(core, image.url or "")
        return replace(image, source=BytesSource(data))
    return image


def build_response(
    core: Core,
    course: CallContext,
    request: ImageRequest,
    inputs: OpenedInputs,
    fetched: Fetched,
    began: float,
) -> ImagesResponse:
    """Return what the caller of an operation gets.

    Args:
        core: the service.
        course: the call and its attempts.
        request: as it was prepared.
        inputs: the pictures that went along.
        fetched: the reply, and where it came from.
        began: when the call began, by the course's clock.
    """
    head, answer = fetched.head, fetched.answer
    meta = Meta(
        operation=course.call.operation,
        call_id=course.call.id,
        backend=core.backend_name,
        provider=core.provider_name,
        model=request.model or core.target.model,
        status=head.status,
        request_id=head.request_id,
        attempts=tuple(course.attempts),
        cached=fetched.cached,
        elapsed_s=course.clock() - began,
        rate_limits={
            name.removeprefix("x-ratelimit-"): value
            for name, value in head.headers.items()
            if name.startswith("x-ratelimit-")
        },
    )
    about = _about(core, request, inputs, meta, answer)
    images = []
    for index, picture in enumerate(answer.pictures):
        source = picture.source or (
            BytesSource(picture.data)
            if picture.data is not None
            else UrlSource(picture.url or "", core.fetch)
        )
        images.append(
            Image(
                index=index,
                url=picture.url,
                revised_prompt=picture.revised_prompt,
                extra=picture.extra,
                about=about,
                source=source,
            )
        )
    return ImagesResponse(
        images=tuple(images),
        created=answer.created,
        usage=answer.usage,
        meta=meta,
        warnings=answer.warnings,
        cost=_cost(core, request, fetched),
        background=answer.background,
        output_format=answer.output_format,
        size=answer.size,
        quality=answer.quality,
        extra=answer.extra,
    )


def _about(
    core: Core, request: ImageRequest, inputs: OpenedInputs, meta: Meta, answer: DecodedImages
) -> dict[str, Any]:
    """Return what a sidecar tells: everything that made the picture, and no secret."""
    usage = answer.usage
    return {
        "operation": meta.operation,
        "prompt": getattr(request, "prompt", None),
        "model": meta.model,
        "parameters": sent_parameters(request),
        "inputs": {
            one.field: {"sha256": one.sha256, "format": one.kind.format, "bytes": one.length}
            for one in inputs.files
        },
        "backend": meta.backend,
        "provider": meta.provider,
        "offline": core.target.host_class == "offline",
        "request_id": meta.request_id,
        "call_id": meta.call_id,
        "created": answer.created,
        "usage": {name: count for name in field_names(Usage) if (count := getattr(usage, name))}
        if usage
        else None,
    }


def _cost(core: Core, request: ImageRequest, fetched: Fetched) -> Cost:
    if fetched.cached:
        return Cost(amount=NOTHING, note="from the cache: nothing was sent")
    if core.target.host_class == "offline":
        return Cost(amount=NOTHING, note="offline: nothing is billed")
    named = (request.extra_body or {}).get("model") or request.model or core.target.model
    model = core.catalogue.find(named, core.target.host_class)
    return compute_cost(fetched.answer.usage, model, request.operation)


def merge_responses(
    responses: list[ImagesResponse], wrong: Mapping[int, ImgkitError], counts: list[int], course: CallContext
) -> ImagesResponse:
    """Return the pictures of several requests of one call as one response.

    Args:
        responses: of those requests that brought pictures, in their order; at least one.
        wrong: the errors of the others, by the number of the request.
        counts: how many pictures each request asked for.
        course: of the call.
    """
    images = [image for one in responses for image in one.images]
    warnings = dict.fromkeys(warning for one in responses for warning in one.warnings)
    for number, error in wrong.items():
        first = sum(counts[:number])
        which = f"pictures {first + 1} to {first + counts[number]} of {sum(counts)} are missing"
        warnings[f"{which}: {type(error).__name__}: {error}"] = None
    first_one = responses[0]
    return replace(
        first_one,
        images=tuple(replace(image, index=index) for index, image in enumerate(images)),
        usage=sum_usage(one.usage for one in responses),
        meta=replace(
            first_one.meta,
            attempts=tuple(course.attempts),
            elapsed_s=max(one.meta.elapsed_s for one in responses),
            cached=all(one.meta.cached for one in responses),
        ),
        warnings=tuple(warnings),
        cost=sum_costs(one.cost for one in responses),
        errors=tuple(wrong.values()),
    )


def with_warnings(response: ImagesResponse, warnings: Iterable[str]) -> ImagesResponse:
    """Return a response with these warnings before its own."""
    return replace(response, warnings=(*warnings, *response.warnings))


def sum_usage(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the sum of what several replies report; a number that one of them lacks is not known."""
    all_of_them = list(usages)
    known = [one for one in all_of_them if one is not None]
    if len(known) < len(all_of_them) or not known:
        return None
    sums: dict[str, int | None] = {}
    for name in field_names(Usage):
        if name != "extra":
            counts = [getattr(one, name) for one in known]
            sums[name] = None if None in counts else sum(counts)
    return Usage(**sums, extra=known[0].extra)


def save_image(image: Image, plan: SavePlan, count: int) -> Image:
    """Save a picture, and return it as it is read from its file; see `SavePlan.write`."""
    path = plan.write(image, count)
    source = image.source
    return replace(image, path=path, source=source.saved(path) if isinstance(source, PartFile) else source)


def load_into_memory(image: Image) -> Image:
    """Return an image that outlives the call; what is not saved is on disk for its time only."""
    source = image.source
    return replace(image, source=BytesSource(source.read())) if isinstance(source, PartFile) else image


def save_all(core: Core, response: ImagesResponse, plan: SavePlan) -> Flow[ImagesResponse]:
    """Save the pictures of a reply that are not yet; what cannot be saved never costs what can.

    Raises:
        SaveError: with the whole reply, the saved pictures' paths in it.
    """
    images: list[Image] = []
    problem: ImgkitError | None = None
    for image in response.images:
        try:
            if image.path is None:
                image = yield from ensure_downloaded(core, image)
                image = yield RunBlocking(partial(save_image, image, plan, len(response.images)))
        except ImgkitError as error:
            problem = problem or error
            image = load_into_memory(image)
        images.append(image)
    brought = replace(response, images=tuple(images))
    if problem is not None:
        missing = [image for image in images if image.path is None]
        raise SaveError(
            f"{len(missing)} of {len(images)} pictures could not be saved: {problem}. The whole reply is in "
            "error.response",
            images=tuple(missing),
            response=brought,
        ) from problem
    return brought
