"""The offline backend's painter: pictures drawn from a prompt and a seed, the same on every machine."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from imgkit.painter import abstract, clusters, glyphs, layout, lettering, prompts, repaint, scenery
from imgkit.painter.brushes import shadow
from imgkit.painter.pictures import encode, prompt_of

__all__ = ["Brief", "edit", "encode", "notices", "paint", "prompt_of", "vary"]

MISSING_FONTS = (
    "The fonts of the painter are not installed, so the offline backend paints simple shapes: "
    "pip install 'imgkit-service[painter]'"
)


SMALLEST = 16
"""Pixels a side of the smallest picture that settings can be painted on."""

Cuts = dict[tuple[int, int, bool], Image.Image]
"""Figures already painted for one picture: by identity, size in pixels and direction."""


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything a painting depends on.

    Parameters:
        prompt: what to paint.
        width: pixels across, 16..3840.
        height: pixels down, 16..3840.
        seed: a hexadecimal digest of all that may make a difference.
        transparent: whether the background stays transparent instead of becoming a setting.
    """

    prompt: str
    width: int
    height: int
    seed: str
    transparent: bool = False


def paint(brief: Brief) -> Image.Image:
    """Paint a picture of a prompt.

    Parameters:
        brief: what to paint, how large, and from which seed.

    Returns:
        An RGB picture, or an RGBA one if the brief asks for a transparent background.
    """
    page = _painting(brief, random.Random(brief.seed), mirrored=False)
    lettering.mark(page)
    return page


