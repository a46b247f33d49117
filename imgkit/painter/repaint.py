"""Changes to an existing image: additions of an edit, and variations without a known prompt."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageOps, ImageStat

from imgkit.painter import brushes, clusters, lettering, scenery
from imgkit.painter.palette import WHITE, Colour, mix
from imgkit.painter.prompts import Figure, Scene

TIME_VEILS: dict[str, tuple[Colour, int]] = {
    "night": ((14, 20, 66), 52),
    "sunset": ((250, 120, 60), 34),
    "dawn": ((255, 190, 170), 30),
    "storm": ((60, 72, 96), 40),
    "autumn": ((226, 140, 50), 28),
    "day": ((255, 250, 220), 22),
}
"""Veil that a time of day lays over a finished image: a colour, and its opacity in percent."""


def to_paintable(image: Image.Image) -> Image.Image:
    """Copy an image into a mode that the brushes can paint on.

    Args:
        image: an image of any mode.

    Returns:
        An RGB image, or RGBA if the mode of the image allows transparency.
    """
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    page = image.convert("RGBA" if transparent else "RGB")
    return page.copy() if page is image else page


def extract_hole(mask: Image.Image) -> Image.Image:
    """Return the hole of a mask as an L mask, white where the alpha of the mask is below 128."""
    if not mask.has_transparency_data:
        return Image.new("L", mask.size)
    return mask.convert("RGBA").getchannel("A").point([255 if value < 128 else 0 for value in range(256)])


def paint_surroundings(page: Image.Image, area: tuple[int, int, int, int], rng: random.Random) -> Image.Image:
    """Paint the ground of a hole, similar to its surroundings but distinguishable.

    Args:
        page: the image with the hole.
        area: left, top, right and bottom of the hole's bounding box, in pixels.
        rng: the source of randomness.

    Returns:
        An RGB image of the box's size.
    """
    left, top, right, bottom = area
    edge = max(2, (bottom - top) // 12)
    above = _mean_colour(page, (left, max(0, top - edge), right, max(1, top)))
    below = _mean_colour(page, (left, min(page.height - 1, bottom), right, min(page.height, bottom + edge)))
    tones = []
    for tone in (above, below):
        aim = WHITE if sum(tone) < 420 else (70, 96, 150)
        tones.append(mix(tone, aim, rng.randint(30, 38)))
    patch = brushes.paint_gradient((right - left, bottom - top), tones)
    size = patch.size
    brushes.paint_glow(patch, (size[0] // 2, size[1] // 2), (size[0] * 6 // 10, size[1] * 6 // 10), WHITE, 38)
    return patch


def _mean_colour(page: Image.Image, box: tuple[int, int, int, int]) -> Colour:
    """Return the mean colour of a box, at least a pixel large."""
    box = (box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1))
    red, green, blue = (round(value) for value in ImageStat.Stat(page.convert("RGB").crop(box)).mean)
    return red, green, blue


def apply_prompt(page: Image.Image, scene: Scene, prompt: str, rng: random.Random) -> None:
    """Add the things in a prompt to an image, in place.

    Clothes go to the upper middle, other things below. Without a thing, the time of day, the weather
    or a colour changes the whole image. Without these, the prompt becomes a caption.

    Args:
        page: RGB or RGBA.
        scene: the parsed prompt.
        prompt: the prompt itself.
        rng: the source of randomness.
    """
    figures = _list_new_figures(scene.figures)
    if not figures:
        _retouch_image(page, scene, prompt, rng)
        return
    width, height = page.size
    side = min(width, height)
    beside = [figure for figure in figures if figure.entry.at not in ("head", "face", "neck")]
    slots = [(74, 88), (24, 88), (50, 90), (80, 44), (18, 44)]
    if rng.random() < 0.5:
        slots = [(100 - x, y) for x, y in slots]
    for figure in figures:
        count = min(6, figure.count)
        if figure in beside:
            x, y = slots[beside.index(figure) % len(slots)]
            size = side * (38 if len(beside) == 1 else 30) // 100
            y = 34 if figure.entry.at == "sky" else y
        else:
            x, y = 50 + rng.randint(-4, 4), {"head": 36, "face": 44, "neck": 66}[figure.entry.at]
            size = side * {"head": 40, "face": 32, "neck": 30}[figure.entry.at] // 100
        size = size * 2 // (count + 1)
        for index in range(count):
            cut_out = clusters.paint_cluster(figure, size, rng.random() < 0.5)
            shift = (2 * index - count + 1) * size // 2
            left = min(max(0, width * x // 100 + shift - cut_out.width // 2), max(0, width - cut_out.width))
            _paste_sticker(page, cut_out, (left, max(0, height * y // 100 - cut_out.height)))


def _list_new_figures(figures: list[Figure]) -> list[Figure]:
    """Return the figures that an edit adds; of "a cat wearing a hat" only the hat."""
    wearables = [other for figure in figures for link, other in figure.attachments if link == "wear"]
    return wearables or figures[:5]


def _paste_sticker(page: Image.Image, cut_out: Image.Image, at: tuple[int, int]) -> None:
    """Paste a cut-out with a white edge."""
    width = max(1, max(cut_out.size) // 70)
    page.paste((255, 255, 255), (at[0] - width, at[1] - width), clusters.build_outline_mask(cut_out, width))
    page.paste(cut_out, at, cut_out)
    if page.mode == "RGBA":
        solid = Image.new("L", page.size)
        solid.paste(clusters.build_outline_mask(cut_out, width), (at[0] - width, at[1] - width))
        page.putalpha(ImageChops.lighter(page.getchannel("A"), solid))


def _retouch_image(page: Image.Image, scene: Scene, prompt: str, rng: random.Random) -> None:
    """Change the mood of the whole image: time of day, weather or colour; otherwise write a caption."""
    done = False
    if scene.time in TIME_VEILS:
        colour, percent = TIME_VEILS[scene.time]
        _paint_veil(page, colour, percent)
        done = True
    if scene.weather or scene.place == "snow":
        scenery.paint_weather(page, scenery.Setting("meadow", "day", scene.weather or "snow"), rng)
        done = True
    if scene.colours and not done:
        _paint_veil(page, scene.colours[0], 42)
        done = True
    if not done:
        lettering.write_caption(page, prompt)


def _paint_veil(page: Image.Image, colour: Colour, percent: int) -> None:
    """Blend a colour over the whole image."""
    page.paste(colour, (0, 0, *page.size), Image.new("L", page.size, 255 * percent // 100))


def transform_image(image: Image.Image, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Vary an image of unknown content: crop it, perhaps mirror it, shift its hue and lightness.

    Args:
        image: RGB or RGBA.
        size: width and height of the result, in pixels.
        rng: the source of randomness.

    Returns:
        An image of the same mode.
    """
    page = ImageOps.fit(image, size, Image.Resampling.LANCZOS) if image.size != size else image
    width, height = size
    keep = rng.randint(72, 92)
    wide, tall = max(1, width * keep // 100), max(1, height * keep // 100)
    left, top = rng.randint(0, width - wide), rng.randint(0, height - tall)
    page = page.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall))
    if rng.random() < 0.7:
        page = page.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = page.getchannel("A") if page.mode == "RGBA" else None
    bands = page.convert("RGB").convert("HSV").split()
    turn, tone = rng.choice((-1, 1)) * rng.randint(5, 12), rng.choice((-1, 1)) * rng.randint(12, 30)
    hue = bands[0].point([(value + turn) % 256 for value in range(256)])
    light = bands[2].point(
        [min(255, max(0, value + tone * (255 - abs(value - 128)) // 200)) for value in range(256)]
    )
    toned = Image.merge("HSV", (hue, bands[1], light)).convert("RGB")
    if alpha is not None:
        toned.putalpha(alpha)
    return toned


def build_foam_mask(width: int, height: int) -> Image.Image:
    """Build the mask of a rounded stroke of foam.

    Args:
        width: pixels across.
        height: pixels down.

    Returns:
        An L mask.
    """
    mask = Image.new("L", (max(1, width) * 2, max(1, height) * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius=height, fill=130)
    return mask.reduce(2)
