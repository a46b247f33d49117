"""The plans of the operations: what happens between the user's call and the pictures.

Each plan is a generator of needs (see `imgkit.flow`). `imgkit.service` binds them to the synchronous
and the asynchronous service, so signatures, descriptions and behaviour of the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from imgkit import download as downloading
from imgkit import results
from imgkit.cache_use import CacheUse
from imgkit.calls import SaveTo, Wish, carried_out
from imgkit.core import Core, seconds
from imgkit.errors import InvalidRequestError
from imgkit.flow import Flow
from imgkit.image import Image
from imgkit.inputs import prepare_of
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageInput,
    ImageRequest,
    ImagesResponse,
    field_names,
)
from imgkit.schemas.requests import checked
from imgkit.variations import strategy_of


def create_image(
    core: Core,
    prompt: str | CreateImageRequest,
    *,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    moderation: str | None = None,
    response_format: str | None = None,
    style: str | None = None,
    complexity: str | None = None,
    frame_count: int | None = None,
    frame_duration_ms: int | None = None,
    svg: Mapping[str, Any] | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Create pictures from a prompt.

    Args:
        prompt: what to draw; or a whole `CreateImageRequest`, which goes alone.
        model, n, size, quality, background, output_format, output_compression, moderation,
        response_format, style, complexity, frame_count, frame_duration_ms, svg, safety_identifier,
        user, extra_body, extra_headers: see `CreateImageRequest`; what is None is not sent.
        save_to: file, folder, or pattern such as ``"out/{index}-{slug}.{ext}"`` to save the pictures
            to; checked before anything is sent, never overwrites.
        cache: with a cache among the plugins: "use" it (the default), "refresh" what it has, "only" (send
            nothing), or "off".
        replica: number of a further picture for an equal request; 0 is the first.
        timeout_s: seconds that this call may take in all; the service's if None.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError, ConfigurationError: nothing was sent.
        NotSentError: nothing can have been billed.
        OutcomeUnknownError, UnreadableReplyError, EmptyResultError: it may have been billed.
        ApiError: the API refused or failed.
        CacheMissError: ``cache="only"``, and the cache has no reply; nothing was sent.
        SaveError: the pictures came and could not be written; they are in ``error.response``.
    """
    request = request_of(CreateImageRequest, "prompt", prompt, locals())
    wish = Wish(save_to=save_to, use=CacheUse.of(cache, replica), timeout_s=timeout_s)
    return (yield from carried_out(core, request, wish))


def create_image_edit(
    core: Core,
    image: ImageInput | Sequence[ImageInput] | CreateImageEditRequest,
    prompt: str | None = None,
    *,
    mask: ImageInput | None = None,
    markup: ImageInput | None = None,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    input_fidelity: str | None = None,
    response_format: str | None = None,
    complexity: str | None = None,
    frame_count: int | None = None,
    frame_duration_ms: int | None = None,
    svg: Mapping[str, Any] | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    prepare: Literal["check", "fit"] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Change pictures as a prompt says.

    Args:
        image: the picture to change, or up to 16: paths, bytes, open binary files, PIL images,
            images of earlier replies, ``data:`` URLs; or a whole `CreateImageEditRequest`.
        prompt: what to change; required unless a request object is given.
        mask: PNG of the first picture's size; it is changed where the mask is transparent.
        markup: transparent PNG that shows what is meant; not with `mask`.
        input_fidelity: "high" or "low".
        model, n, size, quality, background, output_format, output_compression, response_format,
        complexity, frame_count, frame_duration_ms, svg, safety_identifier, user, extra_body,
        extra_headers: see `CreateImageRequest`.
        prepare: "fit" makes pictures fit what the model takes: converts, turns, shrinks and pads them, the
            mask along with the first; "check" refuses what would need it. What was done is in
            ``reply.warnings``.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        ImgkitError: otherwise as `create_image`.
    """
    request = request_of(CreateImageEditRequest, "image", image, locals())
    wish = Wish(
        save_to=save_to,
        use=CacheUse.of(cache, replica),
        timeout_s=timeout_s,
        prepare=prepare_of(prepare),
    )
    return (yield from carried_out(core, request, wish))


def create_image_variation(
    core: Core,
    image: ImageInput | CreateImageVariationRequest,
    *,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    response_format: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    strategy: Literal["auto", "native", "emulate"] = "auto",
    variation_prompt: str | None = None,
    prepare: Literal["check", "fit"] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Make variations of a picture.

    Args:
        image: the picture to vary, as for `create_image_edit`; or a `CreateImageVariationRequest`.
        model, n, size, response_format, user, extra_body, extra_headers: see `CreateImageRequest`.
        strategy: "native": by the server's own operation; "emulate": by an edit with a prompt that asks for
            variations; "auto": natively, and by an edit where the host is known not to have the operation, or
            answers 404 or 405. ``reply.meta.emulated`` tells which it was.
        variation_prompt: of that edit, instead of imgkit's own; it is in ``reply.meta.emulation_prompt``.
        prepare: as for `create_image_edit`.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        EndpointRetiredError: "native", and the host is known not to have the operation; nothing was sent.
        NotFoundError: "native", and the server does not have it.
        ImgkitError: otherwise as `create_image`.
    """
    request = request_of(CreateImageVariationRequest, "image", image, locals())
    wish = Wish(
        save_to=save_to,
        use=CacheUse.of(cache, replica),
        timeout_s=timeout_s,
        strategy=strategy_of(strategy),
        variation_prompt=variation_prompt,
        prepare=prepare_of(prepare),
    )
    return (yield from carried_out(core, request, wish))


def download(core: Core, image: Image, *, timeout_s: float | None = None) -> Flow[Image]:
    """Return the image with its bytes here, fetched from its URL if they are not yet.

    Args:
        image: of a reply of this service.
        timeout_s: seconds that fetching may take; the service's if None.

    Raises:
        DownloadError: blocked, expired, or failed; the URL is in ``image.url``.
    """
    if not isinstance(image, Image):
        raise InvalidRequestError({"image": f"is a {type(image).__name__}: give an image of a reply"})
    if timeout_s is not None:
        seconds("timeout_s", timeout_s)
    return (yield from results.here(core, image))


def fetch_url(core: Core, url: str, *, timeout_s: float | None = None) -> Flow[bytes]:
    """Return the bytes behind a result URL; what ``image.data`` runs under the synchronous service."""
    return (yield from downloading.fetch(core, url))


def request_of(kind: type[Any], first: str, value: Any, given: Mapping[str, Any]) -> ImageRequest:
    """Return the checked request that a call's arguments make, or the one that was handed over."""
    names = field_names(kind)
    if isinstance(value, kind):
        beside = [name for name in names if name != first and given.get(name) is not None]
        if beside:
            raise InvalidRequestError(
                dict.fromkeys(beside, "goes into the request object: give the object or keywords, not both")
            )
        fields = {name: getattr(value, name) for name in names}
    else:
        fields = {name: given.get(name) for name in names}
    made: ImageRequest = checked(kind, fields)
    return made
