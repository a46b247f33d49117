"""Making, changing and resizing masks, and an offline edit with a mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgkit
from imgkit import masks
from imgkit.images.image import Image
from imgkit.images.inputs import open_input
from imgkit.images.mask_pixels import check_mask
from tests.support.openings import cleanup
from tests.support.pictures import noise, picture
from tests.support.rasters import alpha, bomb, greys, hole, opened, png, refusal, saved

__all__ = ["cleanup"]  # a fixture, used by name

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))


DRAWING = greys([0, 255, 255], [0, 127, 128])


def test_from_white_and_black() -> None:
    """Marks white or black pixels as changeable, by the threshold."""
    assert hole(masks.from_white(DRAWING)) == {(1, 0), (2, 0), (2, 1)}
    assert hole(masks.from_black(DRAWING)) == {(0, 0), (0, 1), (1, 1)}
    assert hole(masks.from_white(DRAWING, threshold=127)) == {(1, 0), (2, 0), (1, 1), (2, 1)}
    assert set(alpha(masks.from_white(DRAWING))) == {0, 255}


KINDS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: saved(DRAWING),
    "pil": lambda folder: DRAWING,
    "stream": lambda folder: io.BytesIO(saved(DRAWING)),
    "image": lambda folder: Image.from_bytes(saved(DRAWING)),
    "data-url": lambda folder: "data:image/png;base64," + base64.b64encode(saved(DRAWING)).decode(),
    "path": lambda folder: folder / "drawing.png",
    "webp": lambda folder: saved(DRAWING.convert("RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_inputs(kind: str, tmp_path: Path) -> None:
    """Accepts every kind of image input."""
    (tmp_path / "drawing.png").write_bytes(saved(DRAWING))
    assert masks.from_white(KINDS[kind](tmp_path)) == masks.from_white(DRAWING)


WHITE_PALETTE = greys([0, 1], mode="P")
WHITE_PALETTE.putpalette([255] * 6)
WHITE_RIGHT = {
    "black and white": saved(greys([0, 255], mode="1")),
    "colour": saved(PIL.Image.frombytes("RGB", (2, 1), b"\x10\x20\x90\xff\xff\xf0")),
    "palette": saved(greys([0, 255]).convert("P")),
    "16 bit": saved(greys([0x7FFF, 0x8000], mode="I;16")),
    "16-bit colour": png(2, 16, 2, b"\0\xff" * 3 + b"\xff\0" * 3),
    "2-bit grey": png(0, 2, 2, b"\x30"),
    "grey, transparent left": saved(PIL.Image.frombytes("LA", (2, 1), b"\xff\0\xff\xff")),
    "palette, transparent left": saved(WHITE_PALETTE, transparency=b"\0"),
}


@pytest.mark.parametrize("kind", WHITE_RIGHT)
def test_kinds_of_drawings(kind: str) -> None:
    """Converts greys of any depth, colours and palettes to greys; transparent pixels stay."""
    assert hole(masks.from_white(WHITE_RIGHT[kind])) == {(1, 0)}


def test_transparent_is_not_black() -> None:
    """Does not count transparent pixels as black."""
    drawing = PIL.Image.frombytes("LA", (2, 1), b"\0\0\0\xff")
    assert hole(masks.from_black(drawing)) == {(1, 0)}


def test_like_scales_the_drawing() -> None:
    """Scales the drawing before it applies the threshold."""
    made = masks.from_white(greys([0, 255]), like=picture("JPEG", (4, 2)))
    assert opened(made).size == (4, 2)
    assert hole(made) == {(2, 0), (3, 0), (2, 1), (3, 1)}
    assert masks.from_white(greys([0, 255]), like=(4, 2)) == made


@given(SIZES, st.data())
def test_box(size: tuple[int, int], data: st.DataObject) -> None:
    """Makes exactly the pixels of the box transparent."""
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    across, down = data.draw(st.integers(1, size[0] - left)), data.draw(st.integers(1, size[1] - top))
    made = masks.from_box(size, (left, top, across, down))
    assert hole(made) == {(x, y) for x in range(left, left + across) for y in range(top, top + down)}
    corners = [(left, top), (left + across, top), (left + across, top + down), (left, top + down)]
    assert masks.from_polygon(size, corners) == made
    assert masks.from_polygon(size, corners[::-1]) == made


def test_polygons() -> None:
    """Includes pixels by their centre and excludes areas enclosed twice."""
    triangle = masks.from_polygon((4, 4), [(0, 0), (4, 0), (0, 4)])
    assert hole(triangle) == {(x, y) for x in range(4) for y in range(4) if x + 0.5 + y + 0.5 < 4}
    star = masks.from_polygon((4, 4), [(0, 0), (4, 0), (4, 4), (0, 4), (0, 1), (3, 1), (3, 3), (0, 3)])
    assert hole(star) == {(x, y) for x in range(4) for y in range(4)} - {
        (x, y) for x in range(3) for y in (1, 2)
    }


@given(SIZES, st.data())
def test_inverting_twice_changes_nothing(size: tuple[int, int], data: st.DataObject) -> None:
    """Inverting a mask twice gives the same opacity."""
    values = data.draw(st.binary(min_size=size[0] * size[1], max_size=size[0] * size[1]))
    mask = PIL.Image.new("RGBA", size, "red")
    mask.putalpha(PIL.Image.frombytes("L", size, values))
    once = masks.invert(mask)
    assert alpha(once) == bytes(255 - value for value in values)
    assert alpha(masks.invert(once)) == values
    white = opened(masks.to_white(mask))
    assert (white.mode, white.tobytes()) == ("L", alpha(once))


@given(SIZES, st.integers(1, 5), st.data())
def test_resizing_keeps_the_hole(size: tuple[int, int], times: int, data: st.DataObject) -> None:
    """Scales each pixel to a block; scaling back gives the same mask."""
    count = size[0] * size[1]
    values = data.draw(
        st.lists(st.sampled_from([0, 255]), min_size=count, max_size=count).filter(lambda v: 0 in v)
    )
    mask = PIL.Image.new("RGBA", size)
    mask.putalpha(PIL.Image.frombytes("L", size, bytes(values)))
    larger = masks.resize(mask, (size[0] * times, size[1] * times))
    small = {(at % size[0], at // size[0]) for at, value in enumerate(values) if value == 0}
    assert {(x // times, y // times) for x, y in hole(larger)} == small
    assert len(hole(larger)) == len(small) * times * times
    assert alpha(masks.resize(larger, size)) == bytes(values)


def test_hard_masks_stay_hard() -> None:
    """Rounds a merged pixel to the majority of its parts."""
    mask = PIL.Image.new("RGBA", (6, 1))
    mask.putalpha(greys([0, 255, 255, 0, 0, 255]))
    assert alpha(masks.resize(mask, (2, 1))) == b"\xff\x00"


def test_soft_masks_stay_soft() -> None:
    """Keeps intermediate opacities of a feathered mask."""
    soft = masks.feather(masks.from_box((40, 20), (10, 5, 20, 10)), 2)
    assert len(set(alpha(masks.resize(soft, (20, 10))))) > 2


def test_feathering() -> None:
    """Turns edges into ramps and keeps distant pixels."""
    made = alpha(masks.feather(masks.from_box((60, 1), (20, 0, 20, 1)), 2))
    assert made[30] == 0
    assert made[0] == made[59] == 255
    assert list(made[5:30]) == sorted(made[5:30], reverse=True)
    assert len(set(made)) > 5


def test_union() -> None:
    """Combines the holes of two masks."""
    one, two = masks.from_box((9, 9), (0, 0, 2, 2)), masks.from_box((9, 9), (1, 1, 3, 3))
    assert hole(masks.union(one, two)) == hole(one) | hole(two)
    assert masks.union(one) == one


def test_masks_are_small() -> None:
    """Drops the colours of a photo with a hole."""
    photo = opened(noise(1, 300)).convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 50, 50))
    assert len(masks.union(photo)) < 1500 < len(saved(photo)) / 100


PAGE = greys([9] * 3, [0] * 3)
APNG = saved(greys([0, 255]), save_all=True, append_images=[greys([255, 0])])
HOLED = masks.from_box((8, 8), (2, 2, 3, 3))
DOT = masks.from_box((99, 99), (4, 4, 1, 1))
NAN = float("nan")
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "no white": (lambda: masks.from_white(picture(color="black")), "picture", "masks.from_black"),
    "no black": (lambda: masks.from_black(picture(color="white")), "picture", "masks.from_white"),
    "threshold": (lambda: masks.from_white(DRAWING, threshold=0), "threshold", "1 to 255"),
    "threshold bool": (lambda: masks.from_white(DRAWING, threshold=True), "threshold", "1 to 255"),
    "other shape": (lambda: masks.from_white(DRAWING, like=(30, 30)), "picture", "another shape"),
    "animated": (lambda: masks.from_white(APNG), "picture", "2 frames"),
    "animated gif": (
        lambda: masks.from_white(saved(DRAWING, "GIF", save_all=True, append_images=[PAGE])),
        "picture", "2 frames",
    ),
    "no picture": (lambda: masks.from_white(b"hello"), "picture", "is text"),
    "a type": (lambda: masks.from_white(5), "picture", "type int"),  # type: ignore[arg-type]
    "missing": (lambda: masks.from_white("missing.png"), "picture", "Cannot open"),
    "url": (lambda: masks.from_white("https://example.com/a.png"), "picture", "does not fetch"),
    "broken": (lambda: masks.from_white(broken()), "picture", "cannot be decoded"),
    "huge": (lambda: masks.from_white(bomb(65_000, 1000)), "picture", "too many to be decoded"),
    "box outside": (lambda: masks.from_box((8, 8), (4, 4, 5, 2)), "box", "not within 8x8"),
    "box before": (lambda: masks.from_box((8, 8), (-1, 0, 2, 2)), "box", "not within"),
    "box empty": (lambda: masks.from_box((8, 8), (1, 1, 0, 2)), "box", "is empty"),
    "box of three": (lambda: masks.from_box((8, 8), (1, 1, 2)), "box", "4 whole numbers"),  # type: ignore[arg-type]
    "box of floats": (lambda: masks.from_box((8, 8), (1, 1, 2, 2.5)), "box", "4 whole"),  # type: ignore[arg-type]
    "no size": (lambda: masks.from_box((0, 8), (0, 0, 1, 1)), "like_or_size", "is not a size"),
    "large size": (lambda: masks.from_box((60_000, 60_000), (0, 0, 1, 1)), "like_or_size", "Shrink"),
    "size of one": (lambda: masks.from_box((8,), (0, 0, 1, 1)), "like_or_size", "2 whole"),  # type: ignore[arg-type]
    "two points": (lambda: masks.from_polygon((8, 8), [(0, 0), (4, 4)]), "points", "3 to"),
    "no points": (lambda: masks.from_polygon((8, 8), []), "points", "not 0"),
    "text": (lambda: masks.from_polygon((8, 8), "0,0"), "points", "3 to"),  # type: ignore[arg-type]
    "a line": (lambda: masks.from_polygon((8, 8), [(0, 0), (4, 4), (8, 8)]), "points", "enclose no pixel"),
    "point outside": (lambda: masks.from_polygon((8, 8), [(0, 0), (9, 0), (0, 8)]), "points.1", "outside"),
    "no number": (lambda: masks.from_polygon((8, 8), [(0, 0), (NAN, 0), (0, 8)]), "points.1", "two numbers"),
    "invert a jpeg": (lambda: masks.invert(picture("JPEG")), "mask", "imgkit mask --from-white"),
    "no radius": (lambda: masks.feather(HOLED, 0), "radius_px", "over 0"),
    "endless radius": (lambda: masks.feather(HOLED, float("inf")), "radius_px", "over 0"),
    "wide radius": (lambda: masks.feather(masks.from_box((99, 99), (4, 4, 3, 3)), 20), "radius_px", "wider"),
    "resize shape": (lambda: masks.resize(HOLED, (16, 8)), "mask", "another shape"),
    "hole lost": (lambda: masks.resize(DOT, (9, 9)), "mask", "hole vanishes"),
    "no masks": (lambda: masks.union(), "masks", "at least one"),
    "sizes": (lambda: masks.union(HOLED, masks.from_box((9, 8), (0, 0, 1, 1))), "masks.1", "masks.resize"),
    "16-bit key": (lambda: masks.invert(png(2, 16, 1, b"\1\2" * 3, b"\1\2" * 3)), "mask", "alpha channel"),
}  # fmt: skip


def broken() -> bytes:
    whole = bytearray(noise(1))
    whole[100:200] = bytes(100)
    return bytes(whole)


@pytest.mark.parametrize("kind", WRONG)
def test_rejected_inputs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises an error about the right argument, with a remedy."""
    monkeypatch.chdir(tmp_path)
    make, field, text = WRONG[kind]
    fields = refusal(make)
    assert list(fields) == [field]
    assert text in fields[field]


