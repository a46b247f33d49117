"""Working on a picture that is there already: what an edit adds, how a stranger's picture is varied."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageOps, ImageStat

from imgkit.painter import brushes, clusters, lettering, scenery
from imgkit.painter.palette import WHITE, Colour, mix
from imgkit.painter.prompts import Figure, Scene

VEILS: dict[str, tuple[Colour, int]] = {
    "night": ((14, 20, 66), 52),
    "sunset": ((250, 120, 60), 34),
    "dawn": ((255, 190, 170), 30),
    "storm": ((60, 72, 96), 40),
    "autumn": ((226, 140, 50), 28),
    "day": ((255, 250, 220), 22),
}
"""What a time of day does to a finished picture: a colour, and its share in percent."""


def lossless(picture: Image.Image) -> Image.Image:
    """Copy a picture into a mode that can be painted on.

    Parameters:
        picture: a picture of any mode.

    Returns:
        RGB, or RGBA if the picture can be transparent.
    """
    transparent = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    page = picture.convert("RGBA" if transparent else "RGB")
    return page.copy() if page is picture else page


def hole(mask: Image.Image) -> Image.Image:
    """Return where a mask asks for new paint: white where its alpha is below one half."""
    if not mask.has_transparency_data:
        return Image.new("L", mask.size)
    return mask.convert("RGBA").getchannel("A").point([255 if value < 128 else 0 for value in range(256)])


def surroundings(page: Image.Image, area: tuple[int, int, int, int], rng: random.Random) -> Image.Image:
    """Paint a ground for a hole that suits what lies around it, but can be told from it.

    Parameters:
        page: the picture with the hole.
        area: left, top, right and bottom of the hole's box in pixels.
        rng: where the chance comes from.

    Returns:
        An RGB picture as large as the box.
    """
    left, top, right, bottom = area
    edge = max(2, (bottom - top) // 12)
    above = _mean(page, (left, max(0, top - edge), right, max(1, top)))
    below = _mean(page, (left, min(page.height - 1, bottom), right, min(page.height, bottom + edge)))
    tones = []
    for tone in (above, below):
        aim = WHITE if sum(tone) < 420 else (70, 96, 150)
        tones.append(mix(tone, aim, rng.randint(30, 38)))
    patch = brushes.gradient((right - left, bottom - top), tones)
    size = patch.size
    brushes.glow(patch, (size[0] // 2, size[1] // 2), (size[0] * 6 // 10, size[1] * 6 // 10), WHITE, 38)
    return patch


def _mean(page: Image.Image, box: tuple[int, int, int, int]) -> Colour:
    box = (box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1))
    red, green, blue = (round(value) for value in ImageStat.Stat(page.convert("RGB").crop(box)).mean)
    return red, green, blue


def add(page: Image.Image, scene: Scene, prompt: str, rng: random.Random) -> None:
    """Add what a prompt names to a picture, in place.

    Things to wear go to the upper middle, other things below; without a thing, the time of day, the
    weather or a colour changes the whole picture; failing that the prompt is written on it.

    Parameters:
        page: RGB or RGBA.
        scene: the prompt as understood.
        prompt: the prompt itself.
        rng: where the chance comes from.
    """
    figures = _flat(scene.figures)
    if not figures:
        _retouch(page, scene, prompt, rng)
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
            cut = clusters.cluster(figure, size, rng.random() < 0.5)
            shift = (2 * index - count + 1) * size // 2
            left = min(max(0, width * x // 100 + shift - cut.width // 2), max(0, width - cut.width))
            _stick(page, cut, (left, max(0, height * y // 100 - cut.height)))


def _flat(figures: list[Figure]) -> list[Figure]:
    """List the things of an edit; of "a cat wearing a hat" only the hat is new."""
    wearables = [other for figure in figures for link, other in figure.joined if link == "wear"]
    return wearables or figures[:5]


def _stick(page: Image.Image, cut: Image.Image, at: tuple[int, int]) -> None:
    width = max(1, max(cut.size) // 70)
    page.paste((255, 255, 255), (at[0] - width, at[1] - width), clusters.rim(cut, width))
    page.paste(cut, at, cut)
    if page.mode == "RGBA":
        solid = Image.new("L", page.size)
        solid.paste(clusters.rim(cut, width), (at[0] - width, at[1] - width))
        page.putalpha(ImageChops.lighter(page.getchannel("A"), solid))


def _retouch(page: Image.Image, scene: Scene, prompt: str, rng: random.Random) -> None:
    done = False
    if scene.time in VEILS:
        colour, percent = VEILS[scene.time]
        _veil(page, colour, percent)
        done = True
    if scene.weather or scene.place == "snow":
        scenery.weather(page, scenery.Setting("meadow", "day", scene.weather or "snow"), rng)
        done = True
    if scene.colours and not done:
        _veil(page, scene.colours[0], 42)
        done = True
    if not done:
        lettering.caption(page, prompt)


def _veil(page: Image.Image, colour: Colour, percent: int) -> None:
    page.paste(colour, (0, 0, *page.size), Image.new("L", page.size, 255 * percent // 100))


def transformed(picture: Image.Image, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Vary a stranger's picture: cropped, perhaps mirrored, its hue and tone moved a little.

    Parameters:
        picture: RGB or RGBA.
        size: width and height of the result in pixels.
        rng: where the chance comes from.

    Returns:
        A picture of the same mode.
    """
    page = ImageOps.fit(picture, size, Image.Resampling.LANCZOS) if picture.size != size else picture
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


def stroke_of_foam(width: int, height: int) -> Image.Image:
    """Draw a rounded stroke of foam.

    Parameters:
        width: pixels across.
        height: pixels down.

    Returns:
        An L mask.
    """
    mask = Image.new("L", (max(1, width) * 2, max(1, height) * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius=height, fill=130)
    return mask.reduce(2)
