"""A reader of JSON replies that decodes base64 images while they arrive.

The standard library parses the rest, which is small. The base64 text of an image never exists as a
whole, and its bytes exist once. Unusual text of an image goes back to its place and is parsed with
the rest. The result always equals that of `parse_json` and `decode_base64` on the whole reply.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from imgkit.wire.arriving_images import (
    IMAGE_MARK_BYTES,
    ArrivingImage,
    ByteSink,
    MemorySink,
    WholeBodyImage,
    begins_with_image,
)
from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_values import (
    DivertedImage,
    has_base64_marker,
    is_data_url,
    parse_json,
    replace_values,
)
from imgkit.wire.secret_filter import NO_SECRETS, SecretFilter

PLACEHOLDER = "imgkit-part-"
"""Stands in a spooled text for an image, before the number of its part."""

SHORT_BYTES = 1024
"""Strings up to this length stay in the JSON text."""

_SLICE_BYTES = 512 * 1024
_LOOK_BACK_BYTES = 512
"""Size of the tail that waits for more text, because a chunk may end inside a key."""

_CONTENT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NEXT_ELEMENT = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*"')
_MAYBE_NEXT = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_BEFORE_VALUE = b" \t\r\n\xef\xbb\xbf"

SpoolChunks = list[tuple[str, bytes]]
"""New bytes for the files of a spool record, as pairs of a file's name and its bytes.

