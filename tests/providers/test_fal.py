"""The provider of fal.ai: requests like its SDK's, the queue, masks, refusals and failures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit import JobPendingError
from imgkit.core import job_requests
from imgkit.images.inputs import open_input
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.fakes import FakeReply, FakeRequest, json_reply
from imgkit.providers.fal import FalProvider
from imgkit.providers.fal_fake import FakeFal
from imgkit.providers.job_values import JobUpdate
from imgkit.testing import png
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import encode_json

pytestmark = pytest.mark.usefixtures("short_pauses")

SUBMIT = "POST /fal-ai/flux/schnell"
STATUS, RESULT = "GET /fal-ai/flux/requests/job-1/status", "GET /fal-ai/flux/requests/job-1"
KEY = "fal-key-0123456789"
TARGET = Target(base_url="https://queue.fal.run", host_class="official")
PIXELS = base64.b64encode(png(1)).decode()
FREE = {"x-fal-request-id": "r1"}
URLS = {
    name: f"https://queue.fal.run/fal-ai/flux/requests/r1/{name}" for name in ("status_url", "cancel_url")
}
WAITING = Job(
    id="a-0",
    provider="fal",
    base_url=TARGET.base_url,
    operation="create_image",
    state={"request_id": "r1", "response_url": "https://queue.fal.run/fal-ai/flux/requests/r1", **URLS},
)
DONE = WAITING.advance(state={**WAITING.state, "step": "result"})


@pytest.fixture
def fake() -> FakeFal:
    """The API of fal.ai."""
    return FakeFal()


@pytest.fixture
def server(fake: FakeFal) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


@pytest.fixture
def call(
    flavor: ServiceRunner, http_backend: str, server: WireServer, tmp_path: Path
) -> Callable[..., imgkit.ImagesResponse]:
    """Return a function that creates an image, or lets a service do other work."""

    def run(work: Callable[[Any], Any] | None = None, **settings: Any) -> Any:
        settings = {"provider": "fal", "base_url": server.origin, "api_key": KEY, **settings}
        work = work or (lambda service: service.create_image("a red fox"))
        return flavor.run(work, http_backend, state_folder=tmp_path / "state", **settings)

    return run


def encode(request: Any, **inputs: Any) -> tuple[str, Any]:
    """Return URL and JSON body of a request."""
    return encode_json(FalProvider(), request, TARGET, **inputs)


def decode(
    status: int, value: Any, job: Job | None = DONE, headers: dict[str, str] | None = None
) -> DecodedImages | Any:
    """Decode a reply about a job, or to a submit if `job` is None."""
    provider = FalProvider()
    body = JsonReply(provider.base64_keys)
    body.feed(value if isinstance(value, bytes) else json.dumps(value).encode())
    body.close()
    if job is None:
        return provider.decode(Head(status, headers or {}), body, TARGET)
    return provider.decode_poll(job, Head(status, headers or {}), body, TARGET)


# --- Requests --------------------------------------------------------------------------------


def test_sends_the_requests_of_the_sdk() -> None:
    """Sends the bodies that @ai-sdk/fal 3.0.41 sends to the direct door, to the queue."""
    options = {"image_size": "landscape_16_9"}
    url, body = encode(CreateImageRequest(prompt="a mug", n=2, seed=7, model_options=options))
    assert url == "https://queue.fal.run/fal-ai/flux/schnell"
    assert body == {"prompt": "a mug", "seed": 7, "image_size": "landscape_16_9", "num_images": 2}
    with ExitStack() as cleanup:
        picture = open_input(png(1), "image", cleanup)
        request = CreateImageEditRequest(image=png(1), mask=png(1), prompt="a mug", seed=7)
        url, body = encode(request, image=(picture,), mask=picture)
    assert url == "https://queue.fal.run/fal-ai/flux-pro/v1/fill"
    link = f"data:image/png;base64,{PIXELS}"
    assert body == {"prompt": "a mug", "seed": 7, "image_url": link, "mask_url": link}


@pytest.mark.parametrize(
    ("model", "count", "names"),
    [
        (None, 1, {"image_url"}),
        (None, 2, {"image_urls"}),
        ("fal-ai/nano-banana/edit", 1, {"image_urls"}),
        ("fal-ai/qwen-image-edit", 1, {"image_url"}),
    ],
)
def test_names_input_images_as_the_model_does(model: str | None, count: int, names: set[str]) -> None:
    """Sends a single image alone, and in a list to models that take lists only."""
    with ExitStack() as cleanup:
        images = tuple(open_input(png(1), "image", cleanup) for _ in range(count))
        request = CreateImageEditRequest(image=png(1), prompt="a hat", model=model, size="1024x768")
        _, body = encode(request, image=images)
    assert body.keys() - {"prompt", "image_size"} == names
    assert body["image_size"] == {"width": 1024, "height": 768}


@pytest.mark.parametrize("model", ["../x", "https://evil.example/x", "fal-ai/flux?fal_webhook=x", "a/../b"])
def test_a_model_is_a_path(model: str) -> None:
    """Refuses a model that would lead to another address."""
    with pytest.raises(imgkit.InvalidRequestError, match="is a path"):
        FalProvider().check(CreateImageRequest(prompt="a fox", model=model), TARGET)


def test_white_pixels_of_a_mask_change(fake: FakeFal, server: WireServer) -> None:
    """Sends a mask whose white pixels may change, from a mask with a transparent hole."""
    seen: list[Any] = []
    handle = fake.handle

    def look(request: FakeRequest) -> FakeReply:
        seen.append(request.json() if request.method == "POST" else None)
        return handle(request)

    fake.handle = look  # type: ignore[method-assign]  # keeps the bodies
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 8))
    with imgkit.ImageService("requests", provider="fal", base_url=server.origin, api_key=KEY) as service:
        service.create_image_edit(png(1), "a hat", mask=hole)
    mask = PIL.Image.open(BytesIO(base64.b64decode(seen[0]["mask_url"].partition(",")[2]))).convert("L")
    assert (mask.getpixel((1, 1)), mask.getpixel((6, 1))) == (255, 0)


def test_urls_are_passed_on() -> None:
    """Sends the URL of a reference, and refuses an uploaded file."""
    reference = imgkit.ImageReference(url="https://files.example/fox.png")
    _, body = encode(CreateImageEditRequest(image=reference, prompt="a hat"), image=(reference,))
    assert body["image_url"] == "https://files.example/fox.png"
    uploaded = imgkit.ImageReference(file_id="file-1")
    with pytest.raises(imgkit.InvalidRequestError, match="no uploaded files"):
        FalProvider().check(CreateImageEditRequest(image=uploaded, prompt="a hat"), TARGET)


# --- The queue -------------------------------------------------------------------------------


def test_a_job_goes_through_the_queue(call: Any, fake: FakeFal, server: WireServer) -> None:
    """Submits once, tells the place in the queue, asks for the result, and downloads without the key."""
    notes: list[str] = []
    keys: dict[str, bool] = {}
    handle = fake.handle

    class Watch:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, JobProgress):
                notes.append(event.note)

    def look(request: FakeRequest) -> FakeReply:
        keys[request.path.split("/")[1]] = request.headers.get("authorization") == f"Key {KEY}"
        return handle(request)

    fake.handle = look  # type: ignore[method-assign]  # watches the headers
    response = call(
        lambda service: service.create_image("a red fox", n=2, extra_body={"image_size": "square"}),
        plugins=[Watch()],
    )
    assert len(response) == 2
    assert response.extra["seed"] == 7
    assert response.cost.amount is None
    assert notes == ["2 jobs ahead", "1 job ahead", "IN_PROGRESS", "COMPLETED"]
    assert keys == {"fal-ai": True, "files": False}
    assert (fake.count[SUBMIT], fake.count[STATUS], fake.count[RESULT]) == (1, 3, 1)


@pytest.mark.parametrize("polls", [2, -1])
def test_a_pending_job_is_cancelled(call: Any, fake: FakeFal, polls: int) -> None:
    """A cancelled job is gone; a cancellation that comes too late collects the image."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(JobPendingError) as caught:
        patch.setattr(job_requests, "FIRST_PAUSE_S", 10**9)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", 10**9)
        call()
    (job,) = caught.value.jobs
    assert KEY not in job.to_json()
    fake.polls = polls
    response = call(lambda service: service.cancel_job(job))
    assert fake.count["PUT /fal-ai/flux/requests/job-1/cancel"] == 1
    assert (response is None) == (polls > 0)
    assert fake.count[SUBMIT] == 1


