"""The entry points of the painter: paint an image from a prompt, edit an image, vary an image."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from imgkit.painter import clusters, glyphs, layout, lettering, prompts, repaint, scenery
from imgkit.painter.brushes import paint_shadow

MISSING_FONTS_WARNING = (
    "The painter's fonts are not installed, so the offline backend paints simple shapes. "
    "Run: pip install 'imgkit-service[painter]'"
)

MIN_EDGE_PX = 16
"""Smallest edge, in pixels, of an image with a setting."""

CutOutCache = dict[tuple[int, int, bool], Image.Image]
"""Cut-outs painted for an image, by figure identity, size in pixels and direction."""


@dataclass(frozen=True, slots=True)
class Brief:
    """The complete input of a painting: equal briefs give equal pixels on every machine.

    Attributes:
        prompt: the subject in words.
        width: pixels across, 16 to 3840.
        height: pixels down, 16 to 3840.
        seed: hexadecimal digest that selects one of many possible paintings.
        transparent: whether the figures stand on a transparent background, without a setting.

    Example:
        >>> Brief("a red fox in the snow", width=320, height=240, seed="5eed").transparent
        False
    """

    prompt: str
    width: int
    height: int
    seed: str
    transparent: bool = False


def paint_image(brief: Brief) -> Image.Image:
    """Paint an image from a brief.

    Args:
        brief: the prompt, the size and the seed.

    Returns:
        An RGB image, or an RGBA image if the brief asks for a transparent background.

    Example:
        >>> paint_image(Brief("a red fox in the snow", width=64, height=48, seed="5eed")).size
        (64, 48)
    """
    page = _paint_brief(brief, random.Random(brief.seed), mirrored=False)
    lettering.write_mark(page)
    return page


def edit_image(brief: Brief, image: Image.Image, mask: Image.Image | None) -> Image.Image:
    """Paint the prompt of a brief into an image.

    Args:
        brief: the prompt, the size of the result and the seed.
        image: the image to edit; it is first resized to the size of the brief.
        mask: an image of the same size as `image`. Pixels with an alpha below 128 are repainted, all
            others stay as they are. None adds the things in the prompt to the whole image.

    Returns:
        An RGB image, or an RGBA image if `image` has transparency.

    Raises:
        ValueError: the sizes of mask and image differ.

    Example:
        >>> otter = paint_image(Brief("a sea otter", width=64, height=64, seed="5eed"))
        >>> edit_image(Brief("wearing a beret", width=64, height=64, seed="5eed"), otter, None).mode
        'RGB'
    """
    if mask is not None and mask.size != image.size:
        raise ValueError(
            f"The mask is {mask.width}x{mask.height}, the image {image.width}x{image.height}. "
            "Both must have the same size."
        )
    page = _resize_image(repaint.to_paintable(image), (brief.width, brief.height))
    rng = random.Random(brief.seed)
    if mask is None:
        repaint.apply_prompt(page, prompts.parse_prompt(brief.prompt), brief.prompt, rng)
        lettering.write_mark(page)
        return page
    hole = _resize_image(repaint.extract_hole(mask), page.size).point(
        [255 if value >= 128 else 0 for value in range(256)]
    )
    area = hole.getbbox()
    if area is None:
        return page
    patch = _paint_patch(brief, page, area, rng)
    free = hole.crop(area)
    lettering.write_mark(patch, free)
    page.paste(patch, area[:2], free)
    return page


def vary_image(brief: Brief, image: Image.Image) -> Image.Image:
    """Paint a variation of an image.

    Args:
        brief: the prompt stored in the image, or ""; the size of the result; the seed.
        image: the image to vary.

    Returns:
        A new painting of the same prompt. Without a prompt: the image, cropped, perhaps mirrored, with
        its hue and lightness shifted.

    Example:
        >>> otter = paint_image(Brief("a sea otter", width=64, height=64, seed="5eed"))
        >>> vary_image(Brief("a sea otter", width=64, height=64, seed="beef"), otter).size
        (64, 64)
    """
    rng = random.Random(brief.seed)
    if brief.prompt:
        page = _paint_brief(brief, rng, mirrored=rng.random() < 0.5)
    else:
        page = repaint.transform_image(repaint.to_paintable(image), (brief.width, brief.height), rng)
    lettering.write_mark(page)
    return page


def font_warnings() -> tuple[str, ...]:
    """Return a warning if the painter's fonts are not installed, otherwise nothing."""
    return () if glyphs.has_fonts() else (MISSING_FONTS_WARNING,)


