"""Luma's Photon models: requests like the SDK's, the contract, and each scenario over loopback."""

from __future__ import annotations

from typing import Any

import pytest

import imgkit
from imgkit.errors import InvalidRequestError, JobPendingError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import ImageReference, Target, json_reply
from imgkit.providers.luma import LumaProvider
from imgkit.providers.luma_fake import FakeLuma
from imgkit.testing import JobProviderContract, png
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.flux_luma_samples import LINKS, LumaSamples
from tests.support.provider_apis import RequestLog, encode_json

KEY = "luma-0123456789CANARY"
TARGET = Target(base_url=LumaProvider.base_url, host_class="official")
SUBMIT = "POST /generations/image"
OUTCOMES: dict[str, type[Exception]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
    "expired_link": JobPendingError,
}


class WatchedFake(RequestLog, FakeLuma):
    """The fake, with the requests that it has received."""


class TestContract(LumaSamples, JobProviderContract):
    """The provider of Luma passes the contract."""


def test_sends_the_request_of_the_sdk() -> None:
    """Sends the body that @ai-sdk/luma sends."""
    url, body = encode_json(LumaProvider(), CreateImageRequest(prompt="a mug", aspect_ratio="16:9"), TARGET)
    assert url == "https://api.lumalabs.ai/dream-machine/v1/generations/image"
    assert body == {"prompt": "a mug", "aspect_ratio": "16:9", "model": "photon-1"}


@pytest.mark.parametrize(
    ("images", "options", "sent"),
    [
        (LINKS[:1], {}, {"modify_image_ref": {"url": LINKS[0].url}}),
        (
            LINKS[:1],
            {"modify_image_ref": {"weight": 0.5}},
            {"modify_image_ref": {"url": LINKS[0].url, "weight": 0.5}},
        ),
        (LINKS[:2], {}, {"image_ref": [{"url": link.url} for link in LINKS[:2]]}),
    ],
)
def test_sends_images_as_links(
    images: tuple[ImageReference, ...], options: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Changes a single image, and takes several as references; jpeg is jpg."""
    request = CreateImageEditRequest(
        image=images, prompt="a hat", output_format="jpeg", model_options=options
    )
    _, body = encode_json(LumaProvider(), request, TARGET, image=images)
    assert body == {"prompt": "a hat", "model": "photon-1", "format": "jpg", **sent}


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("scenario", FakeLuma.scenarios)
def test_scenarios(flavor: ServiceRunner, scenario: str) -> None:
    """Submits once in each situation but a refused one, and sends the key to no other host."""
    fake = WatchedFake(scenario)
    with serve_fake(fake) as server:
        settings: dict[str, Any] = {
            "provider": "luma",
            "base_url": server.origin,
            "api_key": KEY,
            "retry": scenario == "rate_limited",
        }

        def work(service: Any) -> Any:
            return service.create_image("a fox", aspect_ratio="1:1")

        backend = "requests" if flavor.flavor == "sync" else "aiohttp"
        if scenario in OUTCOMES:
            with pytest.raises(OUTCOMES[scenario]):
                flavor.run(work, backend, **settings)
        else:
            assert len(flavor.run(work, backend, **settings)) == 1
    assert fake.count[SUBMIT] == (2 if scenario == "rate_limited" else 1)
    for request in fake.requests:
        assert ("authorization" in request.headers) == ("/results/" not in request.path)


@pytest.mark.parametrize("reason", ["Out of memory", KEY, None])
@pytest.mark.usefixtures("short_pauses")
def test_failed_jobs(flavor: ServiceRunner, reason: str | None) -> None:
    """Reports the reason of a failed job without the key; nothing is submitted again."""

    class FailingFake(FakeLuma):
        def handle(self, request: Any) -> Any:
            reply = super().handle(request)
            if request.method == "GET" and reply.status == 200:
                return json_reply(200, {"id": "job-1", "state": "failed", "failure_reason": reason})
            return reply

    fake = FailingFake()
    with serve_fake(fake) as server, pytest.raises(imgkit.JobFailedError) as caught:
        backend = "requests" if flavor.flavor == "sync" else "aiohttp"
        flavor.run(
            lambda service: service.create_image("a fox"),
            backend,
            **{"provider": "luma", "base_url": server.origin, "api_key": KEY},
        )
    assert "CANARY" not in str(caught.value)
    assert (reason or "no reason given") in str(caught.value) or reason == KEY
    assert fake.count[SUBMIT] == 1


def test_refuses_what_the_api_lacks() -> None:
    """Refuses files, uploaded files, masks and seeds; a size becomes a ratio."""
    with imgkit.ImageService("requests", provider="luma", api_key=KEY, on_unsupported="raise") as service:
        for call, field in (
            ({"image": png(1)}, "image"),
            ({"image": ImageReference(file_id="f-1")}, "image"),
            ({"image": [LINKS[0]] * 5}, "image"),
            ({"image": LINKS[0], "seed": 7}, "seed"),
            ({"image": LINKS[0], "aspect_ratio": "2:1"}, "aspect_ratio"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                service.dry_run("create_image_edit", prompt="a hat", **call)
            assert set(caught.value.fields) == {field}
    with imgkit.ImageService("requests", provider="luma", api_key=KEY, on_unsupported="adapt") as service:
        assert '"aspect_ratio": "16:9"' in service.dry_run("create_image", "a fox", size="1920x1080")
