"""Text in the image: the painter's mark, and the prompt as a caption."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Literal

from PIL import Image, ImageDraw

from imgkit.painter import glyphs

MARK_TEXT = "imgkit offline"
MAX_CAPTION_LETTERS = 220
FontRun = tuple[str, str]
"""The name of a font file, and a piece of text that it covers."""


def write_mark(page: Image.Image, free: Image.Image | None = None) -> None:
    """Write the mark into a lower corner, in place. Write nothing if the mark does not fit.

    Args:
        page: an RGB or RGBA image.
        free: an L mask of the page's size, white where the mark may be; None for anywhere.
    """
    room = min(page.size)
    edge = max(1, room * 2 // 100)
    for lines in ((MARK_TEXT,), tuple(MARK_TEXT.split())):
        for size in dict.fromkeys((max(9, min(44, room * 26 // 1000)), 9, 8)):
            plate = _draw_mark_plate(lines, size)
            right, bottom = page.width - plate.width - edge, page.height - plate.height - edge
            if right < 0 or bottom < 0:
                continue
            rises = (0,) if free is None else range(0, bottom + 1, max(1, bottom // 12))
            for rise in rises:
                for x in (right, edge, right // 2):
                    at = (x, bottom - rise)
                    if free is None or _is_free(free, at, plate.size):
                        page.paste(plate, at, plate)
                        return


def _is_free(free: Image.Image, at: tuple[int, int], size: tuple[int, int]) -> bool:
    return free.crop((*at, at[0] + size[0], at[1] + size[1])).getextrema() == (255, 255)


def _draw_mark_plate(lines: tuple[str, ...], size: int) -> Image.Image:
    """Draw the mark on a dark plate, which keeps it legible on any ground."""
    font = glyphs.open_text_font(size)
    step, pad = size * 118 // 100, max(1, size // 3)
    wide = max(round(font.getlength(line)) for line in lines) + 2 * pad
    plate = Image.new("RGBA", (wide, step * len(lines) + pad), (0, 0, 0, 0))
    pencil = ImageDraw.Draw(plate)
    pencil.rounded_rectangle((0, 0, wide - 1, plate.height - 1), radius=pad, fill=(22, 24, 38, 255))
    for index, line in enumerate(lines):
        at = (pad, pad // 2 + index * step + step // 2)
        pencil.text(at, line, font=font, fill=(246, 246, 250, 255), anchor="lm")
    return plate


def _remove_undrawable(text: str) -> str:
    """Remove control characters and characters that no font covers; shorten a long text."""
    drawable = []
    form: Literal["NFC", "NFKD"] = "NFC" if glyphs.has_fonts() else "NFKD"
    for character in unicodedata.normalize(form, text[: MAX_CAPTION_LETTERS * 4]):
        if character.isspace():
            drawable.append(" ")
        elif unicodedata.category(character)[0] != "C" and glyphs.find_font_file(character) is not None:
            drawable.append(character)
    words = "".join(drawable).split()
    line = " ".join(words)
    return line if len(line) <= MAX_CAPTION_LETTERS else line[: MAX_CAPTION_LETTERS - 1].rstrip() + "…"


def _is_right_to_left(word: str) -> bool:
    """Return whether the script of a word runs from right to left."""
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in word)


def _to_visual_order(words: list[str], right_to_left: bool) -> list[str]:
    """Reorder the words of a line, and the letters of each word, from logical to visual order.

    Consecutive words of the other direction keep their own order.

    Args:
        words: the words in logical order.
        right_to_left: direction of the whole text.
    """
    groups = []
    for is_rtl, group in groupby(words, _is_right_to_left):
        members = list(group)
        groups.append([_shape_arabic(word)[::-1] for word in reversed(members)] if is_rtl else members)
    if right_to_left:
        groups.reverse()
    return [word for group in groups for word in group]


def _shape_arabic(word: str) -> str:
    """Replace Arabic letters by the forms that join their neighbours."""
    forms = _load_arabic_forms()
    shaped = []
    for index, letter in enumerate(word):
        own = forms.get(letter, {})
        before = index > 0 and "initial" in forms.get(word[index - 1], {})
        after = index + 1 < len(word) and "final" in forms.get(word[index + 1], {})
        position = (
            ("medial" if after and "medial" in own else "final")
            if before
            else "initial"
            if after
            else "isolated"
        )
        form = own.get(position, letter)
        shaped.append(form if glyphs.find_font_file(form) is not None else letter)
    return "".join(shaped)


@lru_cache(maxsize=1)
def _load_arabic_forms() -> dict[str, dict[str, str]]:
    """Return the presentation forms of each Arabic letter, by position: initial, medial, final."""
    forms: dict[str, dict[str, str]] = {}
    for point in range(0xFE80, 0xFEFD):
        kind, _, letters = unicodedata.decomposition(chr(point)).partition(" ")
        if letters and " " not in letters:
            forms.setdefault(chr(int(letters, 16)), {})[kind.strip("<>")] = chr(point)
    return forms


def _split_by_font(text: str) -> list[FontRun]:
    """Split a text into runs, each covered by a single font."""
    runs: list[FontRun] = []
    for character in text:
        file = glyphs.find_font_file(character)
        if file is None:
            continue
        if character == " " and runs:
            file = runs[-1][0]
        if runs and runs[-1][0] == file:
            runs[-1] = (file, runs[-1][1] + character)
        else:
            runs.append((file, character))
    return runs


def _measure_width(runs: list[FontRun], size: int) -> int:
    """Return the width of a line in pixels."""
    return sum(round(glyphs.open_text_font(size, file).getlength(text)) for file, text in runs)


def _wrap_lines(text: str, size: int, width: int) -> list[list[FontRun]]:
    """Wrap a text to a width in pixels; break words that are longer than a line."""
    lines: list[list[str]] = [[]]
    for word in text.split():
        while word:
            candidate = " ".join([*lines[-1], word])
            if _measure_width(_split_by_font(candidate), size) <= width:
                lines[-1].append(word)
                break
            if lines[-1]:
                lines.append([])
                continue
            fits = max(1, len(word) - 1)
            while fits > 1 and _measure_width(_split_by_font(word[:fits]), size) > width:
                fits = fits * 3 // 4
            lines[-1].append(word[:fits])
            word = word[fits:]
            lines.append([])
    right_to_left = next((_is_right_to_left(word) for word in text.split() if word.isalpha()), False)
    ordered = [_split_by_font(" ".join(_to_visual_order(words, right_to_left))) for words in lines]
    return [line for line in ordered if line]


def write_caption(page: Image.Image, text: str) -> bool:
    """Write a text into the middle of an image, in place, as large as it fits.

    Args:
        page: an RGB or RGBA image.
        text: any text; characters that no font covers are left out, and a long text is shortened.

    Returns:
        Whether any text was written.
    """
    text = _remove_undrawable(text)
    if not text:
        return False
    width, tallest = page.width * 80 // 100, page.height * 52 // 100
    lines: list[list[FontRun]] = []
    size = max(8, min(page.size) * 12 // 100)
    while True:
        lines = _wrap_lines(text, size, width)
        if len(lines) * size * 13 // 10 <= tallest or size <= 8:
            break
        size = max(8, size * 84 // 100)
    step = size * 13 // 10
    lines = lines[: max(1, tallest // step)]
    widest = max(_measure_width(line, size) for line in lines)
    pad = size * 7 // 10
    plate = Image.new("RGBA", (min(page.width, widest + 2 * pad), step * len(lines) + pad), (0, 0, 0, 0))
    pencil = ImageDraw.Draw(plate)
    pencil.rounded_rectangle((0, 0, plate.width - 1, plate.height - 1), radius=pad, fill=(18, 20, 38, 196))
    for index, line in enumerate(lines):
        x = (plate.width - _measure_width(line, size)) // 2
        y = pad // 2 + index * step + step // 2
        for file, piece in line:
            font = glyphs.open_text_font(size, file)
            pencil.text((x, y), piece, font=font, fill=(252, 252, 255, 255), anchor="lm")
            x += round(font.getlength(piece))
    at = ((page.width - plate.width) // 2, (page.height - plate.height) // 2)
    page.paste(plate, at, plate)
    return True
