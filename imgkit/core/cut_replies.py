"""Find the images in a reply whose JSON is cut or damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from imgkit.errors import ReceivedReply
from imgkit.images.image import Image
from imgkit.images.sniff import is_complete_bytes, sniff
from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_body import PLACEHOLDER

_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)("?)', re.DOTALL)
"""A JSON string. Only the last string of a text may lack its closing quote."""

_MARK = re.compile(re.escape(PLACEHOLDER.encode()) + rb"(\d{1,9})")
_DATA_URL = re.compile(rb"data:[^,]{0,200};base64,")
_SHORTEST = 16
"""No image has a shorter text."""


def find_images(text: bytes, parts: Mapping[int, bytes]) -> Iterator[bytes]:
    r"""Yield the images in a cut text, in its order, and then the images that only `parts` has.

    The last image may be cut, too: it has the bytes that arrived.

    >>> list(find_images(b'{"data": [{"b64_json": "iVBORw0KGgoAAAANSUhEUgA', {}))
    [b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00']

    Args:
        text: the text of the reply.
        parts: images that stand elsewhere, by the number of their placeholder in the text.
    """
    rest = dict(parts)
    for found in _STRING.finditer(text):
        content = found[1]
        mark = _MARK.fullmatch(content)
        data = rest.pop(int(mark[1]), b"") if mark else _decode_image(content)
        if data:
            yield data
    for data in rest.values():
        if sniff(data[:1024]) is not None:
            yield data


def _decode_image(content: bytes) -> bytes:
    """Return the image in the content of a JSON string, b"" for any other text."""
    link = _DATA_URL.match(content)
    encoded = content[link.end() :] if link else content
    if len(encoded) < _SHORTEST:
        return b""
    decoder = Base64Decoder()
    data = b"".join([*decoder.feed(encoded), decoder.close()])
    return b"" if sniff(data[:1024]) is None else data


def attach_whole_images(error: ReceivedReply, text: bytes) -> None:
    """Give an error the images that a cut or damaged text holds whole, unless it has images."""
    if not error.images:
        whole = filter(is_complete_bytes, find_images(text, {}))
        error.images = tuple(Image.from_bytes(data, index=index) for index, data in enumerate(whole))
