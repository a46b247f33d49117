"""A picture and its mask, made to fit together."""

from __future__ import annotations

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
    made, changed, done = fit_image_and_mask(
        open_file(image, "image", cleanup), open_file(mask, "mask", cleanup), needs, mask_needs, cleanup
    )
    assert (made.kind.width, made.kind.height) == (changed.kind.width, changed.kind.height)
    return made, changed, done


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_for_the_pixels_as_stored(orientation: int, cleanup: ExitStack) -> None:
    """It is turned with them."""
    stored = PIL.Image.new("RGBA", CORNERS.size, "black")
    stored.putpixel((0, 0), (0, 0, 0, 0))
    image, mask, _ = pair(exif(orientation, CORNERS, "PNG"), saved(stored), cleanup)
    (at,) = hole(mask.read())
    assert opened(image.read()).getpixel(at) == 10


def test_a_mask_for_the_picture_as_shown(cleanup: ExitStack) -> None:
    """Drawn over what a viewer shows, it is not turned once more."""
    mask = masks.from_box((2, 3), (1, 2, 1, 1))
    _, changed, _ = pair(exif(6, CORNERS, "PNG"), mask, cleanup)
    assert hole(changed.read()) == {(1, 2)}


def test_a_pair_that_fits_is_left_alone(cleanup: ExitStack) -> None:
    image, mask = saved(two()), masks.from_box((32, 16), (1, 1, 4, 4))
    made, changed, done = pair(image, mask, cleanup)
    assert (made.read(), changed.read(), done) == (image, mask, [])


def test_padding_moves_the_mask_along(cleanup: ExitStack) -> None:
    """What is added is transparent in the picture, and kept by the mask."""
    made, changed, done = pair(saved(two()), masks.from_box((32, 16), (0, 0, 16, 16)), cleanup, SQUARE)
    assert hole(changed.read()) == {(x, y) for x in range(16) for y in range(8, 24)}
    page = opened(made.read())
    assert page.crop((0, 8, 32, 24)).convert("RGB").tobytes() == two().tobytes()
    assert page.getpixel((5, 7)) == page.getpixel((5, 24)) == (0, 0, 0, 0)
    assert done == [
        "image: padded from 32x16 to 32x32 pixels, the picture in the middle.",
        "mask: written anew to go with the picture.",
    ]


@pytest.mark.parametrize("share", [2, 10, 100])
def test_the_mask_shrinks_along(share: int, cleanup: ExitStack) -> None:
    data = noise(6, 200)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(data) // share)
    _, mask, _ = pair(data, masks.from_box((200, 200), (0, 0, 100, 200)), cleanup, needs)
    assert abs(sum(value == 0 for value in alpha(mask.read())) / len(alpha(mask.read())) - 0.5) < 0.05


def test_the_mask_is_made_small(cleanup: ExitStack) -> None:
    """A mask that is a photo with a hole loses its colours, and is under the limit then."""
    photo = opened(noise(1, 100)).convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 50, 50))
    limit = ImageNeeds(formats=frozenset({"png"}), max_bytes=5000)
    made, mask, done = pair(noise(1, 100), saved(photo), cleanup, mask_needs=limit)
    assert made.read() == noise(1, 100)
    assert mask.length < 2000
    assert hole(mask.read()) == {(x, y) for x in range(10, 50) for y in range(10, 50)}
    assert done == ["mask: written anew to go with the picture."]


def test_the_mask_is_brought_to_size(cleanup: ExitStack) -> None:
    _, mask, _ = pair(saved(two()), masks.from_box((16, 8), (0, 0, 2, 2)), cleanup)
    assert hole(mask.read()) == {(x, y) for x in range(4) for y in range(4)}


WRONG_PAIRS = {
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
def test_masks_that_cannot_be_made_to_fit(kind: str, cleanup: ExitStack) -> None:
    mask, text = WRONG_PAIRS[kind]
    limit = ImageNeeds(formats=frozenset({"png"}), max_bytes=300)
    fields = refusal(lambda: pair(saved(two()), mask(), cleanup, SQUARE, limit))
    assert list(fields) == ["mask"]
    assert text in fields["mask"]
