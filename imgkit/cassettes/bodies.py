"""Locate the images in a body: the whole body, parts of a form, or long base64 strings.

The base64 stands between JSON quotes, in a body or an event stream; ``data:`` URLs count too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pybase64

from imgkit.images.sniff import sniff

MIN_IMAGE_BYTES = 512
"""Smaller images stay in the body."""

_BASE64 = re.compile(
    rb'"((?:data:[a-z]+/[a-z0-9.+-]+;base64,)?)([A-Za-z0-9+/]{%d,}+={0,2})"' % MIN_IMAGE_BYTES
)
_BOUNDARY = re.compile(r"multipart/form-data;.*boundary=\"?([^\";,]+)", re.IGNORECASE)

Replacer = Callable[[bytes], bytes | None]
"""Takes an image or decoded base64 and returns its replacement; None keeps the original."""


def replace_images(body: bytes, content_type: str, raw: Replacer, encoded: Replacer) -> bytes:
    """Return the body with each image replaced.

    Args:
        body: Body of a request or a reply.
        content_type: Content type of the body.
        raw: Replaces an image that is the whole body or a part of a form.
        encoded: Replaces decoded base64; returns text.
    """

    def replace_match(match: re.Match[bytes]) -> bytes:
        try:
            data = pybase64.b64decode(match[2], validate=True)
        except ValueError:
            return match[0]
        # Only canonical base64 can be restored byte for byte.
        if pybase64.b64encode(data) != match[2]:
            return match[0]
        text = encoded(data)
        return match[0] if text is None else b'"' + match[1] + text + b'"'

    def replace_part(part: bytes) -> bytes:
        if not is_large_image(part):
            return _BASE64.sub(replace_match, part)
        replacement = raw(part)
        return part if replacement is None else replacement

    return replace_part(body) if is_large_image(body) else map_parts(body, content_type, replace_part)


def is_large_image(data: bytes) -> bool:
    """Return whether the data is an image large enough for a file of its own."""
    return len(data) >= MIN_IMAGE_BYTES and sniff(data[:1024]) is not None


def map_parts(body: bytes, content_type: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return the body with `change` applied to each part of a form, or to any other body as a whole.

    >>> map_parts(b"a fox", "text/plain", bytes.upper)
    b'A FOX'
    """
    boundary = parse_boundary(content_type)
    if boundary is None:
        return change(body)
    delimiter = b"--" + boundary
    parts = []
    for part in body.split(delimiter):
        head, separator, rest = part.partition(b"\r\n\r\n")
        if separator and rest.endswith(b"\r\n"):
            part = head + separator + change(rest[:-2]) + b"\r\n"
        parts.append(part)
    return delimiter.join(parts)


def parse_boundary(content_type: str) -> bytes | None:
    """Return the boundary of a form; return None for any other content type.

    >>> parse_boundary("multipart/form-data; boundary=B")
    b'B'
    """
    match = _BOUNDARY.search(content_type)
    return None if match is None else match.group(1).strip().encode()
