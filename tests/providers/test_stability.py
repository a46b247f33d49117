"""Stability's own API: forms, filtered results, jobs, masks, options and prices."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit.core import job_requests
from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageRequest
from imgkit.providers import FakeReply, Target, image_reply, json_reply, stability
from imgkit.providers.fakes import LOST, SCENARIOS
from imgkit.providers.stability import StabilityProvider
from imgkit.providers.stability_endpoints import ENDPOINTS
from imgkit.providers.stability_fake import FakeStability
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, paint_input

KEY = "sk-test-stability-1234567890"
GENERATE, EDIT = "POST /v2beta/stable-image/generate/", "POST /v2beta/stable-image/edit/"
CREATIVE = "POST /v2beta/stable-image/upscale/creative"


class WatchedFake(RequestLog, FakeStability):
    """The fake, with the requests that it has received."""


def open_with(server: WireServer, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service."""
    return {"provider": "stability", "base_url": server.origin, "api_key": KEY, **settings}


def create(**fields: Any) -> Callable[[Any], Any]:
    """Return a call."""
    return lambda service: service.create_image("a red fox", **fields)


def edit(**fields: Any) -> Callable[[Any], Any]:
    """Return an edit."""
    return lambda service: service.create_image_edit(paint_input(), prompt="a hat", **fields)


def read_values(fake: WatchedFake) -> dict[str, Any]:
    """Return the texts of the only form that the fake has received, and the sizes of its images."""
    (request,) = fake.requests
    values: dict[str, Any] = {}
    for part in request.form():
        is_text = part.filename is None
        values[part.name] = (
            part.data.decode() if is_text else (part.media_type, PIL.Image.open(io.BytesIO(part.data)).size)
        )
    return values


OUTCOMES: dict[str, type[BaseException] | None] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(scenario: str) -> None:
    """Sends one form in each situation but a refused one."""
    fake = WatchedFake(scenario)
    outcome = OUTCOMES.get(scenario)
    with serve_fake(fake) as server:
        settings = open_with(server, retry=scenario == "rate_limited")
        if outcome is None:
            response = ServiceRunner("sync").run(create(seed=7), "requests", **settings)
            assert (len(response), response.extra) == (1, {"seed": 7})
            assert response[0].format == ("jpeg" if scenario == "wrong_type" else "png")
        else:
            with pytest.raises(outcome) as caught:
                ServiceRunner("sync").run(create(), "requests", **settings)
            assert KEY not in str(caught.value)
    assert fake.count[f"{GENERATE}core"] == (2 if scenario == "rate_limited" else 1)


JOB_OUTCOMES: dict[str, type[BaseException] | None] = {
    **OUTCOMES,
    "expired_link": imgkit.JobFailedError,
}


@pytest.fixture
def _short_polls(monkeypatch: pytest.MonkeyPatch, short_pauses: None) -> None:
    """Shorten the pauses of the API's own polls, and take a 404 at its word."""
    monkeypatch.setattr(stability, "POLL_PAUSE_S", 0.005)
    monkeypatch.setattr(job_requests, "UNKNOWN_AT_FIRST_S", 0.0)


@pytest.mark.usefixtures("_short_polls")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios_of_jobs(scenario: str) -> None:
    """Submits a job once, and follows it through each situation."""
    fake = WatchedFake(scenario)
    outcome = JOB_OUTCOMES.get(scenario)
    with serve_fake(fake) as server:
        settings = open_with(server, retry=scenario == "rate_limited")
        if outcome is None:
            response = ServiceRunner("sync").run(edit(model="creative"), "requests", **settings)
            assert len(response) == 1
        else:
            with pytest.raises(outcome):
                ServiceRunner("sync").run(edit(model="creative"), "requests", **settings)
    assert fake.count[CREATIVE] == (2 if scenario == "rate_limited" else 1)
    polls = [each for each in fake.requests if each.method == "GET"]
    assert {each.headers["authorization"] for each in fake.requests} == {f"Bearer {KEY}"}
    assert {each.headers["accept"] for each in polls} <= {"application/json"}


def test_polls_wait_for_the_api(flavor: ServiceRunner) -> None:
    """The job tells the pause that the API asks for; a short deadline leaves it pending."""
    fake = WatchedFake()
    with serve_fake(fake) as server, pytest.raises(imgkit.JobPendingError):
        flavor.run(
            lambda service: service.create_image_edit(
                paint_input(), prompt="a hat", model="creative", timeout_s=2.0
            ),
            "requests",
            **open_with(server),
        )
    assert [each.method for each in fake.requests] == ["POST"]