@pytest.mark.parametrize(
    ("scenario", "error", "submits"),
    [
        ("success", None, 1),
        ("rate_limited", None, 2),
        ("lost_poll", None, 1),
        ("fewer", None, 1),
        ("wrong_type", None, 1),
        ("refused", imgkit.ModerationBlockedError, 1),
        ("invalid", imgkit.BadRequestError, 1),
        ("failing", imgkit.ServerError, 3),
        ("lost_submit", imgkit.OutcomeUnknownError, 1),
        ("expired_link", JobPendingError, 1),
    ],
)
def test_scenarios(
    call: Any, fake: FakeFal, scenario: str, error: type[Exception] | None, submits: int
) -> None:
    """Submits again only what was refused for now, or failed for free."""
    fake.scenario = scenario
    retry = imgkit.RetryPlugin(chance=lambda: -1.0)  # draws waits of 0 s

    def work(service: Any) -> Any:
        return service.create_image("a red fox", n=2)

    if error is None:
        assert len(call(work, retry=retry)) == (1 if scenario == "fewer" else 2)
    else:
        with pytest.raises(error):
            call(work, retry=retry)
    assert fake.count[SUBMIT] == submits


def test_a_failed_model_ends_the_job(call: Any, fake: FakeFal) -> None:
    """A job that is over with an error fails, free of charge, though its result is HTTP 500."""
    handle = fake.handle

    def fail(request: FakeRequest) -> FakeReply:
        reply = handle(request)
        if request.path.endswith("/status") and reply.status == 200:
            return json_reply(200, {"status": "COMPLETED", "error": "Out of memory", "error_type": "runner"})
        return json_reply(500, {"detail": "x"}) if request.path.endswith("job-1") else reply

    fake.handle = fail  # type: ignore[method-assign]  # the model fails
    with pytest.raises(imgkit.JobFailedError, match="Out of memory") as caught:
        call()
    assert not caught.value.maybe_billed
    assert (fake.count[SUBMIT], fake.count[RESULT]) == (1, 1)


