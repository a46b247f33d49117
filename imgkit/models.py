"""Requests, responses, usage, costs and stream events: frozen values without any I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Protocol, TypeAlias, overload

from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.references import ImageReference
from imgkit.redact import hide_members

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# --- Inputs and requests ---------------------------------------------------------------------

HostClass: TypeAlias = Literal["official", "compatible", "offline"]
"""Class of the answering host: the provider's own, another server with its dialect, or no network."""

Operation: TypeAlias = Literal["create_image", "create_image_edit", "create_image_variation"]


class PilImage(Protocol):
    """The shape of a `PIL.Image.Image`; type checkers need no Pillow for it."""

    @property
    def mode(self) -> str:
        """The pixel mode, such as "RGB"."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def convert(self, mode: str) -> object:
        """Return a copy in another pixel mode."""


ImageInput: TypeAlias = str | PathLike[str] | bytes | BinaryIO | PilImage | Image | ImageReference
"""An image given to an edit or a variation: a path, bytes, an open binary file, a Pillow image, an image
of an earlier response or a ``data:`` URL. Edits also accept an `ImageReference`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageRequest:
    """The parameters of `create_image`. imgkit does not send a field that is None.

    >>> CreateImageRequest(prompt="a red fox", size="1024x1024").n is None
    True

    Most fields and their values are those of ``POST /images/generations`` (openai-python 3.54.0, read
    2026-11-23); `aspect_ratio`, `resolution`, `seed` and `negative_prompt` are those of other APIs. The
    provider decides which model accepts which field.

    Attributes:
        prompt: description of the image.
        model: name of the model; the service's `model` if None.
        n: number of images. imgkit splits a number above the model's limit into several requests.
        size: ``"1024x1024"`` (width x height in pixels) or ``"auto"``.
        aspect_ratio: ``"16:9"``, for models that choose the pixels; excludes a size in pixels.
        resolution: ``"1K"``, ``"2K"`` and so on, for models that choose the pixels; excludes a size.
        seed: number from which the model draws; equal requests may then give equal images. Where a request
            makes fewer images than `n`, imgkit adds the number of earlier images to it.
        negative_prompt: description of what the image must not show.
        quality: "low", "medium", "high", "xhigh", "max", "auto", "standard" or "hd".
        background: "transparent", "opaque" or "auto".
        output_format: "png", "jpeg", "webp", "gif" or "svg".
        output_compression: 0 to 100 percent, for jpeg and webp.
        moderation: "auto" or "low".
        response_format: "url" or "b64_json"; GPT image models refuse the field.
        style: "vivid" or "natural".
        complexity: "low", "medium" or "high".
        frame_count: frames of an animated gif, 2 to 16.
        frame_duration_ms: duration of each frame in milliseconds, up to 655350.
        svg: options of the svg format, such as ``{"model": …, "reasoning": {"effort": "low"}}``.
        safety_identifier: your stable, anonymous id of the end user.
        user: the older name of `safety_identifier`.
        model_options: options that this model alone has, by name. `imgkit providers NAME` lists them with
            their values; a wrong name or value is refused.
        extra_body: further members of the body, sent unchanged; they override the other fields.
        extra_headers: further headers; imgkit omits a header whose value is None.
    """

    operation: ClassVar[Operation] = "create_image"

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    moderation: str | None = None
    response_format: str | None = None
    style: str | None = None
    complexity: str | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    svg: Mapping[str, object] | None = field(default=None, hash=False)
    safety_identifier: str | None = None
    user: str | None = None
    model_options: Mapping[str, object] | None = field(default=None, hash=False)
    extra_body: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageEditRequest:
    """The parameters of `create_image_edit`. imgkit does not send a field that is None.

    >>> CreateImageEditRequest(image="fox.png", prompt="a blue hat").mask is None
    True

    The fields are those of the multipart form of ``POST /images/edits`` (openai-python 3.54.0, read
    2026-11-23). `CreateImageRequest` describes the fields that both requests have.

    Attributes:
        image: the image to change, or up to 16 images.
        prompt: description of the change.
        mask: PNG of the first image's size; the model repaints its transparent pixels.
        markup: transparent PNG drawn over the first image to show the change; excludes `mask`.
        input_fidelity: "high" or "low": how closely the model follows the input images.
    """

    operation: ClassVar[Operation] = "create_image_edit"

    image: ImageInput | Sequence[ImageInput]
    prompt: str
    mask: ImageInput | None = None
    markup: ImageInput | None = None
    model: str | None = None
    n: int | None = None
    size: str | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    input_fidelity: str | None = None
    response_format: str | None = None
    complexity: str | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    svg: Mapping[str, object] | None = field(default=None, hash=False)
    safety_identifier: str | None = None
    user: str | None = None
    model_options: Mapping[str, object] | None = field(default=None, hash=False)
    extra_body: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageVariationRequest:
    """The parameters of `create_image_variation`. imgkit does not send a field that is None.

    >>> CreateImageVariationRequest(image="fox.png", n=2).operation
    'create_image_variation'

    The fields are those of ``POST /images/variations`` (openai-python 3.54.0, read 2026-11-23). OpenAI has
    retired this endpoint; compatible servers still offer it.

    Attributes:
        image: the image to vary.
        model, n, size, aspect_ratio, resolution, seed, negative_prompt, response_format, user,
            model_options, extra_body, extra_headers: as in `CreateImageRequest`.
    """

    operation: ClassVar[Operation] = "create_image_variation"

    image: ImageInput
    model: str | None = None
    n: int | None = None
    size: str | None = None
    aspect_ratio: str | None = None
    resolution: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    response_format: str | None = None
    user: str | None = None
    model_options: Mapping[str, object] | None = field(default=None, hash=False)
    extra_body: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False, hash=False)


