"""The events of OpenAI's streams.

Source: openai-python 3.54.0 (2026-11-17) and the API reference, read 2026-11-23. The data holds
the type, because some servers leave out the ``event:`` line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from imgkit.models import Cost
from imgkit.providers.base import DecodedImage, DecodedImages, DecodedPartialImage, ReplyBody, Target
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.reply_images import decode_content, readable, unreadable_reply_error
from imgkit.redact import Secret
from imgkit.schemas.replies import REPLY_SCHEMA
from imgkit.wire.json_values import JsonObject, restore_base64
from imgkit.wire.messages import Head

Examine: TypeAlias = Callable[[Head, JsonObject, tuple[Secret, ...]], tuple[Cost | None, tuple[str, ...]]]

_PARTIAL = frozenset({"image_generation.partial_image", "image_edit.partial_image"})
_COMPLETED = frozenset({"image_generation.completed", "image_edit.completed"})


def is_whole_reply(data: ReplyBody) -> bool:
    """Return whether an event holds a whole reply, which some servers send as their only event."""
    try:
        event = data.json()
    except ValueError:
        return False
    if not isinstance(event, dict) or event.get("error"):
        return False
    has_entries = isinstance(event.get("data"), list) and bool(event["data"])
    return has_entries and (event.get("type") is None or event.get("type") in _COMPLETED)


def decode_event(
    head: Head,
    data: ReplyBody,
    target: Target,
    secrets: tuple[Secret, ...],
    examine: Examine,
) -> DecodedPartialImage | DecodedImages | None:
    """Return the content of an event, as `imgkit.providers.StreamingProvider.decode_event` describes.

    Args:
        head, data, target, secrets: as there.
        examine: `OpenAIProvider.examine_reply`, for the last event.
    """
    with readable(head, data, secrets):
        event = data.json()
    if not isinstance(event, dict):
        return None
    kind = event.pop("type", None)
    if event.get("error") or kind == "error":
        raise error_from_reply(head, data.raw(), secrets)
    if kind not in _PARTIAL | _COMPLETED:
        return None
    content, problems = decode_content(event.pop("b64_json", None), None, target)
    if kind in _PARTIAL:
        # A partial image that cannot be read is skipped, because sharper images follow.
        index = event.get("partial_image_index")
        valid_index = index if type(index) is int and index >= 0 else None
        return DecodedPartialImage(index=valid_index, **content) if content else None
    event = restore_base64(event)
    cost, told = examine(head, event, secrets)
    if not content:
        content, url_problems = decode_content(None, str(event.pop("url", None) or ""), target)
        problems += url_problems
    if not content and problems:
        problem = "; ".join(f"the image {problem}" for problem in problems)
        raise unreadable_reply_error(head, data, problem, secrets)
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
        cost=cost,
        warnings=(*read.warnings, *told, *(f"the image {problem}" for problem in problems)),
        damaged=bool(problems),
        extra=read.extra,
    )
