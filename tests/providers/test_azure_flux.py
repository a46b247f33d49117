"""FLUX.2 at Azure AI Foundry: its requests, its contract, and each scenario of its fake over loopback."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import imgkit
from imgkit.catalogue.catalogue import Catalogue
from imgkit.catalogue.pricing import compute_estimate
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import ImageReference, Target
from imgkit.providers.azure_flux import AzureFluxProvider
from imgkit.providers.azure_flux_fake import FakeAzureFlux
from imgkit.testing import ProviderContract, png
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.flux_luma_samples import AzureFluxSamples
from tests.support.provider_apis import RequestLog, encode_json

KEY = "0123456789abcdefCANARY0123456789"
PLACE = "https://res.services.ai.azure.com"
TARGET = Target(base_url=PLACE, host_class="official")
PATH = "/providers/blackforestlabs/v1/flux-2-pro"
OUTCOMES: dict[str, type[Exception]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


class WatchedFake(RequestLog, FakeAzureFlux):
    """The fake, with the requests that it has received."""


class TestContract(AzureFluxSamples, ProviderContract):
    """The provider of FLUX.2 at Azure passes the contract."""


def test_sends_width_and_height() -> None:
    """Sends the members that Azure documents, at the address of the model."""
    link = ImageReference(url="https://files.example/1.png")
    request = CreateImageEditRequest(
        image=(link, link),
        prompt="a mug",
        model="FLUX.2-flex",
        size="1024x768",
        seed=7,
        model_options={"steps": 20},
    )
    url, body = encode_json(AzureFluxProvider(), request, TARGET, image=(link, link))
    assert url == f"{PLACE}/providers/blackforestlabs/v1/flux-2-flex?api-version=preview"
    assert body == {
        **{"model": "FLUX.2-flex", "prompt": "a mug", "width": 1024, "height": 768, "seed": 7, "steps": 20},
        **{"input_image": link.url, "input_image_2": link.url},
    }
    assert AzureFluxProvider().credentials[0].header == "api-key"


@pytest.mark.parametrize("scenario", FakeAzureFlux.scenarios)
def test_scenarios(flavor: ServiceRunner, scenario: str) -> None:
    """Sends one request in each situation but a refused one, and the image as bare base64."""
    fake = WatchedFake(scenario)
    with serve_fake(fake) as server:
        settings: dict[str, Any] = {
            "provider": "azure_flux",
            "base_url": server.origin,
            "api_key": KEY,
            "retry": scenario == "rate_limited",
        }

        def work(service: Any) -> Any:
            return service.create_image_edit(png(1), "a hat", size="64x64")

        backend = "requests" if flavor.flavor == "sync" else "aiohttp"
        if scenario in OUTCOMES:
            with pytest.raises(OUTCOMES[scenario]):
                flavor.run(work, backend, **settings)
        else:
            assert flavor.run(work, backend, **settings)[0].width == 64
    assert fake.count[f"POST {PATH}"] == (2 if scenario == "rate_limited" else 1)
    sent = fake.requests[0]
    assert sent.headers["api-key"] == KEY
    assert sent.json()["input_image"] == base64.b64encode(png(1)).decode()


def test_refuses_what_the_api_lacks() -> None:
    """Refuses masks, options of other models, too many images, and an address below the resource."""
    with imgkit.ImageService(
        "requests", provider="azure_flux", base_url=PLACE, api_key=KEY, on_unsupported="raise"
    ) as service:
        for call, field in (
            ({"image": png(1), "mask": png(1, 8, "RGBA")}, "mask"),
            ({"image": png(1), "model_options": {"steps": 20}}, "model_options.steps"),
            ({"image": [png(number) for number in range(11)]}, "image"),
            ({"image": png(1), "aspect_ratio": "1:1"}, "aspect_ratio"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                service.dry_run("create_image_edit", prompt="a hat", **call)
            assert set(caught.value.fields) == {field}
    place = Target(base_url=f"{PLACE}/openai/v1", host_class="official")
    with pytest.raises(ConfigurationError, match="base_url") as refused:
        AzureFluxProvider().check(CreateImageRequest(prompt="a fox"), place)
    assert refused.value.hint == f'Pass base_url="{PLACE}".'


def test_prices() -> None:
    """Estimates an image of flux-2-pro, and one of flux-2-flex by its pixels."""
    catalogue = Catalogue("azure_flux", AzureFluxProvider.model_facts)
    amounts = {}
    for name in ("FLUX.2-pro", "flux-2-flex"):
        request = CreateImageRequest(prompt="a fox", size="1000x1000", n=2)
        amounts[name] = compute_estimate(request, catalogue.find_model(name, "official"), catalogue).high
    assert {name: float(amount or 0) for name, amount in amounts.items()} == {
        "FLUX.2-pro": 0.08,
        "flux-2-flex": 0.1,
    }
