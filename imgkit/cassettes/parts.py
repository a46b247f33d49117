"""Where in a body its pictures are: all of it, parts of a form, long base64 between quotes.

The quotes are those of JSON, in a body or in the lines of an event stream; ``data:`` URLs count too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pybase64

from imgkit.images.sniff import sniff

SMALLEST_BYTES = 512
"""What is smaller stays where it is."""

_BASE64 = re.compile(
    rb'"((?:data:[a-z]+/[a-z0-9.+-]+;base64,)?)([A-Za-z0-9+/]{%d,}+={0,2})"' % SMALLEST_BYTES
)
_BOUNDARY = re.compile(r"multipart/form-data;.*boundary=\"?([^\";,]+)", re.IGNORECASE)

Change = Callable[[bytes], bytes | None]
"""Is given a picture, or what is between quotes, decoded; returns what stands there, None to leave it."""


def substitute(body: bytes, content_type: str, raw: Change, encoded: Change) -> bytes:
    """Return a body with other things in place of its pictures.

    Args:
        body: of a request or a reply.
        content_type: of it.
        raw: for a picture that is the body, or a part of a form.
        encoded: for what stands there as base64; returns text.
    """

    def match(found: re.Match[bytes]) -> bytes:
        try:
            data = pybase64.b64decode(found[2], validate=True)
        except ValueError:
            return found[0]
        if pybase64.b64encode(data) != found[2]:
            return found[0]  # it must come back byte for byte
        text = encoded(data)
        return found[0] if text is None else b'"' + found[1] + text + b'"'

    def content(part: bytes) -> bytes:
        if not is_picture(part):
            return _BASE64.sub(match, part)
        changed = raw(part)
        return part if changed is None else changed

    return content(body) if is_picture(body) else in_parts(body, content_type, content)


def is_picture(data: bytes) -> bool:
    """Return whether this is a picture that is worth a file."""
    return len(data) >= SMALLEST_BYTES and sniff(data[:1024]) is not None


def in_parts(body: bytes, content_type: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return a body with `change` done to the contents of a form, or to the whole of anything else."""
    boundary = boundary_of(content_type)
    if boundary is None:
        return change(body)
    delimiter = b"--" + boundary
    parts = []
    for part in body.split(delimiter):
        head, gap, rest = part.partition(b"\r\n\r\n")
        if gap and rest.endswith(b"\r\n"):
            part = head + gap + change(rest[:-2]) + b"\r\n"
        parts.append(part)
    return delimiter.join(parts)


def boundary_of(content_type: str) -> bytes | None:
    """Return what is between the parts of a form, None for anything else."""
    found = _BOUNDARY.search(content_type)
    return None if found is None else found.group(1).strip().encode()
