"""The events of OpenAI's streams.

Source: openai-python 3.54.0 (2026-11-17) and the API reference, read 2026-11-23. The type is in the data: the
``event:`` line is left out by some servers.
"""

from __future__ import annotations

from imgkit.providers.base import DecodedImage, DecodedImages, DecodedPartialImage, ReplyBody, Target
from imgkit.providers.errors import error_from_reply
from imgkit.providers.pictures import content_of, unreadable
from imgkit.redact import Secret
from imgkit.schemas.responses import REPLY_SCHEMA
from imgkit.wire.json_values import with_text
from imgkit.wire.messages import Head

_PARTIAL = frozenset({"image_generation.partial_image", "image_edit.partial_image"})
_COMPLETED = frozenset({"image_generation.completed", "image_edit.completed"})


def read_event(
    head: Head,
    data: ReplyBody,
    target: Target,
    secrets: tuple[Secret, ...],
) -> DecodedPartialImage | DecodedImages | None:
    """Return what an event says; see `imgkit.providers.base.StreamingProvider.decode_event`."""
    try:
        event = data.json()
    except ValueError as error:
        raise unreadable(head, data, f"an event of the stream: {error}") from None
    if not isinstance(event, dict):
        return None
    kind = event.pop("type", None)
    if event.get("error") or kind == "error":
        raise error_from_reply(head, data.raw(), secrets)
    if kind not in _PARTIAL | _COMPLETED:
        return None
    content, problems = content_of(event.pop("b64_json", None), None, target)
    if kind in _PARTIAL:
        # One without a picture costs nothing: sharper ones follow.
        index = event.get("partial_image_index")
        counted = index if type(index) is int and index >= 0 else None
        return DecodedPartialImage(index=counted, **content) if content else None
    event = with_text(event)
    if not content:
        content, more = content_of(None, str(event.pop("url", None) or ""), target)
        problems += more
    if not content and problems:
        raise unreadable(head, data, "; ".join(f"the picture {problem}" for problem in problems))
    # The key is created_at in events, created in whole replies.
    read = REPLY_SCHEMA.read(
        {("created" if key == "created_at" else key): value for key, value in event.items()}
    )
    return DecodedImages(
        pictures=(DecodedImage(**content),) if content else (),
        created=read.created,
        usage=read.usage.to_usage() if read.usage else None,
        background=read.background,
        output_format=read.output_format,
        size=read.size,
        quality=read.quality,
        warnings=(*read.warnings, *(f"the picture {problem}" for problem in problems)),
        damaged=bool(problems),
        extra=read.extra,
    )
