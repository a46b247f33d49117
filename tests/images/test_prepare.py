"""The `prepare` option: inputs are rejected, reported or fitted before anything is sent."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit.catalogue.rules import data_url_length
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, reply
from tests.support.official import official

KEY = "sk-test-0123456789"
SMALL = {
    "hosts": ["official"],
    "inputs": {
        "small": {"formats": ["png"], "most_images": 2, "most_bytes": 3000, "square": True, "sure": True}
    },
    "models": [{"id": "small", "operations": ["create_image_edit"], "inputs": "small"}],
}


def encode(image: PIL.Image.Image, format: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **more)
    return stream.getvalue()


NOISE = PIL.Image.frombytes("RGB", (60, 40), png(1, 60)[:7200].ljust(7200, b"x"))
GIF = encode(PIL.Image.new("P", (40, 40)), "GIF")


def edit(flavor: Any, backend: str, image: Any, **more: Any) -> tuple[Any, list[bytes]]:
    sent: list[bytes] = []

    def script(line: Line) -> None:
        sent.append(line.body)
        reply(200, answer())(line)

    policy = more.pop("on_unsupported", "raise")
    with WireServer(script) as server:
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "small", "models": SMALL}
        call = lambda service: service.create_image_edit(image, "a hat", **more)  # noqa: E731
        return flavor.run(call, backend, on_unsupported=policy, **settings), sent


@pytest.mark.parametrize(
    ("image", "field", "problem"),
    [
        (GIF, "image", "takes png images, not gif"),
        (encode(NOISE, "PNG"), "image", "takes images of up to 3000 bytes"),
        ([png(1), encode(PIL.Image.new("RGB", (8, 9)), "PNG")], "image.1", "takes square images, not 8x9"),
        ([png(1), png(2), png(3)], "image", "takes at most 2 of them, not 3"),
    ],
)
def test_inputs_against_model_data(flavor: Any, image: Any, field: str, problem: str) -> None:
    """Rejects a known violation and names the remedy; with another policy sends it with a warning."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        edit(flavor, "requests", image)
    assert list(caught.value.fields) == [field]
    assert problem in caught.value.fields[field]
    assert isinstance(image, list) or caught.value.fields[field].count("prepare") == 1
    got, sent = edit(flavor, "requests", image, on_unsupported="warn")
    assert len(sent) == 1
    assert problem in got.warnings[0]


@pytest.mark.parametrize("image", [GIF, encode(NOISE, "PNG"), encode(NOISE, "JPEG")])
def test_prepare_fit(flavor: Any, http_backend: str, image: bytes) -> None:
    """Converts, shrinks and pads; equal calls give equal bytes."""
    got, sent = edit(flavor, http_backend, image, prepare="fit")
    part = sent[0].partition(b"\x89PNG")[2]
    fitted = PIL.Image.open(io.BytesIO(b"\x89PNG" + part.rpartition(b"\r\n--")[0].partition(b"\r\n--")[0]))
    assert fitted.width == fitted.height
    assert len(part) < 3300
    assert got.warnings[0].startswith("image: ")
    assert edit(flavor, http_backend, image, prepare="fit")[1] == sent


def test_prepare_check(flavor: Any) -> None:
    """Lists all problems at once and sends a fitting image unchanged."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        edit(flavor, "aiohttp", encode(NOISE.convert("CMYK"), "JPEG"), prepare="check")
    assert "CMYK" in str(caught.value)
    assert "60x40 pixels, and the model takes a square" in str(caught.value)
    _, sent = edit(flavor, "aiohttp", png(1), prepare="check")
    assert png(1) in sent[0]
    with pytest.raises(imgkit.InvalidRequestError, match="prepare"):
        edit(flavor, "requests", png(1), prepare="polish")


def test_masks_are_always_validated(flavor: Any, http_backend: str) -> None:
    """Validates the mask on every host: a useless mask costs as much as a working mask."""
    picture = encode(PIL.Image.new("RGB", (8, 8)), "PNG")
    opaque = encode(PIL.Image.new("RGBA", (8, 8), "black"), "PNG")
    small = encode(PIL.Image.new("RGBA", (4, 4)), "PNG")
    with WireServer(reply(200, answer())) as server:
        for mask, problem in (
            (picture, "no transparency"),
            (opaque, "opaque everywhere"),
            (small, "4x4 pixels"),
        ):
            with pytest.raises(imgkit.InvalidRequestError, match=problem) as caught:
                call = lambda service, mask=mask: service.create_image_edit(picture, "x", mask=mask)  # noqa: E731
                flavor.run(call, http_backend, base_url=server.base_url)
            assert list(caught.value.fields) == ["mask"]
        assert server.posts == 0


def test_provider_with_white_masks(flavor: Any) -> None:
    """Inverts the mask for a provider with the polarity "white"."""
    sent: list[bytes] = []

    def script(line: Line) -> None:
        sent.append(line.body)
        reply(200, answer())(line)

    mask = PIL.Image.new("RGBA", (8, 8), "black")
    mask.putpixel((1, 1), (0, 0, 0, 0))
    with WireServer(script) as server:
        provider = official(server.base_url, mask_polarity="white")
        call = lambda service: service.create_image_edit(png(1), "x", mask=mask)  # noqa: E731
        flavor.run(call, "requests", provider=provider, api_key=KEY, model="m")
    last_part = b"\x89PNG" + sent[0].rpartition(b"\x89PNG")[2]
    inverted = PIL.Image.open(io.BytesIO(last_part)).convert("L")
    assert inverted.getpixel((1, 1)) == 255
    assert inverted.getpixel((2, 2)) == 0


def test_limit_of_an_image_beside_a_reference(flavor: Any) -> None:
    """Applies the data: URL limit to an image beside a reference."""
    facts = {
        "hosts": ["official"],
        "inputs": {"json": {"data_url_longest": 200, "sure": True}},
        "models": [{"id": "json", "operations": ["create_image_edit"], "inputs": "json"}],
    }
    picture = png(1)
    encoded_length = len(f"data:image/png;base64,{base64.b64encode(picture).decode()}")
    assert data_url_length("image/png", len(picture)) == encoded_length > 200
    reference = imgkit.ImageReference(file_id="file-1")
    with WireServer(reply(200, answer())) as server:
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "json", "models": facts}
        flavor.run(lambda service: service.create_image_edit(picture, "a hat"), "requests", **settings)
        assert server.posts == 1
        with pytest.raises(imgkit.InvalidRequestError, match="up to 200 characters") as caught:
            both = [reference, picture]
            flavor.run(lambda service: service.create_image_edit(both, "a hat"), "requests", **settings)
        assert server.posts == 1
    assert list(caught.value.fields) == ["image.1"]
    assert "prepare" not in str(caught.value)  # which would not make it short enough
