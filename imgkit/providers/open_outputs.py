"""The outputs of models that nobody lists: images at any place of a reply."""

from __future__ import annotations

from collections.abc import Iterator

from imgkit.errors import EmptyResultError
from imgkit.providers.base import DecodedImage, ReplyBody, Target
from imgkit.providers.reply_images import decode_entries, is_base64_image
from imgkit.wire.json_values import DivertedImage, is_data_url
from imgkit.wire.messages import Head

_LINKS = ("https://", "http://")
_OTHER_MEMBERS = frozenset({"input", "logs", "prompt", "revised_prompt", "urls"})
"""Members that may hold addresses, and no images."""


def decode_output(
    output: object, head: Head, body: ReplyBody, target: Target
) -> tuple[tuple[DecodedImage, ...], list[str]]:
    """Return the images of an output, and the problems of its entries.

    An image is an address, a ``data:`` URL, or a text in base64. It stands alone, in a list, or in members of
    objects, at any depth.

    Args:
        output: the output, a JSON value.
        head, body: the reply, for the error.
        target: the server that sent the reply.

    Raises:
        EmptyResultError: the output names no image.
    """
    entries = {number: {"url": image} for number, image in enumerate(_iterate_images(output))}
    images, broken = decode_entries(entries, target)
    if not images:
        why = "; ".join(broken) or "The output names none."
        raise EmptyResultError(
            f"HTTP {head.status}, but the model has made no image. {why} The call may have been billed.",
            request_id=head.request_id,
            body=body.raw(),
        )
    return tuple(images), broken


def _iterate_images(value: object) -> Iterator[str | DivertedImage]:
    if isinstance(value, DivertedImage) or (isinstance(value, str) and _is_image(value)):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _OTHER_MEMBERS:
                yield from _iterate_images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _iterate_images(inner)


def _is_image(text: str) -> bool:
    is_link = text.startswith(_LINKS) and len(text.split()) == 1
    return is_link or is_data_url(text) or is_base64_image(text)
