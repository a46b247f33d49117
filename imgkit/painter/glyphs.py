"""The fonts of the optional extra: found where they are installed, opened once, drawn as masks."""

from __future__ import annotations

import importlib.resources
import io
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

PACKAGE = "manimgx_fonts"
"""The import package that holds the fonts; a test names another one to see painting without fonts."""

EMOJI = "NotoEmoji[wght].ttf"
LATIN = "NotoSans[wght].ttf"
STUDY = 176
"""Pixels an em at which a glyph's inside is told from its outside; enlarged afterwards."""

Font = ImageFont.FreeTypeFont
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Shape:
    """A glyph as masks of one size: what to colour in and what to draw on top."""

    ink: Image.Image
    body: Image.Image
    details: Image.Image


@lru_cache(maxsize=4)
def _folder(package: str) -> Traversable | None:
    try:
        folder = importlib.resources.files(package)
    except ModuleNotFoundError:
        return None
    return folder if (folder / EMOJI).is_file() else None


def available() -> bool:
    """Return whether the extra's fonts are installed."""
    return _folder(PACKAGE) is not None


@lru_cache(maxsize=4)
def _script_files(package: str) -> tuple[str, ...]:
    folder = _folder(package)
    if folder is None:
        return ()
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".ttf"))
    others = [name for name in names if name not in (LATIN, EMOJI) and "Italic" not in name]
    return (LATIN, *others, EMOJI)


@lru_cache(maxsize=64)
def _truetype(package: str, file: str, size: int) -> Font:
    folder = _folder(package)
    assert folder is not None
    entry = folder / file
    source = str(entry) if isinstance(entry, Path) else io.BytesIO(entry.read_bytes())
    return ImageFont.truetype(source, size, layout_engine=ImageFont.Layout.BASIC)


def text_font(size: int, file: str = LATIN) -> Font:
    """Open a font for text.

    Parameters:
        size: pixels an em.
        file: one of the names that `font_for` returns.

    Returns:
        That font, or Pillow's own when the extra is not installed.
    """
    with _lock:
        if available():
            return _truetype(PACKAGE, file, size)
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