ImageRequest: TypeAlias = CreateImageRequest | CreateImageEditRequest | CreateImageVariationRequest

_CONTENT_FIELDS = ("prompt", "model", "image", "mask", "markup", "extra_headers")
_field_names_by_class: dict[type[DataclassInstance], tuple[str, ...]] = {}


def field_names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the field names of a dataclass in declaration order, cached per class."""
    if kind not in _field_names_by_class:
        _field_names_by_class[kind] = tuple(field.name for field in fields(kind))
    return _field_names_by_class[kind]


def resolve_model(request: ImageRequest, default: str | None) -> str | None:
    """Return the name of the model that a request is sent with, None if the server chooses.

    ``extra_body`` wins over the request's own model, as it does in the body that is sent.

    Args:
        request: as it is sent.
        default: the service's model, for a request that names none.

    Example:
        >>> resolve_model(CreateImageRequest(prompt="a fox", model="a", extra_body={"model": "b"}), "c")
        'b'
    """
    extra_body = request.extra_body or {}
    name = extra_body.get("model", request.model or default)
    return name if isinstance(name, str) and name else None


def count_requested_images(request: ImageRequest) -> int:
    """Return the number of images that a request asks for; 1 if it names none.

    Example:
        >>> count_requested_images(CreateImageRequest(prompt="a fox", n=3))
        3
    """
    in_body = (request.extra_body or {}).get("n")
    return in_body if type(in_body) is int else request.n or 1


def sent_parameters(request: ImageRequest) -> dict[str, object]:
    """Return the set parameters of a request, without prompt, model, images, headers and secrets.

    >>> sent_parameters(CreateImageRequest(prompt="a fox", extra_body={"api_key": "s3cr3t", "seed": 5}))
    {'extra_body': {'api_key': '…', 'seed': 5}}
    """
    return {
        name: hide_members(value) if name in ("extra_body", "model_options") else value
        for name in field_names(type(request))
        if name not in _CONTENT_FIELDS and (value := getattr(request, name)) is not None
    }


# --- Costs -----------------------------------------------------------------------------------

_MAX_AMOUNT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a finished call, computed from usage and dated prices.

    >>> str(Cost(amount=Decimal("0.04"), note="fixed price"))
    '0.0400 USD (fixed price)'
    >>> Cost().known
    False

    Attributes:
        amount: amount in `currency`; None if unknown.
        currency: ISO 4217 code, such as "USD".
        as_of: date of the prices; None without prices.
        note: source of the amount, or the reason why it is unknown.
    """

    amount: Decimal | None = None
    currency: str = "USD"
    as_of: date | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an amount."""
        return self.amount is not None

    def __str__(self) -> str:
        if self.amount is None:
            return _format_unknown(self.note)
        source = f" (prices of {self.as_of})" if self.as_of else f" ({self.note})" if self.note else ""
        return f"{self.amount:.4f} {self.currency}{source}"


def is_amount(amount: object) -> bool:
    """Return whether a reply can cost an amount: a finite decimal number from 0 up to a million.

    >>> is_amount(Decimal("0.04")), is_amount(Decimal("-1")), is_amount(Decimal("Infinity"))
    (True, False, False)
    """
    return isinstance(amount, Decimal) and amount.is_finite() and 0 <= amount <= _MAX_AMOUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bounds of the cost of a call, computed before it is sent.

    >>> str(Estimate(low=Decimal("0.01"), high=Decimal("0.04")))
    '0.0100 to 0.0400 USD'

    Attributes:
        low, high: bounds of the amount in `currency`; both None if unknown.
        currency: ISO 4217 code, such as "USD".
        as_of: date of the prices; None without prices.
        note: basis of the bounds, or the reason why there are none.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    currency: str = "USD"
    as_of: date | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there are bounds."""
        return self.high is not None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return _format_unknown(self.note)
        bounds = f"{self.low:.4f}" if self.low == self.high else f"{self.low:.4f} to {self.high:.4f}"
        source = f" (prices of {self.as_of})" if self.as_of else ""
        return f"{bounds} {self.currency}{source}"


