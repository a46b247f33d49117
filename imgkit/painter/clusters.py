"""Things that belong together: a rider on a horse, a hat on a head, fruit in a bowl."""

from __future__ import annotations

from PIL import Image, ImageChops

from imgkit.painter.lexicon import LexiconEntry, language
from imgkit.painter.prompts import Figure
from imgkit.painter.sprites import sprite

SHARE = {"on": 58, "in": 78, "wear": 84, "hold": 82, "of": 74}
"""How much of the room, in percent, is left to the main thing when something is joined to it."""


def cluster(figure: Figure, size: int, mirrored: bool = False) -> Image.Image:
    """Paint a figure with everything that is joined to it.

    Parameters:
        figure: what to paint.
        size: pixels of the longer side, about.
        mirrored: whether all of it looks the other way.

    Returns:
        An RGBA picture cut to its edges.
    """
    joined = list(figure.joined)
    if figure.entry.tool:
        joined.append(("hold", Figure(language().nouns[(figure.entry.tool,)])))
    for link, other in joined[:4]:
        size = size * (72 if link == "on" and other.entry.kind == "thing" else SHARE[link]) // 100
    picture = sprite(figure, size)
    for link, other in joined[:4]:
        picture = _JOIN[link](picture, figure.entry, other, size)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


def _together(lower: Image.Image, upper: Image.Image, at: tuple[int, int]) -> Image.Image:
    """Lay `upper` over `lower` with its corner at a point of `lower`, on a page large enough for both."""
    left, top = min(0, at[0]), min(0, at[1])
    right, bottom = max(lower.width, at[0] + upper.width), max(lower.height, at[1] + upper.height)
    page = Image.new("RGBA", (right - left, bottom - top), (0, 0, 0, 0))
    page.paste(lower, (-left, -top))
    page.alpha_composite(upper, (at[0] - left, at[1] - top))
    return page


def _behind(front: Image.Image, back: Image.Image, at: tuple[int, int]) -> Image.Image:
    """Lay `back` under `front` with its corner at a point of `front`."""
    return _together(back, front, (-at[0], -at[1]))


def _on(picture: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    below = sprite(other, size * max(95, min(150, other.entry.size)) // 100)
    x = (below.width - picture.width) // 2
    if other.entry.kind == "thing":
        return _together(below, picture, (x, below.height * 14 // 100 - picture.height))
    return _behind(below, picture, (x, below.height * 34 // 100 - picture.height))


def _in(picture: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    around = sprite(other, size * 130 // 100)
    at = ((around.width - picture.width) // 2, around.height * 46 // 100 - picture.height)
    return _behind(around, picture, at)


def _head_of(picture: Image.Image, entry: LexiconEntry) -> tuple[int, int, int]:
    """Return the middle of the top of a head, and how wide the head is, all in pixels."""
    if entry.kind in ("person", "face"):
        return picture.width // 2, 0, picture.width
    middle = picture.width * entry.head // 100
    if not middle:
        strip = picture.getchannel("A").crop((0, 0, picture.width, max(1, picture.height // 8)))
        edges = strip.getbbox() or (0, 0, picture.width, 1)
        middle = (edges[0] + edges[2]) // 2
    return middle, 0, picture.width * 56 // 100


def _wear(picture: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    middle, top, wide = _head_of(picture, entry)
    if other.entry.at == "head":
        piece = sprite(other, max(8, wide * 88 // 100))
        return _together(picture, piece, (middle - piece.width // 2, top - piece.height * 62 // 100))
    piece = sprite(other, max(8, wide * 62 // 100))
    down = 34 if other.entry.at == "face" else 78
    if entry.kind not in ("person", "face"):
        down = down * 62 // 100
    return _together(
        picture, piece, (middle - piece.width // 2, picture.height * down // 100 - piece.height // 2)
    )


def _hold(picture: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    piece = sprite(other, size * (66 if other.entry.kind == "instrument" else 52) // 100)
    return _together(
        picture,
        piece,
        (
            picture.width * (34 if other.entry.kind == "instrument" else 62) // 100,
            picture.height * 94 // 100 - piece.height,
        ),
    )


def _of(picture: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    many = min(7, max(3, other.count))
    piece = sprite(other, size * 44 // 100)
    wide, left = picture.width, 0
    for index in range(many):
        share = (index * 2 + 1) * 100 // (many * 2)
        x = wide * (14 + share * 72 // 100) // 100 - piece.width // 2
        lift = 62 + (18 if index % 2 else 0)
        lift += 26 if other.entry.kind == "flower" else 0
        inside = _top_of(picture, entry)
        picture = _keep(picture, piece, (left + x, inside - piece.height * lift // 100), inside)
        left += max(0, -left - x)
    return picture


def _top_of(picture: Image.Image, entry: LexiconEntry) -> int:
    rim: int = picture.info.get("rim", picture.height * entry.rim // 100)
    return rim


def _keep(front: Image.Image, back: Image.Image, at: tuple[int, int], inside: int) -> Image.Image:
    """Lay `back` under `front`, remembering where the container's rim is on the larger page."""
    page = _behind(front, back, at)
    page.info["rim"] = inside + max(0, -at[1])
    return page


def rim(picture: Image.Image, width: int) -> Image.Image:
    """Grow the outline of a cut-out, for a pale edge on dark or busy grounds.

    Parameters:
        picture: the RGBA cut-out.
        width: by how many pixels.

    Returns:
        An L mask that is larger by `width` on every side.
    """
    alpha = picture.getchannel("A")
    page = Image.new("L", (alpha.width + 2 * width, alpha.height + 2 * width))
    for dx, dy in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (2, 0), (0, 2), (2, 2)):
        inset = width * 3 // 10 if dx != 1 and dy != 1 else 0
        moved = Image.new("L", page.size)
        moved.paste(
            alpha, (dx * width + (inset if dx == 0 else -inset), dy * width + (inset if dy == 0 else -inset))
        )
        page = ImageChops.lighter(page, moved)
    return page


_JOIN = {"on": _on, "in": _in, "wear": _wear, "hold": _hold, "of": _of}
