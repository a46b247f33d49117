"""A picture of a reply, and a reply, as values and in a notebook."""

from __future__ import annotations

import base64
import io
import json
import pickle

import PIL.Image
import pytest

import imgkit
from imgkit.models import ImagesResponse, Meta
from tests.support.pictures import picture

META = Meta(operation="create_image", call_id="c", backend="offline", provider="openai")


def reply(*images: imgkit.Image) -> ImagesResponse:
    return ImagesResponse(images=images, meta=META)


def test_an_image_is_its_bytes() -> None:
    """Format, size, base64 and digest are read from the bytes."""
    image = imgkit.Image.from_bytes(picture("JPEG", (20, 10)))
    assert (image.format, image.width, image.height) == ("jpeg", 20, 10)
    assert base64.b64decode(image.b64_json) == image.data == picture("JPEG", (20, 10))
    assert image.to_pil().size == (20, 10)
    assert repr(image) == f"Image(index=0, jpeg, 20x10, {len(image.data)} bytes)"


def test_a_reply_is_a_sequence_of_its_images() -> None:
    """Length, iteration, indexing, slices and the API's name `data` all give the same pictures."""
    images = tuple(imgkit.Image.from_bytes(picture(), index=index) for index in range(3))
    made = reply(*images)
    assert len(made) == 3
    assert list(made) == list(images)
    assert made[1] is images[1]
    assert made[1:] == images[1:]
    assert made.data is made.images


def test_pickle_round_trip() -> None:
    """A reply survives pickling with its bytes."""
    made = reply(imgkit.Image.from_bytes(picture()))
    again = pickle.loads(pickle.dumps(made))
    assert again[0].data == picture()
    assert again.meta == META


@pytest.mark.parametrize("size", [(64, 32), (2000, 1000)])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_shows_itself_in_a_notebook(size: tuple[int, int], format: str) -> None:
    """A picture shows itself as a PNG of at most 512 pixels, whatever its format."""
    bundle = imgkit.Image.from_bytes(picture(format, size))._repr_mimebundle_()
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert max(shown.size) == min(512, max(size))
    json.dumps(bundle)


def test_a_reply_shows_a_row() -> None:
    """A reply shows all its pictures in HTML, with prompts escaped and bytes bounded."""
    images = [
        imgkit.Image.from_bytes(picture("PNG", (1500, 1500)), index=index, about={"prompt": "<script>x"})
        for index in range(4)
    ]
    shown = reply(*images)._repr_mimebundle_()["text/html"]
    assert shown.count("<img ") == 4
    assert "<script>" not in shown
    assert len(shown) < 100_000


def test_what_is_no_picture_shows_as_text() -> None:
    """SVG and unknown bytes are shown as text, never run as HTML."""
    for data in (b"<svg xmlns='x'><script>1</script></svg>", b"\0\1\2"):
        image = imgkit.Image.from_bytes(data)
        assert set(image._repr_mimebundle_()) == {"text/plain"}
        assert "<script>" not in reply(image)._repr_mimebundle_()["text/html"]
        with pytest.raises(imgkit.UnreadableReplyError):
            image.to_pil()


def test_a_broken_picture_does_not_break_a_cell() -> None:
    """A picture that is cut off is shown as text, and Pillow's errors do not escape."""
    image = imgkit.Image.from_bytes(picture("PNG", (200, 200))[:60])
    assert set(image._repr_mimebundle_()) == {"text/plain"}
    with pytest.raises(imgkit.UnreadableReplyError):
        image.to_pil()
