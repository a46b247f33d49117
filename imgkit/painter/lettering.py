"""Words in the picture: the painter's mark, and the prompt as a caption."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Literal

from PIL import Image, ImageDraw

from imgkit.painter import glyphs

MARK = "imgkit offline"
MOST_LETTERS = 220
Run = tuple[str, str]
"""A font file and a piece of text that it can draw."""


def mark(page: Image.Image, free: Image.Image | None = None) -> None:
    """Write the mark into a lower corner, in place; nothing where it does not fit.

    Parameters:
        page: an RGB or RGBA picture.
        free: an L mask of the page's size, white where the mark may lie; None for anywhere.
    """
    room = min(page.size)
    edge = max(1, room * 2 // 100)
    for lines in ((MARK,), tuple(MARK.split())):
        for size in dict.fromkeys((max(9, min(44, room * 26 // 1000)), 9, 8)):
            plate = _plate(lines, size)
            right, low = page.width - plate.width - edge, page.height - plate.height - edge
            if right < 0 or low < 0:
                continue
            rises = (0,) if free is None else range(0, low + 1, max(1, low // 12))
            for rise in rises:
                for x in (right, edge, right // 2):
                    at = (x, low - rise)
                    if free is None or _is_free(free, at, plate.size):
                        page.paste(plate, at, plate)
                        return


def _is_free(free: Image.Image, at: tuple[int, int], size: tuple[int, int]) -> bool:
    return free.crop((*at, at[0] + size[0], at[1] + size[1])).getextrema() == (255, 255)


def _plate(lines: tuple[str, ...], size: int) -> Image.Image:
    """Return the mark on its dark plate, which keeps it legible on any ground."""
    font = glyphs.text_font(size)
    step, pad = size * 118 // 100, max(1, size // 3)
    wide = max(round(font.getlength(line)) for line in lines) + 2 * pad
    plate = Image.new("RGBA", (wide, step * len(lines) + pad), (0, 0, 0, 0))
    pencil = ImageDraw.Draw(plate)
    pencil.rounded_rectangle((0, 0, wide - 1, plate.height - 1), radius=pad, fill=(22, 24, 38, 255))
    for index, line in enumerate(lines):
        at = (pad, pad // 2 + index * step + step // 2)
        pencil.text(at, line, font=font, fill=(246, 246, 250, 255), anchor="lm")
    return plate


def _plain(text: str) -> str:
    """Leave out what cannot be drawn: controls, and letters that no font has."""
    kept = []
    form: Literal["NFC", "NFKD"] = "NFC" if glyphs.available() else "NFKD"
    for character in unicodedata.normalize(form, text[: MOST_LETTERS * 4]):
        if character.isspace():
            kept.append(" ")
        elif unicodedata.category(character)[0] != "C" and glyphs.font_for(character) is not None:
            kept.append(character)
    words = "".join(kept).split()
    line = " ".join(words)
    return line if len(line) <= MOST_LETTERS else line[: MOST_LETTERS - 1].rstrip() + "…"


def _is_leftwards(word: str) -> bool:
    """Return whether a word's script is written from right to left."""
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in word)


def _in_order(words: list[str], leftwards: bool) -> list[str]:
    """Put the words of a line, and the letters of each, into the order they are seen in.

    Words of the other direction than the text's keep their own order among themselves.
    """
    groups = []
    for backwards, group in groupby(words, _is_leftwards):
        same = list(group)
        groups.append([_joined(word)[::-1] for word in reversed(same)] if backwards else same)
    if leftwards:
        groups.reverse()
    return [word for group in groups for word in group]


def _joined(word: str) -> str:
    """Choose the forms of Arabic letters that join their neighbours."""
    forms = _arabic_forms()
    shaped = []
    for index, letter in enumerate(word):
        own = forms.get(letter, {})
        before = index > 0 and "initial" in forms.get(word[index - 1], {})
        after = index + 1 < len(word) and "final" in forms.get(word[index + 1], {})
        wanted = (
            ("medial" if after and "medial" in own else "final")
            if before
            else "initial"
            if after
            else "isolated"
        )
        form = own.get(wanted, letter)
        shaped.append(form if glyphs.font_for(form) is not None else letter)
    return "".join(shaped)


@lru_cache(maxsize=1)
def _arabic_forms() -> dict[str, dict[str, str]]:
    """Return for each Arabic letter its forms at the start, in the middle and at the end of a word."""
    forms: dict[str, dict[str, str]] = {}
    for point in range(0xFE80, 0xFEFD):
        kind, _, letters = unicodedata.decomposition(chr(point)).partition(" ")
        if letters and " " not in letters:
            forms.setdefault(chr(int(letters, 16)), {})[kind.strip("<>")] = chr(point)
    return forms


def _runs(text: str) -> list[Run]:
    runs: list[Run] = []
    for character in text:
        file = glyphs.font_for(character)
        if file is None:
            continue
        if character == " " and runs:
            file = runs[-1][0]
        if runs and runs[-1][0] == file:
            runs[-1] = (file, runs[-1][1] + character)
        else:
            runs.append((file, character))
    return runs


def _length(runs: list[Run], size: int) -> int:
    return sum(round(glyphs.text_font(size, file).getlength(text)) for file, text in runs)


def _wrapped(text: str, size: int, width: int) -> list[list[Run]]:
    lines: list[list[str]] = [[]]
    for word in text.split():
        while word:
            tried = " ".join([*lines[-1], word])
            if _length(_runs(tried), size) <= width:
                lines[-1].append(word)
                break
            if lines[-1]:
                lines.append([])
                continue
            fits = max(1, len(word) - 1)
            while fits > 1 and _length(_runs(word[:fits]), size) > width:
                fits = fits * 3 // 4
            lines[-1].append(word[:fits])
            word = word[fits:]
            lines.append([])
    leftwards = next((_is_leftwards(word) for word in text.split() if word.isalpha()), False)
    ordered = [_runs(" ".join(_in_order(words, leftwards))) for words in lines]
    return [line for line in ordered if line]


def caption(page: Image.Image, text: str) -> bool:
    """Write a text into the middle of a picture, in place, as large as it fits.

    Parameters:
        page: an RGB or RGBA picture.
        text: any text; what no font can draw is left out, a long one is cut.

    Returns:
        Whether anything could be written.
    """
    text = _plain(text)
    if not text:
        return False
    width, tallest = page.width * 80 // 100, page.height * 52 // 100
    lines: list[list[Run]] = []
    size = max(8, min(page.size) * 12 // 100)
    while True:
        lines = _wrapped(text, size, width)
        if len(lines) * size * 13 // 10 <= tallest or size <= 8:
            break
        size = max(8, size * 84 // 100)
    step = size * 13 // 10
    lines = lines[: max(1, tallest // step)]
    widest = max(_length(line, size) for line in lines)
    pad = size * 7 // 10
    plate = Image.new("RGBA", (min(page.width, widest + 2 * pad), step * len(lines) + pad), (0, 0, 0, 0))
    pencil = ImageDraw.Draw(plate)
    pencil.rounded_rectangle((0, 0, plate.width - 1, plate.height - 1), radius=pad, fill=(18, 20, 38, 196))
    for index, line in enumerate(lines):
        x = (plate.width - _length(line, size)) // 2
        y = pad // 2 + index * step + step // 2
        for file, piece in line:
            font = glyphs.text_font(size, file)
            pencil.text((x, y), piece, font=font, fill=(252, 252, 255, 255), anchor="lm")
            x += round(font.getlength(piece))
    at = ((page.width - plate.width) // 2, (page.height - plate.height) // 2)
    page.paste(plate, at, plate)
    return True