def test_both_backends_send_forms(flavor: ServiceRunner, http_backend: str) -> None:
    """A prompt alone goes as a form, too, and its image arrives."""
    fake = WatchedFake()
    with serve_fake(fake) as server:
        flavor.run(create(aspect_ratio="16:9", output_format="webp"), http_backend, **open_with(server))
    assert read_values(fake) == {"aspect_ratio": "16:9", "output_format": "webp", "prompt": "a red fox"}
    assert fake.requests[0].headers["content-type"].startswith("multipart/form-data; boundary=")


IMAGE = ("image/png", (64, 48))

FORMS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {},
        "generate/sd3",
        {"mode": "image-to-image", "model": "sd3.5-large", "strength": "0.7", "image": IMAGE},
    ),
    (
        {"model": "sd4-beta", "model_options": {"strength": 0.2}, "seed": 0, "negative_prompt": "rain"},
        "generate/sd3",
        {
            **{"mode": "image-to-image", "model": "sd4-beta", "strength": "0.2", "image": IMAGE},
            **{"seed": "0", "negative_prompt": "rain"},
        },
    ),
    ({"model": "ultra"}, "generate/ultra", {"strength": "0.7", "image": IMAGE}),
    (
        {"model": "search-and-replace", "model_options": {"search_prompt": "dog", "grow_mask": 3}},
        "edit/search-and-replace",
        {"search_prompt": "dog", "grow_mask": "3", "image": IMAGE},
    ),
    (
        {"model": "outpaint", "model_options": {"left": 20}, "extra_body": {"creativity": 0.4}},
        "edit/outpaint",
        {"left": "20", "creativity": "0.4", "image": IMAGE},
    ),
    ({"model": "style", "output_format": "png"}, "control/style", {"output_format": "png", "image": IMAGE}),
]


@pytest.mark.parametrize(("fields", "path", "expected"), FORMS)
def test_forms(fields: dict[str, Any], path: str, expected: dict[str, Any]) -> None:
    """Sends each task to its address, with its fields."""
    fake = WatchedFake()
    with serve_fake(fake) as server:
        assert len(ServiceRunner("sync").run(edit(**fields), "requests", **open_with(server))) == 1
    assert list(fake.count) == [f"POST /v2beta/stable-image/{path}"]
    assert read_values(fake) == {"prompt": "a hat", **expected}


def test_names_of_images_and_prompts() -> None:
    """Tasks with two images name each, and tasks without a prompt get none."""
    images = [paint_input((64, 48)), paint_input((80, 64))]
    sizes = ("image/png", (64, 48)), ("image/png", (80, 64))
    cases = {
        "style-transfer": {"prompt": "a hat", "init_image": sizes[0], "style_image": sizes[1]},
        "erase": {"image": sizes[0]},
    }
    for model, expected in cases.items():
        fake = WatchedFake()
        given = images[: len(ENDPOINTS[model].images)]
        with serve_fake(fake) as server, imgkit.ImageService("requests", **open_with(server)) as service:
            service.create_image_edit(given, prompt="a hat", model=model)
        assert read_values(fake) == expected


def test_masks_are_white(flavor: ServiceRunner) -> None:
    """A mask chooses inpaint, and its pixels that may change are white."""
    fake = WatchedFake()
    with serve_fake(fake) as server:
        flavor.run(edit(mask=paint_input(hole=True)), "requests", **open_with(server))
    assert list(fake.count) == [f"{EDIT}inpaint"]
    parts = {part.name: part.data for part in fake.requests[0].form()}
    mask = PIL.Image.open(io.BytesIO(parts["mask"])).convert("L")
    assert (mask.getpixel((1, 1)), mask.getpixel((1, 47))) == (255, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (create(model="inpaint"), "model: inpaint changes an image"),
        (edit(model="core"), "image: core takes no image, not 1"),
        (edit(model="ultra", mask=paint_input(hole=True)), "mask: ultra takes no mask"),
        (edit(model="search-and-replace"), "needs search_prompt"),
        (edit(model="outpaint"), "needs left or right or up or down"),
        (edit(size="64x64"), "takes no size"),
        (create(size="1920x1080"), "Pass aspect_ratio='16:9'"),
        (create(quality="high"), "takes no quality"),
        (edit(model_options={"strengh": 0.5}), "did you mean 'strength'"),
        (edit(model_options={"strength": 2.0}), "a number from 0 to 1, not 2.0"),
        (create(model="core", model_options={"strength": 0.5}), "no such option here"),
        (lambda service: service.create_image_edit([paint_input()] * 3, prompt="a hat"), "one image, not 3"),
    ],
)
def test_requests_that_the_api_lacks(call: Callable[[Any], Any], words: str) -> None:
    """Refuses images, masks, options and fields that a task does not take, before the call."""
    with (
        imgkit.ImageService("offline", provider="stability") as service,
        pytest.raises(InvalidRequestError, match=words),
    ):
        call(service)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"aspect_ratio": "4:3"}, "takes '21:9', .* not '4:3'"),
        ({"seed": 2**32}, "takes 0 to 4294967294, not 4294967296"),
        ({"output_format": "gif"}, "png"),
        ({"prompt": "x" * 10_001}, "at most 10000 characters"),
    ],
)
def test_rules_of_the_official_host(fields: dict[str, Any], words: str) -> None:
    """Confirmed facts refuse a request to the official host before it is sent."""
    with (
        imgkit.ImageService("requests", provider="stability", api_key=KEY, model="core") as service,
        pytest.raises(InvalidRequestError, match=words),
    ):
        service.create_image(**{"prompt": "a fox", **fields})


