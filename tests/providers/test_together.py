"""The provider of Together: requests like its SDK's, two members for images, prices by megapixel."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from imgkit import ImageService, ModerationBlockedError, RateLimitError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import Head, ImageReference, Target
from imgkit.providers.together import TogetherProvider
from tests.support.provider_apis import encode_json

TARGET = Target(base_url="https://api.together.ai/v1", host_class="official")
LINK = ImageReference(url="https://x/y.png")
PIXELS = ImageReference(url="data:image/png;base64,iVBORw0KGgo=")


def test_sends_the_requests_of_the_sdks() -> None:
    """Sends the bodies that together 3.1.1 and @ai-sdk/togetherai 3.0.54 send for input images."""
    request = CreateImageEditRequest(
        image=(LINK, LINK), prompt="p", model="m", size="1024x768", n=1, model_options={"steps": 4}
    )
    url, body = encode_json(TogetherProvider(), request, TARGET, image=(LINK,) * 2)
    assert url == "https://api.together.ai/v1/images/generations"
    common = {"model": "m", "prompt": "p", "height": 768, "width": 1024, "response_format": "base64"}
    assert body == {**common, "n": 1, "steps": 4, "reference_images": [LINK.url] * 2}
    request = CreateImageEditRequest(image=(PIXELS,), prompt="p", model="m", size="1024x768")
    _, body = encode_json(TogetherProvider(), request, TARGET, image=(PIXELS,))
    assert body == {**common, "image_url": PIXELS.url}


@pytest.mark.parametrize(
    ("model", "member"),
    [
        ("black-forest-labs/FLUX.1-kontext-pro", "image_url"),
        ("black-forest-labs/FLUX.2-pro", "reference_images"),
    ],
)
def test_the_model_chooses_the_member_of_an_image(model: str, member: str) -> None:
    """Sends one image as FLUX.2 reads it, in a list, and as others do; extra_body wins."""
    request = CreateImageEditRequest(image=(LINK,), prompt="p", model=model)
    _, body = encode_json(TogetherProvider(), request, TARGET, image=(LINK,))
    sent = body[member]
    assert sent == (LINK.url if member == "image_url" else [LINK.url])
    request = CreateImageEditRequest(image=(LINK,), prompt="p", model=model, extra_body={member: "mine"})
    _, body = encode_json(TogetherProvider(), request, TARGET, image=(LINK,))
    assert body[member] == "mine"


def test_leaves_out_an_automatic_size_and_asks_for_links() -> None:
    """Sends no width and height for "auto", and asks for links where the caller does."""
    request = CreateImageRequest(
        prompt="p", size="auto", seed=7, negative_prompt="rain", response_format="url"
    )
    encoded = TogetherProvider().encode(request, OpenedInputs(), TARGET)
    assert encoded.body is not None
    assert json.loads(b"".join(encoded.body.blocks())) == {
        **{"prompt": "p", "seed": 7, "negative_prompt": "rain", "response_format": "url"},
    }


def test_prices_an_image_by_its_pixels() -> None:
    """Estimates the price of a size in megapixels, and knows none without a size or for another model."""
    request: dict[str, Any] = {"prompt": "a fox", "model": "black-forest-labs/FLUX.1-schnell"}
    with ImageService("requests", provider="together", api_key="a-secret-key") as service:
        priced = service.estimate(CreateImageRequest(size="1000x1000", n=2, **request))
        assert priced.high == Decimal("0.0054")
        assert not service.estimate(CreateImageRequest(**request)).known
        other = {**request, "model": "black-forest-labs/FLUX.2-pro"}
        assert not service.estimate(CreateImageRequest(size="1000x1000", **other)).known


def test_errors() -> None:
    """Reads a refusal of the safety checker, and a busy API, in OpenAI's shape."""
    for status, message, kind in (
        (422, "NSFW content detected in the image.", ModerationBlockedError),
        (429, "Rate limit reached.", RateLimitError),
    ):
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        error = TogetherProvider().error(Head(status, {}), json.dumps(body).encode(), ())
        assert type(error) is kind
