"""Pictures in the terminal, each in the place of the one before it; nothing where a terminal cannot."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterator, Mapping

import PIL.Image

from imgkit.cli.progress import moves
from imgkit.errors import UnreadableReplyError
from imgkit.images.image import Image

MOST_ROWS = 20
_CHUNK = 4096
"""Most characters of base64 in one of kitty's sequences (its documentation of the graphics protocol)."""

_BEHIND = (96, 96, 96)
"""What is seen through transparent parts."""

Painter = Callable[[Image, int, int], str]
"""Returns what draws a picture in so many columns and rows, and leaves the cursor below it."""


class Canvas:
    """A place on standard error where pictures are shown, one after the other.

    Args:
        paint: draws one.
    """

    def __init__(self, paint: Painter) -> None:
        self._paint = paint
        self._lines = 0  # of what is shown now

    def show(self, image: Image, caption: str) -> None:
        """Show a picture with a line below it, in place of the last one."""
        columns, lines = _size()
        rows = max(1, min(MOST_ROWS, lines - 3))
        try:
            drawn = self._paint(image, columns - 1, rows)
        except UnreadableReplyError:
            return  # not for Pillow; the file is there all the same
        # Up to where the last one began, and everything below is wiped.
        back = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        line = "".join(letter if letter.isprintable() else "?" for letter in caption)[: columns - 1]
        _write(f"{back}{drawn}{line}\n")
        self._lines = rows + 1


def canvas(environment: Mapping[str, str] = os.environ) -> Canvas | None:
    """Return where pictures can be shown, None if standard error is no terminal that can.

    Args:
        environment: says what the terminal is.
    """
    if not moves():
        return None
    paint = painter(environment)
    return None if paint is None else Canvas(paint)


def painter(environment: Mapping[str, str]) -> Painter | None:
    """Return what draws in a terminal: by kitty's protocol, iTerm's, in blocks of 24-bit colour, or not."""
    program = environment.get("TERM_PROGRAM", "")
    if not environment.get("TMUX"):  # which passes on neither protocol
        if environment.get("TERM") == "xterm-kitty" or program == "ghostty":
            return kitty
        if program in ("iTerm.app", "WezTerm"):
            return iterm
    return half_blocks if environment.get("COLORTERM") in ("truecolor", "24bit") else None


def half_blocks(image: Image, columns: int, rows: int) -> str:
    """Draw with upper half blocks: two pixels a character."""
    picture = image.to_pil().convert("RGBA")
    scale = min(columns / picture.width, 2 * rows / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = PIL.Image.new("RGB", (size[0], 2 * rows), (0, 0, 0))
    small = picture.resize(size, PIL.Image.Resampling.BOX)
    shown.paste(_BEHIND, (0, 0, *size))
    shown.paste(small, (0, 0), small)
    pixels = shown.tobytes()
    width = size[0] * 3

    def line(row: int) -> Iterator[str]:
        for at in range(2 * row * width, (2 * row + 1) * width, 3):
            upper, lower = pixels[at : at + 3], pixels[at + width : at + width + 3]
            yield "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*upper, *lower)

    return "".join(f"{''.join(line(row))}\x1b[0m\n" for row in range(rows))


def kitty(image: Image, columns: int, rows: int) -> str:
    """Draw by kitty's graphics protocol; the same id takes the place of the last picture."""
    text = base64.b64encode(image.thumbnail_png()).decode("ascii")
    pieces = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    drawn = []
    for number, piece in enumerate(pieces):
        first = f"a=T,f=100,i=7,q=2,C=1,r={rows}," if number == 0 else ""
        drawn.append(f"\x1b_G{first}m={int(number < len(pieces) - 1)};{piece}\x1b\\")
    # Room is made first, since the cursor does not move with the picture.
    return f"{chr(10) * rows}\x1b[{rows}A{''.join(drawn)}\x1b[{rows}B\r"


def iterm(image: Image, columns: int, rows: int) -> str:
    """Draw by iTerm's protocol, which WezTerm knows too."""
    text = base64.b64encode(image.thumbnail_png()).decode("ascii")
    return f"\x1b]1337;File=inline=1;height={rows};preserveAspectRatio=1:{text}\x07\n"


def _size() -> tuple[int, int]:
    try:
        found = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return 80, 24
    return max(2, found.columns or 80), max(4, found.lines or 24)


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the terminal has gone, or has no such letters; the pictures are files all the same
