"""One thing as a cut-out picture: its shape coloured in, shaded, and the line art on top."""

from __future__ import annotations

from PIL import Image, ImageChops

from imgkit.painter import drawings, glyphs
from imgkit.painter.lexicon import LexiconEntry
from imgkit.painter.palette import WHITE, Colour, ink_for, luma, mix
from imgkit.painter.prompts import Figure

_SLOPE = Image.linear_gradient("L")


def _colours(figure: Figure) -> tuple[Colour, Colour, Colour]:
    """Return the colours of a figure's body, details and lines, the prompt's own colours first."""
    entry = figure.entry
    if not figure.colours:
        fill = entry.fill
        return fill, entry.second or mix(fill, WHITE, 62), entry.ink or ink_for(fill)
    wanted = figure.colours[0]
    extra = figure.colours[1] if len(figure.colours) > 1 else None
    if entry.solid:
        ink = wanted if luma(wanted) < 215 else mix(wanted, (120, 130, 150), 32)
        return extra or mix(wanted, WHITE, 68), extra or mix(wanted, WHITE, 76), ink
    same = entry.second == entry.fill
    second = extra or (wanted if same else entry.second or mix(wanted, WHITE, 55))
    if wanted == entry.second and not extra:
        second = mix(wanted, WHITE, 60)
    return wanted, second, ink_for(wanted)


def sprite(figure: Figure, size: int, mirrored: bool = False) -> Image.Image:
    """Paint one copy of a figure, without what is joined to it.

    Parameters:
        figure: what to paint and in which colours.
        size: pixels of the longer side.
        mirrored: whether it looks the other way.

    Returns:
        An RGBA picture cut to the figure's edges.
    """
    size = max(6, size)
    entry = figure.entry
    fill, second, ink = _colours(figure)
    if drawings.has(entry.art):
        picture = drawings.draw(entry.art, size, fill, second, ink)
    elif glyphs.has_glyph(entry.art):
        picture = _coloured(entry, size, fill, second, ink)
    else:
        picture = drawings.draw(drawings.stand_in(entry.kind), size, fill, second, ink)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


def _coloured(entry: LexiconEntry, size: int, fill: Colour, second: Colour, ink: Colour) -> Image.Image:
    shape = glyphs.shape(entry.art, size)
    width, height = shape.ink.size
    picture = Image.new("RGBA", (width, height), (*ink, 0))
    paint = Image.new("RGB", (width, height), fill)
    for band, upper in ((entry.top, True), (entry.foot, False)):
        if band is not None:
            cut = height * band[1] // 100
            paint.paste(band[0], (0, 0, width, cut) if upper else (0, cut, width, height))
    if (entry.foot is None and entry.top is None) or entry.second != entry.fill:
        paint.paste(second, (0, 0), shape.details)
    shade(paint, shape.body)
    paint.paste(ink, (0, 0), shape.ink)
    picture.paste(paint, (0, 0))
    picture.putalpha(ImageChops.lighter(shape.ink, shape.body))
    return picture


def shade(paint: Image.Image, body: Image.Image) -> None:
    """Give a flat colouring some depth, in place.

    Parameters:
        paint: the RGB colouring.
        body: a mask of equal size, white where the thing is.
    """
    width, height = paint.size
    step = max(1, min(width, height) // 16)
    # The rim away from the light: where the shape is, but its copy moved towards the light is not.
    moved = Image.new("L", body.size)
    moved.paste(body, (-step, -step))
    rim = ImageChops.subtract(body, moved).point([value * 56 // 255 for value in range(256)])
    paint.paste((46, 22, 58), (0, 0), rim)
    slope = _SLOPE.resize((width, height)).point([value * 40 // 255 for value in range(256)])
    paint.paste((46, 22, 58), (0, 0), slope)
    glow = _SLOPE.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((width, height))
    paint.paste(WHITE, (0, 0), glow.point([max(0, value - 110) * 46 // 145 for value in range(256)]))