def edit(brief: Brief, picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """Change a picture as a prompt says.

    Parameters:
        brief: what to paint into it, the size of the result, and the seed.
        picture: the picture to change; resized first if it has another size than the brief.
        mask: a picture of the same size as `picture`; where its alpha is below 128 is painted anew and
            nothing else changes. None adds what the prompt names to the whole picture.

    Returns:
        An RGB picture, or an RGBA one if `picture` has transparency.

    Raises:
        ValueError: the mask is of another size than the picture.
    """
    if mask is not None and mask.size != picture.size:
        raise ValueError(
            f"the mask is {mask.width}x{mask.height}, the picture {picture.width}x{picture.height}; "
            "both must be of one size"
        )
    page = _resized(repaint.lossless(picture), (brief.width, brief.height))
    rng = random.Random(brief.seed)
    if mask is None:
        repaint.add(page, prompts.read(brief.prompt), brief.prompt, rng)
        lettering.mark(page)
        return page
    hole = _resized(repaint.hole(mask), page.size).point([255 if value >= 128 else 0 for value in range(256)])
    area = hole.getbbox()
    if area is None:
        return page
    patch = _patch(brief, page, area, rng)
    free = hole.crop(area)
    lettering.mark(patch, free)
    page.paste(patch, area[:2], free)
    return page


def vary(brief: Brief, picture: Image.Image) -> Image.Image:
    """Paint a variation of a picture.

    Parameters:
        brief: the prompt that the picture was painted for ("" for a stranger's picture), the size of
            the result, and the seed.
        picture: the picture to vary.

    Returns:
        Another painting of the same things, or the stranger's picture turned, cropped and retoned.
    """
    rng = random.Random(brief.seed)
    if brief.prompt:
        page = _painting(brief, rng, mirrored=rng.random() < 0.5)
    else:
        page = repaint.transformed(repaint.lossless(picture), (brief.width, brief.height), rng)
    lettering.mark(page)
    return page


def notices() -> tuple[str, ...]:
    """Return what the user should know about this painter: nothing, or that its fonts are missing."""
    return () if glyphs.available() else (MISSING_FONTS,)


def _resized(page: Image.Image, size: tuple[int, int]) -> Image.Image:
    return page if page.size == size else page.resize(size, Image.Resampling.LANCZOS)


def _hue_of(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[:4], "big") % 360


def _painting(brief: Brief, rng: random.Random, mirrored: bool) -> Image.Image:
    """Paint a brief without the mark."""
    scene = prompts.read(brief.prompt)
    size = (brief.width, brief.height)
    if not scene.recognised:
        if brief.transparent:
            page = Image.new("RGBA", size, (0, 0, 0, 0))
        else:
            page = abstract.paint(size, _hue_of(brief.prompt), scene.colours, rng)
        lettering.caption(page, brief.prompt)
        return page
    setting = scenery.Setting("sky") if brief.transparent else layout.setting_of(scene)
    if brief.transparent:
        page = Image.new("RGBA", size, (0, 0, 0, 0))
    else:
        page = scenery.paint(size, setting, rng, busy=bool(scene.figures))
    cuts: Cuts = {}
    for spot in layout.arrange(scene, size, setting, rng, mirrored):
        _put(page, spot, setting, brief.transparent, cuts)
    if not brief.transparent:
        scenery.weather(page, setting, rng)
    elif not scene.figures:
        lettering.caption(page, brief.prompt)
    return page


def _cut_out(spot: layout.Spot, cuts: Cuts) -> Image.Image:
    """Paint what goes to a spot, once for all spots that look the same."""
    key = (id(spot.figure), spot.size, spot.mirrored)
    if key not in cuts:
        cuts[key] = clusters.cluster(spot.figure, spot.size, spot.mirrored)
    return cuts[key]


def _put(page: Image.Image, spot: layout.Spot, setting: scenery.Setting, bare: bool, cuts: Cuts) -> None:
    """Paint one copy of a figure at its spot, with its shadow or the water round it."""
    cut = _cut_out(spot, cuts)
    room = min(page.width * 98, (spot.foot if spot.standing else page.height) * 96) // 100
    if max(cut.height - room, cut.width - page.width) > 0:
        smaller = min(room * 100 // cut.height, page.width * 100 // cut.width)
        cut = clusters.cluster(spot.figure, spot.size * smaller // 100, spot.mirrored)
    left = max(min(spot.x - cut.width // 2, page.width - cut.width), 0)
    top = max(spot.foot - cut.height, 0)
    if bare:
        page.alpha_composite(cut.crop((0, 0, page.width, page.height)), (left, top))
        return
    water = page.copy() if spot.afloat else None
    if spot.standing and not spot.afloat:
        shadow(
            page,
            (left + cut.width // 2, spot.foot - cut.height // 60),
            (cut.width * 54 // 100, max(2, cut.width * 9 // 100)),
        )
    if scenery.is_dark(setting):
        width = max(1, spot.size // 130)
        page.paste((168, 182, 226), (left - width, top - width), clusters.rim(cut, width))
    page.paste(cut, (left, top), cut)
    if water is not None:
        _sink(page, water, (left, top + cut.height * 86 // 100, left + cut.width, top + cut.height))


def _sink(page: Image.Image, water: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Let the water before a thing cover its lowest part."""
    left, top, right, bottom = box[0] - 4, box[1], box[2] + 4, min(page.height, box[3] + 4)
    if bottom <= top:
        return
    veil = Image.linear_gradient("L").resize((right - left, bottom - top))
    veil = veil.point([min(255, 120 + value * 2) for value in range(256)])
    page.paste(water.crop((left, top, right, bottom)), (left, top), veil)
    foam, inset = max(2, (bottom - top) // 8), (right - left) // 9
    page.paste(
        (240, 250, 255),
        (left + inset, top - foam // 2),
        repaint.stroke_of_foam(right - left - 2 * inset, foam),
    )


def _patch(
    brief: Brief, page: Image.Image, area: tuple[int, int, int, int], rng: random.Random
) -> Image.Image:
    """Paint what goes into the hole of a mask, as large as the hole's box."""
    size = (area[2] - area[0], area[3] - area[1])
    scene = prompts.read(brief.prompt)
    if scene.figures and not (scene.place or scene.time or scene.weather):
        patch = repaint.surroundings(page, area, rng)
        setting = scenery.Setting("sky")
        for spot in layout.arrange(scene, size, setting, rng):
            _put(patch, spot, setting, bare=False, cuts={})
        return patch
    # A hole may be smaller than any picture: then paint the smallest picture and use a part of it.
    smaller = Brief(brief.prompt, max(SMALLEST, size[0]), max(SMALLEST, size[1]), brief.seed)
    return _painting(smaller, rng, mirrored=False).crop((0, 0, *size))
