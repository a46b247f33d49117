"""The same image in every form: the same bytes on the wire, or the same refusal."""

from __future__ import annotations

import base64
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pytest

import imgkit
from imgkit import ImageService
from imgkit.images.inputs import open_input
from imgkit.images.pillow_inputs import convert_cmyk
from tests.support.openings import cleanup
from tests.support.pictures import noise, picture

__all__ = ["cleanup"]  # a fixture, used by name

MODEL: dict[str, Any] = {"model": "gpt-image-2", "api_key": "sk-12345678"}


def save(image: PIL.Image.Image, format: str, **options: Any) -> bytes:
    """Return an image as a file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def with_orientation(orientation: int, format: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    """Return an image that viewers rotate."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return save(PIL.Image.new("RGB", size, "red"), format, exif=exif)


def animated(format: str, mode: str = "RGB") -> bytes:
    """Return an image of two frames."""
    frames = [PIL.Image.new(mode, (64, 48), color) for color in ("red", "blue")]
    return save(frames[0], format, save_all=True, append_images=frames[1:])


FILES: dict[str, bytes] = {
    "png": noise(1),
    "jpeg": picture("JPEG", (64, 48)),
    "rotated jpeg": with_orientation(6),
    "cmyk jpeg": save(PIL.Image.new("CMYK", (64, 48), (255, 0, 0, 0)), "JPEG"),
    "palette": save(PIL.Image.new("P", (64, 48), 3), "PNG"),
    "16 bits": save(PIL.Image.new("I;16", (64, 48), 300), "PNG"),
    "webp": picture("WEBP", (64, 48)),
    "gif": picture("GIF", (64, 48)),
    "animated gif": animated("GIF"),
    "animated png": animated("PNG"),
    "animated webp": animated("WEBP"),
    "cut off": noise(1)[:-20],
    "text": b"no image",
}


