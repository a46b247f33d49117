"""Sprites: edge-outs of single figures, filled with colour, shaded and outlined."""

from __future__ import annotations

from PIL import Image, ImageChops

from imgkit.painter import drawings, glyphs
from imgkit.painter.lexicon import LexiconEntry
from imgkit.painter.palette import WHITE, Colour, choose_ink, luma, mix
from imgkit.painter.prompts import Figure

_SLOPE_MASK = Image.linear_gradient("L")


def _choose_colours(figure: Figure) -> tuple[Colour, Colour, Colour]:
    """Return the colours of a figure's body, details and lines; the prompt's colours come first."""
    entry = figure.entry
    if not figure.colours:
        fill = entry.fill
        return fill, entry.second or mix(fill, WHITE, 62), entry.ink or choose_ink(fill)
    main = figure.colours[0]
    extra = figure.colours[1] if len(figure.colours) > 1 else None
    if entry.solid:
        ink = main if luma(main) < 215 else mix(main, (120, 130, 150), 32)
        return extra or mix(main, WHITE, 68), extra or mix(main, WHITE, 76), ink
    is_plain = entry.second == entry.fill
    second = extra or (main if is_plain else entry.second or mix(main, WHITE, 55))
    if main == entry.second and not extra:
        second = mix(main, WHITE, 60)
    return main, second, choose_ink(main)


def paint_sprite(figure: Figure, size: int, mirrored: bool = False) -> Image.Image:
    """Paint a copy of a figure without its attachments.

    Args:
        figure: the figure with its colours.
        size: length of the longer side, in pixels.
        mirrored: whether to flip it left to right.

    Returns:
        An RGBA image, cropped to the figure's edges.
    """
    size = max(6, size)
    entry = figure.entry
    fill, second, ink = _choose_colours(figure)
    if drawings.has_drawing(entry.art):
        image = drawings.render_drawing(entry.art, size, fill, second, ink)
    elif glyphs.has_glyph(entry.art):
        image = _paint_glyph(entry, size, fill, second, ink)
    else:
        image = drawings.render_drawing(drawings.find_stand_in(entry.kind), size, fill, second, ink)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def _paint_glyph(entry: LexiconEntry, size: int, fill: Colour, second: Colour, ink: Colour) -> Image.Image:
    """Paint the glyph of an entry: fill, details, shading and lines."""
    shape = glyphs.draw_glyph_masks(entry.art, size)
    width, height = shape.ink.size
    image = Image.new("RGBA", (width, height), (*ink, 0))
    paint = Image.new("RGB", (width, height), fill)
    for band, upper in ((entry.top, True), (entry.foot, False)):
        if band is not None:
            edge = height * band[1] // 100
            paint.paste(band[0], (0, 0, width, edge) if upper else (0, edge, width, height))
    if (entry.foot is None and entry.top is None) or entry.second != entry.fill:
        paint.paste(second, (0, 0), shape.details)
    add_shading(paint, shape.body)
    paint.paste(ink, (0, 0), shape.ink)
    image.paste(paint, (0, 0))
    image.putalpha(ImageChops.lighter(shape.ink, shape.body))
    return image


def add_shading(paint: Image.Image, body: Image.Image) -> None:
    """Add shading to a flat colouring, in place.

    Args:
        paint: the RGB colouring.
        body: an L mask of equal size, white where the figure is.
    """
    width, height = paint.size
    step = max(1, min(width, height) // 16)
    # The shaded rim is the body minus a copy of the body shifted towards the light.
    moved = Image.new("L", body.size)
    moved.paste(body, (-step, -step))
    rim = ImageChops.subtract(body, moved).point([value * 56 // 255 for value in range(256)])
    paint.paste((46, 22, 58), (0, 0), rim)
    slope = _SLOPE_MASK.resize((width, height)).point([value * 40 // 255 for value in range(256)])
    paint.paste((46, 22, 58), (0, 0), slope)
    glow = _SLOPE_MASK.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((width, height))
    paint.paste(WHITE, (0, 0), glow.point([max(0, value - 110) * 46 // 145 for value in range(256)]))
