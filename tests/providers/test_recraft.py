"""The provider of Recraft: native variations, endpoints of edits, white masks, units, SVG, errors as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import InvalidRequestError
from imgkit.models import CreateImageRequest
from imgkit.providers.base import Target
from imgkit.providers.fakes import SCENARIOS, FakeReply, FakeRequest
from imgkit.providers.recraft import RecraftProvider
from imgkit.providers.recraft_fake import UNITS_PER_IMAGE, FakeRecraft
from imgkit.testing import ProviderContract
from imgkit.testing.wire_server import serve_fake
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input
from tests.support.rasters import opened, saved
from tests.support.recraft_samples import RecraftSamples

KEY = "recraft-key-0123456789"
TARGET = Target(base_url="https://external.api.recraft.ai/v1", host_class="official")
PHOTO, HOLE = paint_input(), paint_input(hole=True)
LINK = imgkit.ImageReference(url="https://files.example/1.png")


class TestContract(RecraftSamples, ProviderContract):
    """The provider passes the contract."""


class WatchedFake(RequestLog, FakeRecraft):
    """The API, with the requests that it has received."""


def call(
    fake: FakeRecraft, work: Callable[[Any], Any], runner: ServiceRunner | None = None, **settings: Any
) -> Any:
    """Return the result of work of a service with the API on loopback."""
    with serve_fake(fake) as server:
        settings = {"provider": "recraft", "base_url": f"{server.origin}/v1", "api_key": KEY, **settings}
        backend = settings.pop("backend", "requests")
        return (runner or ServiceRunner("sync")).run(work, backend, **settings)


def read_form(request: FakeRequest) -> dict[str, Any]:
    """Return texts and files of a form by name."""
    return {part.name: part.data if part.filename else part.data.decode() for part in request.form()}


# --- Requests --------------------------------------------------------------------------------


def test_sends_the_requests_of_the_documentation() -> None:
    """Sends the bodies of the API's own examples, under its names of seed, format and shape."""
    url, body = encode_json(RecraftProvider(), CreateImageRequest(prompt="race car on a track"), TARGET)
    assert (url, body) == (f"{TARGET.base_url}/images/generations", {"prompt": "race car on a track"})
    colours = {"colors": [{"rgb": [0, 255, 0]}]}
    request = CreateImageRequest(
        prompt="a mug",
        model="recraftv3",
        n=2,
        aspect_ratio="16:9",
        seed=7,
        output_format="png",
        model_options={"controls": colours, "style": "realistic_image"},
        extra_body={"seed": "kept"},
    )
    assert encode_json(RecraftProvider(), request, TARGET)[1] == {
        **{"prompt": "a mug", "model": "recraftv3", "n": 2, "size": "16:9", "image_format": "png"},
        **{"controls": colours, "style": "realistic_image", "seed": "kept"},
    }
    _, body = encode_json(RecraftProvider(), CreateImageRequest(prompt="a", size="auto"), TARGET)
    assert "size" not in body


