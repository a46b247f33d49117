"""Find the images in a reply that is cut, damaged or an error: they are paid for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from imgkit.errors import ApiError, ImgkitError, OutcomeUnknownError, ReceivedReply, UnreadableReplyError
from imgkit.images.image import Image
from imgkit.images.sniff import is_complete_bytes, sniff
from imgkit.providers.base import DecodedImages
from imgkit.providers.unusual_replies import iterate_texts
from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_body import PLACEHOLDER, JsonReply
from imgkit.wire.json_values import mend_json, parse_json

_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)("?)', re.DOTALL)
"""A JSON string. Only the last string of a text may lack its closing quote."""

_MARK = re.compile(re.escape(PLACEHOLDER.encode()) + rb"(\d{1,9})")
_DATA_URL = re.compile(rb"data:[^,]{0,200};base64,")
_SHORTEST = 16
"""No image has a shorter text."""

_ECHOES = frozenset({"detail", "details", "messages"})
"""Members of an error reply that repeat the request."""

T = TypeVar("T")


def decode_mended(
    error: UnreadableReplyError,
    decode: Callable[[JsonReply], T],
    reply: JsonReply,
    base64_keys: frozenset[str],
) -> T:
    """Decode a reply again whose JSON is damaged around whole images; the result gets a warning.

    Args:
        error: the failure of the received reply; it gets the images that are whole.
        decode: decodes a reply, or an event.
        reply: the received reply.
        base64_keys: the members of a reply that hold images.

    Raises:
        UnreadableReplyError: `error`, because an image would be lost, or the reply cannot be mended.
    """
    raw = reply.raw()
    attach_whole_images(error, raw)
    text = None if _is_strict(reply) else mend_json(raw)
    if text is None:
        raise error
    mended = JsonReply(base64_keys)
    mended.feed(text)
    mended.close()
    try:
        decoded = decode(mended)
    except ImgkitError:
        raise error from None  # it tells more
    if not isinstance(decoded, DecodedImages):
        if decoded is None:
            raise error
        return decoded
    if len(decoded.pictures) < sum(map(is_complete_bytes, find_images(raw, {}))):
        raise error
    warning = "The reply is not valid JSON. Its images were read; other values may be missing."
    return replace(decoded, warnings=(*decoded.warnings, warning))


def _is_strict(reply: JsonReply) -> bool:
    try:
        reply.json()
    except ValueError:
        return False
    return True


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


def attach_images_of_failure(error: ImgkitError, results: list[bytes | str]) -> None:
    """Mark the error of a reply that has results as billed, and give it the whole images.

    Args:
        error: the error; only an `ApiError` or `OutcomeUnknownError` can have images.
        results: as `find_results` returns them.
    """
    if not results or not isinstance(error, ApiError | OutcomeUnknownError):
        return
    whole = [data for data in results if isinstance(data, bytes) and is_complete_bytes(data)]
    error.images = tuple(Image.from_bytes(data, index=index) for index, data in enumerate(whole))
    error.maybe_billed = True
    error.should_retry = False
    place = "error.images has the images" if whole else "error.body has the beginning of the reply"
    error.add_note(f"The error reply has results, so the call may have been billed. {place}.")


def find_results(body: bytes) -> list[bytes | str]:
    """Return the images in an error reply, and the URLs in its ``data``; images of the request are left out.

    >>> find_results(b'{"data": [{"url": "https://cdn.example/fox.png"}], "error": {"message": "no"}}')
    ['https://cdn.example/fox.png']
    """
    try:
        reply = parse_json(body)
    except ValueError:
        return list(find_images(body, {}))
    if not isinstance(reply, dict):
        return []
    results: list[bytes | str] = []
    for name, text, _ in iterate_texts({key: reply[key] for key in reply if key not in _ECHOES}):
        if not isinstance(text, str):
            continue
        if data := _decode_image(text.encode("utf-8", "replace")):
            results.append(data)
        elif name == "data" and text[:8].lower().startswith(("http://", "https://")):
            results.append(text)
    return results
