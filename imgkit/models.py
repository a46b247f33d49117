"""The values that go in and come out: requests, replies, usage. Frozen, and free of any I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from os import PathLike
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, TypeAlias, overload

from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.inputs import ImageReference

HostClass: TypeAlias = Literal["official", "compatible", "offline"]
"""Whose host answers: the provider's own, another server with its dialect, or no network at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call has cost, as usage and dated prices tell.

    Attributes:
        amount: in `currency`; None where it is not known.
        currency: such as "USD".
        as_of: date of the prices, None where there are none.
        note: how it was found, or why it is not known.
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
            return f"unknown ({self.note})" if self.note else "unknown"
        dated = f" (prices of {self.as_of})" if self.as_of else f" ({self.note})" if self.note else ""
        return f"{self.amount:.4f} {self.currency}{dated}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call may cost, before it is sent.

    Attributes:
        low, high: bounds of the amount in `currency`; both None where they are not known.
        currency: such as "USD".
        as_of: date of the prices, None where there are none.
        note: what the bounds rest on, or why there are none.
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
            return f"unknown ({self.note})" if self.note else "unknown"
        bounds = f"{self.low:.4f}" if self.low == self.high else f"{self.low:.4f} to {self.high:.4f}"
        dated = f" (prices of {self.as_of})" if self.as_of else ""
        return f"{bounds} {self.currency}{dated}"


class Estimator(Protocol):
    """Returns what a request may cost, all its pictures and the partial ones of a stream together."""

    def __call__(self, request: ImageRequest, partial_images: int = 0) -> Estimate:
        """Return bounds, or that they are not known."""


def unknown_estimate(request: ImageRequest, partial_images: int = 0) -> Estimate:
    """Return that nothing is known of what a request costs."""
    return Estimate(note="no prices are known here")


Operation: TypeAlias = Literal["create_image", "create_image_edit", "create_image_variation"]


class PilImage(Protocol):
    """A `PIL.Image.Image`, known by its shape, so that Pillow need not be imported for it."""

    @property
    def mode(self) -> str:
        """How its pixels are kept, such as "RGB"."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def convert(self, mode: Any) -> Any:
        """Return it with pixels of another mode."""


ImageInput: TypeAlias = str | PathLike[str] | bytes | BinaryIO | PilImage | Image | ImageReference
"""A picture given to an edit or a variation: a path, bytes, an open binary file, a Pillow image, an
image of an earlier reply, a ``data:`` URL; for edits also a picture that the API has or fetches itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageRequest:
    """What `create_image` asks for; a field that is None is not sent.

    The fields and their values are those of ``POST /images/generations`` (openai-python 3.54.0, read
    2026-11-23). Which model takes which of them is the provider's business.

    Attributes:
        prompt: what to draw.
        model: which model draws; the service's `model` if None.
        n: how many pictures; more than the model makes at once are asked for in several requests.
        size: ``"1024x1024"`` (width x height in pixels) or ``"auto"``.
        quality: "low", "medium", "high", "xhigh", "max", "auto", "standard" or "hd".
        background: "transparent", "opaque" or "auto".
        output_format: "png", "jpeg", "webp", "gif" or "svg".
        output_compression: 0 to 100 percent, for jpeg and webp.
        moderation: "auto" or "low".
        response_format: "url" or "b64_json"; GPT image models refuse the field.
        style: "vivid" or "natural".
        complexity: "low", "medium" or "high".
        frame_count: pictures of an animated gif, 2 to 16.
        frame_duration_ms: how long each is shown, in milliseconds, up to 655350.
        svg: options of the svg format, such as ``{"model": …, "reasoning": {"effort": "low"}}``.
        safety_identifier: your stable, anonymous id of the end user.
        user: the older name of the same.
        extra_body: further members of the body, sent as they are; they win over the others.
        extra_headers: further headers; a header of None is left out.
    """

    operation: ClassVar[Operation] = "create_image"

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
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
    svg: Mapping[str, Any] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageEditRequest:
    """What `create_image_edit` asks for; a field that is None is not sent.

    The fields are those of the multipart form of ``POST /images/edits`` (openai-python 3.54.0, read
    2026-11-23); those that `CreateImageRequest` has too mean the same.

    Attributes:
        image: the picture to change, or up to 16 of them.
        prompt: what to change.
        mask: PNG of the first picture's size; it is changed where the mask is transparent.
        markup: transparent PNG drawn over the first picture to show what is meant; not with `mask`.
        input_fidelity: "high" or "low": how closely the inputs are kept.
    """

    operation: ClassVar[Operation] = "create_image_edit"

    image: ImageInput | Sequence[ImageInput]
    prompt: str
    mask: ImageInput | None = None
    markup: ImageInput | None = None
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    input_fidelity: str | None = None
    response_format: str | None = None
    complexity: str | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    svg: Mapping[str, Any] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImageVariationRequest:
    """What `create_image_variation` asks for; a field that is None is not sent.

    The fields are those of ``POST /images/variations`` (openai-python 3.54.0, read 2026-11-23), which
    OpenAI has retired and compatible servers still have.

    Attributes:
        image: the picture to vary.
        model, n, size, response_format, user, extra_body, extra_headers: as in `CreateImageRequest`.
    """

    operation: ClassVar[Operation] = "create_image_variation"

    image: ImageInput
    model: str | None = None
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    user: str | None = None
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str | None] | None = field(default=None, repr=False)