EDITS: dict[str, Any] = {
    "imageToImage": ({}, {"prompt": "winter", "strength": "0.5"}, {"image"}),
    "a strength": ({"model_options": {"strength": 0.2}}, {"prompt": "winter", "strength": "0.2"}, {"image"}),
    "inpaint": ({"mask": HOLE, "n": 2}, {"prompt": "winter", "n": "2"}, {"image", "mask"}),
    "replaceBackground": (
        {"model_options": {"edit_as": "replaceBackground"}},
        {"prompt": "winter"},
        {"image"},
    ),
    "generateBackground": (
        {"mask": HOLE, "model_options": {"edit_as": "generateBackground"}, "model": "recraftv3"},
        {"prompt": "winter", "model": "recraftv3"},
        {"image", "mask"},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_have_endpoints(name: str) -> None:
    """Sends an edit to the endpoint of its mask or its option, as a form."""
    fields, texts, files = EDITS[name]
    fake = WatchedFake()
    call(fake, lambda service: service.create_image_edit(PHOTO, "winter", **fields))
    (request, *_) = fake.requests
    endpoint = name if name[0].islower() and " " not in name else "imageToImage"
    assert request.path == f"/v1/images/{endpoint}"
    form = read_form(request)
    assert {name: text for name, text in form.items() if isinstance(text, str)} == texts
    assert form.keys() - texts.keys() == files
    assert form["image"] == PHOTO


def test_masks_are_white_without_grey() -> None:
    """Draws the area that may change white, and makes half transparent pixels one or the other."""
    soft = opened(HOLE)
    soft.putpixel((0, 47), (0, 0, 0, 100))
    soft.putpixel((1, 47), (0, 0, 0, 200))
    fake = WatchedFake()
    call(fake, lambda service: service.create_image_edit(PHOTO, "winter", mask=saved(soft)))
    mask = opened(read_form(fake.requests[0])["mask"])
    assert (mask.mode, mask.size) == ("L", (64, 48))
    assert [mask.getpixel(place) for place in ((5, 5), (5, 40), (0, 47), (1, 47))] == [255, 0, 255, 0]


def test_objects_and_links_go_as_json() -> None:
    """Sends JSON where a form cannot hold an object, or the API fetches the image."""
    fake = WatchedFake()
    controls = {"controls": {"no_text": True}}
    call(fake, lambda service: service.create_image_edit(PHOTO, "winter", model_options=controls))
    call(fake, lambda service: service.create_image_edit(LINK, "winter"))
    first, second = (each.json() for each in fake.requests if each.method == "POST")
    assert first["controls"] == {"no_text": True}
    assert first["image_url"].startswith("data:image/png;base64,")
    assert second == {"prompt": "winter", "strength": 0.5, "image_url": LINK.url}


@pytest.mark.parametrize(
    ("size", "fields", "shape"),
    [
        ((64, 48), {}, "4:3"),
        ((100, 100), {}, "1:1"),
        ((90, 160), {}, "9:16"),
        ((64, 48), {"size": "1024x1024"}, "1024x1024"),
        ((64, 48), {"aspect_ratio": "2:1"}, "2:1"),
    ],
)
def test_varies_natively(size: tuple[int, int], fields: dict[str, Any], shape: str) -> None:
    """Sends a variation without a prompt, in the shape of its image unless the caller names one."""
    fake = WatchedFake()
    image = paint_input(size)
    response = call(fake, lambda service: service.create_image_variation(image, n=2, seed=7, **fields))
    assert (len(response), response.meta.emulated) == (2, False)
    assert fake.requests[0].path == "/v1/images/variateImage"
    assert read_form(fake.requests[0]) == {"n": "2", "random_seed": "7", "size": shape, "image": image}


REFUSED: dict[str, Any] = {
    "two images": ({"image": [PHOTO, PHOTO]}, "image", "takes one image, not 2"),
    "a file id": ({"image": imgkit.ImageReference(file_id="file-1")}, "image", "no uploaded files"),
    "a size": ({"size": "1024x1024"}, "size", "takes no size"),
    "inpaint by V4": (
        {"mask": HOLE, "model": "recraftv4_1"},
        "model",
        "recraftv4_1 has no inpaint. Name recraftv3",
    ),
    "a background by V4": (
        {"model": "recraftv4", "model_options": {"edit_as": "replaceBackground"}},
        "model",
        "has no replaceBackground",
    ),
    "no mask": ({"model_options": {"edit_as": "inpaint"}}, "mask", "inpaint needs a mask"),
    "a mask too many": (
        {"mask": HOLE, "model_options": {"edit_as": "replaceBackground"}},
        "mask",
        "takes no mask",
    ),
    "a strength too many": (
        {"mask": HOLE, "model_options": {"strength": 0.5}},
        "model_options.strength",
        "no strength",
    ),
    "a strength": ({"model_options": {"strength": 2}}, "model_options.strength", "from 0 to 1"),
    "an endpoint": (
        {"model_options": {"edit_as": "outpaint"}},
        "model_options.edit_as",
        "imageToImage or inpaint",
    ),
    "a misspelt option": ({"model_options": {"strenght": 0.5}}, "model_options.strenght", "strength"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_a_wrong_edit_before_sending(name: str) -> None:
    """Names the field of an edit that its endpoint lacks; nothing is sent."""
    fields, field, words = REFUSED[name]
    fake = WatchedFake()
    edit = {"image": PHOTO, "prompt": "winter", **fields}
    with pytest.raises(InvalidRequestError) as caught:
        call(fake, lambda service: service.create_image_edit(**edit))
    assert field in caught.value.fields
    assert words in str(caught.value)
    assert fake.requests == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"negative_prompt": "rain", "model": "recraftv4_1"}, "negative_prompt"),
        ({"model_options": {"style": "realistic_image"}, "model": "recraftv4"}, "model_options.style"),
        ({"model_options": {"text_layout": []}, "model": "recraftv4_1_pro"}, "model_options.text_layout"),
        ({"size": "1000x1000", "model": "recraftv4_1"}, "size"),
        ({"aspect_ratio": "21:9", "model": "recraftv4_1"}, "aspect_ratio"),
    ],
)
def test_official_rules(fields: dict[str, Any], field: str) -> None:
    """Refuses what the models V4 lack; the models V3 take it."""
    with imgkit.ImageService("requests", provider="recraft", api_key=KEY) as service:
        with pytest.raises(InvalidRequestError) as caught:
            service.dry_run("create_image", "x", **fields)
        assert field in caught.value.fields
        if field not in ("size", "aspect_ratio"):
            assert "POST" in service.dry_run("create_image", "x", **{**fields, "model": "recraftv3"})