def test_a_busy_result_is_asked_for_again(call: Any, fake: FakeFal) -> None:
    """A 5xx that does not name the failure of the model says nothing about the job."""
    handle = fake.handle

    def stumble(request: FakeRequest) -> FakeReply:
        is_first = request.path.endswith("job-1") and fake.count[RESULT] == 1
        return json_reply(503, {"detail": "busy"}) if is_first else handle(request)

    fake.handle = stumble  # type: ignore[method-assign]  # the result is late
    assert len(call()) == 1
    assert fake.count[SUBMIT] == 1


# --- Replies ---------------------------------------------------------------------------------


def entry(number: int = 0) -> dict[str, Any]:
    """Return an image of a result."""
    return {"url": f"https://v3.fal.media/files/{number}.png", "content_type": "image/png", "width": 8}


def test_decodes_results() -> None:
    """Reads lists of images, a single image, and images within the reply."""
    result = decode(200, {"images": [entry(0), entry(1)], "seed": 7, "prompt": "a fox"})
    assert [image.url for image in result.pictures] == [entry(0)["url"], entry(1)["url"]]
    assert result.pictures[0].revised_prompt == "a fox"
    assert result.pictures[0].extra["width"] == 8
    assert result.cost is None
    assert decode(200, {"image": entry()}).pictures[0].url == entry()["url"]
    inline = decode(200, {"images": [{"url": f"data:image/png;base64,{PIXELS}"}]})
    assert inline.pictures[0].data == png(1)
    assert len(decode(200, {"images": [entry()]}, job=None).pictures) == 1
    partly = decode(200, {"images": [entry(0), {"width": 8}, None]})
    assert (len(partly.pictures), partly.damaged) == (1, True)


