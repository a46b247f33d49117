"""The provider of xAI: requests like its SDK's, costs, refusals under 200, errors in three shapes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from imgkit import (
    AuthenticationError,
    BadRequestError,
    ImageService,
    InvalidRequestError,
    ModerationBlockedError,
    RateLimitError,
)
from imgkit.errors import MissingModelError
from imgkit.images.sniff import sniff
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import DecodedImages, Head, ImageReference, Target
from imgkit.providers.xai import XaiProvider
from imgkit.providers.xai_fake import FakeXai
from imgkit.testing import png, serve_fake
from imgkit.wire.json_body import JsonReply
from tests.support.provider_apis import RequestLog, encode_json, paint_input

TARGET = Target(base_url="https://api.x.ai/v1", host_class="official")
MODEL = "grok-imagine-image-2.0"
PIXELS = "data:image/png;base64,iVBORw0KGgo="
MAGIC = ImageReference(url=PIXELS)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def decode(reply: dict[str, Any]) -> DecodedImages:
    """Return the images of a reply of the API."""
    body = JsonReply(frozenset({"b64_json"}))
    body.feed(json.dumps(reply).encode())
    body.close()
    return XaiProvider().decode(Head(200, {}), body, TARGET)


def test_sends_the_requests_of_the_sdk() -> None:
    """Sends the bodies that @ai-sdk/xai 5.0.12 sends for two images, and for an edit of two."""
    common = {"prompt": "a mug", "aspect_ratio": "16:9", "model": MODEL}
    url, body = encode_json(XaiProvider(), CreateImageRequest(n=2, **common), TARGET)  # type: ignore[arg-type]
    assert url == "https://api.x.ai/v1/images/generations"
    assert body == {**common, "n": 2, "response_format": "b64_json"}
    request = CreateImageEditRequest(image=(MAGIC, MAGIC), n=1, **common)  # type: ignore[arg-type]
    url, body = encode_json(XaiProvider(), request, TARGET, image=(MAGIC, MAGIC))
    assert url == "https://api.x.ai/v1/images/edits"
    images = [{"url": PIXELS, "type": "image_url"}] * 2
    assert body == {**common, "n": 1, "response_format": "b64_json", "images": images}


def test_sends_a_single_image_alone_and_the_resolution_in_lower_case() -> None:
    """Sends one image in `image`, a file of xAI by its id, and the API's own spelling of resolutions."""
    link, file = ImageReference(url="https://files.example/1.png"), ImageReference(file_id="file-1")
    for reference, sent in (
        (link, {"type": "image_url", "url": link.url}),
        (file, {"file_id": "file-1"}),
    ):
        request = CreateImageEditRequest(
            image=(reference,),
            prompt="a mug",
            resolution="2K",
            response_format="url",
            model_options={"storage_options": {"public_url": True}},
        )
        _, body = encode_json(XaiProvider(), request, TARGET, image=(reference,))
        assert body == {
            **{"image": sent, "prompt": "a mug", "resolution": "2k", "response_format": "url"},
            "storage_options": {"public_url": True},
        }


def test_reads_the_cost_and_keeps_the_declared_type() -> None:
    """Reads ticks as dollars, drops an empty revised prompt, keeps others, and sniffs the bytes itself."""
    entries = [
        {"b64_json": PNG, "mime_type": "image/jpeg", "revised_prompt": ""},
        {"b64_json": PNG, "revised_prompt": "a red fox"},
    ]
    decoded = decode({"data": entries, "usage": {"cost_in_usd_ticks": 400_000_000}})
    assert decoded.cost is not None
    assert decoded.cost.amount == Decimal("0.04")
    assert [each.revised_prompt for each in decoded.pictures] == [None, "a red fox"]
    assert decoded.pictures[0].extra == {"mime_type": "image/jpeg"}
    for ticks in (None, "many", -1, True):
        assert decode({"data": entries[1:], "usage": {"cost_in_usd_ticks": ticks}}).cost is None