# --- Replies ---------------------------------------------------------------------------------

OUTCOMES: dict[str, type[BaseException]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
    "expired_link": imgkit.SaveError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str, tmp_path: Path) -> None:
    """Sends one request in each situation, two after a 429, and never sends the key to a link."""
    index = SCENARIOS.index(scenario)
    runner = ServiceRunner(("sync", "async")[index % 2])
    settings = {"backend": ("requests", "aiohttp")[index // 2 % 2], "retry": scenario == "rate_limited"}
    fake = WatchedFake(scenario)
    work = lambda service: service.create_image("a red fox", n=3, size="1024x1024", save_to=tmp_path)  # noqa: E731
    if (outcome := OUTCOMES.get(scenario)) is not None:
        with pytest.raises(outcome):
            call(fake, work, runner, **settings)
    else:
        response = call(fake, work, runner, **settings)
        assert len(response) == (2 if scenario == "fewer" else 3)
        assert response.cost.amount == Decimal(UNITS_PER_IMAGE * len(response)) / 1000
    assert fake.count["POST /v1/images/generations"] == (2 if scenario == "rate_limited" else 1)
    assert not any("authorization" in each.headers for each in fake.requests if each.method == "GET")


def test_vector_models_send_svg(tmp_path: Path) -> None:
    """Saves the SVG of a vector model under its own ending."""
    fake = WatchedFake()
    work = lambda service: service.create_image("a fox", model="recraftv3_vector", save_to=tmp_path)  # noqa: E731
    image = call(fake, work)[0]
    assert image.path is not None
    assert image.path.suffix == ".svg"
    assert image.path.read_bytes().startswith(b"<svg")


@pytest.mark.parametrize(
    ("status", "media_type", "body", "error", "words"),
    [
        (401, "text/plain", b"request unauthorized", imgkit.AuthenticationError, "request unauthorized"),
        (404, "text/plain", b"404 page not found", imgkit.NotFoundError, "404 page not found"),
        (429, "text/plain", b"too many requests", imgkit.RateLimitError, "too many requests"),
        (400, "application/json", b'{"code":"invalid_size","message":"bad"}', imgkit.BadRequestError, "bad"),
        (
            503,
            "application/json",
            b'{"error":{"message":"x","type":"server_error"}}',
            imgkit.OutcomeUnknownError,
            "x",
        ),
    ],
)
def test_errors_are_text_or_json(
    status: int, media_type: str, body: bytes, error: type[imgkit.ImgkitError], words: str
) -> None:
    """Reads errors of both kinds; no 5xx proves that nothing was billed."""
    found = RecraftProvider().error(Head(status, {"content-type": media_type}), body, ())
    assert type(found) is error
    assert words in str(found)


class UnsignedFake(RequestLog, FakeRecraft):
    """Refuses each key."""

    def handle(self, request: FakeRequest) -> FakeReply:
        """Keep the request, and refuse it."""
        super().handle(request)
        return FakeReply(401, {"content-type": "text/plain"}, b"request unauthorized")


def test_a_second_variable_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the key from the vendor's variable, then from the one of other clients."""
    monkeypatch.delenv("RECRAFT_API_TOKEN", raising=False)
    monkeypatch.setenv("RECRAFT_API_KEY", KEY)
    fake = UnsignedFake()
    with pytest.raises(imgkit.AuthenticationError):
        call(fake, lambda service: service.create_image("x"), api_key=None)
    assert fake.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_works_offline() -> None:
    """Creates, edits with a mask and varies without a key and without cost."""
    with imgkit.ImageService("offline", provider="recraft") as service:
        fox = service.create_image("a red fox", aspect_ratio="16:9")[0]
        hole = imgkit.masks.from_box(fox, (10, 10, 100, 100))
        assert fox.width is not None
        assert fox.height is not None
        assert fox.width > fox.height
        edit = service.create_image_edit(fox, "a hat", mask=hole)
        assert edit.cost.amount == 0
        assert edit.warnings == ()
        assert len(service.create_image_variation(fox, n=2)) == 2
        assert "strength" in json.dumps(service.dry_run("create_image_edit", fox, "x"))
