"""Validation of masks and conversion to a provider's polarity."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import PIL.Image
import pytest

from imgkit import masks
from imgkit.errors import ConfigurationError
from imgkit.images.inputs import open_input
from imgkit.images.mask_pixels import check_mask, convert_polarity
from tests.support.openings import cleanup
from tests.support.pictures import noise, picture
from tests.support.rasters import bomb, hole, opened, refusal, saved

__all__ = ["cleanup"]  # a fixture, used by name

HOLED = masks.from_box((8, 8), (2, 2, 3, 3))


def turned(size: tuple[int, int]) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(PIL.Image.new("RGB", size), "JPEG", exif=exif)


def large() -> bytes:
    mask = opened(noise(3, 1300)).convert("RGBA")
    mask.putalpha(0)
    return saved(mask)


UNFIT: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "jpeg": (lambda: (picture("JPEG"), picture()), "imgkit mask --from-white drawing.png --like photo.png"),
    "webp": (lambda: (picture("WEBP"), picture()), "is a webp"),
    "no alpha": (lambda: (picture(), picture()), "with `imgkit mask --from-white"),
    "opaque": (lambda: (picture(mode="RGBA"), picture()), "--invert -o inverted.png"),
    "nearly opaque": (lambda: (PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 200)), picture()), "is opaque"),
    "opaque palette": (
        lambda: (saved(PIL.Image.new("P", (8, 8), 1), transparency=0), picture()), "opaque everywhere"
    ),
    "other size": (
        lambda: (HOLED, picture(size=(16, 16))), "the image 16x16. Resize the mask: `imgkit mask --from"
    ),
    "other shape": (
        lambda: (HOLED, picture(size=(16, 8))), "is another shape. Draw it over the image: `imgkit mask --box"
    ),
    "turned": (lambda: (masks.from_box((4, 6), (0, 0, 1, 1)), turned((6, 4))), "exif_transpose"),
    "animated": (lambda: (apng(), picture()), "is an animated PNG"),
    "too large": (lambda: (large(), noise(3, 1300)), "Write it without its colours"),
}  # fmt: skip


def apng() -> bytes:
    one, two = (opened(masks.from_box((8, 8), (at, 0, 1, 1))) for at in (0, 4))
    return saved(one, save_all=True, append_images=[two])


@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_masks(kind: str, cleanup: ExitStack) -> None:
    """Explains each problem with its remedy; `masks.check` returns the same text."""
    (mask, image), text = UNFIT[kind][0](), UNFIT[kind][1]
    fields = refusal(
        lambda: check_mask(open_input(mask, "mask", cleanup), open_input(image, "image", cleanup))
    )
    assert list(fields) == ["mask"]
    assert text in fields["mask"]
    assert " ".join(masks.check(mask, image)) == fields["mask"]


def test_remedies_work(cleanup: ExitStack) -> None:
    """Makes a fitting mask with the remedies of the messages."""
    photo = picture(size=(16, 16))
    assert masks.check(masks.resize(HOLED, photo), photo) == []
    assert masks.union(large()) == masks.from_box((1300, 1300), (0, 0, 1300, 1300))
    (doubt,) = masks.check(masks.invert(picture(mode="RGBA")), picture())
    assert "transparent everywhere" in doubt


def test_all_transparent_is_a_doubt(cleanup: ExitStack) -> None:
    """Warns about a mask that is transparent everywhere."""
    whole = masks.from_box((8, 8), (0, 0, 8, 8))
    (warning,) = check_mask(open_input(whole, "mask", cleanup), open_input(picture(), "image", cleanup))
    assert warning.startswith("mask: The mask is transparent everywhere")
    assert len(masks.check(whole, picture())) == 1


def test_a_bomb_is_not_decoded(cleanup: ExitStack) -> None:
    """Rejects an oversized header without decoding any pixels."""
    mask, image = (open_input(bomb(50_000, 2000), field, cleanup) for field in ("mask", "image"))
    assert "too many to be decoded" in refusal(lambda: check_mask(mask, image))["mask"]


def test_custom_limit(cleanup: ExitStack) -> None:
    """Accepts a mask of exactly `max_bytes` and rejects a larger mask."""
    mask, image = open_input(HOLED, "mask", cleanup), open_input(picture(), "image", cleanup)
    assert check_mask(mask, image, max_bytes=len(HOLED)) == []
    assert "at most" in refusal(lambda: check_mask(mask, image, max_bytes=len(HOLED) - 1))["mask"]


def test_polarity(cleanup: ExitStack) -> None:
    """Converts a mask to white for a provider that marks changeable pixels with white."""
    mask = open_input(HOLED, "mask", cleanup)
    assert convert_polarity(mask, "transparent", cleanup) is mask
    white = convert_polarity(mask, "white", cleanup)
    assert white.read() == masks.to_white(HOLED)
    assert (white.field, white.kind, white.length) == ("mask", mask.kind, len(white.read()))
    assert hole(HOLED) == {
        (at % 8, at // 8) for at, value in enumerate(opened(white.read()).tobytes()) if value == 255
    }
    assert masks.from_white(white.read()) == HOLED
    black = convert_polarity(mask, "black", cleanup)
    assert hole(HOLED) == {
        (at % 8, at // 8) for at, value in enumerate(opened(black.read()).tobytes()) if not value
    }
    with pytest.raises(ConfigurationError, match="'transparent', 'white' or 'black'"):
        convert_polarity(mask, "pink", cleanup)


def test_hard_masks(cleanup: ExitStack) -> None:
    """Makes half transparent pixels black or white for an API without grey, and refuses a faint hole."""
    shades = PIL.Image.new("LA", (4, 1), (0, 255))
    for column, opacity in enumerate((0, 100, 150, 255)):
        shades.putpixel((column, 0), (0, opacity))
    found = {}
    for polarity in ("white", "black"):
        mask = open_input(shades, "mask", cleanup)
        found[polarity] = opened(convert_polarity(mask, polarity, cleanup, hard=True).read()).tobytes()
    assert found == {"white": bytes((255, 255, 0, 0)), "black": bytes((0, 0, 255, 255))}
    shades.putalpha(200)
    mask = open_input(shades, "mask", cleanup)
    problem = refusal(lambda: convert_polarity(mask, "white", cleanup, hard=True))
    assert "No pixel of the mask is more transparent than opaque" in problem["mask"]