TRANSPARENT_LEFT = {
    "rgba": saved(PIL.Image.frombytes("RGBA", (2, 1), b"\1\2\3\0\1\2\3\xff")),
    "grey and alpha": saved(PIL.Image.frombytes("LA", (2, 1), b"\1\0\1\xff")),
    "palette": saved(greys([0, 1], mode="P"), transparency=b"\0"),
    "palette, a key": saved(greys([0, 1], mode="P"), transparency=0),
    "black and white, a key": png(0, 1, 2, b"\x40", b"\0\0"),
    "2-bit grey, a key": png(0, 2, 2, b"\xb0", b"\0\2"),
    "grey, a key": png(0, 8, 2, b"\1\2", b"\0\1"),
    "16-bit grey, a key": png(0, 16, 2, b"\x12\x34\x12\x35", b"\x12\x34"),
    "colour, a key": png(2, 8, 2, b"\1\1\1\2\2\2", b"\0\1\0\1\0\1"),
    "16-bit grey and alpha": png(4, 16, 2, b"\1\1\0\0\1\1\xff\xff"),
    "16-bit rgba": png(6, 16, 2, b"\1\1" * 3 + b"\0\0" + b"\1\1" * 3 + b"\xff\xff"),
}


@pytest.mark.parametrize("kind", TRANSPARENT_LEFT)
def test_kinds_of_masks(kind: str, cleanup: ExitStack) -> None:
    """Recognises every kind of PNG transparency when it changes and checks a mask."""
    data = TRANSPARENT_LEFT[kind]
    assert hole(masks.union(data)) == {(0, 0)}
    assert masks.check(data, picture(size=(2, 1))) == []
    mask, image = open_input(data, "mask", cleanup), open_input(picture(size=(2, 1)), "image", cleanup)
    assert check_mask(mask, image) == []
    assert mask.read() == data


def test_the_module_is_loaded_on_first_use() -> None:
    """Loads `imgkit.masks` on first use."""
    assert imgkit.masks is masks
    assert set(masks.__all__) <= set(dir(masks))


def test_offline_edit_keeps_the_outside() -> None:
    """The painter changes the box and no pixel around it."""
    with imgkit.ImageService() as images:
        photo = images.create_image("a fox in the snow", size="128x128")[0]
        mask = masks.from_box(photo, (32, 40, 64, 48))
        edited = images.create_image_edit(photo, "a red hat", mask=mask)[0]
    before, after = photo.to_pil().convert("RGB"), edited.to_pil().convert("RGB")
    outside = PIL.Image.new("RGB", (64, 48))
    assert before.crop((32, 40, 96, 88)).tobytes() != after.crop((32, 40, 96, 88)).tobytes()
    for page in (before, after):
        page.paste(outside, (32, 40))
    assert before.tobytes() == after.tobytes()
