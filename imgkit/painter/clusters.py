"""Clusters of figures: a rider on a horse, a hat on a head, fruit in a bowl."""

from __future__ import annotations

from PIL import Image, ImageChops

from imgkit.painter.lexicon import LexiconEntry, load_language
from imgkit.painter.prompts import Figure
from imgkit.painter.sprites import paint_sprite

SHARE_PERCENT = {"on": 58, "in": 78, "wear": 84, "hold": 82, "of": 74}
"""Share of the space, in percent, that a figure keeps beside an attachment, by link."""


def paint_cluster(figure: Figure, size: int, mirrored: bool = False) -> Image.Image:
    """Paint a figure with its attachments.

    Args:
        figure: the figure to paint.
        size: approximate length of the longer side, in pixels.
        mirrored: whether to flip the cluster left to right.

    Returns:
        An RGBA image, cropped to its edges.
    """
    attachments = list(figure.attachments)
    if figure.entry.tool:
        attachments.append(("hold", Figure(load_language().nouns[(figure.entry.tool,)])))
    for link, other in attachments[:4]:
        size = size * (72 if link == "on" and other.entry.kind == "thing" else SHARE_PERCENT[link]) // 100
    image = paint_sprite(figure, size)
    for link, other in attachments[:4]:
        image = _ATTACHERS[link](image, figure.entry, other, size)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def _lay_over(lower: Image.Image, upper: Image.Image, at: tuple[int, int]) -> Image.Image:
    """Lay `upper` over `lower`, with its corner at a point of `lower`; enlarge the page to hold both."""
    left, top = min(0, at[0]), min(0, at[1])
    right, bottom = max(lower.width, at[0] + upper.width), max(lower.height, at[1] + upper.height)
    page = Image.new("RGBA", (right - left, bottom - top), (0, 0, 0, 0))
    page.paste(lower, (-left, -top))
    page.alpha_composite(upper, (at[0] - left, at[1] - top))
    return page


def _lay_under(front: Image.Image, back: Image.Image, at: tuple[int, int]) -> Image.Image:
    """Lay `back` under `front`, with its corner at a point of `front`."""
    return _lay_over(back, front, (-at[0], -at[1]))


def _attach_below(image: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    """Set the figure on another: a rider on a horse, a vase on a table."""
    below = paint_sprite(other, size * max(95, min(150, other.entry.size)) // 100)
    x = (below.width - image.width) // 2
    if other.entry.kind == "thing":
        return _lay_over(below, image, (x, below.height * 14 // 100 - image.height))
    return _lay_under(below, image, (x, below.height * 34 // 100 - image.height))


def _attach_around(image: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    """Set the figure into another: a cat into a box."""
    around = paint_sprite(other, size * 130 // 100)
    at = ((around.width - image.width) // 2, around.height * 46 // 100 - image.height)
    return _lay_under(around, image, at)


def _find_head(image: Image.Image, entry: LexiconEntry) -> tuple[int, int, int]:
    """Return the centre of the top of a head (x and y) and the width of the head, in pixels."""
    if entry.kind in ("person", "face"):
        return image.width // 2, 0, image.width
    middle = image.width * entry.head // 100
    if not middle:
        strip = image.getchannel("A").crop((0, 0, image.width, max(1, image.height // 8)))
        edges = strip.getbbox() or (0, 0, image.width, 1)
        middle = (edges[0] + edges[2]) // 2
    return middle, 0, image.width * 56 // 100


def _attach_clothes(image: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    """Put clothes on the figure: a hat on its head, glasses on its face, a scarf around its neck."""
    middle, top, wide = _find_head(image, entry)
    if other.entry.at == "head":
        piece = paint_sprite(other, max(8, wide * 88 // 100))
        return _lay_over(image, piece, (middle - piece.width // 2, top - piece.height * 62 // 100))
    piece = paint_sprite(other, max(8, wide * 62 // 100))
    down = 34 if other.entry.at == "face" else 78
    if entry.kind not in ("person", "face"):
        down = down * 62 // 100
    return _lay_over(
        image, piece, (middle - piece.width // 2, image.height * down // 100 - piece.height // 2)
    )


def _attach_tool(image: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    """Put a tool or an instrument into the hands of the figure."""
    piece = paint_sprite(other, size * (66 if other.entry.kind == "instrument" else 52) // 100)
    return _lay_over(
        image,
        piece,
        (
            image.width * (34 if other.entry.kind == "instrument" else 62) // 100,
            image.height * 94 // 100 - piece.height,
        ),
    )


def _attach_contents(image: Image.Image, entry: LexiconEntry, other: Figure, size: int) -> Image.Image:
    """Fill a container: a bowl with apples, a vase with roses."""
    count = min(7, max(3, other.count))
    piece = paint_sprite(other, size * 44 // 100)
    wide, left = image.width, 0
    for index in range(count):
        share = (index * 2 + 1) * 100 // (count * 2)
        x = wide * (14 + share * 72 // 100) // 100 - piece.width // 2
        lift = 62 + (18 if index % 2 else 0)
        lift += 26 if other.entry.kind == "flower" else 0
        rim = _find_rim(image, entry)
        image = _lay_in_container(image, piece, (left + x, rim - piece.height * lift // 100), rim)
        left += max(0, -left - x)
    return image


def _find_rim(image: Image.Image, entry: LexiconEntry) -> int:
    """Return the y of a container's rim, in pixels."""
    rim: int = image.info.get("rim", image.height * entry.rim // 100)
    return rim


def _lay_in_container(front: Image.Image, back: Image.Image, at: tuple[int, int], rim: int) -> Image.Image:
    """Lay `back` under `front`, and store the new y of the container's rim in the image."""
    page = _lay_under(front, back, at)
    page.info["rim"] = rim + max(0, -at[1])
    return page


def build_outline_mask(image: Image.Image, width: int) -> Image.Image:
    """Build a mask of a cut-out's outline, for a pale edge on a dark or busy ground.

    Args:
        image: the RGBA cut-out.
        width: width of the edge in pixels.

    Returns:
        An L mask that is larger by `width` on every side.
    """
    alpha = image.getchannel("A")
    page = Image.new("L", (alpha.width + 2 * width, alpha.height + 2 * width))
    for dx, dy in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (2, 0), (0, 2), (2, 2)):
        inset = width * 3 // 10 if dx != 1 and dy != 1 else 0
        moved = Image.new("L", page.size)
        moved.paste(
            alpha, (dx * width + (inset if dx == 0 else -inset), dy * width + (inset if dy == 0 else -inset))
        )
        page = ImageChops.lighter(page, moved)
    return page


_ATTACHERS = {
    "on": _attach_below,
    "in": _attach_around,
    "wear": _attach_clothes,
    "hold": _attach_tool,
    "of": _attach_contents,
}
