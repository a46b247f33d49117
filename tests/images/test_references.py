"""Image references: a JSON edit with remote images, and local images as data: URLs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import imgkit
from imgkit import ImageReference
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, reply
from tests.support.official import official

PICTURE = png(3)
DATA_URL = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


def edit(flavor: Any, backend: str, image: Any, **more: Any) -> Any:
    sent: list[Line] = []

    def script(line: Line) -> None:
        sent.append(line)
        reply(200, answer())(line)

    with WireServer(script) as server:
        call = lambda service: service.create_image_edit(image, "a hat", **more)  # noqa: E731
        flavor.run(call, backend, base_url=server.base_url, model="m")
    (line,) = sent
    assert line.headers["content-type"] == "application/json"
    return json.loads(line.body)


def test_references_are_sent_as_json(flavor: Any, http_backend: str) -> None:
    """Sends references unchanged, and local images and masks as data: URLs."""
    images = [
        ImageReference(file_id="file-1"),
        ImageReference(url="https://cdn.example/fox.png?x=1"),
        PICTURE,
    ]
    body = edit(flavor, http_backend, images, mask=ImageReference(file_id="file-2"), size="1024x1024")
    assert body == {
        "images": [
            {"file_id": "file-1"},
            {"image_url": "https://cdn.example/fox.png?x=1"},
            {"image_url": DATA_URL},
        ],
        "mask": {"file_id": "file-2"},
        "model": "m",
        "prompt": "a hat",
        "size": "1024x1024",
    }


def test_equal_calls_send_equal_bytes(flavor: Any) -> None:
    """Sends equal bodies through both HTTP backends."""
    images = [ImageReference(file_id="file-1"), PICTURE]
    assert edit(flavor, "requests", images) == edit(flavor, "aiohttp", images)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        (ImageReference(), "needs a url or a file_id"),
        (ImageReference(url="https://x", file_id="y"), "and not both"),
        (ImageReference(url="http://x"), "needs an https:// URL"),
        (ImageReference(url="file:///etc/passwd"), "needs an https:// URL"),
        (ImageReference(file_id=" "), "not empty"),
    ],
)
def test_invalid_references(flavor: Any, reference: ImageReference, problem: str) -> None:
    """Rejects a reference without exactly one usable target."""
    with pytest.raises(imgkit.InvalidRequestError, match=problem) as caught:
        flavor.run(lambda service: service.create_image_edit(reference, "a hat"))
    assert list(caught.value.fields) == ["image"]


def test_unsupported_references(flavor: Any) -> None:
    """Rejects references for a variation and for a provider without references."""
    with pytest.raises(imgkit.InvalidRequestError, match="does not take"):
        flavor.run(
            lambda service: service.create_image_variation(ImageReference(file_id="x"), strategy="native")
        )
    plain = official("http://127.0.0.1:1/v1", takes_references=False)
    with pytest.raises(imgkit.InvalidRequestError, match="provider openai does not take"):
        call = lambda service: service.create_image_edit([PICTURE, ImageReference(file_id="x")], "a hat")  # noqa: E731
        flavor.run(call, "requests", provider=plain, model="m", api_key="sk-test-0123456789")


def test_offline_backend_fetches_nothing(flavor: Any) -> None:
    """The painter reads data: URLs in JSON and rejects remote references."""
    with pytest.raises(imgkit.BadRequestError, match="nothing is fetched") as caught:
        flavor.run(lambda service: service.create_image_edit(ImageReference(file_id="file-1"), "a hat"))
    assert caught.value.code == "failed_to_download_image"
    members = {"images": [{"image_url": DATA_URL}], "size": "64x64"}
    reference = ImageReference(file_id="replaced")
    call = lambda service: service.create_image_edit(reference, "a hat", extra_body=members)  # noqa: E731
    assert flavor.run(call)[0].width == 64


def test_repr_hides_signatures() -> None:
    """Hides the query of a URL in the repr."""
    assert "SECRET" not in repr(ImageReference(url="https://cdn.example/x.png?sig=SECRET"))
