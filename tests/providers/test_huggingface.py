"""Hugging Face's router: the routes of its inference providers, bare images, models that load."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.errors import InvalidRequestError
from imgkit.models import CreateImageRequest
from imgkit.providers import FakeReply, Head, Target, json_reply
from imgkit.providers.fakes import SCENARIOS
from imgkit.providers.huggingface import HuggingFaceProvider
from imgkit.providers.huggingface_fake import FakeHuggingFace
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input

HUB = "black-forest-labs/FLUX.1-dev"
TARGET = Target(base_url=HuggingFaceProvider.base_url, host_class="official")
PATHS = {
    "hf-inference": f"/hf-inference/models/{HUB}",
    "fal-ai": "/fal-ai/fal-ai/flux/dev",
    "together": "/together/v1/images/generations",
    "nscale": "/nscale/v1/images/generations",
}
OUTCOMES: dict[str, type[BaseException]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


class LoggedFake(RequestLog, FakeHuggingFace):
    """The fake, with the requests that it has received."""


def run(fake: FakeHuggingFace, call: Callable[[Any], Any], backend: str = "requests", **settings: Any) -> Any:
    """Return the result of a call that a fake answers over loopback."""
    with serve_fake(fake) as server:
        return ServiceRunner("sync" if backend == "requests" else "async").run(
            call, backend, provider="huggingface", base_url=server.origin, api_key="hf_key12345", **settings
        )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str) -> None:
    """Sends one request in each situation, and another once a model has loaded."""
    fake = LoggedFake(scenario)
    call = lambda service: service.create_image("a fox", size="64x48")  # noqa: E731
    backend = "aiohttp" if scenario in ("success", "rate_limited") else "requests"
    outcome = OUTCOMES.get(scenario)
    if outcome is None:
        response = run(fake, call, backend, retry=scenario == "rate_limited")
        assert [(image.width, image.format) for image in response] == [(64, "png")]
    else:
        with pytest.raises(outcome):
            run(fake, call, backend)
    assert sum(fake.count[f"POST {each.path}"] for each in fake.requests[:1]) == (
        2 if scenario == "rate_limited" else 1
    )


@pytest.mark.parametrize("route", PATHS)
def test_routes(route: str, tmp_path: Path) -> None:
    """Sends a request to the route of its inference provider, and the key to the router alone."""
    fake = LoggedFake()
    fields = {"size": "64x48", "model": f"{route}/{HUB}", "save_to": tmp_path}
    response = run(fake, lambda service: service.create_image("a mug", **fields))
    assert (response[0].width, response[0].height) == (64, 48)
    assert fake.requests[0].path == PATHS[route]
    signed = ["authorization" in each.headers for each in fake.requests]
    assert signed == ([True, False] if route == "fal-ai" else [True])


def test_sends_the_bodies_of_the_sdks() -> None:
    """Sends the bodies of huggingface_hub 2.4.0, and of together 3.1.1 and @ai-sdk/fal behind the router."""
    provider = HuggingFaceProvider()
    request = CreateImageRequest(
        prompt="a mug",
        size="1024x768",
        seed=7,
        negative_prompt="rain",
        model=HUB,
        model_options={"num_inference_steps": 4, "guidance_scale": 3.5},
    )
    url, body = encode_json(provider, request, TARGET)
    assert url == f"https://router.huggingface.co/hf-inference/models/{HUB}"
    assert body == {
        "inputs": "a mug",
        "parameters": {
            **{"width": 1024, "height": 768, "seed": 7, "negative_prompt": "rain"},
            **{"num_inference_steps": 4, "guidance_scale": 3.5},
        },
    }
    plain = CreateImageRequest(prompt="p", size="1024x768", model="together/m", model_options={"steps": 4})
    assert encode_json(provider, plain, TARGET)[1] == {
        **{"model": "m", "prompt": "p", "height": 768, "width": 1024},
        **{"response_format": "base64", "steps": 4},
    }
    plain = CreateImageRequest(prompt="a mug", size="1024x768", seed=7, model=f"fal-ai/{HUB}")
    assert encode_json(provider, plain, TARGET)[1] == {
        "prompt": "a mug",
        "seed": 7,
        "image_size": {"width": 1024, "height": 768},
    }
    plain = CreateImageRequest(prompt="p", size="512x512", model="nscale/m")
    assert encode_json(provider, plain, TARGET)[1] == {
        **{"model": "m", "prompt": "p", "size": "512x512"},
        **{"response_format": "b64_json"},
    }


@pytest.mark.parametrize("route", ["hf-inference", "fal-ai", "together"])
def test_edits(route: str) -> None:
    """Sends the image of an edit in base64, or in fal's shape."""
    fake = LoggedFake()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        paint_input(), "a hat", model=f"{route}/a/b", seed=7
    )
    assert len(run(fake, edit)) == 1
    body = fake.requests[0].json()
    encoded = base64.b64encode(paint_input()).decode()
    if route == "fal-ai":
        assert body == {"prompt": "a hat", "seed": 7, "image_url": f"data:image/png;base64,{encoded}"}
    elif route == "together":
        link = f"data:image/png;base64,{encoded}"
        assert (body["model"], body["image_url"], body["response_format"]) == ("a/b", link, "base64")
    else:
        assert body == {"inputs": encoded, "parameters": {"prompt": "a hat", "seed": 7}}


