"""What picture bytes are, and whether all of them are there."""

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
    png_header,
    sniff,
)

SIZE = (37, 21)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


def noise(mode: str = "RGB", size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Return a picture that does not compress, so that it has many blocks and every byte value."""
    picture = PIL.Image.frombytes("RGB", size, random.Random(7).randbytes(size[0] * size[1] * 3))
    return picture.convert(mode)


def saved(format: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    stream = io.BytesIO()
    noise(mode, size).save(stream, format, **options)
    return stream.getvalue()


def with_segment(jpeg: bytes, content: bytes) -> bytes:
    """Put APP segments of this content right behind the start of a JPEG."""
    segments = b"".join(
        b"\xff\xe5" + struct.pack(">H", len(part) + 2) + part
        for part in (content[at : at + 65_000] for at in range(0, len(content), 65_000))
    )
    return jpeg[:2] + segments + jpeg[2:]


def bare_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + b"\0\0\0\0"


def interlaced_png() -> bytes:
    """Return a whole 1x1 PNG whose header says Adam7; Pillow writes none."""
    plain = saved("PNG", size=(1, 1))
    return plain[:28] + b"\x01" + plain[29:]


PICTURES = {
    "png-1": ("png", saved("PNG", "1")),
    "png-grey": ("png", saved("PNG", "L")),
    "png-grey-alpha": ("png", saved("PNG", "LA")),
    "png-palette": ("png", saved("PNG", "P")),
    "png-rgba": ("png", saved("PNG", "RGBA")),
    "png-16-bit": ("png", saved("PNG", "I;16")),
    "jpeg": ("jpeg", saved("JPEG")),
    "jpeg-grey": ("jpeg", saved("JPEG", "L")),
    "jpeg-cmyk": ("jpeg", saved("JPEG", "CMYK")),
    "jpeg-progressive": ("jpeg", saved("JPEG", progressive=True)),
    "jpeg-restarts": ("jpeg", saved("JPEG", restart_marker_blocks=1)),
    "jpeg-200-KB-of-metadata": ("jpeg", with_segment(saved("JPEG"), bytes(range(256)) * 800)),
    "jpeg-fill-bytes": ("jpeg", saved("JPEG")[:2] + b"\xff\xff\xff" + saved("JPEG")[2:]),
    "jpeg-with-thumbnail": ("jpeg", with_segment(saved("JPEG"), saved("JPEG", size=(8, 8)))),
    "webp-lossy": ("webp", saved("WEBP")),
    "webp-lossless": ("webp", saved("WEBP", lossless=True)),
    "webp-extended": ("webp", saved("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")),
    "gif": ("gif", saved("GIF", "P")),
    "gif-animated": ("gif", saved("GIF", "P", save_all=True, append_images=[noise("L")], comment=b"; ;")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_format_and_size(name: str) -> None:
    """Format and size are read from the header, whatever the colours and the metadata are."""
    format, data = PICTURES[name]
    assert sniff(data) == Kind(format, *SIZE)  # type: ignore[arg-type]
    assert is_complete_bytes(data)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.95, 0.99])
def test_cut_off(name: str, part: float) -> None:
    """A file that lost its end is not complete, wherever it was cut."""
    _, data = PICTURES[name]
    assert not is_complete_bytes(data[: int(len(data) * part)])


@pytest.mark.parametrize("name", ["png-rgba", "jpeg", "jpeg-with-thumbnail", "webp-lossy", "gif-animated"])
def test_every_cut_is_noticed(name: str) -> None:
    """No proper beginning of a picture counts as a whole one."""
    _, data = PICTURES[name]
    assert [length for length in range(len(data)) if is_complete_bytes(data[:length])] == []


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("tail", [b"\0" * 7, b"<script>alert(1)</script>", os.urandom(200_000)])
def test_bytes_behind_the_end(name: str, tail: bytes) -> None:
    """What follows the end marker (padding, a film, a polyglot's script) does not make a picture broken."""
    format, data = PICTURES[name]
    assert sniff(data + tail) == Kind(format, *SIZE)  # type: ignore[arg-type]
    assert is_complete_bytes(data + tail)


def test_interlaced_png() -> None:
    """Interlacing changes neither size nor end."""
    assert sniff(interlaced_png()) == Kind("png", 1, 1)
    assert is_complete_bytes(interlaced_png())


def test_end_marker_across_two_blocks() -> None:
    """A JPEG's end is found although its two bytes are read in two pieces."""
    start = with_segment(saved("JPEG"), b"")
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
def test_what_headers_claim(head: bytes, expected: tuple[Any, ...]) -> None:
    """Claims are reported as they stand, absurd ones too; what is cut off or senseless has no size."""
    assert sniff(head) == Kind(*expected)
    assert not is_complete_bytes(head)


SVGS = [SVG, b"\xef\xbb\xbf \n" + SVG, b'<?xml version="1.0"?>\n' + SVG, b"<!-- x -->" + SVG, SVG.upper()]


@pytest.mark.parametrize("data", SVGS)
def test_svg(data: bytes) -> None:
    """SVG is recognised behind a byte-order mark, a declaration and a comment; it has no size."""
    assert sniff(data) == Kind("svg", None, None)
    assert is_complete_bytes(data)
    assert not is_complete_bytes(data[:-2])


NO_PICTURES = [
    b"", b"\x89", b"hello", b"<!doctype html><p>", b"<html><body><svg></svg>", b"%PDF-1.7\n", b"%!PS-Adobe",
    b"BM" + bytes(60), b"\0\0\x01\0\x01\0", b"RIFF\x04\0\0\0WAVE", b"GIF88a\1\0\1\0", b"\xff\xd8\xfe",
    b"<?xml version='1.0'?><rss/>", b"II*\0", b"\0\0\0\x1cftypavif",
]  # fmt: skip


@pytest.mark.parametrize("data", NO_PICTURES)
def test_no_picture(data: bytes) -> None:
    """What is no picture of a known format is None and never complete."""
    assert sniff(data) is None
    assert not is_complete_bytes(data)


def test_the_beginning_decides() -> None:
    """A polyglot is what its first bytes say, as decoders see it."""
    gif, png = PICTURES["gif"][1], PICTURES["png-grey"][1]
    assert sniff(gif + png) == Kind("gif", *SIZE)
    assert sniff(png + b"%PDF-1.4" + SVG) == Kind("png", *SIZE)


def test_tables_agree() -> None:
    """Every format has one media type and an extension, and `Kind` gives the first."""
    assert set(MEDIA_TYPES) == set(EXTENSIONS)
    assert Kind("jpeg", 1, 1).media_type == "image/jpeg"
    assert EXTENSIONS["jpeg"][0] == ".jpg"


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"<svg"]


@given(st.sampled_from(STARTS), st.binary(max_size=400))
def test_never_raises(start: bytes, rest: bytes) -> None:
    """Whatever the bytes are, there is an answer."""
    found = sniff(start + rest)
    assert found is None or found.format in MEDIA_TYPES
    assert is_complete_bytes(start + rest) in (True, False)


@given(st.sampled_from(sorted(PICTURES)), st.data())
def test_damage_never_raises(name: str, data: st.DataObject) -> None:
    """A picture with a damaged byte is still judged."""
    whole = bytearray(PICTURES[name][1])
    at = data.draw(st.integers(0, min(len(whole) - 1, 2_000)))
    whole[at] = data.draw(st.integers(0, 255))
    sniff(bytes(whole))
    assert is_complete_bytes(bytes(whole)) in (True, False)


@pytest.mark.parametrize("name", ["png-rgba", "jpeg", "gif-animated"])
def test_a_file_that_shrinks_meanwhile(name: str) -> None:
    """Reading that suddenly gives nothing ends in "not complete", not in a crash or a loop."""
    answers = iter([PICTURES[name][1][:1024]])
    assert not is_complete(500_000, lambda size, at: next(answers, b""))


def test_a_hostile_gif_ends() -> None:
    """Millions of one-byte blocks are given up, not walked for minutes."""
    blocks = b"\x01\x00" * 3_000_000
    head = b"GIF89a\1\0\1\0\0\0\0" + b"\x2c" + bytes(8) + b"\0\x08"
    assert not is_complete_bytes(head + blocks + b"\0;")


APNG = saved("PNG", save_all=True, append_images=[noise().rotate(180)])
HEADERS = {
    "grey": (saved("PNG", "L"), PngHeader(8, 0, False, False)),
    "one bit": (saved("PNG", "1"), PngHeader(1, 0, False, False)),
    "sixteen bits": (saved("PNG", "I;16"), PngHeader(16, 0, False, False)),
    "grey and alpha": (saved("PNG", "LA"), PngHeader(8, 4, False, False)),
    "rgba": (saved("PNG", "RGBA"), PngHeader(8, 6, False, False)),
    "palette": (saved("PNG", "P"), PngHeader(8, 3, False, False)),
    "transparent palette": (saved("PNG", "P", transparency=0), PngHeader(8, 3, True, False)),
    "animated": (APNG, PngHeader(8, 2, False, True)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_png_headers(kind: str) -> None:
    data, header = HEADERS[kind]
    assert png_header(lambda size, at: data[at : at + size]) == header
    assert header.has_alpha == (kind in ("grey and alpha", "rgba", "transparent palette"))


@given(st.integers(0, len(APNG)), st.binary(max_size=60))
def test_png_headers_of_anything(end: int, more: bytes) -> None:
    """A header that is cut off or wrong ends somewhere, and raises nothing."""
    data = APNG[:end] + more
    assert png_header(lambda size, at: data[at : at + size]).bits <= 255
