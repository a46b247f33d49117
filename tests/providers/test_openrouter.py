"""The provider of OpenRouter: requests like its SDK's, references, streams, costs and refusals."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from imgkit import (
    AsyncImageService,
    ImageService,
    ModerationBlockedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitError,
)
from imgkit.errors import MissingModelError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import Head, ImageReference, Target
from imgkit.providers.openrouter import OpenRouterProvider
from imgkit.providers.openrouter_fake import FakeOpenRouter
from imgkit.testing import serve_fake
from tests.support.provider_apis import RequestLog, encode_json, paint_input

TARGET = Target(base_url="https://openrouter.ai/api/v1", host_class="official")
PIXELS = ImageReference(url="data:image/png;base64,AA==")


class LoggedOpenRouter(RequestLog, FakeOpenRouter):
    """The fake with its requests."""


def test_sends_the_request_of_the_sdk() -> None:
    """Sends the body that openrouter 1.3.84 sends for an edit."""
    request = CreateImageEditRequest(image=(PIXELS,), prompt="p", model="m/x", aspect_ratio="16:9", n=2)
    url, body = encode_json(OpenRouterProvider(), request, TARGET, image=(PIXELS,))
    assert url == "https://openrouter.ai/api/v1/images"
    # The SDK sends "stream": false, too, which is the default.
    assert {**body, "stream": False} == {
        **{"model": "m/x", "prompt": "p", "aspect_ratio": "16:9", "n": 2, "stream": False},
        "input_references": [{"image_url": {"url": "data:image/png;base64,AA=="}, "type": "image_url"}],
    }


def test_sends_options_and_headers() -> None:
    """Sends fields, options by their names, and the headers that name an application."""
    request = CreateImageRequest(
        prompt="p",
        resolution="1.5K",
        seed=7,
        output_format="webp",
        output_compression=80,
        model_options={"provider": {"only": ["acme"]}, "session_id": "s1"},
        extra_headers={"HTTP-Referer": "https://app.example"},
    )
    _, body = encode_json(OpenRouterProvider(), request, TARGET)
    assert body == {
        **{"prompt": "p", "resolution": "1.5K", "seed": 7, "output_format": "webp", "output_compression": 80},
        **{"provider": {"only": ["acme"]}, "session_id": "s1"},
    }
    with pytest.raises(MissingModelError, match="needs a model"):
        OpenRouterProvider().check(request, TARGET)


@pytest.mark.parametrize("http_backend", ["requests", "aiohttp"])
def test_streams(http_backend: str) -> None:
    """Yields the partial image, skips words, and ends with the image, its usage and its cost."""
    fake = LoggedOpenRouter()
    with serve_fake(fake) as server:
        place: dict[str, Any] = {
            **{"provider": "openrouter", "base_url": server.base_url, "api_key": "a-secret-key"},
            "model": "m/x",
        }
        if http_backend == "requests":
            with ImageService(http_backend, **place) as service:
                with service.stream_image_edit(paint_input(), "a hat", partial_images=2) as events:
                    kinds = [type(event).__name__ for event in events]
                response = events.response
        else:

            async def run() -> tuple[list[str], Any]:
                async with AsyncImageService(http_backend, **place) as service:
                    async with service.stream_image_edit(paint_input(), "a hat") as events:
                        kinds = [type(event).__name__ async for event in events]
                    return kinds, events.response

            kinds, response = asyncio.run(run())
    assert len(kinds) == 2
    assert kinds[0].startswith("Partial")
    assert response.cost.amount == Decimal("0.067")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 1120)
    body = fake.requests[0].json()
    assert body["stream"] is True
    assert "partial_images" not in body
    assert fake.count == {"POST /v1/images": 1}


def test_a_stream_fails_by_its_error_event() -> None:
    """Raises the error of an event, with the words of the API."""

    class Failing(FakeOpenRouter):
        """A fake whose stream breaks after the partial image."""

        def list_events(self, call: Any, reply: Any) -> list[dict[str, Any]]:
            """Return a partial image and an error."""
            error = {"code": 403, "message": "Flagged", "metadata": {"reasons": ["violence"]}}
            return [*super().list_events(call, reply)[:1], {"type": "error", "error": error}]

    with serve_fake(Failing()) as server:
        place: dict[str, Any] = {"base_url": server.base_url, "api_key": "a-secret-key", "model": "m/x"}
        with ImageService("requests", provider="openrouter", **place) as service:
            with pytest.raises(Exception, match="Flagged") as caught:
                with service.stream_image("a fox") as events:
                    list(events)
    assert "a-secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "metadata", "kind"),
    [
        (402, {}, QuotaExceededError),
        (403, {"reasons": ["violence"]}, ModerationBlockedError),
        (429, {"raw": "slow down", "retry_after_seconds": 7}, RateLimitError),
        (502, {"provider_name": "Acme"}, OutcomeUnknownError),
        (524, {}, OutcomeUnknownError),
        (529, {}, OutcomeUnknownError),
    ],
)
def test_errors(status: int, metadata: dict[str, Any], kind: type[Exception]) -> None:
    """Reads errors whose code is the status: credits, moderation with its reasons, waits in the body."""
    message = "The model requires moderation and your input was flagged." if status == 403 else "No."
    body = {"error": {"code": status, "message": message, "metadata": metadata}}
    error = OpenRouterProvider().error(Head(status, {}), json.dumps(body).encode(), ())
    assert type(error) is kind
    if isinstance(error, ModerationBlockedError):
        assert error.categories == ("violence",)
    if kind is RateLimitError:
        assert getattr(error, "retry_after_s", None) == 7


def test_an_unreadable_cost_is_unknown() -> None:
    """Knows no cost where the reply tells none, and never takes it for zero."""
    usages: list[Any] = [{}, {"cost": None}, {"cost": "much"}, {"cost": -1}, {"cost": True}, []]
    for usage in usages:
        cost, _ = OpenRouterProvider().examine_reply(Head(200, {}), {"usage": usage}, ())
        assert cost is None