def test_costs_in_dollars() -> None:
    """The table has the price of each task, a cent for a credit."""
    with imgkit.ImageService("requests", provider="stability", api_key=KEY) as service:
        prices = {
            model: service.estimate(CreateImageRequest(prompt="a fox", model=model)).high
            for model in ("core", "ultra", "sd3.5-large", "creative")
        }
    assert {model: str(price) for model, price in prices.items()} == {
        **{"core": "0.03", "ultra": "0.08", "sd3.5-large": "0.065", "creative": "0.6"}
    }


ENCODED = base64.b64encode(paint_input()).decode()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (
            json_reply(200, {"image": ENCODED, "finish_reason": "CONTENT_FILTERED"}),
            imgkit.ModerationBlockedError,
        ),
        (
            FakeReply(200, {"content-type": "image/png", "finish-reason": "CONTENT_FILTERED"}, paint_input()),
            imgkit.ModerationBlockedError,
        ),
        (
            json_reply(403, {"id": "a", "name": "content_moderation", "errors": ["Flagged"]}),
            imgkit.ModerationBlockedError,
        ),
        (
            json_reply(402, {"id": "a", "name": "payment_required", "errors": ["No credits"]}),
            imgkit.QuotaExceededError,
        ),
        (json_reply(200, {"image": "!", "finish_reason": "SUCCESS"}), imgkit.UnreadableReplyError),
        (json_reply(200, {"id": "a", "name": "bad", "errors": ["no"]}), imgkit.UnreadableReplyError),
        (json_reply(200, {"id": 5}), imgkit.UnreadableReplyError),
        (LOST, imgkit.OutcomeUnknownError),
    ],
)
def test_replies_without_images(reply: FakeReply, error: type[BaseException]) -> None:
    """A filtered image is a refusal under any status; an unreadable reply keeps its body."""
    fake = WatchedFake()
    fake.handle = lambda request: reply  # type: ignore[method-assign]
    with serve_fake(fake) as server, pytest.raises(error) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    if error is imgkit.UnreadableReplyError:
        assert json.loads(vars(caught.value)["body"])
    if error is imgkit.ModerationBlockedError and reply.status == 200:
        assert vars(caught.value)["maybe_billed"]


def test_an_image_as_the_reply() -> None:
    """A caller who accepts ``image/*`` gets the image of the body."""
    fake = WatchedFake()
    fake.handle = lambda request: image_reply(paint_input())  # type: ignore[method-assign]
    call = create(extra_headers={"accept": "image/*"})
    with serve_fake(fake) as server:
        assert len(ServiceRunner("sync").run(call, "requests", **open_with(server))) == 1


def test_equal_requests_have_equal_forms() -> None:
    """The order of options does not change the bytes."""
    target = Target(base_url="https://api.stability.ai", host_class="official")
    bodies = {
        b"".join(StabilityProvider().encode(request, OpenedInputs(), target).body.blocks())
        for names in (("style_preset", "x"), ("x", "style_preset"))
        for request in [CreateImageRequest(prompt="a fox", extra_body=dict.fromkeys(names, "anime"))]
    }
    assert len(bodies) == 1


def test_offline(flavor: ServiceRunner, short_pauses: None) -> None:
    """All operations and jobs run offline, without a key."""
    calls: list[Callable[[Any], Any]] = [
        create(n=2),
        edit(mask=paint_input(hole=True)),
        edit(),
        edit(model="replace-background-and-relight"),
        lambda service: service.create_image_variation(paint_input()),
    ]
    counts = [len(flavor.run(call, "offline", provider="stability")) for call in calls]
    assert counts == [2, 1, 1, 1, 1]
