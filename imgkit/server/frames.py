"""Replies in frames of text and images: they are encoded while they are sent, so memory stays flat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pybase64

from imgkit.errors import UnreadableReplyError
from imgkit.images.image import Image
from imgkit.images.sources import FileSource, Source
from imgkit.models import Completed, ImagesResponse, PartialImage, Usage
from imgkit.server.reply_memory import is_in_memory, read_block

BLOCK_BYTES = 384 * 1024
"""Most bytes of an image that are encoded at once. Slow readers hold a block each."""

Frame: TypeAlias = tuple[bytes | Source, ...]
"""Texts, and images that are sent as base64."""

_EVENT_PREFIXES = {"create_image": "image_generation", "create_image_edit": "image_edit"}


class Item(NamedTuple):
    """An image of a JSON reply.

    Attributes:
        source: its bytes, sent as base64; None if the reply has its URL.
        members: further members, such as "url" and "revised_prompt".
    """

    source: Source | None
    members: Mapping[str, object]


def find_source(image: Image) -> Source:
    """Return the bytes of an image: its file, or memory if it has none."""
    if image.path is not None and not is_in_memory(image.source):
        try:
            return FileSource.from_path(image.path)
        except OSError:  # a small image has no file
            return image.source
    return image.source


def list_files(images: Sequence[Image]) -> list[Path]:
    """Return the files of images; those in memory have a path without a file."""
    return [image.path for image in images if image.path is not None and not is_in_memory(image.source)]


def measure_frame(frame: Frame) -> int:
    """Return the number of bytes of a frame as it is sent."""
    return sum(len(part) if isinstance(part, bytes) else -(-part.length // 3) * 4 for part in frame)


def encode_frame(frame: Frame) -> Iterator[bytes]:
    """Yield the bytes of a frame in blocks.

    Raises:
        ImgkitError: the file of an image is gone, or has become shorter.
    """
    pending = b""
    for part in frame:
        if isinstance(part, bytes):
            pending += part
            continue
        position, rest = 0, b""
        while position < part.length:
            text, rest, size = _encode_block(part, position, rest)
            if not size:
                raise UnreadableReplyError("The file of an image has become shorter.")
            position += size
            text = pending + text
            pending = b""
            yield text
        pending += pybase64.b64encode(rest)
    if pending:
        yield pending


def _encode_block(source: Source, position: int, rest: bytes) -> tuple[bytes, bytes, int]:
    """Return a block of an image as base64, and let go of the image: its reader may be slow.

    Args:
        source: the image.
        position: number of bytes before the block.
        rest: the last bytes of the block before, which were no multiple of three.

    Returns:
        The base64, the last bytes that wait for more, and the number of bytes that were read.
    """
    data = read_block(source, BLOCK_BYTES, position)
    whole = rest + data if rest else data
    cut = len(whole) - len(whole) % 3
    return pybase64.b64encode(whole[:cut]), bytes(whole[cut:]), len(data)


def build_json_frame(response: ImagesResponse, items: list[Item]) -> Frame:
    """Return the JSON reply of a call.

    Args:
        response: the images.
        items: an entry for each image.
    """
    reported = {
        name: value
        for name in ("background", "output_format", "quality", "size")
        if (value := getattr(response, name)) is not None
    }
    after: dict[str, object] = {**reported}
    if response.usage is not None:
        after["usage"] = _usage_json(response.usage)
    if response.warnings:
        after["warnings"] = list(response.warnings)
    frame: list[bytes | Source] = [b'{"created":%d,"data":[' % (response.created or int(time.time()))]
    for number, item in enumerate(items):
        frame.append(b"," if number else b"")
        members = _dump(item.members)
        if item.source is None:
            frame.append(members)
        else:
            rest = b"," + members[1:] if item.members else b"}"
            frame += [b'{"b64_json":"', item.source, b'"' + rest]
    frame.append(b"]" + (b"," + _dump(after)[1:] if after else b"}"))
    return _join_texts(frame)


def build_event_frame(operation: str, event: PartialImage | Completed) -> Frame:
    """Return an event of a stream as OpenAI sends it (API reference, read 2026-11-23)."""
    prefix = _EVENT_PREFIXES.get(operation, "image_generation")
    members: dict[str, object]
    if isinstance(event, PartialImage):
        kind, members = f"{prefix}.partial_image", {"partial_image_index": event.index}
    else:
        kind = f"{prefix}.completed"
        members = {
            name: value
            for name in ("background", "output_format", "quality", "size")
            if (value := getattr(event, name)) is not None
        }
        members["created_at"] = event.created or int(time.time())
        if event.usage is not None:
            members["usage"] = _usage_json(event.usage)
    return _join_texts(
        [
            f'event: {kind}\ndata: {{"type":"{kind}","b64_json":"'.encode(),
            find_source(event.image),
            b'",' + _dump(members)[1:] + b"\n\n",
        ]
    )


def build_error_event(envelope: Mapping[str, object]) -> Frame:
    """Return the event that ends a stream with an error."""
    return (b"event: error\ndata: " + _dump({"type": "error", **envelope}) + b"\n\n",)


def _usage_json(usage: Usage) -> dict[str, object]:
    """Return token counts as OpenAI reports them."""
    counts = {name: getattr(usage, name) or 0 for name in ("input_tokens", "output_tokens", "total_tokens")}
    details: dict[str, object] = {}
    for side in ("input", "output"):
        known = {
            f"{kind}_tokens": getattr(usage, f"{side}_{kind}_tokens")
            for kind in ("text", "image")
            if getattr(usage, f"{side}_{kind}_tokens") is not None
        }
        if known or side == "input":
            details[f"{side}_tokens_details"] = {"text_tokens": 0, "image_tokens": 0, **known}
    return {**counts, **details}


def _dump(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def _join_texts(parts: list[bytes | Source]) -> Frame:
    """Return a frame without texts that follow each other."""
    joined: list[bytes | Source] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            joined[-1] = last + part
        elif part != b"":
            joined.append(part)
    return tuple(joined)
