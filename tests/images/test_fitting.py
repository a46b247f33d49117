"""Fitting images: problems, changes, and images that stay unchanged."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageCms
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.errors import InvalidRequestError
from imgkit.images.fitting import ImageNeeds, check_fit, find_problems, fit_image
from imgkit.images.inputs import ImageFile, open_file
from imgkit.images.sniff import Format
from tests.support.openings import cleanup
from tests.support.pictures import noise
from tests.support.rasters import (
    BLUE,
    CORNERS,
    RED,
    animated,
    bomb,
    exif,
    greys,
    opened,
    png,
    refusal,
    saved,
    two,
)

__all__ = ["cleanup"]  # a fixture, used by name

ANY = ImageNeeds()
PNG_ONLY = ImageNeeds(formats=frozenset({"png"}))
SQUARE = ImageNeeds(formats=frozenset({"png"}), square=True)


def fit(data: Any, needs: ImageNeeds, cleanup: ExitStack) -> tuple[ImageFile, list[str]]:
    """Fit an image; assert that no problem is left and that a second run gives equal bytes."""
    fitted, changes = fit_image(open_file(data, "image", cleanup), needs, cleanup)
    assert find_problems(fitted, needs) == []
    again, _ = fit_image(open_file(data, "image", cleanup), needs, cleanup)
    assert again.sha256 == fitted.sha256
    return fitted, changes


def is_near(colour: Any, target: tuple[int, ...]) -> bool:
    return all(abs(actual - expected) <= 12 for actual, expected in zip(colour, target, strict=True))


FITS: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(two()),
    "png with alpha": lambda: saved(two("RGBA")),
    "grey": lambda: saved(two("L")),
    "jpeg": lambda: saved(two(), "JPEG", quality=30),
    "upright jpeg": lambda: exif(1, two()),
    "webp": lambda: saved(two(), "WEBP"),
    "metadata": lambda: exif(1, two(), "PNG"),
}


@pytest.mark.parametrize("kind", FITS)
def test_fitting_images_stay_unchanged(kind: str, cleanup: ExitStack) -> None:
    """Keeps a fitting image byte for byte, with its metadata."""
    data = FITS[kind]()
    fitted, changes = fit(data, ANY, cleanup)
    assert fitted.read() == data
    assert changes == []
    check_fit(open_file(data, "image", cleanup), ANY)


def test_a_fitting_file_is_returned_as_it_is(tmp_path: Path, cleanup: ExitStack) -> None:
    """Returns the same ImageFile if it fits."""
    (tmp_path / "a.png").write_bytes(saved(two()))
    file = ImageFile.from_raw(open_file(tmp_path / "a.png", "image", cleanup))
    fitted, _ = fit_image(file, ANY, cleanup)
    assert fitted is file


@dataclass
class Case:
    data: Callable[[], bytes]
    problem: str
    change: str
    format: Format = "png"
    mode: str = "RGB"
    needs: ImageNeeds = ANY


def floating() -> bytes:
    return saved(PIL.Image.new("F", (2, 2), 0.5), "TIFF")


CASES = {
    "cmyk": Case(lambda: saved(two("CMYK"), "JPEG", quality=95), "is a CMYK JPEG. Convert it to RGB.",
                 "Converted from CMYK to RGB", "jpeg"),
    "palette": Case(lambda: saved(two().quantize(4)), "has a palette", "Converted to full colours"),
    "palette and alpha": Case(lambda: saved(two().quantize(4), transparency=b"\xff\xff\xff\xff\x00"[:4]),
                              "has a palette", "Converted to full colours", mode="RGBA"),
    "gif": Case(lambda: saved(two(), "GIF"), "is a GIF, and the model takes JPEG or PNG or WEBP",
                "Written as png"),
    "animated gif": Case(lambda: animated("GIF"), "is animated (3 frames)", "first of 3 frames"),
    "animated webp": Case(lambda: animated("WEBP"), "is animated (3 frames)", "first of 3 frames", "webp"),
    "animated png": Case(lambda: animated("PNG"), "is animated (3 frames)", "first of 3 frames"),
    "tiff": Case(lambda: saved(two(), "TIFF"), "is a TIFF", "Written as png"),
    "cmyk tiff": Case(lambda: saved(two("CMYK"), "TIFF"), "is a CMYK TIFF", "Converted from CMYK to RGB"),
    "bmp": Case(lambda: saved(two(), "BMP"), "is a BMP", "Written as png"),
    "avif": Case(lambda: saved(two(), "AVIF", quality=100), "is an AVIF", "Written as png"),
    "turned": Case(lambda: exif(3, two()), "rotate the image (EXIF orientation 3)", "Rotated upright",
                   "jpeg"),
    "png wanted": Case(lambda: saved(two(), "JPEG", quality=95), "is a JPEG, and the model takes PNG",
                       "Written as png", needs=PNG_ONLY),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_unfitting_images(kind: str, cleanup: ExitStack) -> None:
    """Explains each problem, and fits the image with the same colours in the same places."""
    case = CASES[kind]
    data = case.data()
    fields = refusal(lambda: check_fit(open_file(data, "image", cleanup), case.needs))
    with pytest.raises(InvalidRequestError, match='Or pass prepare="fit"'):
        check_fit(open_file(data, "image", cleanup), case.needs)
    assert case.problem in fields["image"]
    fitted, changes = fit(data, case.needs, cleanup)
    assert any(change.startswith("image: ") and case.change in change for change in changes), changes
    page = opened(fitted.read())
    assert (fitted.kind.format, page.mode, page.size) == (case.format, case.mode, (32, 16))
    colours = (RED, BLUE) if "turned" not in kind else (BLUE, RED)
    for at, colour in zip(((2, 8), (29, 8)), colours, strict=True):
        assert is_near(page.convert("RGB").getpixel(at), colour), page.getpixel(at)
    assert "exif" not in page.info


def test_sixteen_bits(cleanup: ExitStack) -> None:
    """Keeps the upper byte of 16-bit greys, in either byte order, and of 16-bit colours."""
    for data in (
        saved(greys([0, 0x1234, 0xFFFF], mode="I;16")),
        saved(greys([0, 0x1234, 0xFFFF], mode="I;16"), "TIFF"),
    ):
        fitted, changes = fit(data, ANY, cleanup)
        assert opened(fitted.read()).tobytes() == b"\x00\x12\xff"
        assert "image: Converted from 16 to 8 bits per channel." in changes
    fitted, changes = fit(png(2, 16, 1, b"\x12\x34\xff\xff\x00\x00"), ANY, cleanup)
    assert opened(fitted.read()).getpixel((0, 0)) == (0x12, 0xFF, 0)
    assert changes == ["image: Converted from 16 to 8 bits per channel."]


def test_transparency_is_kept(cleanup: ExitStack) -> None:
    """Keeps the transparency of a palette."""
    source = greys([0, 1], mode="P")
    source.putpalette([*RED, *BLUE])
    fitted, _ = fit(saved(source, transparency=b"\0\x80"), ANY, cleanup)
    assert opened(fitted.read()).tobytes() == bytes([*RED, 0, *BLUE, 0x80])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientations(orientation: int, cleanup: ExitStack) -> None:
    """Rotates the pixels as viewers display them."""
    data = exif(orientation, CORNERS, "PNG")
    fitted, changes = fit(data, ANY, cleanup)
    with opened(data) as source:
        shown = PIL.ImageOps.exif_transpose(source)
    page = opened(fitted.read())
    assert (page.size, page.tobytes()) == (shown.size, shown.tobytes())
    assert changes == [f"image: Rotated upright (EXIF orientation {orientation})."]


def test_padding_without_transparency(cleanup: ExitStack) -> None:
    """Pads a JPEG in the colour of its edges."""
    needs = ImageNeeds(formats=frozenset({"jpeg"}), square=True)
    fitted, changes = fit(saved(PIL.Image.new("RGB", (16, 32), (10, 200, 30)), "JPEG"), needs, cleanup)
    page = opened(fitted.read())
    assert (page.size, fitted.kind.format) == ((32, 32), "jpeg")
    assert is_near(page.getpixel((1, 1)), (10, 200, 30))
    assert "Padded from 16x32 to 32x32" in changes[0]


def test_fewer_bytes_without_loss(cleanup: ExitStack) -> None:
    """Keeps every pixel of a badly compressed PNG."""
    source = opened(noise(5, 64)).resize((256, 256), PIL.Image.Resampling.NEAREST)
    bad = saved(source, compress_level=0)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(bad) // 3)
    fitted, changes = fit(bad, needs, cleanup)
    assert fitted.length <= len(bad) // 3
    assert opened(fitted.read()).tobytes() == source.tobytes()
    assert changes == [f"image: Compressed again to {fitted.length} bytes instead of {len(bad)}."]


def test_fewer_bytes_with_lossless_webp(cleanup: ExitStack) -> None:
    """Writes a lossless WebP if a PNG is too large."""
    source = opened(noise(5, 64)).resize((256, 256), PIL.Image.Resampling.NEAREST)
    needs = ImageNeeds(formats=frozenset({"png", "webp"}), max_bytes=len(saved(source, optimize=True)) - 1)
    fitted, changes = fit(saved(source), needs, cleanup)
    assert opened(fitted.read()).convert("RGB").tobytes() == source.tobytes()
    assert changes == ["image: Written as webp."]


@pytest.mark.parametrize("share", [2, 10, 100])
def test_fewer_bytes_with_fewer_pixels(share: int, cleanup: ExitStack) -> None:
    """Shrinks an incompressible image, and not much more than necessary."""
    data = noise(6, 200)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(data) // share)
    fitted, changes = fit(data, needs, cleanup)
    assert needs.max_bytes is not None
    assert needs.max_bytes / 3 < fitted.length <= needs.max_bytes
    assert changes == [f"image: Shrunk from 200x200 to {fitted.kind.width}x{fitted.kind.height} pixels."]


def test_a_photo_stays_a_jpeg(cleanup: ExitStack) -> None:
    """Reduces the quality of a JPEG before its size in pixels."""
    data = saved(opened(noise(6, 200)), "JPEG", quality=98, subsampling=0)
    fitted, changes = fit(data, ImageNeeds(max_bytes=len(data) * 2 // 3), cleanup)
    assert (fitted.kind.format, fitted.kind.width) == ("jpeg", 200)
    assert changes == [f"image: Compressed again to {fitted.length} bytes instead of {len(data)}."]


def test_fewer_pixels(cleanup: ExitStack) -> None:
    """Counts the padding of a square image as pixels."""
    needs = ImageNeeds(max_pixels=100, square=True)
    fitted, changes = fit(saved(two()), needs, cleanup)
    assert (fitted.kind.width, fitted.kind.height) == (10, 10)
    assert any("Shrunk from 32x16 to 10x5" in change for change in changes)


def test_shrinking_does_not_bleed(cleanup: ExitStack) -> None:
    """Keeps the colours of transparent pixels out of visible edges."""
    page = PIL.Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    page.paste((255, 0, 0, 255), (0, 0, 21, 40))
    fitted, _ = fit(saved(page), ImageNeeds(max_pixels=100), cleanup)
    rgba: Any = opened(fitted.read()).convert("RGBA").get_flattened_data()
    for red, green, _, opacity in rgba:
        assert opacity < 8 or (red > 245 and green < 10)


def test_transparent_to_jpeg(cleanup: ExitStack) -> None:
    """Makes transparent parts white for a model that takes only JPEG."""
    page = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    fitted, changes = fit(saved(page), ImageNeeds(formats=frozenset({"jpeg"})), cleanup)
    assert opened(fitted.read()).getpixel((4, 4)) == (255, 255, 255)
    assert changes == [
        "image: Transparent parts made white.",
        "image: Written as jpeg, with a slight loss of quality.",
    ]


def test_colour_profiles(cleanup: ExitStack) -> None:
    """Keeps a matching colour profile and drops the profile of other channels."""
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    fitted, _ = fit(saved(two(), "TIFF", icc_profile=srgb), ANY, cleanup)
    assert opened(fitted.read()).info["icc_profile"] == srgb
    for needs in (SQUARE, ImageNeeds(max_pixels=100)):
        fitted, _ = fit(saved(two(), icc_profile=srgb), needs, cleanup)
        assert opened(fitted.read()).info["icc_profile"] == srgb
    fitted, _ = fit(saved(two("CMYK"), "JPEG", icc_profile=srgb), ANY, cleanup)
    assert "icc_profile" not in opened(fitted.read()).info
    fitted, _ = fit(saved(two("L"), "TIFF", icc_profile=srgb), ANY, cleanup)
    assert "icc_profile" not in opened(fitted.read()).info


def cmyk_profile() -> bytes:
    """Return an ICC profile of a printer whose cyan ink is red (ICC.1:2001-04, lut8Type)."""
    corners = [(136, 208, 195) if ink == 0b1000 else (0 if ink else 255, 128, 128) for ink in range(16)]
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", 65536 * (at in (0, 4, 8))) for at in range(9))
    table += ramp * 4 + b"".join(map(bytes, corners)) + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"A2B0", 156, len(table)), (b"wtpt", 156 + len(table), len(white))]
    body = struct.pack(">I", 2) + b"".join(struct.pack(">4sII", *tag) for tag in tags) + table + white
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head = head.ljust(36, b"\0") + b"acsp"
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + body


def test_cmyk_profile(cleanup: ExitStack) -> None:
    """Converts CMYK by its own profile if it has one."""
    cyan = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    fitted, _ = fit(saved(cyan, "TIFF"), ANY, cleanup)
    assert is_near(opened(fitted.read()).getpixel((4, 4)), (0, 255, 255))
    fitted, _ = fit(saved(cyan, "TIFF", icc_profile=cmyk_profile()), ANY, cleanup)
    assert is_near(opened(fitted.read()).getpixel((4, 4)), RED)


def test_other_formats_that_pillow_knows(monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack) -> None:
    """Converts HEIC if a Pillow plugin opens it."""
    heic = b"\0\0\0\x18ftypheic" + bytes(60)

    def factory(stream: Any, name: str) -> PIL.Image.Image:
        made = PIL.Image.new("RGB", (4, 3), RED)
        made.format = "HEIF"
        return made

    monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (factory, lambda head: head[4:12] == b"ftypheic"))
    assert "is a HEIF" in refusal(lambda: check_fit(open_file(heic, "image", cleanup), ANY))["image"]
    fitted, changes = fit(heic, ANY, cleanup)
    assert opened(fitted.read()).tobytes() == bytes(RED) * 12
    assert changes == ["image: Written as png."]


def test_several_images_in_a_jpeg(cleanup: ExitStack) -> None:
    """Ignores additional images of an MPO, such as a camera's preview."""
    data = saved(two(), "MPO", save_all=True, append_images=[two()])
    fitted, _ = fit(data, ANY, cleanup)
    assert fitted.read() == data


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow tells whoever listens
def test_broken_metadata(cleanup: ExitStack) -> None:
    """Accepts an intact image with broken EXIF data."""
    data = saved(two(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert find_problems(open_file(data, "image", cleanup), ANY) == []


HOPELESS: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"hello", "is no image that Pillow can open"),
    "pdf": (lambda: b"%PDF-1.7\n", "is no image that Pillow can open"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image that Pillow"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is no image that Pillow can open"),
    "heic without its plugin": (lambda: b"\0\0\0\x18ftypheic" + bytes(60), "pillow-heif"),
    "cut off": (lambda: noise(1)[:300], "is cut off"),
    "cut off, to convert": (lambda: saved(opened(noise(1)), "JPEG")[:900], "cannot be decoded"),
    "bomb": (lambda: bomb(60_000, 2000), "too many to be decoded"),
    "floating": (floating, "floating-point"),
    "32 bits": (lambda: saved(greys([0, 70_000], mode="I"), "TIFF"), "more than 16 bits"),
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_hopeless_images(kind: str, cleanup: ExitStack) -> None:
    """Raises an InvalidRequestError that names the field."""
    make, text = HOPELESS[kind]
    fields = refusal(lambda: fit_image(open_file(make(), "image.2", cleanup), SQUARE, cleanup))
    assert list(fields) == ["image.2"]
    assert text in fields["image.2"]


def test_more_pixels_than_the_format_holds(cleanup: ExitStack) -> None:
    """Shrinks an image above the 16383 pixels of a WebP's edge."""
    fitted, _ = fit(saved(PIL.Image.new("L", (20_000, 2))), ImageNeeds(formats=frozenset({"webp"})), cleanup)
    assert fitted.kind.width == 10_000


def test_too_small_a_limit(cleanup: ExitStack) -> None:
    """Rejects a limit that no PNG can meet."""
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=20)
    fields = refusal(lambda: fit_image(open_file(noise(1), "image", cleanup), needs, cleanup))
    assert "cannot be written as PNG of 20 bytes" in fields["image"]


