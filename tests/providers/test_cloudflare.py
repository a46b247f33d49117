"""Cloudflare's Workers AI: accounts in addresses, forms or JSON by model, bare images, arrays of errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit.catalogue.catalogue import Catalogue
from imgkit.catalogue.rules import find_violations
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import FakeReply, Head, ImageReference, Target, json_reply
from imgkit.providers.cloudflare import CloudflareProvider
from imgkit.providers.cloudflare_fake import FakeCloudflare
from imgkit.providers.fakes import SCENARIOS
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input

FLUX_1 = "@cf/black-forest-labs/flux-1-schnell"
FLUX_2 = "@cf/black-forest-labs/flux-2-dev"
DREAM = "@cf/stabilityai/stable-diffusion-xl-base-1.0"
INPAINT = "@cf/runwayml/stable-diffusion-v1-5-inpainting"
RUN = "/accounts/0a1b/ai/run"
OUTCOMES: dict[str, type[BaseException]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


class LoggedFake(RequestLog, FakeCloudflare):
    """The fake, with the requests that it has received."""


def run(fake: FakeCloudflare, call: Callable[[Any], Any], backend: str = "requests", **settings: Any) -> Any:
    """Return the result of a call that a fake answers over loopback."""
    with serve_fake(fake) as server:
        given: dict[str, Any] = {
            "provider": CloudflareProvider(account_id="0a1b"),
            "base_url": f"{server.origin}/client/v4",
            "api_key": "cf-key-123456",
            **settings,
        }
        return ServiceRunner("sync" if backend == "requests" else "async").run(call, backend, **given)


def answer_with(reply: FakeReply) -> LoggedFake:
    """Return a fake with a single reply."""
    fake = LoggedFake()
    fake.handle = lambda request: reply  # type: ignore[method-assign]
    return fake


@pytest.mark.parametrize("model", [FLUX_2, DREAM])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str, model: str) -> None:
    """Sends one request in each situation but a refused one, with forms and with bare images."""
    fake = LoggedFake(scenario)
    call = lambda service: service.create_image("a fox", size="256x320", model=model)  # noqa: E731
    backend = "aiohttp" if scenario in ("success", "wrong_type") else "requests"
    outcome = OUTCOMES.get(scenario)
    if outcome is None:
        response = run(fake, call, backend, retry=scenario == "rate_limited")
        assert [(image.width, image.format) for image in response] == [(64, "png")]
    else:
        with pytest.raises(outcome):
            run(fake, call, backend)
    sent = fake.count[f"POST /client/v4{RUN}/{model}"]
    assert sent == (2 if scenario == "rate_limited" else 1)
    assert {each.headers["authorization"] for each in fake.requests} == {"Bearer cf-key-123456"}


def test_sends_the_documented_bodies() -> None:
    """Sends JSON or a form as each model reads it, also for a prompt alone."""
    target = Target(base_url="https://api.cloudflare.com/client/v4", host_class="official")
    request = CreateImageRequest(prompt="a mug", model=FLUX_1, seed=7, model_options={"steps": 4})
    url, body = encode_json(CloudflareProvider(account_id="0a1b"), request, target)
    assert url == f"https://api.cloudflare.com/client/v4{RUN}/{FLUX_1}"
    assert body == {"prompt": "a mug", "seed": 7, "steps": 4}
    fake = LoggedFake()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        [paint_input((64, 64)), paint_input((32, 32))], "a hat", model=FLUX_2, size="1024x768"
    )
    run(fake, edit)
    parts = [(part.name, part.media_type) for part in fake.requests[0].form() if part.filename]
    texts = {part.name: part.data for part in fake.requests[0].form() if not part.filename}
    assert parts == [("input_image_0", "image/png"), ("input_image_1", "image/png")]
    assert texts == {"prompt": b"a hat", "width": b"1024", "height": b"768"}


def test_masks_are_numbers() -> None:
    """Sends a mask as the bytes of a greyscale file, white where the image may change."""
    fake = LoggedFake()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        paint_input(), "a hat", mask=paint_input(hole=True), model=INPAINT
    )
    assert len(run(fake, edit)) == 1
    body = fake.requests[0].json()
    mask = PIL.Image.open(io.BytesIO(bytes(body["mask"])))
    assert (mask.mode, mask.getpixel((1, 1)), mask.getpixel((1, 47))) == ("L", 255, 0)
    assert base64.b64decode(body["image_b64"]) == paint_input()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("client/v4", f"client/v4{RUN}"),
        ("client/v4/accounts/9z", "client/v4/accounts/9z/ai/run"),
        ("client/v4/accounts/9z/ai", "client/v4/accounts/9z/ai/run"),
        ("client/v4/accounts/9z/ai/run", "client/v4/accounts/9z/ai/run"),
        ("v1/9z/my-gateway/workers-ai", "v1/9z/my-gateway/workers-ai"),
    ],
)
def test_accounts_in_addresses(path: str, expected: str) -> None:
    """An account in the address wins over the setting; a gateway has its own address."""
    target = Target(base_url=f"https://api.example/{path}", host_class="compatible", model=DREAM)
    url, _ = encode_json(CloudflareProvider(account_id="0a1b"), CreateImageRequest(prompt="p"), target)
    assert url == f"https://api.example/{expected}/{DREAM}"


def test_a_missing_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the variable of the account before anything is sent; the variable suffices."""
    fake = LoggedFake()
    call = lambda service: service.create_image("a fox")  # noqa: E731
    with pytest.raises(ConfigurationError, match="CLOUDFLARE_ACCOUNT_ID"):
        run(fake, call, provider="cloudflare")
    assert not fake.requests
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "0a1b")
    assert len(run(fake, call, provider="cloudflare")) == 1
    gateway = Target(base_url="https://gateway.ai.cloudflare.com/v1/a/g", host_class="official")
    with pytest.raises(ConfigurationError, match="/v1/a/g/workers-ai"):
        CloudflareProvider().check(CreateImageRequest(prompt="a fox"), gateway)
    with pytest.raises(ConfigurationError, match="Invalid account_id"):
        CloudflareProvider(account_id="a/../b")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quality": "high"}, "takes no quality"),
        ({"model": "../x"}, "is a path"),
        ({"model": FLUX_2, "image": [paint_input()] * 6}, "at most 4"),
        ({"model": DREAM, "image": [paint_input()] * 2}, "takes one image, not 2"),
        ({"model": FLUX_2, "image": paint_input(), "mask": paint_input(hole=True)}, "takes no mask"),
        ({"image": ImageReference(url="https://files.example/1.png")}, "eference"),
        ({"model": FLUX_2, "model_options": {"num_steps": 5}}, "num_steps"),
        ({"model": DREAM, "model_options": {"num_steps": 21}}, "from 1 to 20"),
    ],
)
def test_values_that_a_model_lacks(fields: dict[str, Any], words: str) -> None:
    """Refuses fields, inputs and options that a model does not take, before anything is sent."""
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


