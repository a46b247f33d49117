"""The forms of OpenAI's edits and variations: members as fields, pictures as files.

Source: openai-python 3.54.0 (2026-11-17), read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.sniff import EXTENSIONS
from imgkit.wire.multipart import Field, File, MultipartBody


def form(members: Mapping[str, Any], inputs: OpenedInputs) -> MultipartBody:
    """Return the body of a request that uploads pictures.

    Args:
        members: what it says beside them, by name, in this order.
        inputs: the pictures; none of them is only named.
    """
    fields = (field for name, value in members.items() for field in _fields(name, value))
    return MultipartBody((*fields, *_files(inputs)))


def _fields(name: str, value: Any) -> Iterator[Field]:
    """Yield a member as form fields: ``svg[model]`` for objects, ``name[]`` for arrays, None left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _fields(f"{name}[{key}]", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _fields(f"{name}[]", inner)
    elif value is not None:
        yield Field(name, _scalar(value))


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _files(inputs: OpenedInputs) -> Iterator[File]:
    """Yield file parts under names of our own: a caller's path is nobody else's business."""
    name = "image" if len(inputs.image) == 1 else "image[]"
    assert not inputs.has_references, "references go as JSON"
    for number, one in enumerate((one for one in inputs.image if isinstance(one, ImageFile)), 1):
        extension = EXTENSIONS[one.kind.format][0]
        filename = f"image{extension}" if len(inputs.image) == 1 else f"image-{number}{extension}"
        yield File(name, filename, one.kind.media_type, one)
    for role, extra in (("mask", inputs.mask), ("markup", inputs.markup)):
        if isinstance(extra, ImageFile):
            yield File(role, role + EXTENSIONS[extra.kind.format][0], extra.kind.media_type, extra)
