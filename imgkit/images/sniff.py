"""What kind of picture bytes are, read from the bytes themselves.

Only headers are looked at, nothing is decoded, so a hostile file costs nothing. The formats are
those that image APIs take and give (PNG, JPEG, WebP, GIF; SVG is recognised, not measured).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

Format: TypeAlias = Literal["png", "jpeg", "webp", "gif", "svg"]

MEDIA_TYPES: dict[Format, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "svg": "image/svg+xml",
}
EXTENSIONS: dict[Format, tuple[str, ...]] = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "gif": (".gif",),
    "svg": (".svg",),
}
FIRST_BYTES = 64 * 1024
"""How much of a picture nearly always says what it is."""

HEAD_BYTES = 1024 * 1024
"""How much of a file `measure` may need: a JPEG carries its size behind its metadata."""

ReadAt: TypeAlias = Callable[[int, int], bytes]

_MOST_PNG_CHUNKS = 200_000
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
_JPEG_SCAN = 0xDA
_MOST_JPEG_SEGMENTS = 10_000
_MOST_GIF_BLOCKS = 2_000_000
_SCAN_BYTES = 64 * 1024


class Kind(NamedTuple):
    """What was found.

    Attributes:
        format: the picture's format.
        width, height: in pixels; None where the format does not say (SVG, a cut-off header).
    """

    format: Format
    width: int | None
    height: int | None

    @property
    def media_type(self) -> str:
        """The MIME type, such as "image/png"."""
        return MEDIA_TYPES[self.format]


def sniff(head: bytes) -> Kind | None:
    """Return what the first bytes of a file say it is, None if it is no picture known here."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        size = struct.unpack(">II", head[16:24]) if head[12:16] == b"IHDR" and len(head) >= 24 else None
        return _kind("png", size)
    if head.startswith(b"\xff\xd8\xff"):
        return _kind("jpeg", _jpeg_size(head))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _kind("webp", _webp_size(head))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _kind("gif", struct.unpack("<HH", head[6:10]) if len(head) >= 10 else None)
    start = head[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return Kind("svg", None, None)
    return None


class PngHeader(NamedTuple):
    """What a PNG says of its pixels before the first one (PNG specification, third edition, 11.2 and 11.3).

    Attributes:
        bits: per channel, or per palette entry.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        keyed: a tRNS chunk makes palette entries or one colour transparent.
        animated: an APNG.
    """

    bits: int
    colour_type: int
    keyed: bool
    animated: bool

    @property
    def has_alpha(self) -> bool:
        """Whether some of its pixels can be transparent."""
        return self.keyed or self.colour_type in (4, 6)


def png_header(read_at: ReadAt) -> PngHeader:
    """Return the header of what `sniff` calls a PNG.

    Args:
        read_at: as for `is_complete`.
    """
    bits, colour_type = (*read_at(2, 24), 0, 0)[:2]
    names = set()
    position = 8
    for _ in range(_MOST_PNG_CHUNKS):
        head = read_at(8, position)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        names.add(head[4:])
        position += 12 + int.from_bytes(head[:4], "big")
    return PngHeader(bits, colour_type, b"tRNS" in names, b"acTL" in names)


def sniff_file(length: int, read_at: ReadAt) -> tuple[Kind | None, bytes]:
    """Return what a file is, and its first bytes; no more is read than that takes.

    Args:
        length: size of the file in bytes.
        read_at: see `is_complete`.
    """
    head = read_at(min(length, FIRST_BYTES), 0)
    kind = sniff(head)
    if kind is not None and kind.width is None and length > FIRST_BYTES:
        kind = sniff(read_at(min(length, HEAD_BYTES), 0))  # a JPEG with its size behind its metadata
    return kind, head


def is_complete(length: int, read_at: ReadAt) -> bool:
    """Return whether a whole picture seems to be there: its end marker is where it belongs.

    Args:
        length: size of the file in bytes.
        read_at: returns up to so many bytes from such a position: ``read_at(size, position)``.
    """
    kind = sniff(read_at(1024, 0))
    return kind is not None and ends(kind, length, read_at)


def ends(kind: Kind, length: int, read_at: ReadAt) -> bool:
    """Return whether a picture of which `sniff` has seen the beginning is there to its end.

    Args:
        kind: what `sniff` said.
        length, read_at: as for `is_complete`.
    """
    if kind.format == "png":
        return _png_ends(length, read_at)
    if kind.format == "jpeg":
        return _jpeg_ends(length, read_at)
    if kind.format == "gif":
        return _gif_ends(read_at)
    if kind.format == "webp":
        return length >= int.from_bytes(read_at(4, 4), "little") + 8
    tail = read_at(65536, max(0, length - 65536))
    return b"</svg" in tail.lower() or tail.rstrip().endswith(b"/>")


def is_complete_bytes(data: bytes) -> bool:
    """As `is_complete`, for bytes in memory."""
    return is_complete(len(data), lambda size, position: data[position : position + size])


def _kind(format: Format, size: tuple[int, ...] | None) -> Kind:
    return Kind(format, *size[:2]) if size else Kind(format, None, None)


def _png_ends(length: int, read_at: ReadAt) -> bool:
    position = 8
    for _ in range(_MOST_PNG_CHUNKS):
        head = read_at(8, position)
        if len(head) < 8:
            return False
        size, name = struct.unpack(">I4s", head)
        position += 12 + size
        if name == b"IEND":
            return bool(position <= length)
    return False


def _jpeg_segments(read_at: ReadAt) -> Iterator[tuple[int, int]]:
    """Yield marker and position of each segment up to the scan."""
    position = 2
    for _ in range(_MOST_JPEG_SEGMENTS):
        head = read_at(4, position)
        if len(head) < 4 or head[0] != 0xFF:
            return
        marker = head[1]
        if marker == 0xFF or marker in _JPEG_BARE:  # fill byte, or a marker without content
            position += 1 if marker == 0xFF else 2
            continue
        yield marker, position
        if marker == _JPEG_SCAN:
            return
        position += 2 + int.from_bytes(head[2:4], "big")


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    for marker, position in _jpeg_segments(lambda size, at: head[at : at + size]):
        if marker in _JPEG_SIZES and position + 9 <= len(head):
            height, width = struct.unpack_from(">HH", head, position + 5)
            return width, height
    return None


def _jpeg_ends(length: int, read_at: ReadAt) -> bool:
    """Look for the end marker behind the start of the scan: a thumbnail before it has its own."""
    position = next((at for marker, at in _jpeg_segments(read_at) if marker == _JPEG_SCAN), length)
    while position < length:
        block = read_at(_SCAN_BYTES, position)
        if not block or b"\xff\xd9" in block:
            return bool(block)
        position += max(1, len(block) - 1)  # the marker's two bytes may lie in two blocks
    return False


def _gif_ends(read_at: ReadAt) -> bool:
    """Walk the blocks to the trailer, whose one byte, ";", occurs everywhere else too."""
    stream = _Bytes(read_at, 10)
    stream.skip(_gif_palette(stream.byte()) + 2)
    inside = False  # the data of a block, in sub-blocks that begin with their size
    for _ in range(_MOST_GIF_BLOCKS):
        byte = stream.byte()
        if byte < 0:
            return False
        if inside:
            stream.skip(byte)
            inside = byte > 0
        elif byte == 0x21:  # an extension: its label
            stream.skip(1)
            inside = True
        elif byte == 0x2C:  # a frame: its place and size, its palette, the width of its codes
            stream.skip(8)
            stream.skip(_gif_palette(stream.byte()) + 1)
            inside = True
        else:
            return byte == 0x3B
    return False


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


class _Bytes:
    """One byte after another, read in blocks; -1 past the end."""

    def __init__(self, read_at: ReadAt, position: int) -> None:
        self._read_at = read_at
        self._position = position
        self._start = 0
        self._block = b""

    def byte(self) -> int:
        offset = self._position - self._start
        if offset >= len(self._block):
            self._start, self._block, offset = self._position, self._read_at(_SCAN_BYTES, self._position), 0
        self._position += 1
        return self._block[offset] if offset < len(self._block) else -1

    def skip(self, count: int) -> None:
        self._position += count


def _webp_size(head: bytes) -> tuple[int, int] | None:
    form = head[12:16]
    if form == b"VP8X" and len(head) >= 30:
        return (
            1 + int.from_bytes(head[24:27], "little"),
            1 + int.from_bytes(head[27:30], "little"),
        )
    if form == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