def test_all_problems_at_once(cleanup: ExitStack) -> None:
    """Lists all problems in one message, and fixes all of them."""
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=100, square=True, max_pixels=10)
    message = refusal(lambda: check_fit(open_file(exif(6, two("CMYK")), "image", cleanup), needs))["image"]
    for word in ("is a JPEG", "CMYK", "EXIF", "square", "pixels, and at most 10", "bytes, and at most 100"):
        assert word in message
    fitted, changes = fit(exif(6, two("CMYK")), needs, cleanup)
    assert fitted.kind.width == fitted.kind.height == 3
    assert len(changes) == 5


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]),
    st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"]),
    st.booleans(),
    st.integers(1, 2000),
)
def test_anything_fits_afterwards(
    size: tuple[int, int], mode: str, format: str, square: bool, pixels: int
) -> None:
    """Fits every image that Pillow can write."""
    try:
        data = saved(PIL.Image.new(mode, size), format)
    except (OSError, ValueError):
        return  # no such mode in this format
    needs = ImageNeeds(square=square, max_pixels=pixels, max_bytes=3000)
    with ExitStack() as stack:
        fit(data, needs, stack)


def test_fitted_images_close_with_the_call() -> None:
    """Closes the temporary file of a fitted image when the call ends."""
    closed: list[bool] = []
    with ExitStack() as call:
        fitted, _ = fit_image(open_file(saved(two(), "BMP"), "image", call), ANY, call)
        call.callback(lambda: closed.append(fitted.read() != b""))
    assert closed == [True]
    with pytest.raises(ValueError, match="closed"):
        fitted.read()


def test_the_caller_keeps_the_position(cleanup: ExitStack) -> None:
    """Leaves the file position of the caller's stream."""
    stream = io.BytesIO(b"12345" + saved(two(), "BMP"))
    stream.seek(5)
    fit_image(open_file(stream, "image", cleanup), ANY, cleanup)
    assert stream.tell() == 5


def test_a_changed_file_is_rejected(tmp_path: Path, cleanup: ExitStack) -> None:
    """Rejects a file that changed after it was opened."""
    path = tmp_path / "a.bmp"
    path.write_bytes(saved(two(), "BMP"))
    file = open_file(path, "image", cleanup)
    path.write_bytes(saved(two(), "BMP") + b"more")
    with pytest.raises(InvalidRequestError, match="changed"):
        fit_image(file, ANY, cleanup)