def test_the_organization_that_pays() -> None:
    """Names the organization that pays in a header of Hugging Face."""
    fake = LoggedFake()
    run(fake, lambda service: service.create_image("a fox"), organization="my-org")
    assert fake.requests[0].headers["x-hf-bill-to"] == "my-org"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quality": "high"}, "takes no quality"),
        ({"model": "nscale/m", "seed": 7}, "nscale takes no seed"),
        ({"model": "replicate/a/b"}, "cannot ask replicate"),
        ({"model": "a/../b"}, "is a path"),
        ({"model": "nscale/m", "image": paint_input()}, "edits no images by nscale"),
        ({"image": [paint_input()] * 6}, "edits one image"),
        ({"image": paint_input(), "mask": paint_input(hole=True)}, "takes no mask"),
        ({"model_options": {"guidance_scal": 5}}, "guidance_scale"),
        ({"model_options": {"num_inference_steps": 0}}, "from 1"),
    ],
)
def test_values_that_a_route_lacks(fields: dict[str, Any], words: str) -> None:
    """Refuses fields, inputs, options and routes that imgkit cannot send, before anything is sent."""
    fake = LoggedFake()
    image = fields.get("image")
    given = {name: value for name, value in fields.items() if name != "image"}
    with pytest.raises(InvalidRequestError) as caught:
        if image is None:
            run(fake, lambda service: service.create_image("a fox", **given))
        else:
            run(fake, lambda service: service.create_image_edit(image, "a hat", **given))
    assert words in str(caught.value)
    assert not fake.requests


def test_a_model_that_loads_costs_nothing() -> None:
    """The 503 of a model that loads names its wait, and is free; any other 503 may be billed."""
    provider = HuggingFaceProvider()
    loading = b'{"error": "Model a/b is currently loading", "estimated_time": 20.5}'
    error = provider.error(Head(503, {}), loading, ())
    assert isinstance(error, imgkit.ServerError)
    assert error.retry_after_s == 20.5
    assert not error.maybe_billed
    assert isinstance(provider.error(Head(503, {}), b'{"error": "Busy"}', ()), imgkit.OutcomeUnknownError)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            json_reply(402, {"error": "You have exceeded your monthly included credits"}),
            imgkit.QuotaExceededError,
        ),
        (json_reply(401, {"error": "Invalid username or password."}), imgkit.AuthenticationError),
        (
            json_reply(200, {"images": [{"url": "https://x.example/1.png"}], "has_nsfw_concepts": [True]}),
            imgkit.ModerationBlockedError,
        ),
        (json_reply(200, {"data": []}), imgkit.EmptyResultError),
        (FakeReply(200, {"content-type": "image/png"}, b"no image"), imgkit.UnreadableReplyError),
    ],
)
def test_errors(reply: FakeReply, kind: type[BaseException]) -> None:
    """Reads the errors of the router and of the providers behind it."""
    fake = LoggedFake()
    fake.handle = lambda request: reply  # type: ignore[method-assign]
    with pytest.raises(kind) as caught:
        run(fake, lambda service: service.create_image("a fox"))
    assert "hf_key12345" not in str(caught.value)
    assert sum(fake.count.values()) == 1


def test_several_images_are_several_requests() -> None:
    """Sends a request for each image."""
    fake = LoggedFake()
    assert len(run(fake, lambda service: service.create_image("a fox", n=3, size="16x16"))) == 3
    assert len(fake.requests) == 3