ImageRequest: TypeAlias = CreateImageRequest | CreateImageEditRequest | CreateImageVariationRequest


def field_names(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, in their order."""
    if kind not in _FIELD_NAMES:
        _FIELD_NAMES[kind] = tuple(field.name for field in fields(kind))
    return _FIELD_NAMES[kind]


_FIELD_NAMES: dict[type[Any], tuple[str, ...]] = {}


_NOT_TOLD = ("prompt", "model", "image", "mask", "markup", "extra_headers")


def sent_parameters(request: ImageRequest) -> dict[str, Any]:
    """Return what was set in a request beside its prompt, model and pictures; headers may hold secrets."""
    return {
        name: value
        for name in field_names(type(request))
        if name not in _NOT_TOLD and (value := getattr(request, name)) is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the server counted them; None where it did not say.

    Attributes:
        total_tokens, input_tokens, output_tokens: as in the reply.
        input_text_tokens, input_image_tokens: the input tokens apart.
        output_text_tokens, output_image_tokens: the output tokens apart, often not given.
        extra: further keys as they came.
    """

    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_text_tokens: int | None = None
    input_image_tokens: int | None = None
    output_text_tokens: int | None = None
    output_image_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a call.

    Attributes:
        status: HTTP status of the answer, None if none came.
        error: name of the error class it ended with, None if it succeeded.
        elapsed_s: seconds from opening to the end of the answer.
    """

    status: int | None
    error: str | None
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """How a reply came about.

    Attributes:
        operation: "create_image", "create_image_edit" or "create_image_variation".
        call_id: imgkit's own id of the call, as in logs and events.
        backend, provider: their names; backend "offline" means that no model drew the pictures.
        model: the model asked for, None if none was named.
        status: HTTP status.
        request_id: the API's id of the call.
        attempts: what was sent, in order.
        elapsed_s: seconds from the first to the last byte of work, sleeps included.
        cached: the pictures came from a cache; nothing was sent.
        emulated: a variation that was made by an edit.
        emulation_prompt: the prompt of that edit.
        rate_limits: the reply's ``x-ratelimit-…`` headers, by the name behind that prefix.
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
    rate_limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagesResponse(Sequence[Image]):
    """The pictures of a call; also a sequence of them.

    Attributes:
        images: the pictures, in the server's order.
        created: Unix time in seconds as the server says, None if it does not.
        usage: tokens, None where the server reports none.
        meta: how the reply came about.
        warnings: what the caller should know and what did not stop the call.
        cost: what it has cost, as usage and dated prices tell, or that it is not known.
        errors: where several requests were needed, how those ended that gave no pictures.
        background, output_format, size, quality: what the server says it used.
        extra: keys of the reply that imgkit does not know, sorted by name.
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
        """The same as `images`: the API's own name for them."""
        return self.images

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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Show the pictures in a row as the last line of a notebook cell."""
        return {"text/plain": repr(self), "text/html": _row_html(self.images)}


def _row_html(images: Sequence[Image]) -> str:
    import html

    cells = []
    for image in images:
        prompt = html.escape(str(image.revised_prompt or image.about.get("prompt") or ""))[:200]
        shown = image._repr_mimebundle_().get("image/png")
        picture = (
            f'<img style="max-width:256px" alt="{prompt}" src="data:image/png;base64,{shown}">'
            if shown
            else f"<code>{html.escape(repr(image))}</code>"
        )
        cells.append(
            f"<figure style='display:inline-block;margin:4px'>{picture}"
            f"<figcaption>{prompt}</figcaption></figure>"
        )
    return "".join(cells)


@dataclass(frozen=True, slots=True)
class PartialImage:
    """A picture as far as it is done; sharper ones follow.

    Attributes:
        index: 0 for the first partial picture, as the server counts.
        image: the picture; its own `index` is that of the picture it becomes.
    """

    index: int
    image: Image


@dataclass(frozen=True, slots=True)
class Completed:
    """A picture that is done.

    Attributes:
        image: the picture; with ``save_to=`` its `path` is where it is, unless it came as a URL.
        usage: tokens, None where the server reports none.
        created: Unix time in seconds as the server says, None if it does not.
        background, output_format, size, quality: what the server says it used.
        extra: keys of the event that imgkit does not know.
        meta: how it came about; its `attempts` are those before the one that streams.
    """

    image: Image
    usage: Usage | None = None
    created: int | None = None
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    meta: Meta = field(kw_only=True)


StreamEvent: TypeAlias = PartialImage | Completed
