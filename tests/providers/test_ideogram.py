"""The provider of Ideogram: addresses, members, both colours of masks, jobs, withheld images, quotes."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import InvalidRequestError
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.fakes import SCENARIOS, FakeReply, FakeRequest, json_reply
from imgkit.providers.ideogram import IdeogramProvider
from imgkit.providers.ideogram_fake import MICROS_PER_IMAGE, FakeIdeogram
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input
from tests.support.rasters import opened

pytestmark = pytest.mark.usefixtures("short_pauses")

KEY = "ideogram-key-0123456789"
TARGET = Target(base_url="https://api.ideogram.ai", host_class="official")
CREATE, EDIT = "/v2/image/generate/ideogram-4-5", "/v2/image/precise-edit/ideogram-4-5"
PHOTO, HOLE = paint_input(), paint_input(hole=True)
WAITING = Job(
    id="a-0",
    provider="ideogram",
    base_url=TARGET.base_url,
    operation="create_image",
    state={"generation_id": "g1"},
)


class WatchedFake(RequestLog, FakeIdeogram):
    """The API, with the requests that it has received."""


def call(
    fake: FakeIdeogram, work: Callable[[Any], Any], runner: ServiceRunner | None = None, **settings: Any
) -> Any:
    """Return the result of work of a service with the API on loopback."""
    with serve_fake(fake) as server:
        settings = {"provider": "ideogram", "base_url": server.origin, "api_key": KEY, **settings}
        backend = settings.pop("backend", "requests")
        return (runner or ServiceRunner("sync")).run(work, backend, **settings)


def read_submit(fake: WatchedFake) -> tuple[str, dict[str, str], list[tuple[str, bytes]]]:
    """Return path, fields and files of the first request, which is a form."""
    parts = fake.requests[0].form()
    fields = {part.name: part.data.decode() for part in parts if part.filename is None}
    return fake.requests[0].path, fields, [(part.name, part.data) for part in parts if part.filename]


def decode(value: Any, job: Job | None = WAITING, status: int = 200) -> Any:
    """Decode a reply to a poll, or to a submit if `job` is None."""
    body = JsonReply(frozenset())
    body.feed(json.dumps(value).encode())
    body.close()
    provider = IdeogramProvider()
    if job is None:
        return provider.decode(Head(status, {}), body, TARGET)
    return provider.decode_poll(job, Head(status, {}), body, TARGET)


# --- Requests --------------------------------------------------------------------------------


def test_sends_text_as_json() -> None:
    """Sends the body of a client that was tried at the API on 2026-10-02, and asks for a job."""
    request = CreateImageRequest(prompt="an apple", quality="low", seed=7, size="1024x1024")
    url, body = encode_json(IdeogramProvider(), request, TARGET)
    assert url == f"https://api.ideogram.ai{CREATE}"
    assert body == {"prompt": "an apple", "quality": "low", "seed": 7, "size": "1024x1024", "async": True}
    assert IdeogramProvider().credentials[0].header == "api-key"


@pytest.mark.parametrize(
    ("model", "fields", "members"),
    [
        ("ideogram-4-5", {"size": "auto"}, {"size": "auto"}),
        ("ideogram-4", {"size": "2048x2048"}, {"resolution": "2048x2048"}),
        ("ideogram-3", {"aspect_ratio": "16:9"}, {"aspect_ratio": "16x9"}),
        ("ideogram-3", {"size": "1280x768"}, {"resolution": "1280x768"}),
        ("p-image-ideogram", {"size": "1024x768"}, {"custom_width": 1024, "custom_height": 768}),
        (
            "p-image-ideogram",
            {"aspect_ratio": "4:3", "resolution": "2K"},
            {"aspect_ratio": "4x3", "resolution": "2k"},
        ),
        (
            "nano-banana-2",
            {"aspect_ratio": "9:16", "resolution": "4K"},
            {"aspect_ratio": "9:16", "resolution_tier": "4K"},
        ),
        ("gpt-image-2-5-flare", {"aspect_ratio": "16:9"}, {"aspect_ratio": "16:9"}),
    ],
)
def test_writes_the_shape_as_the_endpoint_does(
    model: str, fields: dict[str, Any], members: dict[str, Any]
) -> None:
    """Names sizes, ratios and resolutions as each model does."""
    url, body = encode_json(IdeogramProvider(), CreateImageRequest(prompt="p", model=model, **fields), TARGET)
    assert url.endswith(f"/v2/image/generate/{model}")
    assert body == {"prompt": "p", "async": True, **members}


@pytest.mark.parametrize(
    ("model", "masked", "path", "names"),
    [
        (None, True, EDIT, ["image", "reference_images", "mask"]),
        (None, False, EDIT, ["image", "reference_images"]),
        ("generate/ideogram-4-5", True, CREATE, ["images", "images", "mask"]),
        ("nano-banana-2", False, "/v2/image/generate/nano-banana-2", ["images", "images"]),
    ],
)
def test_sends_images_as_a_form(model: str | None, masked: bool, path: str, names: list[str]) -> None:
    """Names the images as the endpoint does, and keeps their order."""
    fake, other = WatchedFake(), paint_input((32, 32))
    fields = {"mask": HOLE if masked else None, "seed": 0, "n": 2, "model_options": {"magic_prompt": "off"}}
    edit = lambda service: service.create_image_edit([PHOTO, other], "a hat", model=model, **fields)  # noqa: E731
    assert len(call(fake, edit)) == 2
    found_path, found, files = read_submit(fake)
    assert found_path == path
    wanted = {"prompt": "a hat", "num_images": "2", "seed": "0", "async": "true", "magic_prompt": "off"}
    assert found == wanted
    assert [name for name, _ in files] == names
    assert [data for _, data in files[:2]] == [PHOTO, other]


def test_a_named_model_chooses_its_action() -> None:
    """Sends an edit with a mask to inpaint and one without to remix, for Ideogram 3.0."""
    for mask, path in ((HOLE, "inpaint"), (None, "remix")):
        fake = WatchedFake()
        call(fake, lambda service: service.create_image_edit(PHOTO, "x", mask=mask, model="ideogram-3"))  # noqa: B023
        assert fake.requests[0].path == f"/v2/image/{path}/ideogram-3"


@pytest.mark.parametrize(
    ("model", "may_change"),
    [("ideogram-4-5", 0), ("inpaint/ideogram-3", 0), ("generate/ideogram-4-5", 0), ("gpt-image-2", 255)],
)
def test_masks_have_the_colour_of_the_endpoint(model: str, may_change: int) -> None:
    """Draws the area that may change black for Ideogram's models, and white for OpenAI's."""
    fake = WatchedFake()
    call(fake, lambda service: service.create_image_edit(PHOTO, "a hat", mask=HOLE, model=model))
    mask = opened(dict(read_submit(fake)[2])["mask"])
    assert (mask.mode, mask.size) == ("L", (64, 48))
    assert (mask.getpixel((5, 5)), mask.getpixel((5, 40))) == (may_change, 255 - may_change)


EDITS: dict[str, Any] = {
    "too many references": ({"image": [PHOTO] * 6}, "image", "at most 5 images, not 6"),
    "a mask takes a reference": (
        {"image": [PHOTO] * 5, "mask": HOLE},
        "image",
        "at most 4 images with a mask",
    ),
    "a size for a precise edit": ({"size": "1024x1024"}, "size", "takes no size"),
    "a mask for remix": ({"mask": HOLE, "model": "ideogram-4"}, "mask", "takes no mask"),
    "a model without edits": ({"model": "p-image-ideogram"}, "model", "p-image-ideogram"),
    "a path": ({"model": "../../v1/x"}, "model", "Give a name such as ideogram-4-5"),
    "a URL": ({"image": imgkit.ImageReference(url="https://a.example/1.png")}, "image", "ImageReference"),
    "an unknown option": ({"model_options": {"image_wait": 3}}, "model_options.image_wait", "no such option"),
    "a wrong option": (
        {"model_options": {"magic_prompt": "yes"}},
        "model_options.magic_prompt",
        "auto or on or off",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_refuses_a_wrong_edit_before_sending(name: str) -> None:
    """Names the field of an edit that the endpoint would refuse; nothing is sent."""
    fields, field, words = EDITS[name]
    fake = WatchedFake()
    with pytest.raises(InvalidRequestError) as caught:
        call(
            fake,
            lambda service: service.create_image_edit(**{"image": PHOTO, "prompt": "x", **fields}),
        )
    assert field in caught.value.fields
    assert words in str(caught.value)
    assert fake.requests == []


RULES: dict[str, Any] = {
    "size": ({"size": "1000x1000"}, "the nearest is 1024x1024"),
    "aspect_ratio": ({"aspect_ratio": "16:9"}, "Pass size='1280x720'"),
    "seed": ({"seed": 2**31}, "takes 0 to 2"),
    "negative_prompt": ({"negative_prompt": "rain"}, "ideogram-4-5 does not take it"),
    "quality": ({"quality": "high", "model": "ideogram-3"}, "rendering_speed"),
    "resolution": ({"resolution": "4K", "model": "p-image-ideogram"}, "takes '1K' or '2K'"),
}


@pytest.mark.parametrize("field", RULES)
def test_official_rules(field: str) -> None:
    """Refuses at the official host what the model is known to refuse."""
    fields, words = RULES[field]
    with imgkit.ImageService("requests", provider="ideogram", api_key=KEY) as service:
        with pytest.raises(InvalidRequestError) as caught:
            service.dry_run("create_image", "x", **fields)
    assert field in caught.value.fields
    assert words in str(caught.value)


def test_adapts_a_ratio_to_a_size() -> None:
    """Sends the nearest size for a ratio that the model lacks, and no size with a precise edit."""
    settings: Any = {"provider": "ideogram", "api_key": KEY, "on_unsupported": "adapt"}
    with imgkit.ImageService("requests", **settings) as service:
        shown = service.dry_run("create_image", "x", aspect_ratio="1:1", resolution="2K")
        assert '"size": "2048x2048"' in shown
        for model in (None, "ideogram-4-6", EDIT[10:]):
            edit = service.dry_run("create_image_edit", PHOTO, "x", size="1024x1024", model=model)
            assert "1024x1024" not in edit


# --- Jobs ------------------------------------------------------------------------------------

OUTCOMES: dict[str, type[BaseException]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
    "expired_link": imgkit.JobPendingError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str, tmp_path: Path) -> None:
    """Submits once in each situation, twice after a 429, and never sends the key to a link."""
    index = SCENARIOS.index(scenario)
    runner = ServiceRunner(("sync", "async")[index % 2])
    settings = {"backend": ("requests", "aiohttp")[index // 2 % 2], "retry": scenario == "rate_limited"}
    fake = WatchedFake(scenario)
    work = lambda service: service.create_image("a red fox", n=3, size="1024x1024", save_to=tmp_path)  # noqa: E731
    if (outcome := OUTCOMES.get(scenario)) is not None:
        with pytest.raises(outcome) as caught:
            call(fake, work, runner, **settings)
        if scenario == "refused":
            assert caught.value.maybe_billed  # type: ignore[attr-defined]
    else:
        response = call(fake, work, runner, **settings)
        assert len(response) == (2 if scenario == "fewer" else 3)
        assert response.cost.amount == Decimal(MICROS_PER_IMAGE * len(response)) / 1_000_000
        assert response[0].revised_prompt == "a red fox"
    assert fake.count[f"POST {CREATE}"] == (2 if scenario == "rate_limited" else 1)
    links = [each for each in fake.requests if each.path.startswith("/api/images")]
    assert not any("api-key" in each.headers for each in links)
    assert {each.headers["api-key"] for each in fake.requests if each not in links} == {KEY}


def test_a_withheld_image_loses_no_other() -> None:
    """Delivers the safe images, and says which one was withheld and billed."""
    entries = [
        {"url": "https://ideogram.ai/1.png", "is_image_safe": True, "prompt": "p", "seed": 5},
        {"url": None, "is_image_safe": False},
    ]
    decoded = decode({"status": "completed", "data": entries})
    assert isinstance(decoded, DecodedImages)
    assert [image.url for image in decoded.pictures] == ["https://ideogram.ai/1.png"]
    assert decoded.warnings == ("images.1 was withheld by the safety check, and billed",)
    assert decoded.cost is None
    assert len(decode({"generation_id": "g", "data": entries}, None).pictures) == 1


@pytest.mark.parametrize(
    ("reply", "error", "billed"),
    [
        ({"status": "failed", "failure_reason": "internal"}, imgkit.JobFailedError, False),
        ({"status": "failed"}, imgkit.JobFailedError, False),
        (
            {"status": "failed", "failure_reason": "content_policy_violation"},
            imgkit.ModerationBlockedError,
            False,
        ),
        (
            {"status": "completed", "data": [{"url": "", "is_image_safe": False}]},
            imgkit.ModerationBlockedError,
            True,
        ),
        ({"status": "completed", "data": []}, imgkit.UnreadableReplyError, True),
    ],
)
def test_ends_of_a_job(reply: Any, error: type[imgkit.ImgkitError], billed: bool) -> None:
    """A failed generation is free; a withheld image was billed."""
    with pytest.raises(error) as caught:
        decode({"generation_id": "g1", **reply})
    assert caught.value.maybe_billed is billed


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (402, "insufficient_funds", imgkit.QuotaExceededError),
        (402, "daily_limit", imgkit.QuotaExceededError),
        (429, "inflight_limit", imgkit.RateLimitError),
        (422, None, imgkit.ModerationBlockedError),
        (401, None, imgkit.AuthenticationError),
    ],
)
def test_errors(status: int, reason: str | None, error: type[imgkit.ImgkitError]) -> None:
    """Reads why the API rejects a request; 422 is the safety check."""
    body = json.dumps({"error": "It is rejected", **({"reject_reason": reason} if reason else {})}).encode()
    found = IdeogramProvider().error(Head(status, {}), body, ())
    assert type(found) is error
    assert getattr(found, "code", None) == reason
    assert "It is rejected" in str(found)


def test_variations_are_edits() -> None:
    """Emulates a variation by an edit."""
    fake = WatchedFake()
    response = call(fake, lambda service: service.create_image_variation(PHOTO))
    assert response.meta.emulated
    assert fake.requests[0].path == EDIT


# --- Quotes ----------------------------------------------------------------------------------


def test_asks_for_the_price(flavor: ServiceRunner, http_backend: str) -> None:
    """Sends the request as a dry run, once for each size of its parts, and creates nothing."""
    fake = WatchedFake()
    request = CreateImageEditRequest(image=PHOTO, prompt="a hat", mask=HOLE, n=20)
    estimate = call(fake, lambda service: service.estimate(request, live=True), flavor, backend=http_backend)
    assert estimate.low == estimate.high == Decimal("1.2")
    assert estimate.note == "quoted by the API"
    assert [(each.path, each.query) for each in fake.requests] == [(EDIT, {"dry_run": "true"})] * 2
    assert [part.data for each in fake.requests for part in each.form() if part.name == "num_images"] == [
        b"8",
        b"4",
    ]
    assert all(each.headers["api-key"] == KEY for each in fake.requests)
    assert fake.jobs == {}


@pytest.mark.parametrize(
    ("quote", "low", "high"),
    [
        ({"usd_micros": 30000, "qualifier": "estimate", "upper_bound_usd_micros": 45000}, "0.03", "0.045"),
        ({"usd_micros": 30000, "qualifier": "estimate"}, None, None),
        ({"usd_micros": 5000, "qualifier": "exact", "upper_bound_usd_micros": None}, "0.005", "0.005"),
    ],
)
def test_reads_a_quote(quote: Any, low: str | None, high: str | None) -> None:
    """An estimate of the API has bounds only with its upper bound."""
    body = JsonReply(frozenset())
    body.feed(json.dumps({"object": "price_quote", **quote}).encode())
    body.close()
    estimate = IdeogramProvider().decode_price(Head(200, {}), body, TARGET)
    assert (estimate.low, estimate.high) == (low and Decimal(low), high and Decimal(high))


class AnsweredFake(RequestLog, FakeIdeogram):
    """Answers each request as told."""

    answer_with = FakeReply(500)

    def handle(self, request: FakeRequest) -> FakeReply:
        """Keep the request, and answer as told."""
        super().handle(request)
        return self.answer_with


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (json_reply(500, {"error": f"failed for {KEY}"}), imgkit.ServerError, "No price arrived"),
        (
            json_reply(429, {"error": "x", "reject_reason": "inflight_limit"}),
            imgkit.RateLimitError,
            "fewer images",
        ),
        (json_reply(200, {"object": "price_quote"}), imgkit.UnreadableReplyError, "usd_micros"),
        (FakeReply(0), imgkit.TransportError, "The request was free"),
    ],
)
def test_a_failed_quote_costs_nothing(reply: FakeReply, error: type[imgkit.ImgkitError], words: str) -> None:
    """Raises an error that is never in doubt, asks once, and hides the key."""
    fake = AnsweredFake()
    fake.answer_with = reply
    with pytest.raises(error, match=words) as caught:
        call(fake, lambda service: service.estimate("a fox", live=True))
    assert not caught.value.maybe_billed
    assert not isinstance(caught.value, imgkit.OutcomeUnknownError)
    assert KEY not in str(caught.value)
    assert len(fake.requests) == 1


def test_other_providers_quote_no_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that an API has no quotes; refuses a wrong request and a missing key before it asks."""
    monkeypatch.delenv("IDEOGRAM_API_KEY", raising=False)
    with imgkit.ImageService("requests", api_key=KEY) as service:
        with pytest.raises(imgkit.ConfigurationError, match=r"openai quotes no prices.*that is not live"):
            service.estimate("a fox", live=True)
        with pytest.raises(InvalidRequestError, match="live: Must be True or False"):
            service.estimate("a fox", live="yes")  # type: ignore[call-overload]
    with imgkit.ImageService("requests", provider="ideogram") as service:
        with pytest.raises(InvalidRequestError, match="takes no aspect_ratio"):
            service.estimate("a fox", aspect_ratio="16:9", live=True)
        with pytest.raises(imgkit.MissingKeyError):
            service.estimate("a fox", live=True)


def test_offline_quotes_nothing() -> None:
    """Costs nothing offline, where no API is asked."""
    with imgkit.ImageService("offline", provider="ideogram") as service:
        assert service.estimate("a fox", live=True).high == 0


def test_quotes_stay_at_the_api() -> None:
    """Sends the key and the request to no other address than the API's own."""

    class Strange(IdeogramProvider):
        def price_request(self, request: Any, inputs: Any, target: Target) -> Any:
            """Return a question to another server."""
            other = Target(base_url="https://prices.example", host_class="compatible")
            return super().price_request(request, inputs, other)

    with WireServer() as server:
        settings: Any = {"provider": Strange(), "base_url": server.origin, "api_key": KEY}
        with imgkit.ImageService("requests", **settings) as service:
            with pytest.raises(imgkit.ConfigurationError, match="not the API's own address"):
                service.estimate("a fox", live=True)
        assert server.accepted == 0