def test_facts_of_models() -> None:
    """Knows models that choose the size, take no negative prompt, or edit no images; doubts only warn."""
    catalogue = Catalogue("cloudflare", CloudflareProvider.model_facts)
    model = catalogue.find_model(FLUX_1, "official")
    assert model is not None
    request = CreateImageRequest(prompt="a fox", size="64x64", negative_prompt="rain", seed=7)
    found = list(find_violations(request, model, catalogue))
    assert [(each.field, each.sure) for each in found] == [("size", False), ("negative_prompt", False)]
    edit = CreateImageEditRequest(image=paint_input(), prompt="a hat")
    (violation,) = find_violations(edit, model, catalogue)
    assert (violation.field, violation.sure) == ("model", True)


def test_several_images_are_several_requests() -> None:
    """Sends a request for each image."""
    fake = LoggedFake()
    assert len(run(fake, lambda service: service.create_image("a fox", n=3, size="64x64"))) == 3
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            json_reply(
                429,
                {
                    "success": False,
                    "errors": [
                        {
                            "code": 3036,
                            "message": "You have used up your daily free allocation of 10,000 neurons.",
                        }
                    ],
                },
            ),
            imgkit.QuotaExceededError,
        ),
        (
            json_reply(
                429, {"success": False, "errors": [{"code": 3040, "message": "No more data centers"}]}
            ),
            imgkit.RateLimitError,
        ),
        (
            json_reply(
                200,
                {
                    "success": False,
                    "result": None,
                    "errors": [{"code": 3030, "message": "Input prompt contains NSFW content"}],
                },
            ),
            imgkit.ModerationBlockedError,
        ),
        (json_reply(200, {"success": True, "result": {}, "errors": []}), imgkit.UnreadableReplyError),
        (
            json_reply(200, {"success": True, "result": {"image": "!!"}, "errors": []}),
            imgkit.UnreadableReplyError,
        ),
        (
            json_reply(
                401, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}
            ),
            imgkit.AuthenticationError,
        ),
    ],
)
def test_errors(reply: FakeReply, kind: type[BaseException]) -> None:
    """Reads the array of errors under any status: limits, refusals, empty results."""
    fake = answer_with(reply)
    with pytest.raises(kind) as caught:
        run(fake, lambda service: service.create_image("a fox"))
    assert "cf-key-123456" not in str(caught.value)
    assert sum(fake.count.values()) == 1


def test_a_failure_may_be_billed() -> None:
    """No 5xx of Cloudflare proves that nothing ran."""
    body = b'{"success": false, "errors": [{"code": 5000, "message": "Internal"}]}'
    error = CloudflareProvider(account_id="a").error(Head(500, {}), body, ())
    assert isinstance(error, imgkit.OutcomeUnknownError)
