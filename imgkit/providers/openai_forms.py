"""The forms of OpenAI's edits and variations: members become fields, images become files.

Source: openai-python 3.54.0 (2026-11-17), read 2026-11-23.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.sniff import EXTENSIONS
from imgkit.wire.multipart import Field, File, MultipartBody


def build_form(members: Mapping[str, Any], inputs: OpenedInputs, names: Sequence[str] = ()) -> MultipartBody:
    """Return the body of a request that uploads images.

    Args:
        members: the other members by name, in the order in which they are sent.
        inputs: the images, all of them files.
        names: the API's own names of the images; () for OpenAI's.
    """
    fields = (field for name, value in members.items() for field in _to_fields(name, value))
    return MultipartBody((*fields, *_to_files(inputs, names)))


def _to_fields(name: str, value: Any) -> Iterator[Field]:
    """Yield a member as form fields: ``svg[model]`` for objects, ``name[]`` for arrays, none for None."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _to_fields(f"{name}[{key}]", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _to_fields(f"{name}[]", inner)
    elif value is not None:
        yield Field(name, _format_scalar(value))


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _to_files(inputs: OpenedInputs, names: Sequence[str]) -> Iterator[File]:
    """Yield file parts under neutral file names, which do not disclose the caller's paths."""
    names = names or ("image" if len(inputs.image) == 1 else "image[]",) * len(inputs.image)
    assert not inputs.has_references, "references go as JSON"
    files = [image for image in inputs.image if isinstance(image, ImageFile)]
    for number, file in enumerate(files, 1):
        extension = EXTENSIONS[file.kind.format][0]
        filename = f"image{extension}" if len(inputs.image) == 1 else f"image-{number}{extension}"
        yield File(names[number - 1], filename, file.kind.media_type, file)
    for role, extra in (("mask", inputs.mask), ("markup", inputs.markup)):
        if isinstance(extra, ImageFile):
            yield File(role, role + EXTENSIONS[extra.kind.format][0], extra.kind.media_type, extra)
