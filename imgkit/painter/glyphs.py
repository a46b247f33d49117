"""The fonts of the `painter` extra: find them, open them once, draw glyphs as masks."""

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

FONT_PACKAGE = "manimgx_fonts"
"""Import package that contains the fonts."""

EMOJI_FONT = "NotoEmoji[wght].ttf"
LATIN_FONT = "NotoSans[wght].ttf"
ANALYSIS_EM_PX = 176
"""Pixels per em at which a glyph's inside is separated from its outside; the result is scaled."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class GlyphMasks:
    """Three masks of a glyph, of equal size.

    Attributes:
        ink: the lines.
        body: the whole inside.
        details: the small enclosed regions.
    """

    ink: Image.Image
    body: Image.Image
    details: Image.Image


@lru_cache(maxsize=4)
def _find_font_folder(package: str) -> Traversable | None:
    """Return the folder of the fonts; None if the package is not installed."""
    try:
        folder = importlib.resources.files(package)
    except ModuleNotFoundError:
        return None
    return folder if (folder / EMOJI_FONT).is_file() else None


def has_fonts() -> bool:
    """Return whether the fonts of the extra are installed."""
    return _find_font_folder(FONT_PACKAGE) is not None


@lru_cache(maxsize=4)
def _list_font_files(package: str) -> tuple[str, ...]:
    """Return the names of the font files: Latin first, emoji last."""
    folder = _find_font_folder(package)
    if folder is None:
        return ()
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".ttf"))
    others = [name for name in names if name not in (LATIN_FONT, EMOJI_FONT) and "Italic" not in name]
    return (LATIN_FONT, *others, EMOJI_FONT)


def _font_file(package: str, file: str) -> Traversable:
    """Return a font file of the package that contains the fonts."""
    return importlib.resources.files(package) / file


@lru_cache(maxsize=64)
def _open_font(package: str, file: str, size: int) -> Font:
    entry = _font_file(package, file)
    source = str(entry) if isinstance(entry, Path) else io.BytesIO(entry.read_bytes())
    return ImageFont.truetype(source, size, layout_engine=ImageFont.Layout.BASIC)


def open_text_font(size: int, file: str = LATIN_FONT) -> Font:
    """Open a font for text.

    Args:
        size: pixels per em.
        file: a file name from `find_font_file`.

    Returns:
        The font, or Pillow's own font if the extra is not installed.
    """
    with _lock:
        if has_fonts():
            return _open_font(FONT_PACKAGE, file, size)
        return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _read_coverage(package: str, file: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of code points that a font covers (its `cmap`, formats 4 and 12)."""
    data = _font_file(package, file).read_bytes()
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
def _find_covering_file(package: str, character: str) -> str | None:
    """Return the first font file that covers a character."""
    point = ord(character)
    for file in _list_font_files(package):
        if any(first <= point <= last for first, last in _read_coverage(package, file)):
            return file
    return None


def find_font_file(character: str) -> str | None:
    """Return the name of the font file that covers a character.

    Args:
        character: a single code point.

    Returns:
        A file name for `open_text_font`, or None if no installed font covers the character.
    """
    if not has_fonts():
        return LATIN_FONT if 0x20 <= ord(character) < 0x7F else None
    return _find_covering_file(FONT_PACKAGE, character)


def has_glyph(character: str) -> bool:
    """Return whether the emoji font covers this character."""
    if not has_fonts() or len(character) != 1:
        return False
    return any(first <= ord(character) <= last for first, last in _read_coverage(FONT_PACKAGE, EMOJI_FONT))


def _draw_glyph(character: str, size: int) -> Image.Image:
    """Draw a glyph in white on black, cropped to its edges."""
    with _lock:
        font = _open_font(FONT_PACKAGE, EMOJI_FONT, size)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
        mask = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(mask).text((-left, -top), character, font=font, fill=255)
    return mask


def _find_blank_runs(rows: list[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield the runs of blank pixels as row, start and end."""
    for y, row in enumerate(rows):
        for match in re.finditer(rb"\0+", row):
            yield y, match.start(), match.end()


def _join_regions(rows: list[bytes]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Join the touching runs of blank pixels into regions.

    The function works on runs, not pixels: it is plain Python, and runs are a hundred times fewer.

    Returns:
        The runs (row, start, end), and for each run the index of the first run of its region.
    """
    runs = list(_find_blank_runs(rows))
    parent = list(range(len(runs)))

    def find_root(index: int) -> int:
        """Return the first run of a run's region."""
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
            first, second = sorted((find_root(index), find_root(other)))
            parent[second] = first
            other += 1
    return runs, [find_root(index) for index in range(len(runs))]


@lru_cache(maxsize=256)
def _analyze_glyph(package: str, character: str) -> tuple[Image.Image, Image.Image]:
    """Return the body of a glyph and its small enclosed details, at `ANALYSIS_EM_PX` per em.

    The lines are thickened first. This closes the gaps that artists leave, which would let the fill
    leak out.
    """
    ink = _draw_glyph(character, ANALYSIS_EM_PX)
    pad = 10
    page = Image.new("L", (ink.width + 2 * pad, ink.height + 2 * pad))
    page.paste(ink, (pad, pad))
    thick = _grow_mask(page, 4)
    runs, roots = _join_regions(_to_binary_rows(thick))
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
    crop_box = (pad, pad, pad + ink.width, pad + ink.height)
    ground = Image.frombytes("L", page.size, bytes(outside))
    body = _grow_mask(ground, 7).point(lambda value: 255 - value).crop(crop_box)
    accents = _grow_mask(Image.frombytes("L", page.size, bytes(details)), 6).crop(crop_box)
    return body, accents


def _grow_mask(mask: Image.Image, pixels: int) -> Image.Image:
    """Grow the white area of a mask by a number of pixels, in a rough circle."""
    for step in range(pixels):
        if step % 3 == 2:
            continue
        mask = mask.filter(ImageFilter.MaxFilter(3))
    return mask


def _to_binary_rows(mask: Image.Image) -> list[bytes]:
    """Return the rows of a mask, a byte per pixel: 1 for white, 0 for blank."""
    flat = mask.point(lambda value: 1 if value > 96 else 0).tobytes()
    return [flat[at : at + mask.width] for at in range(0, len(flat), mask.width)]


def draw_glyph_masks(character: str, size: int) -> GlyphMasks:
    """Draw the masks of an emoji's glyph.

    Args:
        character: an emoji for which `has_glyph` is true.
        size: length of the longer side, in pixels.

    Returns:
        The masks of its lines, its inside and its small enclosed regions.
    """
    body, details = _analyze_glyph(FONT_PACKAGE, character)
    longer = max(body.size)
    ink = _draw_glyph(character, max(4, ANALYSIS_EM_PX * size // longer))
    return GlyphMasks(
        ink,
        body.resize(ink.size, Image.Resampling.BICUBIC),
        details.resize(ink.size, Image.Resampling.BICUBIC),
    )