def list_forms(data: bytes, folder: Path, cleanup: ExitStack) -> dict[str, Any]:
    """Return a file in every form that an input may have."""
    path = folder / "image.bin"
    path.write_bytes(data)
    forms: dict[str, Any] = {
        "path": path,
        "text": str(path),
        "numpy text": numpy.str_(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memory": memoryview(data),
        "file object": io.BytesIO(data),
        "data URL": "data:image/png;base64," + base64.b64encode(data).decode(),
        "numpy bytes": memoryview(numpy.frombuffer(data, "u1").data),
        "image": imgkit.Image.from_bytes(data),
    }
    try:
        forms["PIL image"] = cleanup.enter_context(PIL.Image.open(path))
        forms["PIL image of bytes"] = PIL.Image.open(io.BytesIO(data))
    except PIL.UnidentifiedImageError:
        return forms
    return forms


@pytest.mark.parametrize("prepare", [None, "check", "fit"])
@pytest.mark.parametrize("kind", FILES)
def test_every_form_is_the_same(kind: str, prepare: Any, tmp_path: Path, cleanup: ExitStack) -> None:
    """Sends the same request, or raises the same problem, for every form of an image."""
    results = {}
    with ImageService("requests", **MODEL) as service:
        for name, form in list_forms(FILES[kind], tmp_path, cleanup).items():
            try:
                results[name] = service.dry_run("create_image_edit", form, "a hat", prepare=prepare)
            except imgkit.InvalidRequestError as error:
                results[name] = error.fields["image"]
    if kind == "cut off":  # Pillow opens it, and fails to write it
        results = {name: text for name, text in results.items() if not name.startswith("PIL")}
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_animations_are_refused_by_models_for_stills(format: str) -> None:
    """A model that takes still images refuses an animation, and `prepare="fit"` takes its first frame."""
    with ImageService("requests", **MODEL) as service:
        with pytest.raises(imgkit.InvalidRequestError, match="prepare"):
            service.dry_run("create_image_edit", animated(format), "a hat")
        assert service.dry_run("create_image_edit", animated(format), "a hat", prepare="fit")


def test_a_changed_pillow_image_keeps_its_metadata(cleanup: Any) -> None:
    """A decoded or changed image is a PNG with the EXIF orientation of its file."""
    image = PIL.Image.open(io.BytesIO(with_orientation(6)))
    image.putpixel((0, 0), (0, 0, 255))
    opened = open_input(image, "image", cleanup)
    assert opened.kind[0] == "png"
    assert PIL.Image.open(io.BytesIO(opened.read())).getexif()[0x0112] == 6
    with ImageService("requests", **MODEL) as service:
        with pytest.raises(imgkit.InvalidRequestError, match="EXIF orientation 6"):
            service.dry_run("create_image_edit", image.resize((32, 24)), "a hat", prepare="check")


def test_a_decoded_cmyk_image_becomes_srgb(cleanup: Any) -> None:
    """Converts CMYK by its profile, and puts no foreign profile into the PNG."""
    image = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.info["icc_profile"] = bytes(16) + b"CMYK" + bytes(108)
    written = PIL.Image.open(io.BytesIO(open_input(image, "image", cleanup).read()))
    assert written.mode == "RGB"
    assert "icc_profile" not in written.info
    assert written.getpixel((0, 0)) == convert_cmyk(image, b"").getpixel((0, 0))


def test_a_draft_or_a_later_frame_is_encoded(cleanup: Any) -> None:
    """Encodes the pixels that a Pillow object shows if they are not all of its file."""
    draft = PIL.Image.open(io.BytesIO(picture("JPEG", (640, 480))))
    draft.draft("RGB", (80, 60))
    assert open_input(draft, "image", cleanup).kind[1] == draft.width < 640
    frame = PIL.Image.open(io.BytesIO(animated("GIF")))
    frame.seek(1)
    assert open_input(frame, "image", cleanup).kind[0] == "png"


def test_plain_values_reach_the_form_alike() -> None:
    """Enums and NumPy numbers are the same plain values in form, JSON and nested members."""
    from tests.support.odd_values import Count, Size, TextEnum

    given = {"size": Size.BIG, "quality": TextEnum.HIGH, "n": numpy.int64(2)}
    body = {"seed": numpy.int64(7), "level": Count.TWO, "more": {"ratio": numpy.float64(0.5)}}
    plain_body = {"seed": 7, "level": 2, "more": {"ratio": 0.5}}
    plain = {"size": "1024x1024", "quality": "high", "n": 2}
    with ImageService("requests", **MODEL) as service:
        for operation, arguments in (
            ("create_image", ("a fox",)),
            ("create_image_edit", (picture(), "a fox")),
        ):
            assert service.dry_run(operation, *arguments, **given, extra_body=body) == service.dry_run(
                operation, *arguments, **plain, extra_body=plain_body
            )


@pytest.mark.parametrize("alpha", [1, 100, 127])
def test_a_half_transparent_mask_is_doubted(alpha: int) -> None:
    """Warns of a mask whose hole is not fully transparent."""
    mask = PIL.Image.new("RGBA", (64, 48), (0, 0, 0, 255))
    mask.paste((0, 0, 0, alpha), (0, 0, 20, 20))
    photo = PIL.Image.new("RGB", mask.size)
    assert "No pixel of the mask is fully transparent" in imgkit.masks.check(save(mask, "PNG"), photo)[0]


def test_a_shrunk_image_keeps_hidden_colours(cleanup: Any) -> None:
    """Keeps the colours of fully transparent pixels when an image is shrunk."""
    from imgkit.images.fitting import ImageNeeds, fit_image
    from imgkit.images.inputs import open_file

    image = PIL.Image.new("RGBA", (80, 60), (200, 30, 30, 255))
    image.paste((30, 200, 30, 0), (0, 0, 40, 60))
    fitted, _ = fit_image(
        open_file(save(image, "PNG"), "image", cleanup), ImageNeeds(max_pixels=1200), cleanup
    )
    shrunk = PIL.Image.open(io.BytesIO(fitted.read()))
    assert shrunk.getpixel((5, 10)) == (30, 200, 30, 0)
    assert shrunk.getpixel((35, 10)) == (200, 30, 30, 255)