def _format_unknown(note: str) -> str:
    return f"unknown ({note})" if note else "unknown"


class Estimator(Protocol):
    """A callable that estimates the cost of a request, with all images and partial images of a stream.

    >>> def flat_rate(request, partial_images=0):
    ...     price = Decimal("0.04") * (request.n or 1)
    ...     return Estimate(low=price, high=price)
    >>> flat_rate(CreateImageRequest(prompt="a fox", n=2)).high
    Decimal('0.08')
    """

    def __call__(self, request: ImageRequest, partial_images: int = 0) -> Estimate:
        """Return the bounds, or an `Estimate` without bounds if they are unknown."""


def unknown_estimate(request: ImageRequest, partial_images: int = 0) -> Estimate:
    """Return an estimate without bounds: the default `Estimator`."""
    return Estimate(note="no prices are known here")


# --- Responses -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts as the server reports them; None for a count that it does not report.

    >>> Usage(total_tokens=1100, input_tokens=44).output_tokens is None
    True

    Attributes:
        total_tokens, input_tokens, output_tokens: as in the response.
        input_text_tokens, input_image_tokens: the input tokens by kind.
        output_text_tokens, output_image_tokens: the output tokens by kind; many servers omit them.
        extra: unknown keys of the response, unchanged.
    """

    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_text_tokens: int | None = None
    input_image_tokens: int | None = None
    output_text_tokens: int | None = None
    output_image_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An HTTP request of a call, finished or failed.

    >>> Attempt(status=429, error="RateLimitError", elapsed_s=0.2).error
    'RateLimitError'

    Attributes:
        status: HTTP status of the response; None without a response.
        error: class name of the error; None on success.
        elapsed_s: seconds from opening the connection to the end of the response.
    """

    status: int | None
    error: str | None
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The origin of a response: service, attempts and timing.

    >>> Meta(operation="create_image", call_id="c1", backend="offline", provider="openai").cached
    False

    Attributes:
        operation: "create_image", "create_image_edit" or "create_image_variation".
        call_id: imgkit's own id of the call, as in logs and events.
        backend, provider: their names. The backend "offline" uses no model.
        model: the requested model; None if the request named none.
        status: HTTP status.
        request_id: the API's id of the call.
        attempts: the HTTP requests, in order.
        elapsed_s: seconds from the start to the end of the call, pauses included.
        cached: True if the images came from a cache and imgkit sent nothing.
        emulated: True if imgkit emulated a variation by an edit.
        emulation_prompt: the prompt of that edit.
        rate_limits: the response's ``x-ratelimit-…`` headers, by the part of the name after that prefix.
    """

    operation: Operation
    call_id: str
    backend: str
    provider: str
    model: str | None = None
    status: int | None = None
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    elapsed_s: float = 0.0
    cached: bool = False
    emulated: bool = False
    emulation_prompt: str | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagesResponse(Sequence[Image]):
    """The images of a call. It is also a sequence of them.

    >>> from imgkit import ImageService
    >>> with ImageService() as service:
    ...     response = service.create_image("a red fox", n=2, size="64x64")
    >>> len(response), response[0].width
    (2, 64)

    Responses are equal if all their values are, `meta` left out: two calls with the same result are equal.

    Attributes:
        images: the images, in the server's order.
        created: Unix time in seconds as the server reports it, else None.
        usage: token counts; None if the server reports none.
        meta: service, attempts and timing of the call.
        warnings: notices about problems that did not stop the call.
        cost: cost from usage and dated prices, or an unknown cost.
        errors: errors of the requests that failed, if imgkit split the call into several.
        background, output_format, size, quality: the values that the server reports.
        extra: response keys that imgkit does not know, sorted by name.
    """

    images: tuple[Image, ...]
    created: int | None = None
    usage: Usage | None = None
    meta: Meta
    warnings: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)
    errors: tuple[ImgkitError, ...] = ()
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> tuple[Image, ...]:
        """The images under the API's own name for them."""
        return self.images

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagesResponse):
            return NotImplemented
        names = [name for name in field_names(ImagesResponse) if name not in ("meta", "errors")]
        return all(getattr(self, name) == getattr(other, name) for name in names) and (
            # Exceptions compare by identity.
            [repr(error) for error in self.errors] == [repr(error) for error in other.errors]
        )

    def __hash__(self) -> int:
        return hash((self.images, self.created))

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.images)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Image, ...]: ...
    def __getitem__(self, index: int | slice) -> Image | tuple[Image, ...]:
        return self.images[index]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return a row of thumbnails for a notebook cell."""
        return {"text/plain": repr(self), "text/html": _format_html_row(self.images)}


def _format_html_row(images: Sequence[Image]) -> str:
    import html

    cells = []
    for image in images:
        prompt = html.escape(str(image.revised_prompt or image.about.get("prompt") or ""))[:200]
        thumbnail = image._repr_mimebundle_().get("image/png")
        content = (
            f'<img style="max-width:256px" alt="{prompt}" src="data:image/png;base64,{thumbnail}">'
            if thumbnail
            else f"<code>{html.escape(repr(image))}</code>"
        )
        cells.append(
            f"<figure style='display:inline-block;margin:4px'>{content}"
            f"<figcaption>{prompt}</figcaption></figure>"
        )
    return "".join(cells)


# --- Stream events ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartialImage:
    """An unfinished image of a stream; sharper versions follow.

    >>> PartialImage(0, Image.from_bytes(b"", index=1)).image.index
    1

    Attributes:
        index: number of the partial image in the server's count, from 0.
        image: the partial image; its own `index` is the index of the finished image.
    """

    index: int
    image: Image


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished image of a stream.

    >>> meta = Meta(operation="create_image", call_id="c1", backend="offline", provider="openai")
    >>> Completed(Image.from_bytes(b""), meta=meta).usage is None
    True

    Attributes:
        image: the image. With ``save_to=`` its `path` is the saved file, unless it came as a URL.
        usage: token counts; None if the server reports none.
        created: Unix time in seconds as the server reports it, else None.
        background, output_format, size, quality: the values that the server reports.
        extra: event keys that imgkit does not know.
        meta: service, attempts and timing of the call; `attempts` ends before the streaming attempt.
    """

    image: Image
    usage: Usage | None = None
    created: int | None = None
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    meta: Meta = field(kw_only=True, compare=False)


StreamEvent: TypeAlias = PartialImage | Completed
