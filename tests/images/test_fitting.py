"""Pictures made to fit: what is wrong, what is done about it, and what is left alone."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from imgkit.errors import InvalidRequestError
from imgkit.images.fitting import ImageNeeds, check, fit_image, problems
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
    """Make a picture fit; what comes out has no problem left, and is the same each time."""
    made, done = fit_image(open_file(data, "image", cleanup), needs, cleanup)
    assert problems(made, needs) == []
    again, _ = fit_image(open_file(data, "image", cleanup), needs, cleanup)
    assert again.sha256 == made.sha256
    return made, done


def near(found: Any, wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) <= 12 for one, other in zip(found, wanted, strict=True))


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
def test_what_fits_is_left_alone(kind: str, cleanup: ExitStack) -> None:
    """Byte for byte, with its metadata."""
    data = FITS[kind]()
    made, done = fit(data, ANY, cleanup)
    assert made.read() == data
    assert done == []
    check(open_file(data, "image", cleanup), ANY)


def test_a_file_that_fits_is_not_read_into_memory_again(tmp_path: Path, cleanup: ExitStack) -> None:
    (tmp_path / "a.png").write_bytes(saved(two()))
    file = ImageFile.of(open_file(tmp_path / "a.png", "image", cleanup))
    made, _ = fit_image(file, ANY, cleanup)
    assert made is file


@dataclass
class Case:
    data: Callable[[], bytes]
    told: str
    done: str
    format: Format = "png"
    mode: str = "RGB"
    needs: ImageNeeds = ANY


def floating() -> bytes:
    return saved(PIL.Image.new("F", (2, 2), 0.5), "TIFF")


CASES = {
    "cmyk": Case(lambda: saved(two("CMYK"), "JPEG", quality=95), "is a CMYK JPEG: convert it to RGB, or say "
                 'prepare="fit"', "converted from CMYK to RGB", "jpeg"),
    "palette": Case(lambda: saved(two().quantize(4)), "has a palette", "converted to full colours"),
    "palette and alpha": Case(lambda: saved(two().quantize(4), transparency=b"\xff\xff\xff\xff\x00"[:4]),
                              "has a palette", "converted to full colours", mode="RGBA"),
    "gif": Case(lambda: saved(two(), "GIF"), "is a GIF, and JPEG or PNG or WEBP is taken", "written as png"),
    "animated gif": Case(lambda: animated("GIF"), "is animated (3 frames)", "the first of 3 frames taken"),
    "animated webp": Case(lambda: animated("WEBP"), "is animated (3 frames)", "the first of 3", "webp"),
    "animated png": Case(lambda: animated("PNG"), "is animated (3 frames)", "the first of 3 frames taken"),
    "tiff": Case(lambda: saved(two(), "TIFF"), "is a TIFF", "written as png"),
    "cmyk tiff": Case(lambda: saved(two("CMYK"), "TIFF"), "is a CMYK TIFF", "converted from CMYK to RGB"),
    "bmp": Case(lambda: saved(two(), "BMP"), "is a BMP", "written as png"),
    "avif": Case(lambda: saved(two(), "AVIF", quality=100), "is an AVIF", "written as png"),
    "turned": Case(lambda: exif(3, two()), "shown turned (EXIF orientation 3)", "turned upright", "jpeg"),
    "png wanted": Case(lambda: saved(two(), "JPEG", quality=95), "is a JPEG, and PNG is taken",
                       "written as png", needs=PNG_ONLY),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_what_does_not_fit(kind: str, cleanup: ExitStack) -> None:
    """Each is explained, and made to fit with the same colours in the same places."""
    case = CASES[kind]
    data = case.data()
    fields = refusal(lambda: check(open_file(data, "image", cleanup), case.needs))
    assert case.told in fields["image"]
    made, done = fit(data, case.needs, cleanup)
    assert any(one.startswith("image: ") and case.done in one for one in done), done
    page = opened(made.read())
    assert (made.kind.format, page.mode, page.size) == (case.format, case.mode, (32, 16))
    colours = (RED, BLUE) if "turned" not in kind else (BLUE, RED)
    for at, colour in zip(((2, 8), (29, 8)), colours, strict=True):
        assert near(page.convert("RGB").getpixel(at), colour), page.getpixel(at)
    assert "exif" not in page.info


def test_sixteen_bits(cleanup: ExitStack) -> None:
    """Greys keep their upper half, of either byte order; colours too."""
    for data in (
        saved(greys([0, 0x1234, 0xFFFF], mode="I;16")),
        saved(greys([0, 0x1234, 0xFFFF], mode="I;16"), "TIFF"),
    ):
        made, done = fit(data, ANY, cleanup)
        assert opened(made.read()).tobytes() == b"\x00\x12\xff"
        assert "image: converted from 16 to 8 bits per channel." in done
    made, done = fit(png(2, 16, 1, b"\x12\x34\xff\xff\x00\x00"), ANY, cleanup)
    assert opened(made.read()).getpixel((0, 0)) == (0x12, 0xFF, 0)
    assert done == ["image: converted from 16 to 8 bits per channel."]


def test_transparency_is_kept(cleanup: ExitStack) -> None:
    source = greys([0, 1], mode="P")
    source.putpalette([*RED, *BLUE])
    made, _ = fit(saved(source, transparency=b"\0\x80"), ANY, cleanup)
    assert opened(made.read()).tobytes() == bytes([*RED, 0, *BLUE, 0x80])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientations(orientation: int, cleanup: ExitStack) -> None:
    """Pixels are turned as viewers turn them."""
    data = exif(orientation, CORNERS, "PNG")
    made, done = fit(data, ANY, cleanup)
    with opened(data) as source:
        shown = PIL.ImageOps.exif_transpose(source)
    page = opened(made.read())
    assert (page.size, page.tobytes()) == (shown.size, shown.tobytes())
    assert done == [f"image: turned upright (EXIF orientation {orientation})."]


def test_padding_without_transparency(cleanup: ExitStack) -> None:
    """A JPEG is padded in the colour of its edges."""
    needs = ImageNeeds(formats=frozenset({"jpeg"}), square=True)
    made, done = fit(saved(PIL.Image.new("RGB", (16, 32), (10, 200, 30)), "JPEG"), needs, cleanup)
    page = opened(made.read())
    assert (page.size, made.kind.format) == ((32, 32), "jpeg")
    assert near(page.getpixel((1, 1)), (10, 200, 30))
    assert "padded from 16x32 to 32x32" in done[0]


def test_fewer_bytes_without_loss(cleanup: ExitStack) -> None:
    """A PNG that is only packed badly keeps every pixel."""
    source = opened(noise(5, 64)).resize((256, 256), PIL.Image.Resampling.NEAREST)
    bad = saved(source, compress_level=0)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(bad) // 3)
    made, done = fit(bad, needs, cleanup)
    assert made.length <= len(bad) // 3
    assert opened(made.read()).tobytes() == source.tobytes()
    assert done == [f"image: written anew in {made.length} bytes instead of {len(bad)}."]


def test_webp_loses_nothing_either(cleanup: ExitStack) -> None:
    source = opened(noise(5, 64)).resize((256, 256), PIL.Image.Resampling.NEAREST)
    needs = ImageNeeds(formats=frozenset({"png", "webp"}), max_bytes=len(saved(source, optimize=True)) - 1)
    made, done = fit(saved(source), needs, cleanup)
    assert opened(made.read()).convert("RGB").tobytes() == source.tobytes()
    assert done == ["image: written as webp."]


@pytest.mark.parametrize("share", [2, 10, 100])
def test_fewer_bytes_with_fewer_pixels(share: int, cleanup: ExitStack) -> None:
    """Where nothing else helps, it shrinks, and not much more than it must."""
    data = noise(6, 200)
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=len(data) // share)
    made, done = fit(data, needs, cleanup)
    assert needs.max_bytes is not None
    assert needs.max_bytes / 3 < made.length <= needs.max_bytes
    assert done == [f"image: shrunk from 200x200 to {made.kind.width}x{made.kind.height} pixels."]


def test_a_photo_stays_a_jpeg(cleanup: ExitStack) -> None:
    data = saved(opened(noise(6, 200)), "JPEG", quality=98, subsampling=0)
    made, done = fit(data, ImageNeeds(max_bytes=len(data) * 2 // 3), cleanup)
    assert (made.kind.format, made.kind.width) == ("jpeg", 200)
    assert done == [f"image: written anew in {made.length} bytes instead of {len(data)}."]


def test_fewer_pixels(cleanup: ExitStack) -> None:
    """Also with what makes it square."""
    needs = ImageNeeds(max_pixels=100, square=True)
    made, done = fit(saved(two()), needs, cleanup)
    assert (made.kind.width, made.kind.height) == (10, 10)
    assert any("shrunk from 32x16 to 10x5" in one for one in done)


def test_shrinking_does_not_bleed(cleanup: ExitStack) -> None:
    """Colours of transparent pixels do not show at the edges of visible ones."""
    page = PIL.Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    page.paste((255, 0, 0, 255), (0, 0, 21, 40))
    made, _ = fit(saved(page), ImageNeeds(max_pixels=100), cleanup)
    for red, green, _, opacity in opened(made.read()).convert("RGBA").get_flattened_data():
        assert opacity < 8 or (red > 245 and green < 10)


def test_transparent_to_jpeg(cleanup: ExitStack) -> None:
    page = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    made, done = fit(saved(page), ImageNeeds(formats=frozenset({"jpeg"})), cleanup)
    assert opened(made.read()).getpixel((4, 4)) == (255, 255, 255)
    assert done == ["image: transparent parts made white.", "image: written as jpeg, which loses a little."]


def test_colour_profiles(cleanup: ExitStack) -> None:
    """One that fits what is written is kept; that of other channels is not."""
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    made, _ = fit(saved(two(), "TIFF", icc_profile=srgb), ANY, cleanup)
    assert opened(made.read()).info["icc_profile"] == srgb
    for needs in (SQUARE, ImageNeeds(max_pixels=100)):
        made, _ = fit(saved(two(), icc_profile=srgb), needs, cleanup)
        assert opened(made.read()).info["icc_profile"] == srgb
    made, _ = fit(saved(two("CMYK"), "JPEG", icc_profile=srgb), ANY, cleanup)
    assert "icc_profile" not in opened(made.read()).info
    made, _ = fit(saved(two("L"), "TIFF", icc_profile=srgb), ANY, cleanup)
    assert "icc_profile" not in opened(made.read()).info


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


def test_inks_by_their_profile(cleanup: ExitStack) -> None:
    """CMYK has no meaning of its own: its profile says what colours it is, where there is one."""
    cyan = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    made, _ = fit(saved(cyan, "TIFF"), ANY, cleanup)
    assert near(opened(made.read()).getpixel((4, 4)), (0, 255, 255))
    made, _ = fit(saved(cyan, "TIFF", icc_profile=cmyk_profile()), ANY, cleanup)
    assert near(opened(made.read()).getpixel((4, 4)), RED)


def test_other_formats_that_pillow_knows(monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack) -> None:
    """HEIC, where a plugin of Pillow opens it, is converted like the rest."""
    heic = b"\0\0\0\x18ftypheic" + bytes(60)

    def factory(stream: Any, name: str) -> PIL.Image.Image:
        made = PIL.Image.new("RGB", (4, 3), RED)
        made.format = "HEIF"
        return made

    monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (factory, lambda head: head[4:12] == b"ftypheic"))
    assert "is a HEIF" in refusal(lambda: check(open_file(heic, "image", cleanup), ANY))["image"]
    made, done = fit(heic, ANY, cleanup)
    assert opened(made.read()).tobytes() == bytes(RED) * 12
    assert done == ["image: written as png."]


def test_several_pictures_in_a_jpeg(cleanup: ExitStack) -> None:
    """What some cameras put behind the first one, a preview say, is no animation."""
    data = saved(two(), "MPO", save_all=True, append_images=[two()])
    made, _ = fit(data, ANY, cleanup)
    assert made.read() == data


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow tells whoever listens
def test_broken_metadata(cleanup: ExitStack) -> None:
    """The picture itself may be sound."""
    data = saved(two(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert problems(open_file(data, "image", cleanup), ANY) == []


HOPELESS: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"hello", "is no picture that Pillow can open"),
    "pdf": (lambda: b"%PDF-1.7\n", "is no picture that Pillow can open"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that Pillow"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is no picture that Pillow can open"),
    "heic without its plugin": (lambda: b"\0\0\0\x18ftypheic" + bytes(60), "pillow-heif"),
    "cut off": (lambda: noise(1)[:300], "is cut off"),
    "cut off, to convert": (lambda: saved(opened(noise(1)), "JPEG")[:900], "cannot be decoded"),
    "bomb": (lambda: bomb(60_000, 2000), "too many to be decoded"),
    "floating": (floating, "floating-point"),
    "32 bits": (lambda: saved(greys([0, 70_000], mode="I"), "TIFF"), "more than 16 bits"),
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_cannot_be_made_to_fit(kind: str, cleanup: ExitStack) -> None:
    """Whatever it is, the error is ours and names the field."""
    make, text = HOPELESS[kind]
    fields = refusal(lambda: fit_image(open_file(make(), "image.2", cleanup), SQUARE, cleanup))
    assert list(fields) == ["image.2"]
    assert text in fields["image.2"]


def test_more_pixels_than_the_format_holds(cleanup: ExitStack) -> None:
    """A WebP has at most 16383 pixels each way."""
    made, _ = fit(saved(PIL.Image.new("L", (20_000, 2))), ImageNeeds(formats=frozenset({"webp"})), cleanup)
    assert made.kind.width == 10_000


def test_too_small_a_limit(cleanup: ExitStack) -> None:
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=20)
    fields = refusal(lambda: fit_image(open_file(noise(1), "image", cleanup), needs, cleanup))
    assert "cannot be written as PNG of 20 bytes" in fields["image"]


def test_everything_wrong_is_told_at_once(cleanup: ExitStack) -> None:
    needs = ImageNeeds(formats=frozenset({"png"}), max_bytes=100, square=True, max_pixels=10)
    told = refusal(lambda: check(open_file(exif(6, two("CMYK")), "image", cleanup), needs))["image"]
    for word in ("is a JPEG", "CMYK", "EXIF", "square", "pixels, and at most 10", "bytes, and at most 100"):
        assert word in told
    made, done = fit(exif(6, two("CMYK")), needs, cleanup)
    assert made.kind.width == made.kind.height == 3
    assert len(done) == 5


@settings(deadline=None)  # lossless WebP takes its time on a busy machine
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
    """Whatever Pillow writes, fits afterwards."""
    try:
        data = saved(PIL.Image.new(mode, size), format)
    except (OSError, ValueError):
        return  # no such mode in this format
    needs = ImageNeeds(square=square, max_pixels=pixels, max_bytes=3000)
    with ExitStack() as stack:
        fit(data, needs, stack)


def test_what_is_made_is_closed_with_the_call() -> None:
    """It is opened like any other input: large pictures wait in a temporary file, gone with the call."""
    closed: list[bool] = []
    with ExitStack() as call:
        made, _ = fit_image(open_file(saved(two(), "BMP"), "image", call), ANY, call)
        call.callback(lambda: closed.append(made.read() != b""))
    assert closed == [True]
    with pytest.raises(ValueError, match="closed"):
        made.read()


def test_the_caller_keeps_the_position(cleanup: ExitStack) -> None:
    stream = io.BytesIO(b"12345" + saved(two(), "BMP"))
    stream.seek(5)
    fit_image(open_file(stream, "image", cleanup), ANY, cleanup)
    assert stream.tell() == 5


def test_a_changed_file_is_refused(tmp_path: Path, cleanup: ExitStack) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(saved(two(), "BMP"))
    file = open_file(path, "image", cleanup)
    path.write_bytes(saved(two(), "BMP") + b"more")
    with pytest.raises(InvalidRequestError, match="changed"):
        fit_image(file, ANY, cleanup)
