"""The providers xai, openrouter and together over loopback: scenarios, references, links, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imgkit import (
    BadRequestError,
    ConfigurationError,
    DownloadError,
    ImageService,
    InvalidRequestError,
    ModerationBlockedError,
    OutcomeUnknownError,
)
from imgkit.providers import ImageReference, OpenAIDialect
from imgkit.providers.fakes import SCENARIOS
from imgkit.providers.openrouter import OpenRouterProvider
from imgkit.providers.together import TogetherProvider
from imgkit.providers.xai import XaiProvider
from imgkit.testing import serve_fake
from tests.support.provider_apis import RequestLog, paint_input

PROVIDERS: dict[str, type[OpenAIDialect]] = {
    "openrouter": OpenRouterProvider,
    "together": TogetherProvider,
    "xai": XaiProvider,
}
LINK = ImageReference(url="https://files.example/1.png")

OUTCOMES: dict[str, type[Exception] | int] = {
    **dict.fromkeys(SCENARIOS, 2),
    "fewer": 1,
    "refused": ModerationBlockedError,
    "invalid": BadRequestError,
    "failing": OutcomeUnknownError,
    "lost_submit": OutcomeUnknownError,
}


def open_service(name: str, base_url: str, **options: Any) -> ImageService:
    """Return a service of a provider at an address, with a key and a model."""
    return ImageService(
        "requests", provider=name, base_url=base_url, api_key="a-secret-key", model="m", **options
    )


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario(name: str, scenario: str) -> None:
    """Submits once, after a 429 twice, and returns the images, whatever type is declared, or the error."""
    kind = PROVIDERS[name].fake
    assert kind is not None
    fake, outcome = kind(scenario), OUTCOMES[scenario]
    with serve_fake(fake) as server, open_service(name, server.base_url) as service:
        if isinstance(outcome, int):
            response = service.create_image("a fox", n=2)
            assert len(response) == outcome
            assert response[0].format == ("png" if name == "openrouter" else "jpeg")
            assert bool(response.warnings) == (scenario == "fewer")
            assert response.cost.known == (name != "together")
        else:
            with pytest.raises(outcome):
                service.create_image("a fox", n=2)
    posts = sum(count for call, count in fake.count.items() if call.startswith("POST "))
    assert posts == (2 if scenario == "rate_limited" else 1)


@pytest.mark.parametrize("name", ["together", "xai"])
def test_links_are_fetched_without_the_key(name: str) -> None:
    """Fetches an image from its link without credentials, and reports a link that has expired."""
    kind = PROVIDERS[name].fake
    assert kind is not None
    for scenario in ("success", "expired_link"):
        fake = type("Logged", (RequestLog, kind), {})(scenario)
        with serve_fake(fake) as server, open_service(name, server.base_url) as service:
            response = service.create_image("a fox", response_format="url")
            if scenario == "success":
                assert response[0].data[:3] == b"\xff\xd8\xff"
            else:
                with pytest.raises(DownloadError):
                    assert response[0].data
        first, *others = fake.requests
        assert first.headers["authorization"] == "Bearer a-secret-key"
        assert others
        assert all("authorization" not in each.headers for each in others)


@pytest.mark.parametrize("name", PROVIDERS)
def test_offline_edits_and_variations(name: str) -> None:
    """Edits one image and several, emulates a variation, and refuses a mask, offline and without a key."""
    with ImageService("offline", provider=name) as service:
        if name != "together":
            assert service.create_image("a fox", aspect_ratio="9:19.5")[0].height == 1504
        assert len(service.create_image_edit(paint_input(), "a hat", n=2)) == 2
        assert len(service.create_image_edit([paint_input(), LINK], "a hat")) == 1
        assert service.create_image_variation(paint_input()).meta.emulated
        with pytest.raises(InvalidRequestError) as caught:
            service.create_image_edit(paint_input(), "a hat", mask=paint_input(hole=True))
        assert set(caught.value.fields) == {"mask"}


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("xai", {"size": "1024x1024"}, "size"),
        ("xai", {"seed": 7}, "seed"),
        ("xai", {"negative_prompt": "rain"}, "negative_prompt"),
        ("xai", {"aspect_ratio": "21:9", "model": "grok-imagine-image"}, "aspect_ratio"),
        ("xai", {"resolution": "4K", "model": "grok-imagine-image"}, "resolution"),
        ("xai", {"model_options": {"storage_option": {}}}, "model_options.storage_option"),
        ("xai", {"model_options": {"storage_options": 1}}, "model_options.storage_options"),
        ("openrouter", {"negative_prompt": "rain"}, "negative_prompt"),
        ("openrouter", {"response_format": "url"}, "response_format"),
        ("openrouter", {"model_options": {"provider": "acme"}}, "model_options.provider"),
        ("together", {"aspect_ratio": "16:9"}, "aspect_ratio"),
        ("together", {"quality": "high"}, "quality"),
        ("together", {"model_options": {"steps": 0}}, "model_options.steps"),
        ("together", {"model_options": {"step": 4}}, "model_options.step"),
        ("together", {"output_format": "webp", "model": "black-forest-labs/FLUX.2-pro"}, "output_format"),
    ],
)
def test_refuses_what_the_api_lacks(name: str, given: dict[str, Any], field: str) -> None:
    """Refuses a field, a value or an option before anything is sent, and names it."""
    with ImageService("requests", provider=name, model="m", api_key="a-secret-key") as service:
        with pytest.raises(InvalidRequestError) as caught:
            service.dry_run("create_image", "a fox", **given)
    assert set(caught.value.fields) == {field}


@pytest.mark.parametrize("name", ["openrouter", "together"])
def test_refuses_files_of_another_api(name: str) -> None:
    """Refuses the id of an uploaded file, which these APIs do not keep."""
    with ImageService("offline", provider=name) as service:
        with pytest.raises(InvalidRequestError, match="no uploaded files"):
            service.create_image_edit(ImageReference(file_id="file-1"), "a hat")


@pytest.mark.parametrize("name", PROVIDERS)
def test_lists_models(name: str) -> None:
    """Reads the list of models in the shape of each API: an object with data or models, or a list."""
    kind = PROVIDERS[name].fake
    assert kind is not None
    with serve_fake(kind()) as server, open_service(name, server.base_url) as service:
        assert service.list_models()


@pytest.mark.parametrize("name", ["together", "xai"])
def test_does_not_stream(name: str) -> None:
    """Refuses a stream from an API without streams."""
    with ImageService("offline", provider=name, model="m") as service:
        with pytest.raises((InvalidRequestError, ConfigurationError)):
            with service.stream_image("a fox") as events:
                list(events)


@pytest.mark.parametrize("name", ["gemini", "xai"])
def test_a_file_name_asks_for_no_format_that_the_api_lacks(name: str, tmp_path: Path) -> None:
    """Saves the image in the format that the API sends, where it takes no `output_format`."""
    with ImageService("offline", provider=name, model="m") as service:
        responses = [
            service.create_image("a fox", save_to=tmp_path / "fox.webp"),
            service.create_image_edit(paint_input(), "a hat", save_to=tmp_path / "hat.webp"),
        ]
        if name == "gemini":
            with service.stream_image("a fox", save_to=tmp_path / "stream.webp") as events:
                list(events)
            responses.append(events.response)
    for response in responses:
        assert response[0].path is not None
        assert response[0].path.suffix == (".jpg" if name == "xai" else ".png")
