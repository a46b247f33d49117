"""What a stream of `stream_image` and `stream_image_edit` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from imgkit.image import Image
from imgkit.models import Meta, Usage


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