@pytest.mark.parametrize(
    ("reply", "stage", "maybe_billed"),
    [
        ({"data": [{"url": None, "respect_moderation": False}]}, "output", True),
        ({"data": [{"url": "https://x.example/1", "respect_moderation": False}]}, "output", True),
        ({"data": [], "block_reason": "violence", "usage": {"cost_in_usd_ticks": 0}}, None, False),
        ({"data": [{"block_reason": "violence"}], "usage": {"cost_in_usd_ticks": 9}}, "output", True),
    ],
)
def test_refusals_under_200(reply: dict[str, Any], stage: str | None, maybe_billed: bool) -> None:
    """Reports a held back image as a refusal; only a cost of zero says that nothing was billed."""
    with pytest.raises(ModerationBlockedError) as caught:
        decode(reply)
    assert (caught.value.stage, caught.value.maybe_billed) == (stage, maybe_billed)


def test_keeps_the_images_beside_a_refused_one() -> None:
    """Returns the other images of a reply, and warns of the refused one."""
    entries = [{"b64_json": PNG}, {"url": None, "respect_moderation": False}]
    decoded = decode({"data": entries, "usage": {"cost_in_usd_ticks": 400_000_000}})
    assert len(decoded.pictures) == 1
    assert decoded.warnings == ("data.1 was refused: The image does not respect moderation.",)
    assert decoded.cost is not None


@pytest.mark.parametrize(
    ("status", "reply", "kind"),
    [
        (
            400,
            {"error": {"message": "Bad n", "type": "invalid", "param": "n", "code": None}},
            BadRequestError,
        ),
        (400, {"code": "invalid-argument", "error": "Bad aspect ratio"}, BadRequestError),
        (400, {"error": "Incorrect API key provided: xa***. See console.x.ai."}, AuthenticationError),
        (422, {"error": "Failed to deserialize the JSON body"}, BadRequestError),
        (429, {"code": "busy", "error": "Too many requests"}, RateLimitError),
    ],
)
def test_errors_in_three_shapes(status: int, reply: dict[str, Any], kind: type[Exception]) -> None:
    """Reads each shape of an error with its words; a wrong key has status 400."""
    error = XaiProvider().error(Head(status, {}), json.dumps(reply).encode(), ())
    assert type(error) is kind
    words = reply["error"]["message"] if isinstance(reply["error"], dict) else reply["error"]
    assert words.rstrip(".") in str(error)


def test_refuses_too_many_images_and_a_missing_model() -> None:
    """Refuses four references, where three are taken, and a call without a model, before it is paid."""
    link = ImageReference(url="https://files.example/1.png")
    with ImageService("offline", provider="xai") as service:
        with pytest.raises(InvalidRequestError, match="takes at most 3 images, not 4"):
            service.create_image_edit([link] * 4, "a hat")
    with pytest.raises(MissingModelError, match=MODEL):
        XaiProvider().check(CreateImageRequest(prompt="a fox"), TARGET)


def test_a_size_becomes_a_ratio() -> None:
    """Adapts a size in pixels to the nearest ratio and resolution of the model, with warnings."""
    options: dict[str, Any] = {"provider": "xai", "api_key": "a-secret-key", "on_unsupported": "adapt"}
    with ImageService("requests", model=MODEL, **options) as service:
        text = service.dry_run("create_image", "a fox", size="1080x2340")
    assert '"aspect_ratio": "9:19.5"' in text or '"aspect_ratio":"9:19.5"' in text


def test_edits_over_loopback() -> None:
    """Sends edits as JSON; the fake refuses a form, and finds the image in the body."""

    class Logged(RequestLog, FakeXai):
        """The fake with its requests."""

    fake = Logged()
    with serve_fake(fake) as server:
        place: dict[str, Any] = {"base_url": server.base_url, "api_key": "a-secret-key", "model": MODEL}
        with ImageService("requests", provider="xai", **place) as service:
            response = service.create_image_edit([paint_input(), png(1)], "a hat")
        with ImageService("requests", retry=False, **place) as service:
            with pytest.raises(BadRequestError, match="content type"):
                service.create_image_edit([paint_input(), png(1)], "a hat")
    assert response.cost.amount == Decimal("0.06")
    assert sniff(response[0].data) is not None
    body = fake.requests[0].json()
    assert [each["type"] for each in body["images"]] == ["image_url", "image_url"]