The names are "reply" for the text, "0", "1" … for images, and "raw" for undecodable text.
"""


class JsonReply:
    """The body of a JSON reply, in chunks of any size.

    Example::

        >>> reply = JsonReply(frozenset({"b64_json"}))
        >>> _ = reply.feed(b'{"created": 1, '), reply.feed(b'"data": []}'), reply.close()
        >>> reply.json()
        {'created': 1, 'data': []}

    Args:
        base64_keys: members with images in base64, as a string or an array of strings.
        make_sink: returns a receiver for the bytes of one image.
        first_image: spool number of the first image, if other images arrived before this reply.
        secrets: removes secrets from the value and from the raw bytes. A spool needs a filter of its own.

    Attributes:
        length: number of received bytes.
    """

    def __init__(
        self,
        base64_keys: frozenset[str],
        make_sink: Callable[[], ByteSink] = MemorySink,
        *,
        first_image: int = 0,
        secrets: SecretFilter = NO_SECRETS,
    ) -> None:
        self.length = 0
        self._base64_keys = base64_keys
        self._secrets = secrets
        self._make_sink = make_sink
        self._first_image = first_image
        self._step: Step = JsonReply._read_start
        self._image_key = _compile_image_key(base64_keys)
        self._pending = b""
        self._in_array = False
        self._parts: list[bytes | ArrivingImage] = []
        self._images: list[ArrivingImage] = []
        self._whole: WholeBodyImage | None = None
        self._spool_chunks: SpoolChunks = []

    @property
    def next_image(self) -> int:
        """The spool number of the next image."""
        return self._first_image + len(self._images) + (self._whole is not None)

    @property
    def has_images(self) -> bool:
        """Whether a string of the body was diverted as an image, or the body is an image."""
        return bool(self._images) or self._whole is not None

    @property
    def is_text(self) -> bool:
        """Whether the body is no object and no array, as far as its first bytes tell."""
        return not self.has_images and self._step is JsonReply._read_plain

    def feed(self, chunk: bytes) -> SpoolChunks:
        """Read the next bytes; return the new bytes for a spool."""
        self.length += len(chunk)
        for start in range(0, len(chunk), _SLICE_BYTES):
            self._run_steps(self._pending + chunk[start : start + _SLICE_BYTES])
        return self._take_spool_chunks()

    def close(self) -> SpoolChunks:
        """Read the end of the reply; return the last bytes for a spool. Idempotent."""
        pending, self._pending = self._pending, b""
        if self._step is JsonReply._read_image:
            image = self._images[-1]
            self._spool_image(image, image.feed(pending))
            self._spool_image(image, image.close())
            self._step = JsonReply._read_plain
        elif pending:
            self._keep_text(pending)
        return self._take_spool_chunks()

    def json(self) -> Any:
        """Return the JSON value, with a `DivertedImage` in place of each diverted string.

        Raises:
            ValueError: as `parse_json` does.
        """
        if self._whole is not None:
            raise ValueError("the body is an image, and no JSON")
        # A server cannot guess the token, so it cannot forge a mark.
        token = secrets.token_hex(16)
        marks: dict[str, ArrivingImage] = {}

        def mark(image: ArrivingImage) -> bytes:
            name = f"{token}{len(marks)}"
            marks[name] = image
            return name.encode()

        failed = any(image.decoder.failed for image in self._images)
        text = self._join_parts(ArrivingImage.to_text if failed else mark)
        value = parse_json(text)
        if marks:
            value = replace_values(value, str, lambda text: marks.get(text, text))
        if self._secrets.occurs_in(text):
            value = self._secrets.clean_json(value, keep=self._base64_keys, links=False)
        return value

    def raw(self) -> bytes:
        """Return the received bytes without secrets; decoded images are encoded anew."""
        if self._whole is not None:
            return self._whole.to_bytes()
        return self._secrets.clean_bytes(self._join_parts(ArrivingImage.to_text))

    def image(self) -> DivertedImage | None:
        """Return the body as an image, None if it is something else."""
        return self._whole

    def _join_parts(self, format_image: Callable[[ArrivingImage], bytes]) -> bytes:
        return b"".join(
            format_image(part) if isinstance(part, ArrivingImage) else part for part in self._parts
        )

    def _run_steps(self, buffer: bytes) -> None:
        """Run the steps over `buffer`. A step that needs more bytes leaves the rest in ``_pending``."""
        at: int | None = 0
        while at is not None:
            at = self._step(self, buffer, at)

    def _read_start(self, buffer: bytes, at: int) -> int | None:
        """Skip white space, then decide whether the body is an object or an array."""
        rest = buffer.lstrip(_BEFORE_VALUE)
        if not rest:
            self._keep_text(buffer)
            self._pending = b""
            return None
        if rest[:1] in b"{[":
            self._step = JsonReply._read_text if self._base64_keys else JsonReply._read_plain
            return at
        if len(buffer) < IMAGE_MARK_BYTES:
            self._pending = buffer
            return None
        self._step = JsonReply._read_plain
        if not self._parts and begins_with_image(buffer):
            self._whole = WholeBodyImage(self._make_sink())
            self._spool_chunks.append(("reply", f"{PLACEHOLDER}{self._first_image}".encode()))
            self._step = JsonReply._read_whole_image
        return at

    def _read_whole_image(self, buffer: bytes, at: int) -> int | None:
        """Collect a body that is an image."""
        data = buffer[at:]
        if self._whole is not None:
            self._whole.add(data)
        self._spool_chunks.append((str(self._first_image), data))
        self._pending = b""
        return None

    def _read_plain(self, buffer: bytes, at: int) -> int | None:
        """Collect a body without images."""
        self._keep_text(buffer[at:])
        self._pending = b""
        return None

    def _read_text(self, buffer: bytes, at: int) -> int | None:
        """Collect the text up to the next string that may be an image."""
        key = self._image_key.search(buffer, at)
        if key is None:
            end = max(at, len(buffer) - _LOOK_BACK_BYTES)
            self._keep_text(buffer[at:end])
            self._pending = buffer[end:]
            return None
        self._keep_text(buffer[at : key.end()])
        self._in_array = key.group(1) is not None
        self._step = JsonReply._read_string_start
        return key.end()

    def _read_string_start(self, buffer: bytes, at: int) -> int | None:
        """Decide whether a string is short, an image, or other long text."""
        end, is_closed = _find_string_end(buffer, at)
        if is_closed and end - at <= SHORT_BYTES:
            self._keep_text(buffer[at : end + 1])
            self._step = JsonReply._read_next_element if self._in_array else JsonReply._read_text
            return end + 1
        if end - at <= SHORT_BYTES:
            self._pending = buffer[at:]
            return None
        begin = _find_base64_start(buffer[at : at + SHORT_BYTES])
        if begin is None:
            self._step = JsonReply._read_long_string
            return at
        image = ArrivingImage(buffer[at : at + begin], self._make_sink())
        # The same bytes decide wherever the chunks end.
        if not _begins_with_base64(buffer[at + begin : at + SHORT_BYTES]):
            image.keep_text()
        self._spool_chunks.append(("reply", f"{PLACEHOLDER}{self.next_image}".encode()))
        self._images.append(image)
        self._parts.append(image)
        self._step = JsonReply._read_image
        return at + begin

    def _read_image(self, buffer: bytes, at: int) -> int | None:
        """Decode the text of an image."""
        end, is_closed = _find_string_end(buffer, at)
        image = self._images[-1]
        self._spool_image(image, image.feed(buffer[at:end]))
        if not is_closed:
            self._pending = buffer[end:]
            return None
        self._spool_image(image, image.close())
        return self._leave_string(end)

    def _read_long_string(self, buffer: bytes, at: int) -> int | None:
        """Collect a long string that is not base64."""
        end, is_closed = _find_string_end(buffer, at)
        self._keep_text(buffer[at:end])
        if is_closed:
            return self._leave_string(end)
        self._pending = buffer[end:]
        return None

    def _leave_string(self, quote: int) -> int:
        self._keep_text(b'"')
        self._step = JsonReply._read_next_element if self._in_array else JsonReply._read_text
        return quote + 1

    def _read_next_element(self, buffer: bytes, at: int) -> int | None:
        """Find the next string of an array of images."""
        separator = _NEXT_ELEMENT.match(buffer, at)
        if separator is not None:
            self._keep_text(buffer[at : separator.end()])
            self._step = JsonReply._read_string_start
            return separator.end()
        if _MAYBE_NEXT.fullmatch(buffer, at) and len(buffer) - at < _LOOK_BACK_BYTES:
            self._pending = buffer[at:]
            return None
        self._step = JsonReply._read_text
        return at

    def _keep_text(self, text: bytes) -> None:
        if text:
            self._parts.append(text)
            self._spool_chunks.append(("reply", text))

    def _spool_image(self, image: ArrivingImage, pieces: list[bytes]) -> None:
        self._spool_chunks += [(str(self.next_image - 1), piece) for piece in pieces if piece]
        for text in image.decoder.rejected[image.spooled_rejects :]:
            self._spool_chunks.append(("raw", text))
        image.spooled_rejects = len(image.decoder.rejected)

    def _take_spool_chunks(self) -> SpoolChunks:
        chunks, self._spool_chunks = self._spool_chunks, []
        return chunks


Step: TypeAlias = Callable[[JsonReply, bytes, int], int | None]
"""A method that reads a buffer from a position on. It returns the next position, or None for more bytes."""


@lru_cache(maxsize=64)
def _compile_image_key(base64_keys: frozenset[str]) -> re.Pattern[bytes]:
    """Return a pattern for the key of an image with the start of its value."""
    names = b"|".join(re.escape(key.encode()) for key in sorted(base64_keys))
    # Quotes inside a string follow a backslash, so a match is always a key and the start of its value.
    return re.compile(rb'[^\\]"(?:%b)"[ \t\r\n]*:[ \t\r\n]*(\[[ \t\r\n]*)?"' % names)


def _find_string_end(buffer: bytes, at: int) -> tuple[int, bool]:
    """Return the end of a string's content in `buffer`, and whether the closing quote follows."""
    quote = buffer.find(b'"', at)
    end = quote if quote >= 0 else len(buffer)
    if buffer.find(b"\\", at, end) >= 0:
        content = _CONTENT.match(buffer, at)
        end = content.end() if content else at
    return end, buffer[end : end + 1] == b'"'


def _begins_with_base64(head: bytes) -> bool:
    """Return whether the first bytes of an image's text hold no wrong character."""
    probe = Base64Decoder()
    probe.feed(head)
    return not probe.failed


def _find_base64_start(head: bytes) -> int | None:
    """Return the position of the base64 in the first bytes of a string, or None for other text."""
    text = head.decode("utf-8", "replace")
    if not is_data_url(text):
        return 0
    comma = head.find(b",")
    return comma + 1 if comma >= 0 and has_base64_marker(text.partition(",")[0]) else None
