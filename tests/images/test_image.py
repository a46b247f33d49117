"""Image and ImagesResponse as values and in notebooks."""

from __future__ import annotations

import base64
import io
import json
import pickle
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import PIL.Image
import pytest

import imgkit
from imgkit.images.sources import BytesSource, FileSource, UrlSource
from imgkit.models import ImagesResponse, Meta
from tests.support.pictures import picture

META = Meta(operation="create_image", call_id="c", backend="offline", provider="openai")


def build_response(*images: imgkit.Image) -> ImagesResponse:
    return ImagesResponse(images=images, meta=META)


def test_image_properties() -> None:
    """Derives format, size, base64 and digest from the bytes."""
    image = imgkit.Image.from_bytes(picture("JPEG", (20, 10)))
    assert (image.format, image.width, image.height) == ("jpeg", 20, 10)
    assert base64.b64decode(image.b64_json) == image.data == picture("JPEG", (20, 10))
    assert image.to_pil().size == (20, 10)
    assert repr(image) == f"Image(index=0, jpeg, 20x10, {len(image.data)} bytes)"


def test_a_response_is_a_sequence_of_its_images() -> None:
    """Gives the same images by iteration, index, slice and `data`."""
    images = tuple(imgkit.Image.from_bytes(picture(), index=index) for index in range(3))
    response = build_response(*images)
    assert len(response) == 3
    assert list(response) == list(images)
    assert response[1] is images[1]
    assert response[1:] == images[1:]
    assert response.data is response.images


def test_pickle_round_trip() -> None:
    """Pickles a response with its bytes."""
    response = build_response(imgkit.Image.from_bytes(picture()))
    restored = pickle.loads(pickle.dumps(response))
    assert restored[0].data == picture()
    assert restored.meta == META
    assert restored == response
    assert len({restored, response}) == 1


def test_equal_values_are_equal(tmp_path: Path) -> None:
    """Compares images by values and bytes, wherever the bytes are, and ignores path, facts and meta."""
    with imgkit.ImageService(client_options={"seed": 1}) as service:
        one, two = (service.create_image("a fox", size="64x64") for _ in range(2))
        saved = service.create_image("a fox", size="64x64", save_to=tmp_path / "fox.png")
    assert one.meta != two.meta
    assert one.images == two.images == saved.images
    other = replace(one, images=two.images, meta=META)
    assert (one == other, hash(one) == hash(other), one == "a fox") == (True, True, False)
    assert one != replace(other, created=(one.created or 0) + 1)
    assert one[0] != imgkit.Image.from_bytes(picture())
    assert one[0] != replace(one[0], index=1)
    assert one.usage == two.usage
    assert hash(one.usage) == hash(two.usage)
    assert one.cost == imgkit.models.Cost(amount=Decimal(0), note=one.cost.note)
    failed = [replace(one, errors=(imgkit.SaveError(text),)) for text in ("Full.", "Full.", "Gone.")]
    assert failed[0] == failed[1] != failed[2]
    assert saved[0].path is not None
    on_disk = replace(saved[0], source=FileSource.from_path(saved[0].path))
    assert on_disk == one[0]
    saved[0].path.write_bytes(b"other")
    assert on_disk != one[0]
    assert on_disk == pickle.loads(pickle.dumps(on_disk))


def test_images_at_urls_compare_without_a_download() -> None:
    """Fetches nothing: the URL decides until the bytes are there."""

    def fetch(url: str) -> bytes:
        raise AssertionError("a comparison downloads")

    def build(url: str) -> imgkit.Image:
        return imgkit.Image(url=url, source=UrlSource(url, fetch))

    assert build("https://host/a") == build("https://host/a") != build("https://host/b")
    assert hash(build("https://host/a")) == hash(build("https://host/a"))
    assert build("https://host/a") != replace(build("https://host/a"), source=BytesSource(b"x"))


@pytest.mark.parametrize("size", [(64, 32), (2000, 1000)])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_notebook_thumbnail(size: tuple[int, int], format: str) -> None:
    """Shows an image of any format as a PNG of at most 512 pixels."""
    bundle = imgkit.Image.from_bytes(picture(format, size))._repr_mimebundle_()
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert max(shown.size) == min(512, max(size))
    json.dumps(bundle)


def test_notebook_row() -> None:
    """Shows all images in HTML with escaped prompts and bounded size."""
    images = [
        imgkit.Image.from_bytes(picture("PNG", (1500, 1500)), index=index, about={"prompt": "<script>x"})
        for index in range(4)
    ]
    shown = build_response(*images)._repr_mimebundle_()["text/html"]
    assert shown.count("<img ") == 4
    assert "<script>" not in shown
    assert len(shown) < 100_000


def test_notebook_text_of_unknown_bytes() -> None:
    """Shows SVG and unknown bytes as text and never runs them as HTML."""
    for data in (b"<svg xmlns='x'><script>1</script></svg>", b"\0\1\2"):
        image = imgkit.Image.from_bytes(data)
        assert set(image._repr_mimebundle_()) == {"text/plain"}
        assert "<script>" not in build_response(image)._repr_mimebundle_()["text/html"]
        with pytest.raises(imgkit.UnreadableReplyError):
            image.to_pil()


def test_notebook_text_of_a_broken_image() -> None:
    """Shows a truncated image as text without an error of Pillow."""
    image = imgkit.Image.from_bytes(picture("PNG", (200, 200))[:60])
    assert set(image._repr_mimebundle_()) == {"text/plain"}
    with pytest.raises(imgkit.UnreadableReplyError):
        image.to_pil()