def test_black_images_are_refusals() -> None:
    """Images that the safety checker flags are refused, and cost; the others are delivered."""
    with pytest.raises(imgkit.ModerationBlockedError) as caught:
        decode(200, {"images": [entry()], "has_nsfw_concepts": [True]})
    assert caught.value.stage == "output"
    assert caught.value.maybe_billed
    result = decode(200, {"images": [entry(0), entry(1)], "has_nsfw_concepts": [True, False]})
    assert [image.url for image in result.pictures] == [entry(1)["url"]]
    assert "safety checker" in result.warnings[0]


def test_refusals_name_their_categories() -> None:
    """A refused prompt is a `ModerationBlockedError` with the categories that fal names."""
    problem = {
        "loc": ["body", "prompt"],
        "msg": "The content was flagged.",
        "type": "content_policy_violation",
        "categories": ["sexual"],
    }
    with pytest.raises(imgkit.ModerationBlockedError) as caught:
        decode(422, {"detail": [problem]}, headers=FREE)
    assert caught.value.request_id == "r1"
    assert caught.value.categories == ("sexual",)
    assert caught.value.maybe_billed
    failed = DONE.advance(
        state={**DONE.state, "error": "Flagged", "error_type": "content_policy_violation"},
    )
    with pytest.raises(imgkit.ModerationBlockedError, match="Flagged"):
        decode(500, {"detail": "x"}, failed)


@pytest.mark.parametrize(
    ("status", "value", "job", "kind"),
    [
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "no number"}]}, DONE, imgkit.BadRequestError),
        (404, {"detail": "Request not found"}, WAITING, imgkit.JobFailedError),
        (404, {"detail": "Request not found"}, DONE, imgkit.JobFailedError),
        (401, {"detail": "Authentication is required"}, WAITING, imgkit.AuthenticationError),
        (400, {"detail": "odd"}, WAITING, imgkit.UnreadableReplyError),
        (307, b"", DONE, imgkit.UnreadableReplyError),
        (200, b"<html>", WAITING, imgkit.UnreadableReplyError),
        (200, {"images": []}, DONE, imgkit.UnreadableReplyError),
        (200, {"request_id": "r1"}, None, imgkit.UnreadableReplyError),
    ],
)
def test_polls_that_are_no_result(
    status: int, value: Any, job: Job | None, kind: type[imgkit.ImgkitError]
) -> None:
    """Only fal's own word about the job ends it; anything else is asked for again."""
    with pytest.raises(kind):
        decode(status, value, job)


@pytest.mark.parametrize(("status", "value"), [(202, {}), (400, {"detail": "Request is still in progress"})])
def test_a_result_that_is_not_there_yet(status: int, value: Any) -> None:
    """Goes back to the state of the job."""
    update = decode(status, value)
    assert isinstance(update, JobUpdate)
    assert "step" not in update.state


def test_free_failures() -> None:
    """Only fal's own error under 500, 502 or 503 is free: a gateway in front of it may answer as well."""
    body = b'{"detail": "Internal Server Error"}'
    is_free = FalProvider().failure_is_free
    assert all(is_free(Head(status, FREE), body) for status in (500, 502, 503))
    assert not is_free(Head(504, FREE), body)
    assert not is_free(Head(500, {}), body)
    assert not is_free(Head(500, FREE), b"<html>")


def test_a_damaged_state_keeps_the_job(call: Any, server: WireServer, tmp_path: Path) -> None:
    """A job whose state lacks the address to ask is reported, and not forgotten."""
    job = WAITING.advance(base_url=server.origin, state={})
    with pytest.raises(JobPendingError, match="damaged"):
        call(lambda service: service.resume(job))
    assert server.accepted == 0


def test_offline_works_without_a_key(flavor: ServiceRunner) -> None:
    """The offline backend answers creations, edits with masks and emulated variations."""

    def work(name: str, *arguments: Any, **fields: Any) -> Any:
        return flavor.run(
            lambda service: getattr(service, name)(*arguments, size="64x64", **fields),
            backend="offline",
            provider="fal",
        )

    assert len(work("create_image", "a fox", n=5)) == 5
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 4))
    assert work("create_image_edit", png(1), "a hat", mask=hole)[0].width == 64
    assert work("create_image_variation", png(1)).meta.emulated