@lru_cache(maxsize=64)
def _coverage(package: str, file: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of code points a font has glyphs for (its `cmap`, formats 4 and 12)."""
    folder = _folder(package)
    assert folder is not None
    data = (folder / file).read_bytes()
    tables = {
        data[at : at + 4]: struct.unpack_from(">L", data, at + 8)[0]
        for at in range(12, 12 + 16 * struct.unpack_from(">H", data, 4)[0], 16)
    }
    start = tables[b"cmap"]
    ranges: list[tuple[int, int]] = []
    for record in range(struct.unpack_from(">H", data, start + 2)[0]):
        at = start + struct.unpack_from(">L", data, start + 8 + 8 * record)[0]
        kind = struct.unpack_from(">H", data, at)[0]
        if kind == 12:
            groups = struct.unpack_from(">L", data, at + 12)[0]
            ranges += (struct.unpack_from(">LL", data, at + 16 + 12 * index) for index in range(groups))
        elif kind == 4:
            twice = struct.unpack_from(">H", data, at + 6)[0]
            ends = struct.unpack_from(f">{twice // 2}H", data, at + 14)
            starts = struct.unpack_from(f">{twice // 2}H", data, at + 16 + twice)
            ranges += (pair for pair in zip(starts, ends, strict=True) if pair[0] != 0xFFFF)
    return tuple(sorted(set(ranges)))


@lru_cache(maxsize=4096)
def _file_for(package: str, character: str) -> str | None:
    point = ord(character)
    for file in _script_files(package):
        if any(first <= point <= last for first, last in _coverage(package, file)):
            return file
    return None


def font_for(character: str) -> str | None:
    """Name the font file that can draw a character.

    Parameters:
        character: one code point.

    Returns:
        A name for `text_font`, or None when no installed font has the character.
    """
    if not available():
        return LATIN if 0x20 <= ord(character) < 0x7F else None
    return _file_for(PACKAGE, character)


def has_glyph(character: str) -> bool:
    """Return whether the emoji font can draw this character."""
    if not available() or len(character) != 1:
        return False
    return any(first <= ord(character) <= last for first, last in _coverage(PACKAGE, EMOJI))


def _draw(character: str, size: int) -> Image.Image:
    """Draw a glyph in white on black, cut to its own edges."""
    with _lock:
        font = _truetype(PACKAGE, EMOJI, size)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
        mask = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(mask).text((-left, -top), character, font=font, fill=255)
    return mask


def _runs(rows: list[bytes]) -> Iterator[tuple[int, int, int]]:
    for y, row in enumerate(rows):
        for found in re.finditer(rb"\0+", row):
            yield y, found.start(), found.end()


def _regions(rows: list[bytes]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Join the blank runs of pixels that touch: the runs, and for each the first run of its region.

    Runs instead of pixels, because this is plain Python and there are a hundred times fewer of them.
    """
    runs = list(_runs(rows))
    parent = list(range(len(runs)))

    def root(index: int) -> int:
        """Return the first run of the region that the run of this index is in."""
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    above = 0
    for index, (y, start, end) in enumerate(runs):
        while above < index and (
            runs[above][0] < y - 1 or (runs[above][0] == y - 1 and runs[above][2] <= start)
        ):
            above += 1
        other = above
        while other < index and runs[other][0] == y - 1 and runs[other][1] < end:
            one, two = sorted((root(index), root(other)))
            parent[two] = one
            other += 1
    return runs, [root(index) for index in range(len(runs))]


@lru_cache(maxsize=256)
def _study(package: str, character: str) -> tuple[Image.Image, Image.Image]:
    """Find a glyph's body and its small enclosed details, both at STUDY pixels an em.

    Thickening the lines first closes the gaps that artists leave, else the paint would run out.
    """
    ink = _draw(character, STUDY)
    pad = 10
    page = Image.new("L", (ink.width + 2 * pad, ink.height + 2 * pad))
    page.paste(ink, (pad, pad))
    thick = _grown(page, 4)
    runs, roots = _regions(_rows(thick))
    areas: dict[int, int] = {}
    for (_, start, end), region in zip(runs, roots, strict=True):
        areas[region] = areas.get(region, 0) + end - start
    small = page.width * page.height * 3 // 100
    outside = bytearray(page.width * page.height)
    details = bytearray(page.width * page.height)
    for (y, start, end), region in zip(runs, roots, strict=True):
        target = outside if region == roots[0] else details
        if region == roots[0] or areas[region] < small:
            target[y * page.width + start : y * page.width + end] = b"\xff" * (end - start)
    cut = (pad, pad, pad + ink.width, pad + ink.height)
    ground = Image.frombytes("L", page.size, bytes(outside))
    body = _grown(ground, 7).point(lambda value: 255 - value).crop(cut)
    accents = _grown(Image.frombytes("L", page.size, bytes(details)), 6).crop(cut)
    return body, accents


def _grown(mask: Image.Image, pixels: int) -> Image.Image:
    """Grow the white of a mask by so many pixels, in a rough circle."""
    for step in range(pixels):
        if step % 3 == 2:
            continue
        mask = mask.filter(ImageFilter.MaxFilter(3))
    return mask


def _rows(mask: Image.Image) -> list[bytes]:
    flat = mask.point(lambda value: 1 if value > 96 else 0).tobytes()
    return [flat[at : at + mask.width] for at in range(0, len(flat), mask.width)]


def shape(character: str, size: int) -> Shape:
    """Draw an emoji's glyph for colouring in.

    Parameters:
        character: an emoji for which `has_glyph` is true.
        size: pixels of its longer side.

    Returns:
        Its line art, its whole inside, and the small regions inside; masks of equal size.
    """
    body, details = _study(PACKAGE, character)
    longer = max(body.size)
    ink = _draw(character, max(4, STUDY * size // longer))
    return Shape(
        ink,
        body.resize(ink.size, Image.Resampling.BICUBIC),
        details.resize(ink.size, Image.Resampling.BICUBIC),
    )
