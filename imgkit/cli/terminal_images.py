"""Images in the terminal: each replaces the image before it."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterator, Mapping

import PIL.Image

from imgkit.cli import console
from imgkit.cli.progress import can_animate
from imgkit.errors import UnreadableReplyError
from imgkit.images.image import Image

MAX_ROWS = 20
_KITTY_CHUNK_CHARACTERS = 4096
"""Most base64 characters in one escape sequence (documentation of kitty's graphics protocol)."""

_BACKGROUND = (96, 96, 96)
"""The colour behind transparent pixels, as red, green and blue."""

Painter = Callable[[Image, int, int], str]
"""Returns the text that draws an image in columns x rows cells and leaves the cursor below it."""


class Canvas:
    """An area of the terminal on standard error that shows one image at a time.

    Example:
        >>> canvas = Canvas(draw_half_blocks)
        >>> canvas.show(Image.from_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not drawn")

    Args:
        paint: draws an image.
    """

    def __init__(self, paint: Painter) -> None:
        self._paint = paint
        self._lines = 0  # lines of the visible image and its caption
        self._messages = 0  # messages printed before that image

    def show(self, image: Image, caption: str) -> None:
        """Show an image with a caption below it, in place of the last image."""
        columns, lines = _terminal_size()
        rows = max(1, min(MAX_ROWS, lines - 3))  # a caption and the status line stand below
        try:
            drawn = self._paint(image, columns - 1, rows)
        except UnreadableReplyError:
            return  # Pillow cannot decode it, but its file is saved
        # Move up to the first line of the last image, and clear everything below.
        # Below a message there is no image to replace.
        is_last = self._lines and self._messages == console.count_messages()
        back = f"\x1b[{self._lines}F\x1b[J" if is_last else ""
        line = "".join(letter if letter.isprintable() else "?" for letter in caption)[: columns - 1]
        console.write_to_stderr(f"{back}{drawn}{line}\n" if line else f"{back}{drawn}")
        self._lines, self._messages = rows + bool(line), console.count_messages()


def open_canvas(environment: Mapping[str, str] = os.environ) -> Canvas | None:
    """Return a canvas, None if standard error is not a terminal that can show images.

    Args:
        environment: the variables that describe the terminal.
    """
    if not can_animate():
        return None
    paint = choose_painter(environment)
    return None if paint is None else Canvas(paint)


def choose_painter(environment: Mapping[str, str]) -> Painter | None:
    """Return the best painter of a terminal: kitty's protocol, iTerm's, coloured blocks, or None."""
    program = environment.get("TERM_PROGRAM", "")
    if not environment.get("TMUX"):  # tmux forwards neither protocol
        if environment.get("TERM") == "xterm-kitty" or program == "ghostty":
            return draw_kitty
        if program in ("iTerm.app", "WezTerm"):
            return draw_iterm
    return draw_half_blocks if environment.get("COLORTERM") in ("truecolor", "24bit") else None


def draw_half_blocks(image: Image, columns: int, rows: int) -> str:
    """Return the image as upper half blocks in 24-bit colour: two pixels per character."""
    rgba = image.to_pil().convert("RGBA")
    scale = min(columns / rgba.width, 2 * rows / rgba.height)
    size = max(1, round(rgba.width * scale)), max(1, round(rgba.height * scale))
    shown = PIL.Image.new("RGB", (size[0], 2 * rows), (0, 0, 0))
    small = rgba.resize(size, PIL.Image.Resampling.BOX)
    shown.paste(_BACKGROUND, (0, 0, *size))
    shown.paste(small, (0, 0), small)
    data = shown.tobytes()
    width = size[0] * 3

    def draw_row(row: int) -> Iterator[str]:
        for at in range(2 * row * width, (2 * row + 1) * width, 3):
            upper, lower = data[at : at + 3], data[at + width : at + width + 3]
            yield "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*upper, *lower)

    return "".join(f"{''.join(draw_row(row))}\x1b[0m\n" for row in range(rows))


def draw_kitty(image: Image, columns: int, rows: int) -> str:
    """Return the image in kitty's graphics protocol; its fixed id replaces the last image."""
    text = base64.b64encode(image.thumbnail_png()).decode("ascii")
    chunks = [text[at : at + _KITTY_CHUNK_CHARACTERS] for at in range(0, len(text), _KITTY_CHUNK_CHARACTERS)]
    drawn = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,i=7,q=2,C=1,r={rows}," if number == 0 else ""
        drawn.append(f"\x1b_G{first}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    # Make room first: the cursor does not move with the image.
    return f"{chr(10) * rows}\x1b[{rows}A{''.join(drawn)}\x1b[{rows}B\r"


def draw_iterm(image: Image, columns: int, rows: int) -> str:
    """Return the image in iTerm's protocol, which WezTerm supports too."""
    text = base64.b64encode(image.thumbnail_png()).decode("ascii")
    return f"\x1b]1337;File=inline=1;height={rows};preserveAspectRatio=1:{text}\x07\n"


def _terminal_size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return 80, 24
    return max(2, size.columns or 80), max(4, size.lines or 24)
