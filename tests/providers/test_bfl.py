"""The provider of Black Forest Labs: requests like its SDK's, and the JSON that all JSON providers share."""

from __future__ import annotations

import base64
from contextlib import ExitStack
from typing import Any

import pytest

from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import open_input
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import (
    HttpRequest,
    ImageReference,
    Target,
    encode_json_request,
    refuse_uploaded_files,
    to_data_url,
)
from imgkit.providers.bfl import BflProvider
from imgkit.testing import png
from tests.support.provider_apis import encode_json

TARGET = Target(base_url="https://api.bfl.ai", host_class="official")
PIXELS = base64.b64encode(png(1)).decode()
LINK = ImageReference(url="https://files.example/1.png")


def test_sends_the_requests_of_the_sdk() -> None:
    """Sends the bodies that @ai-sdk/black-forest-labs 2.0.41 sends for an edit and for a mask."""
    with ExitStack() as cleanup:
        picture = open_input(png(1), "image", cleanup)
        request = CreateImageEditRequest(image=(png(1), png(1)), prompt="a mug", seed=7, aspect_ratio="16:9")
        url, body = encode_json(BflProvider(), request, TARGET, image=(picture, picture))
        assert url == "https://api.bfl.ai/v1/flux-2-pro"
        assert body == {
            **{"prompt": "a mug", "seed": 7, "aspect_ratio": "16:9"},
            **{"input_image": PIXELS, "input_image_2": PIXELS},
        }
        request = CreateImageEditRequest(image=(png(1),), mask=png(1), prompt="a mug", seed=7)
        url, body = encode_json(BflProvider(), request, TARGET, image=(picture,), mask=picture)
        assert url == "https://api.bfl.ai/v1/flux-pro-1.0-fill"
        assert body == {"prompt": "a mug", "seed": 7, "image": PIXELS, "mask": PIXELS}
    assert BflProvider().credentials[0].header == "x-key"


def test_sends_a_size_as_two_numbers() -> None:
    """Sends width and height, and the address of an image that the API fetches."""
    request = CreateImageEditRequest(image=(LINK,), prompt="a mug", size="1024x768", model="flux-2-max")
    url, body = encode_json(BflProvider(), request, TARGET, image=(LINK,))
    assert url == "https://api.bfl.ai/v1/flux-2-max"
    assert body == {"prompt": "a mug", "width": 1024, "height": 768, "input_image": LINK.url}
    assert to_data_url(LINK) == LINK.url


@pytest.mark.parametrize("field", ["image", "mask"])
def test_refuses_uploaded_files(field: str) -> None:
    """Refuses the id of a file at another API, for the field that has it."""
    inputs: dict[str, Any] = {"image": (LINK,), field: ImageReference(file_id="file-1")}
    with pytest.raises(InvalidRequestError) as caught:
        refuse_uploaded_files(CreateImageEditRequest(prompt="a mug", **inputs))
    assert set(caught.value.fields) == {field}


def send(merge_objects: bool, **fields: Any) -> HttpRequest:
    """Return the request for members with an object among them."""
    members = {"config": {"a": 1, "b": {"c": 2}}, "n": None}
    request = CreateImageRequest(prompt="a mug", **fields)
    return encode_json_request("https://acme.example", members, request, merge_objects=merge_objects)


@pytest.mark.parametrize(
    ("merge_objects", "sent"),
    [
        (False, b'{"config": {"b": {"d": 3}}}'),
        (True, b'{"config": {"a": 1, "b": {"c": 2, "d": 3}}}'),
    ],
)
def test_extra_body_wins(merge_objects: bool, sent: bytes) -> None:
    """The caller's object replaces the provider's, or is merged into it; no member is null."""
    extra = {"config": {"b": {"d": 3}}, "model": "m", "other": None}
    assert b"".join(send(merge_objects, extra_body=extra).body.blocks()) == sent


def test_extra_headers_win() -> None:
    """The caller's headers replace the provider's; empty ones are left out."""
    headers = send(False, extra_headers={"accept": "text/plain", "x-empty": ""}).headers
    assert dict(headers) == {"accept": "text/plain"}