def _resize_image(page: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image in a size, unchanged if it already has it."""
    return page if page.size == size else page.resize(size, Image.Resampling.LANCZOS)


def _prompt_hue(prompt: str) -> int:
    """Return a hue in degrees that depends on the prompt alone."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[:4], "big") % 360


def _paint_brief(brief: Brief, rng: random.Random, mirrored: bool) -> Image.Image:
    """Paint a brief, without the mark in the corner."""
    scene = prompts.parse_prompt(brief.prompt)
    size = (brief.width, brief.height)
    if not scene.recognised:
        if brief.transparent:
            page = Image.new("RGBA", size, (0, 0, 0, 0))
        else:
            page = scenery.paint_abstract(size, _prompt_hue(brief.prompt), scene.colours, rng)
        lettering.write_caption(page, brief.prompt)
        return page
    setting = scenery.Setting("sky") if brief.transparent else layout.choose_setting(scene)
    if brief.transparent:
        page = Image.new("RGBA", size, (0, 0, 0, 0))
    else:
        page = scenery.paint_setting(size, setting, rng, busy=bool(scene.figures))
    cache: CutOutCache = {}
    for spot in layout.arrange_figures(scene, size, setting, rng, mirrored):
        _place_figure(page, spot, setting, brief.transparent, cache)
    if not brief.transparent:
        scenery.paint_weather(page, setting, rng)
    elif not scene.figures:
        lettering.write_caption(page, brief.prompt)
    return page


def _paint_cut_out(spot: layout.Spot, cache: CutOutCache) -> Image.Image:
    """Paint the figure of a spot, once for all spots that look the same."""
    key = (id(spot.figure), spot.size, spot.mirrored)
    if key not in cache:
        cache[key] = clusters.paint_cluster(spot.figure, spot.size, spot.mirrored)
    return cache[key]


def _place_figure(
    page: Image.Image, spot: layout.Spot, setting: scenery.Setting, transparent: bool, cache: CutOutCache
) -> None:
    """Paint a copy of a figure at its spot, with its shadow or the water around it."""
    cut_out = _paint_cut_out(spot, cache)
    room = min(page.width * 98, (spot.foot if spot.standing else page.height) * 96) // 100
    if max(cut_out.height - room, cut_out.width - page.width) > 0:
        smaller = min(room * 100 // cut_out.height, page.width * 100 // cut_out.width)
        cut_out = clusters.paint_cluster(spot.figure, spot.size * smaller // 100, spot.mirrored)
    left = max(min(spot.x - cut_out.width // 2, page.width - cut_out.width), 0)
    top = max(spot.foot - cut_out.height, 0)
    if transparent:
        page.alpha_composite(cut_out.crop((0, 0, page.width, page.height)), (left, top))
        return
    water = page.copy() if spot.afloat else None
    if spot.standing and not spot.afloat:
        paint_shadow(
            page,
            (left + cut_out.width // 2, spot.foot - cut_out.height // 60),
            (cut_out.width * 54 // 100, max(2, cut_out.width * 9 // 100)),
        )
    if scenery.is_dark(setting):
        width = max(1, spot.size // 130)
        page.paste((168, 182, 226), (left - width, top - width), clusters.build_outline_mask(cut_out, width))
    page.paste(cut_out, (left, top), cut_out)
    if water is not None:
        _cover_with_water(
            page, water, (left, top + cut_out.height * 86 // 100, left + cut_out.width, top + cut_out.height)
        )


def _cover_with_water(page: Image.Image, water: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Cover the lowest part of a floating figure with the water in front of it.

    Args:
        page: the RGB image to paint on.
        water: the same image before the figure was painted.
        box: left, top, right and bottom of the covered part, in pixels.
    """
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
        repaint.build_foam_mask(right - left - 2 * inset, foam),
    )


def _paint_patch(
    brief: Brief, page: Image.Image, area: tuple[int, int, int, int], rng: random.Random
) -> Image.Image:
    """Paint the content of a mask's hole, in the size of the hole's bounding box."""
    size = (area[2] - area[0], area[3] - area[1])
    scene = prompts.parse_prompt(brief.prompt)
    if scene.figures and not (scene.place or scene.time or scene.weather):
        patch = repaint.paint_surroundings(page, area, rng)
        setting = scenery.Setting("sky")
        for spot in layout.arrange_figures(scene, size, setting, rng):
            _place_figure(patch, spot, setting, transparent=False, cache={})
        return patch
    # A hole may be smaller than any image, so paint the smallest image and crop it.
    smaller = Brief(brief.prompt, max(MIN_EDGE_PX, size[0]), max(MIN_EDGE_PX, size[1]), brief.seed)
    return _paint_brief(smaller, rng, mirrored=False).crop((0, 0, *size))
