"""Fitting an image together with its mask."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import PIL.Image
import pytest

from imgkit import masks
from imgkit.images.fitting import ImageNeeds, fit_image_and_mask
from imgkit.images.inputs import ImageFile, open_file
from tests.support.openings import cleanup
from tests.support.pictures import noise, picture
from tests.support.rasters import (
    CORNERS,
    alpha,
    animated,
    exif,
    hole,
    opened,
    refusal,
    saved,
    two,
)

__all__ = ["cleanup"]  # a fixture, used by name

ANY = ImageNeeds()
PNG_ONLY = ImageNeeds(formats=frozenset({"png"}))
SQUARE = ImageNeeds(formats=frozenset({"png"}), square=True)


def pair(
    image: Any, mask: Any, cleanup: ExitStack, needs: ImageNeeds = ANY, mask_needs: ImageNeeds = PNG_ONLY
) -> tuple[ImageFile, ImageFile, list[str]]:
    fitted, changed_mask, changes = fit_image_and_mask(
        open_file(image, "image", cleanup), open_file(mask, "mask", cleanup), needs, mask_needs, cleanup
    )
    assert (fitted.kind.width, fitted.kind.height) == (changed_mask.kind.width, changed_mask.kind.height)
    return fitted, changed_mask, changes


@pytest.mark.parametrize("orientation", range(2, 9))
def test_mask_of_the_stored_image(orientation: int, cleanup: ExitStack) -> None:
    """Rotates a mask of the stored pixels with the image."""
    stored = PIL.Image.new("RGBA", CORNERS.size, "black")
    stored.putpixel((0, 0), (0, 0, 0, 0))
    image, mask, _ = pair(exif(orientation, CORNERS, "PNG"), saved(stored), cleanup)
    (at,) = hole(mask.read())
    assert opened(image.read()).getpixel(at) == 10


def test_mask_of_the_displayed_image(cleanup: ExitStack) -> None:
    """Does not rotate a mask that was drawn over the displayed image."""
    mask = masks.from_box((2, 3), (1, 2, 1, 1))
    _, changed_mask, _ = pair(exif(6, CORNERS, "PNG"), mask, cleanup)
    assert hole(changed_mask.read()) == {(1, 2)}


def test_a_fitting_pair_stays_unchanged(cleanup: ExitStack) -> None:
    """Keeps a fitting image and its mask byte for byte."""
    image, mask = saved(two()), masks.from_box((32, 16), (1, 1, 4, 4))
    fitted, changed_mask, changes = pair(image, mask, cleanup)
    assert (fitted.read(), changed_mask.read(), changes) == (image, mask, [])


def test_padding_moves_the_mask(cleanup: ExitStack) -> None:
    """Pads the image with transparent pixels and the mask with opaque pixels."""
    fitted, changed_mask, changes = pair(
        saved(two()), masks.from_box((32, 16), (0, 0, 16, 16)), cleanup, SQUARE
    )
    assert hole(changed_mask.read()) == {(x, y) for x in range(16) for y in range(8, 24)}
    page = opened(fitted.read())
    assert page.crop((0, 8, 32, 24)).convert("RGB").tobytes() == two().tobytes()
    assert page.getpixel((5, 7)) == page.getpixel((5, 24)) == (0, 0, 0, 0)
    assert changes == [
        "image: Padded from 32x16 to 32x32 pixels around the image.",
        "mask: Rewritten to match the image.",
    ]


@pytest.mark.parametrize("share", [2, 10, 100])
def test_the_mask_shrinks_with_the_image(share: int, cleanup: ExitStack) -> None:
    """Shrinks the mask in proportion to the image."""
    data = noise(6, 200)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(data) // share)
    _, mask, _ = pair(data, masks.from_box((200, 200), (0, 0, 100, 200)), cleanup, needs)
    assert abs(sum(value == 0 for value in alpha(mask.read())) / len(alpha(mask.read())) - 0.5) < 0.05


def test_a_mask_loses_its_colours(cleanup: ExitStack) -> None:
    """Removes the colours of a mask above the limit."""
    photo = opened(noise(1, 100)).convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 50, 50))
    limit = ImageNeeds(formats=frozenset({"png"}), max_bytes=5000)
    fitted, mask, changes = pair(noise(1, 100), saved(photo), cleanup, mask_needs=limit)
    assert fitted.read() == noise(1, 100)
    assert mask.length < 2000
    assert hole(mask.read()) == {(x, y) for x in range(10, 50) for y in range(10, 50)}
    assert changes == ["mask: Rewritten to match the image."]


def test_the_mask_is_resized(cleanup: ExitStack) -> None:
    """Resizes a mask of the same shape to the image."""
    _, mask, _ = pair(saved(two()), masks.from_box((16, 8), (0, 0, 2, 2)), cleanup)
    assert hole(mask.read()) == {(x, y) for x in range(4) for y in range(4)}


WRONG_PAIRS: dict[str, tuple[Callable[[], bytes], str]] = {
    "shape": (lambda: masks.from_box((32, 32), (0, 0, 2, 2)), "another shape"),
    "no transparency": (lambda: picture("JPEG", (32, 16)), "has no transparency"),
    "animated": (lambda: animated("PNG"), "is animated"),
    "large": (lambda: saved(noisy_mask()), "simpler edges"),
}


def noisy_mask() -> PIL.Image.Image:
    mask = PIL.Image.new("RGBA", (32, 16))
    mask.putalpha(opened(noise(2, 32)).convert("L").crop((0, 0, 32, 16)))
    return mask


@pytest.mark.parametrize("kind", WRONG_PAIRS)
def test_hopeless_masks(kind: str, cleanup: ExitStack) -> None:
    """Rejects a mask that cannot fit, and names the field."""
    make_mask, text = WRONG_PAIRS[kind]
    limit = ImageNeeds(formats=frozenset({"png"}), max_bytes=300)
    fields = refusal(lambda: pair(saved(two()), make_mask(), cleanup, SQUARE, limit))
    assert list(fields) == ["mask"]
    assert text in fields["mask"]
