"""Format, size and completeness of image files, read from their headers.

Nothing is decoded, so a hostile file costs nothing. The formats are the usual formats of image APIs: PNG,
JPEG, WebP, GIF, and SVG without its size.
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
"""Length of the beginning that nearly always contains format and size."""

HEAD_BYTES = 1024 * 1024
"""Length of the beginning that `sniff` may need: a JPEG stores its size after its metadata."""

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""A function that returns up to `size` bytes from a position: ``read_at(size, position)``."""

_MAX_PNG_CHUNKS = 200_000
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
_JPEG_SCAN = 0xDA
_MAX_JPEG_SEGMENTS = 10_000
_MAX_GIF_BLOCKS = 2_000_000
_SCAN_BYTES = 64 * 1024
_OTHER_FORMATS = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
}  # fmt: skip
_FTYP_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}


class Kind(NamedTuple):
    """Format and size of an image.

    Attributes:
        format: the file format.
        width, height: in pixels; None if unknown (SVG, a truncated header).
    """

    format: Format
    width: int | None
    height: int | None

    @property
    def media_type(self) -> str:
        """The MIME type, such as "image/png"."""
        return MEDIA_TYPES[self.format]


def sniff(head: bytes) -> Kind | None:
    """Return format and size from the first bytes of a file; None for an unknown format.

    >>> sniff(b"GIF89a" + bytes([8, 0, 4, 0]))
    Kind(format='gif', width=8, height=4)
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        size = struct.unpack(">II", head[16:24]) if head[12:16] == b"IHDR" and len(head) >= 24 else None
        return _build_kind("png", size)
    if head.startswith(b"\xff\xd8\xff"):
        return _build_kind("jpeg", _read_jpeg_size(head))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _build_kind("webp", _read_webp_size(head))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _build_kind("gif", struct.unpack("<HH", head[6:10]) if len(head) >= 10 else None)
    start = head[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return Kind("svg", None, None)
    return None


def guess_unsupported_format(head: bytes) -> str:
    """Return a name with article for a file format outside of `Format`, for error messages."""
    if head[4:8] == b"ftyp" and head[8:12] in _FTYP_BRANDS:
        return _FTYP_BRANDS[head[8:12]]
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    for start, name in _OTHER_FORMATS.items():
        if head.startswith(start):
            return name
    if head.startswith(b"%PDF"):
        return "a PDF"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript"
    if head[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if b"\0" not in head[:1024]:
        return "text"
    return "unrecognized data"


class PngHeader(NamedTuple):
    """Facts about a PNG's pixels from the chunks before them (PNG specification, third edition, 11.2, 11.3).

    Attributes:
        bits: per channel, or per palette entry.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        keyed: True if a tRNS chunk makes palette entries or one colour transparent.
        animated: True for an APNG.
    """

    bits: int
    colour_type: int
    keyed: bool
    animated: bool

    @property
    def has_alpha(self) -> bool:
        """Whether pixels can be transparent."""
        return self.keyed or self.colour_type in (4, 6)


def read_png_header(read_at: ReadAt) -> PngHeader:
    """Return the header of a PNG, truncated or not."""
    bits, colour_type = (*read_at(2, 24), 0, 0)[:2]
    names = set()
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        head = read_at(8, position)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        names.add(head[4:])
        position += 12 + int.from_bytes(head[:4], "big")
    return PngHeader(bits, colour_type, b"tRNS" in names, b"acTL" in names)


def is_animated(kind: Kind, read_at: ReadAt) -> bool:
    """Return whether a PNG or a WebP has several frames. A GIF counts as animated by its format."""
    if kind.format == "png":
        return read_png_header(read_at).animated
    if kind.format == "webp":
        # Bit 1 of the flags of an extended header (WebP container specification, section 2.7).
        head = read_at(21, 0)
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    return kind.format == "gif"


def sniff_file(length: int, read_at: ReadAt) -> tuple[Kind | None, bytes]:
    """Return the kind of a file and its first bytes. Reads no more than necessary.

    Args:
        length: size of the file in bytes.
        read_at: access to the file.
    """
    head = read_at(min(length, FIRST_BYTES), 0)
    kind = sniff(head)
    if kind is not None and kind.width is None and length > FIRST_BYTES:
        # A JPEG stores its size after its metadata.
        kind = sniff(read_at(min(length, HEAD_BYTES), 0))
    return kind, head


def is_complete(length: int, read_at: ReadAt) -> bool:
    """Return whether a file is an image with its end marker in place.

    Args:
        length: size of the file in bytes.
        read_at: access to the file.
    """
    kind = sniff(read_at(1024, 0))
    return kind is not None and has_end(kind, length, read_at)


def has_end(kind: Kind, length: int, read_at: ReadAt) -> bool:
    """Return whether the end marker of an image is in place.

    Args:
        kind: result of `sniff` for its beginning.
        length, read_at: as for `is_complete`.
    """
    if kind.format == "png":
        return _has_png_end(length, read_at)
    if kind.format == "jpeg":
        return _has_jpeg_end(length, read_at)
    if kind.format == "gif":
        return _has_gif_end(read_at)
    if kind.format == "webp":
        return length >= int.from_bytes(read_at(4, 4), "little") + 8
    tail = read_at(65536, max(0, length - 65536))
    return b"</svg" in tail.lower() or tail.rstrip().endswith(b"/>")


def is_complete_bytes(data: bytes) -> bool:
    """Return `is_complete` for bytes in memory.

    >>> is_complete_bytes(b"<svg></svg>")
    True
    """
    return is_complete(len(data), lambda size, position: data[position : position + size])


def _build_kind(format: Format, size: tuple[int, ...] | None) -> Kind:
    return Kind(format, *size[:2]) if size else Kind(format, None, None)


def _has_png_end(length: int, read_at: ReadAt) -> bool:
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        head = read_at(8, position)
        if len(head) < 8:
            return False
        size, name = struct.unpack(">I4s", head)
        position += 12 + size
        if name == b"IEND":
            return bool(position <= length)
    return False


def _iterate_jpeg_segments(read_at: ReadAt) -> Iterator[tuple[int, int]]:
    """Yield marker and position of each JPEG segment up to the scan."""
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        head = read_at(4, position)
        if len(head) < 4 or head[0] != 0xFF:
            return
        marker = head[1]
        # A fill byte, or a marker without content.
        if marker == 0xFF or marker in _JPEG_BARE:
            position += 1 if marker == 0xFF else 2
            continue
        yield marker, position
        if marker == _JPEG_SCAN:
            return
        position += 2 + int.from_bytes(head[2:4], "big")


def _read_jpeg_size(head: bytes) -> tuple[int, int] | None:
    for marker, position in _iterate_jpeg_segments(lambda size, at: head[at : at + size]):
        if marker in _JPEG_SIZES and position + 9 <= len(head):
            height, width = struct.unpack_from(">HH", head, position + 5)
            return width, height
    return None


def _has_jpeg_end(length: int, read_at: ReadAt) -> bool:
    """Search for the end marker after the start of the scan: an embedded thumbnail has its own."""
    position = next((at for marker, at in _iterate_jpeg_segments(read_at) if marker == _JPEG_SCAN), length)
    while position < length:
        block = read_at(_SCAN_BYTES, position)
        if not block or b"\xff\xd9" in block:
            return bool(block)
        # The two bytes of the marker may lie in two blocks.
        position += max(1, len(block) - 1)
    return False


def _has_gif_end(read_at: ReadAt) -> bool:
    """Walk the blocks to the trailer: its single byte ";" also occurs in the data."""
    stream = _ByteReader(read_at, 10)
    stream.skip(_gif_palette_bytes(stream.next_byte()) + 2)
    # Inside the data of a block: sub-blocks that begin with their size.
    inside = False
    for _ in range(_MAX_GIF_BLOCKS):
        byte = stream.next_byte()
        if byte < 0:
            return False
        if inside:
            stream.skip(byte)
            inside = byte > 0
        elif byte == 0x21:  # an extension: its label
            stream.skip(1)
            inside = True
        elif byte == 0x2C:  # a frame
            # Skip position and size, the palette and the code width.
            stream.skip(8)
            stream.skip(_gif_palette_bytes(stream.next_byte()) + 1)
            inside = True
        else:
            return byte == 0x3B
    return False


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


class _ByteReader:
    """Byte-wise access to a file that reads whole blocks."""

    def __init__(self, read_at: ReadAt, position: int) -> None:
        self._read_at = read_at
        self._position = position
        self._start = 0
        self._block = b""

    def next_byte(self) -> int:
        """Return the next byte; -1 after the end."""
        offset = self._position - self._start
        if offset >= len(self._block):
            self._start, self._block, offset = self._position, self._read_at(_SCAN_BYTES, self._position), 0
        self._position += 1
        return self._block[offset] if offset < len(self._block) else -1

    def skip(self, count: int) -> None:
        """Skip `count` bytes."""
        self._position += count


def _read_webp_size(head: bytes) -> tuple[int, int] | None:
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
