"""Format, size and completeness of image files."""

from __future__ import annotations

import io
import os
import random
import struct
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.images.sniff import (
    EXTENSIONS,
    MEDIA_TYPES,
    Kind,
    PngHeader,
    is_complete,
    is_complete_bytes,
    read_png_header,
    sniff,
)

SIZE = (37, 21)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


def noise(mode: str = "RGB", size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Return an incompressible image with many blocks and every byte value."""
    image = PIL.Image.frombytes("RGB", size, random.Random(7).randbytes(size[0] * size[1] * 3))
    return image.convert(mode)


def encode(format: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    stream = io.BytesIO()
    noise(mode, size).save(stream, format, **options)
    return stream.getvalue()


def with_segment(jpeg: bytes, content: bytes) -> bytes:
    """Insert APP segments with this content after the start of a JPEG."""
    segments = b"".join(
        b"\xff\xe5" + struct.pack(">H", len(part) + 2) + part
        for part in (content[at : at + 65_000] for at in range(0, len(content), 65_000))
    )
    return jpeg[:2] + segments + jpeg[2:]


def bare_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + b"\0\0\0\0"


def interlaced_png() -> bytes:
    """Return a complete 1x1 PNG with an Adam7 header, which Pillow cannot write."""
    plain = encode("PNG", size=(1, 1))
    return plain[:28] + b"\x01" + plain[29:]


IMAGES = {
    "png-1": ("png", encode("PNG", "1")),
    "png-grey": ("png", encode("PNG", "L")),
    "png-grey-alpha": ("png", encode("PNG", "LA")),
    "png-palette": ("png", encode("PNG", "P")),
    "png-rgba": ("png", encode("PNG", "RGBA")),
    "png-16-bit": ("png", encode("PNG", "I;16")),
    "jpeg": ("jpeg", encode("JPEG")),
    "jpeg-grey": ("jpeg", encode("JPEG", "L")),
    "jpeg-cmyk": ("jpeg", encode("JPEG", "CMYK")),
    "jpeg-progressive": ("jpeg", encode("JPEG", progressive=True)),
    "jpeg-restarts": ("jpeg", encode("JPEG", restart_marker_blocks=1)),
    "jpeg-200-KB-of-metadata": ("jpeg", with_segment(encode("JPEG"), bytes(range(256)) * 800)),
    "jpeg-fill-bytes": ("jpeg", encode("JPEG")[:2] + b"\xff\xff\xff" + encode("JPEG")[2:]),
    "jpeg-with-thumbnail": ("jpeg", with_segment(encode("JPEG"), encode("JPEG", size=(8, 8)))),
    "webp-lossy": ("webp", encode("WEBP")),
    "webp-lossless": ("webp", encode("WEBP", lossless=True)),
    "webp-extended": ("webp", encode("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")),
    "gif": ("gif", encode("GIF", "P")),
    "gif-animated": ("gif", encode("GIF", "P", save_all=True, append_images=[noise("L")], comment=b"; ;")),
}


@pytest.mark.parametrize("name", IMAGES)
def test_format_and_size(name: str) -> None:
    """Reads format and size from the header, for any colours and metadata."""
    format, data = IMAGES[name]
    assert sniff(data) == Kind(format, *SIZE)  # type: ignore[arg-type]
    assert is_complete_bytes(data)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.95, 0.99])
def test_truncated(name: str, part: float) -> None:
    """Reports a file without its end as incomplete, at every cut."""
    _, data = IMAGES[name]
    assert not is_complete_bytes(data[: int(len(data) * part)])


@pytest.mark.parametrize("name", ["png-rgba", "jpeg", "jpeg-with-thumbnail", "webp-lossy", "gif-animated"])
def test_every_cut_is_noticed(name: str) -> None:
    """Reports every proper prefix of an image as incomplete."""
    _, data = IMAGES[name]
    assert [length for length in range(len(data)) if is_complete_bytes(data[:length])] == []


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("tail", [b"\0" * 7, b"<script>alert(1)</script>", os.urandom(200_000)])
def test_bytes_after_the_end(name: str, tail: bytes) -> None:
    """Accepts padding, a film or a script after the end marker."""
    format, data = IMAGES[name]
    assert sniff(data + tail) == Kind(format, *SIZE)  # type: ignore[arg-type]
    assert is_complete_bytes(data + tail)


def test_interlaced_png() -> None:
    """Reads size and end of an interlaced PNG."""
    assert sniff(interlaced_png()) == Kind("png", 1, 1)
    assert is_complete_bytes(interlaced_png())


def test_end_marker_across_two_blocks() -> None:
    """Finds the end of a JPEG whose marker spans two blocks."""
    start = with_segment(encode("JPEG"), b"")
    scan = start.index(b"\xff\xda")
    for padding in range(65_515, 65_530):
        data = start[: scan + 14] + b"\x11" * padding + b"\xff\xd9"
        assert is_complete_bytes(data), padding
        assert not is_complete_bytes(data[:-1]), padding


SIZES = [
    (bare_png(0, 5), ("png", 0, 5)),
    (bare_png(5, 0), ("png", 5, 0)),
    (bare_png(50_000, 50_000), ("png", 50_000, 50_000)),
    (bare_png(2**31 - 1, 1), ("png", 2**31 - 1, 1)),
    (bare_png(1, 1)[:20], ("png", None, None)),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rJUNK" + bytes(8), ("png", None, None)),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", ("jpeg", None, None)),
    (b"\xff\xd8\xff\xc4\0\0" * 50, ("jpeg", None, None)),
    (b"RIFF\x40\0\0\0WEBPJUNK" + bytes(20), ("webp", None, None)),
    (b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6, ("webp", 2**24, 2**24)),
    (b"GIF89a\xff\xff\xff\xff", ("gif", 65_535, 65_535)),
    (b"GIF87a", ("gif", None, None)),
]


@pytest.mark.parametrize(("head", "expected"), SIZES)
def test_claims_of_headers(head: bytes, expected: tuple[Any, ...]) -> None:
    """Reports absurd claims unchanged, and no size for a truncated or senseless header."""
    assert sniff(head) == Kind(*expected)
    assert not is_complete_bytes(head)


SVGS = [SVG, b"\xef\xbb\xbf \n" + SVG, b'<?xml version="1.0"?>\n' + SVG, b"<!-- x -->" + SVG, SVG.upper()]


@pytest.mark.parametrize("data", SVGS)
def test_svg(data: bytes) -> None:
    """Recognises SVG after a byte-order mark, a declaration and a comment, without a size."""
    assert sniff(data) == Kind("svg", None, None)
    assert is_complete_bytes(data)
    assert not is_complete_bytes(data[:-2])


UNKNOWN_FORMATS = [
    b"", b"\x89", b"hello", b"<!doctype html><p>", b"<html><body><svg></svg>", b"%PDF-1.7\n", b"%!PS-Adobe",
    b"BM" + bytes(60), b"\0\0\x01\0\x01\0", b"RIFF\x04\0\0\0WAVE", b"GIF88a\1\0\1\0", b"\xff\xd8\xfe",
    b"<?xml version='1.0'?><rss/>", b"II*\0", b"\0\0\0\x1cftypavif",
]  # fmt: skip


@pytest.mark.parametrize("data", UNKNOWN_FORMATS)
def test_unknown_formats(data: bytes) -> None:
    """Returns None for other formats, and they are never complete."""
    assert sniff(data) is None
    assert not is_complete_bytes(data)


def test_the_beginning_decides() -> None:
    """Classifies a polyglot by its first bytes, as decoders do."""
    gif, png = IMAGES["gif"][1], IMAGES["png-grey"][1]
    assert sniff(gif + png) == Kind("gif", *SIZE)
    assert sniff(png + b"%PDF-1.4" + SVG) == Kind("png", *SIZE)


def test_tables_agree() -> None:
    """Every format has one media type and an extension."""
    assert set(MEDIA_TYPES) == set(EXTENSIONS)
    assert Kind("jpeg", 1, 1).media_type == "image/jpeg"
    assert EXTENSIONS["jpeg"][0] == ".jpg"


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"<svg"]


@given(st.sampled_from(STARTS), st.binary(max_size=400))
def test_never_raises(start: bytes, rest: bytes) -> None:
    """Returns a result for any bytes."""
    kind = sniff(start + rest)
    assert kind is None or kind.format in MEDIA_TYPES
    assert is_complete_bytes(start + rest) in (True, False)


@given(st.sampled_from(sorted(IMAGES)), st.data())
def test_damage_never_raises(name: str, data: st.DataObject) -> None:
    """Returns a result for an image with a damaged byte."""
    whole = bytearray(IMAGES[name][1])
    at = data.draw(st.integers(0, min(len(whole) - 1, 2_000)))
    whole[at] = data.draw(st.integers(0, 255))
    sniff(bytes(whole))
    assert is_complete_bytes(bytes(whole)) in (True, False)


@pytest.mark.parametrize("name", ["png-rgba", "jpeg", "gif-animated"])
def test_a_file_that_shrinks_meanwhile(name: str) -> None:
    """Reports a shrinking file as incomplete, without a crash or an endless loop."""
    reads = iter([IMAGES[name][1][:1024]])
    assert not is_complete(500_000, lambda size, at: next(reads, b""))


def test_a_hostile_gif_ends() -> None:
    """Gives up on millions of one-byte blocks."""
    blocks = b"\x01\x00" * 3_000_000
    head = b"GIF89a\1\0\1\0\0\0\0" + b"\x2c" + bytes(8) + b"\0\x08"
    assert not is_complete_bytes(head + blocks + b"\0;")


APNG = encode("PNG", save_all=True, append_images=[noise().rotate(180)])
HEADERS = {
    "grey": (encode("PNG", "L"), PngHeader(8, 0, False, False)),
    "one bit": (encode("PNG", "1"), PngHeader(1, 0, False, False)),
    "sixteen bits": (encode("PNG", "I;16"), PngHeader(16, 0, False, False)),
    "grey and alpha": (encode("PNG", "LA"), PngHeader(8, 4, False, False)),
    "rgba": (encode("PNG", "RGBA"), PngHeader(8, 6, False, False)),
    "palette": (encode("PNG", "P"), PngHeader(8, 3, False, False)),
    "transparent palette": (encode("PNG", "P", transparency=0), PngHeader(8, 3, True, False)),
    "animated": (APNG, PngHeader(8, 2, False, True)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_png_headers(kind: str) -> None:
    """Reads depth, colour type, transparency and animation."""
    data, header = HEADERS[kind]
    assert read_png_header(lambda size, at: data[at : at + size]) == header
    assert header.has_alpha == (kind in ("grey and alpha", "rgba", "transparent palette"))


@given(st.integers(0, len(APNG)), st.binary(max_size=60))
def test_png_headers_of_anything(end: int, more: bytes) -> None:
    """Returns a header for truncated and wrong PNGs."""
    data = APNG[:end] + more
    assert read_png_header(lambda size, at: data[at : at + size]).bits <= 255
