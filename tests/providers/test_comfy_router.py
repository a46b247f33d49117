"""The provider of Comfy Router: keys under which a request runs once, the queue, costs, refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit import JobPendingError
from imgkit.core import job_requests, repeats
from imgkit.images.inputs import open_input
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import ComfyRouterProvider, FakeReply, FakeRequest, json_reply
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.comfy_router_fake import FakeComfyRouter
from imgkit.providers.job_values import JobUpdate
from imgkit.testing import png
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json

pytestmark = pytest.mark.usefixtures("short_pauses")

RUN = "POST /v2/models/bfl/flux-2-pro"
SUBMIT = f"{RUN}/requests"
KEY = "comfyui-key-0123456789"
TARGET = Target(base_url="https://api.comfy.org", host_class="official")
PIXELS = base64.b64encode(png(1)).decode()
DIRECT: dict[str, Any] = {"model_options": {"queue": False}}
WAITING = Job(
    id="a-0",
    provider="comfy_router",
    base_url=TARGET.base_url,
    operation="create_image",
    state={
        "request_id": "r1",
        "status_url": "https://api.comfy.org/s",
        "response_url": "https://api.comfy.org/r",
    },
)
DONE = WAITING.advance(state={**WAITING.state, "step": "result"})


class LoggedRouter(RequestLog, FakeComfyRouter):
    """The API of Comfy Router, with the requests that it has received."""

    def list_keys(self) -> list[str]:
        """Return the key of each submit."""
        return [each.headers["idempotency-key"] for each in self.requests if each.method == "POST"]


@pytest.fixture
def fake() -> LoggedRouter:
    """The API of Comfy Router."""
    return LoggedRouter()


@pytest.fixture
def server(fake: LoggedRouter) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


@pytest.fixture
def call(
    flavor: ServiceRunner, http_backend: str, server: WireServer, tmp_path: Path
) -> Callable[..., imgkit.ImagesResponse]:
    """Return a function that creates an image, or lets a service do other work."""

    def run(work: Callable[[Any], Any] | None = None, *, fields: Any = None, **settings: Any) -> Any:
        settings = {"provider": "comfy_router", "base_url": server.origin, "api_key": KEY, **settings}
        work = work or (lambda service: service.create_image("a red fox", **(fields or {})))
        return flavor.run(work, http_backend, state_folder=tmp_path / "state", **settings)

    return run


def decode(
    status: int, value: Any, job: Job | None = None, headers: dict[str, str] | None = None
) -> DecodedImages | Any:
    """Decode a reply to a run, or about a job."""
    provider = ComfyRouterProvider()
    body = JsonReply(provider.base64_keys)
    body.feed(value if isinstance(value, bytes) else json.dumps(value).encode())
    body.close()
    if job is None:
        return provider.decode(Head(status, headers or {}), body, TARGET)
    return provider.decode_poll(job, Head(status, headers or {}), body, TARGET)


# --- Requests --------------------------------------------------------------------------------


def test_sends_the_request_of_the_sdk() -> None:
    """Sends the body that comfy-sdk 0.5.0 sends, and each maker's own names of size and images."""
    request = CreateImageRequest(prompt="x", model="openai/gpt-image-2", **DIRECT)
    url, body = encode_json(ComfyRouterProvider(), request, TARGET)
    assert (url, body) == ("https://api.comfy.org/v2/models/openai/gpt-image-2", {"prompt": "x"})
    with ExitStack() as cleanup:
        picture = open_input(png(1), "image", cleanup)
        edit = CreateImageEditRequest(image=(png(1), png(1)), prompt="x", size="1024x768", seed=7)
        url, body = encode_json(ComfyRouterProvider(), edit, TARGET, image=(picture, picture))
        assert url == "https://api.comfy.org/v2/models/bfl/flux-2-pro/requests"
        names = {"width": 1024, "height": 768, "seed": 7, "input_image": PIXELS, "input_image_2": PIXELS}
        assert body == {"prompt": "x", **names}
        edit = CreateImageEditRequest(
            image=png(1), prompt="x", size="2048x2048", model="byteplus/seedream-4-5-251128"
        )
        _, body = encode_json(ComfyRouterProvider(), edit, TARGET, image=(picture,))
        assert body == {"prompt": "x", "size": "2048x2048", "image": f"data:image/png;base64,{PIXELS}"}


def test_white_pixels_of_a_mask_change(fake: LoggedRouter, call: Any) -> None:
    """Sends a mask whose white pixels may change to the model that fills."""
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 8))
    call(lambda service: service.create_image_edit(png(1), "a hat", mask=hole))
    sent = fake.requests[0]
    assert sent.path == "/v2/models/bfl/flux-pro-1.0-fill/requests"
    mask = PIL.Image.open(BytesIO(base64.b64decode(sent.json()["mask"]))).convert("L")
    assert (mask.getpixel((1, 1)), mask.getpixel((6, 1))) == (255, 0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model": "gpt-image-2"}, "maker/name"),
        ({"model": "bfl/../x"}, "maker/name"),
        ({"model": "vertexai/gemini-3.1-flash-image"}, "another shape"),
        ({"model_options": {"queue": 1}}, "true or false"),
        ({"aspect_ratio": "16:9", "model": "bfl/flux-2-pro"}, "aspect_ratio"),
        ({"aspect_ratio": "16:9"}, "bfl/flux-2-pro takes no aspect_ratio"),
        ({"style": "vivid"}, "takes no style"),
    ],
)
def test_refuses_before_sending(fields: dict[str, Any], match: str) -> None:
    """Refuses models of another form, wrong options and fields that the API lacks."""
    with (
        imgkit.ImageService("requests", provider="comfy_router", api_key=KEY) as service,
        pytest.raises(imgkit.InvalidRequestError, match=match),
    ):
        service.create_image("a fox", **fields)


# --- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, DIRECT], ids=["queue", "direct"])
def test_a_lost_submit_runs_once(
    fake: LoggedRouter, call: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    """Repeats a submit whose reply was lost with the same key and body: the API runs it once."""
    fake.scenario = "lost_submit"
    response = call(fields=fields)
    assert len(response) == 1
    assert len(fake.jobs) == 1
    submits = [each for each in fake.requests if each.method == "POST"]
    assert len(submits) == (3 if fields else 2)  # the direct door is still at work at first: 409
    assert len({(each.path, each.headers["idempotency-key"], each.body) for each in submits}) == 1
    assert not list((tmp_path / "state" / "jobs").glob("*.json"))


def test_each_request_has_a_key(fake: LoggedRouter, call: Any) -> None:
    """Makes a key for each request of a call, keeps it in a retry, and takes the caller's."""
    fake.scenario = "rate_limited"
    call(retry=imgkit.RetryPlugin(chance=lambda: -1.0))
    first = fake.list_keys()
    assert len(first) == 2
    assert len(set(first)) == 1
    call(fields={"n": 2})
    later = fake.list_keys()[2:]
    assert len({*later, first[0]}) == 3
    call(fields={"extra_headers": {"Idempotency-Key": "mine"}, "n": 2})
    keys = fake.list_keys()[4:]
    assert len(set(keys)) == 2
    assert "mine" in keys


def lose_replies(fake: LoggedRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the reply to every submit of a call, so that the call ends without a result."""
    fake.scenario = "lost_submit"
    monkeypatch.setattr(repeats, "MAX_FAILURES", 1)
    monkeypatch.setattr(fake, "accept", lambda reply: FakeReply(0))
    handle = fake.handle

    def lose(request: FakeRequest) -> FakeReply:
        reply = handle(request)
        return FakeReply(0) if request.method == "POST" else reply

    monkeypatch.setattr(fake, "handle", lose)


@pytest.mark.parametrize("fields", [{}, DIRECT], ids=["queue", "direct"])
def test_another_process_collects_a_lost_submit(
    fake: LoggedRouter, call: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    """Names the key on the error; a later service repeats the request from its record, and runs nothing."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        lose_replies(fake, patch)
        call(fields=fields)
    key = fake.list_keys()[0]
    assert caught.value.idempotency_key == key
    assert key in " ".join(caught.value.__notes__)
    (record,) = (tmp_path / "state" / "jobs").glob("*.json")
    job = Job.from_json(record.read_text())
    assert (job.phase, job.idempotency_key) == ("sending", key)
    assert KEY not in record.read_text()
    assert len(call(lambda service: service.resume(job))) == 1
    assert len(fake.jobs) == 1
    assert set(fake.list_keys()) == {key}
    assert not record.exists()


def test_an_equal_call_collects_a_lost_submit(
    fake: LoggedRouter, server: WireServer, flavor: ServiceRunner, tmp_path: Path
) -> None:
    """With a cache, an equal call asks for the request that an earlier call has lost; it is spent once."""
    settings: dict[str, Any] = {"provider": "comfy_router", "base_url": server.origin, "api_key": KEY}
    settings |= {
        "plugins": [imgkit.CachePlugin(folder=tmp_path / "cache")],
        "state_folder": tmp_path / "state",
    }

    def work(service: Any) -> Any:
        return service.create_image("a red fox")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(imgkit.OutcomeUnknownError):
        lose_replies(fake, patch)
        flavor.run(work, "requests", **settings)
    assert len(flavor.run(work, "requests", **settings)) == 1
    assert flavor.run(work, "requests", **settings).meta.cached
    assert len(fake.jobs) == 1


def test_a_large_body_is_repeated_by_the_caller(
    fake: LoggedRouter, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps no large body in the record: the same call with the key of the error collects the images."""
    monkeypatch.setattr(repeats, "MAX_KEPT_BYTES", 10)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        lose_replies(fake, patch)
        call()
    key = caught.value.idempotency_key
    (job,) = call(lambda service: service.list_jobs())
    assert job.submit is None
    with pytest.raises(imgkit.OutcomeUnknownError, match=f"extra_headers.*{key}"):
        call(lambda service: service.resume(job))
    assert len(call(fields={"extra_headers": {"idempotency-key": key}})) == 1
    assert len(fake.jobs) == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"submitted_at": 1.0}, "forgotten the key"),
        ({"submit": {"url": "https://evil.example/x", "body": "{}", "content_type": "a/b"}}, "no host of"),
        ({"submit": {"url": 3}}, "lacks the request"),
    ],
)
def test_no_repetition_pays_twice(
    fake: LoggedRouter, call: Any, change: dict[str, Any], match: str, server: WireServer
) -> None:
    """Sends nothing once the API has forgotten the key, and nothing to another host."""
    submit = {"url": f"{server.origin}/v2/models/bfl/flux-2-pro", "body": "{}", "content_type": "a/b"}
    fields: dict[str, Any] = {"state": {}, "submit": submit, "idempotency_key": "k", **change}
    job = WAITING.advance(base_url=server.origin, phase="sending", **fields)
    with pytest.raises(imgkit.OutcomeUnknownError, match=match) as caught:
        call(lambda service: service.resume(job))
    assert caught.value.idempotency_key == "k"
    assert fake.requests == []


def test_a_body_with_a_secret_is_not_kept() -> None:
    """Keeps no body with a secret member: the record of a job holds no secret."""
    extra = {"webhook": {"token": "t0ken"}}
    for body, is_kept in (({}, True), (extra, False)):
        request = CreateImageRequest(prompt="x", extra_body=body)
        encoded = ComfyRouterProvider().encode(request, imgkit.providers.OpenedInputs(), TARGET)
        assert (repeats.keep_submit(encoded) is not None) == is_kept


@pytest.mark.parametrize(
    ("status", "kind", "submits"),
    [(504, "deadline_exceeded", 2), (409, "concurrency_limit_exceeded", 2), (500, "internal_error", 2)],
)
def test_a_run_that_goes_on_is_collected(
    fake: LoggedRouter, call: Any, status: int, kind: str, submits: int
) -> None:
    """Repeats a request whose run goes on, as the API asks."""
    handle = fake.handle

    def stumble(request: FakeRequest) -> FakeReply:
        reply = handle(request)
        is_first = request.method == "POST" and len(fake.list_keys()) == 1
        return (
            json_reply(status, {"detail": "x"}, x_comfy_error_type=kind, retry_after="0")
            if is_first
            else reply
        )

    fake.handle = stumble  # type: ignore[method-assign]  # the first reply tells no end
    assert len(call()) == 1
    assert fake.count[SUBMIT] == submits
    assert len(fake.jobs) == 1


# --- The queue -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "error", "submits", "runs"),
    [
        ("success", None, 1, 1),
        ("rate_limited", None, 2, 1),
        ("lost_poll", None, 1, 1),
        ("fewer", None, 1, 1),
        ("wrong_type", None, 1, 1),
        ("lost_submit", None, 2, 1),
        ("refused", imgkit.ModerationBlockedError, 1, 1),
        ("invalid", imgkit.BadRequestError, 1, 0),
        ("failing", imgkit.OutcomeUnknownError, 1 + repeats.MAX_FAILURES, 0),
        ("expired_link", JobPendingError, 1, 1),
    ],
)
def test_scenarios(
    flavor: ServiceRunner,
    fake: LoggedRouter,
    server: WireServer,
    scenario: str,
    error: type[Exception] | None,
    submits: int,
    runs: int,
    tmp_path: Path,
) -> None:
    """Runs a request once, however often it is sent."""
    fake.scenario = scenario
    settings: dict[str, Any] = {"provider": "comfy_router", "base_url": server.origin, "api_key": KEY}
    settings |= {"retry": imgkit.RetryPlugin(chance=lambda: -1.0), "state_folder": tmp_path}
    settings["models"] = {"dialect": {"most_pictures": 4}}

    def work(service: Any) -> Any:
        return service.create_image("a red fox", n=2, model="openai/gpt-image-2")

    if error is None:
        assert len(flavor.run(work, "requests", **settings)) == (1 if scenario == "fewer" else 2)
    else:
        with pytest.raises(error):
            flavor.run(work, "requests", **settings)
    assert fake.count["POST /v2/models/openai/gpt-image-2/requests"] == submits
    assert len(fake.jobs) == runs
    keys = {each.headers.get("x-api-key") for each in fake.requests if each.path.startswith("/files/")}
    assert keys <= {None}


@pytest.mark.parametrize("polls", [2, -1])
def test_a_pending_job_is_cancelled(fake: LoggedRouter, call: Any, polls: int) -> None:
    """A cancelled request is gone; a cancellation that comes too late collects the image."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(JobPendingError) as caught:
        patch.setattr(job_requests, "FIRST_PAUSE_S", 10**9)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", 10**9)
        call()
    (job,) = caught.value.jobs
    assert isinstance(job, Job)
    assert (job.submit, job.idempotency_key) == (None, fake.list_keys()[0])
    fake.polls = polls
    response = call(lambda service: service.cancel_job(job))
    assert (response is None) == (polls > 0)
    assert fake.count[SUBMIT] == 1


def test_the_cost_of_the_reply_counts(call: Any) -> None:
    """Takes the cost from the header, and warns of parameters that the router has left out."""
    assert call().cost.amount == Decimal("0.03")
    headers = {
        "x-litellm-response-cost": "0.051",
        "x-comfy-router-dropped-params": "seed, style",
        "x-comfy-router-fallback-provider": "fal",
    }
    decoded: Any = decode(200, {"data": [{"url": "https://x.example/1.png"}]}, None, headers)
    assert decoded.cost.amount == Decimal("0.051")
    assert [text for text in decoded.warnings if "seed, style" in text or "fal" in text] == list(
        decoded.warnings
    )
    for text in ("", "NaN", "-1", "free"):
        headers["x-litellm-response-cost"] = text
        assert decode(200, {"data": [{"url": "https://x.example/1.png"}]}, None, headers).cost is None


# --- Replies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        {"data": [{"b64_json": PIXELS}], "created": 1},
        {"candidates": [{"content": {"parts": [{"inlineData": {"data": PIXELS, "mimeType": "image/png"}}]}}]},
        {"images": [f"data:image/png;base64,{PIXELS}"]},
    ],
)
def test_finds_images_in_any_output(output: Any) -> None:
    """Finds an image wherever the model's own output has it."""
    (image,) = decode(200, output).pictures
    assert image.data == png(1)


def test_finds_links_and_bytes() -> None:
    """Finds addresses, takes no prompt for them, and takes a body that is itself an image."""
    output = {"output": {"results": [{"url": "https://x.example/1.png"}]}, "prompt": "https://y.example"}
    assert [image.url for image in decode(200, output).pictures] == ["https://x.example/1.png"]
    decoded: Any = decode(200, png(1), None, {"x-litellm-response-cost": "0.1"})
    assert decoded.cost.amount == Decimal("0.1")
    with pytest.raises(imgkit.EmptyResultError, match="no image"):
        decode(200, {"data": []})
    with pytest.raises(imgkit.ModerationBlockedError):
        decode(200, {"status": "Content Moderated", "result": None})


@pytest.mark.parametrize(
    ("status", "kind", "error", "billed"),
    [
        (403, "not_enabled", imgkit.PermissionDeniedError, False),
        (402, "insufficient_credits", imgkit.QuotaExceededError, False),
        (409, "invalid_input", imgkit.ConflictError, False),
        (422, "idempotency_key_reuse", imgkit.BadRequestError, False),
        (429, "concurrency_limit_exceeded", imgkit.RateLimitError, False),
        (400, "content_policy_violation", imgkit.ModerationBlockedError, True),
        (504, "deadline_exceeded", imgkit.OutcomeUnknownError, True),
        (409, "concurrency_limit_exceeded", imgkit.OutcomeUnknownError, True),
    ],
)
def test_the_header_has_the_code(
    status: int, kind: str, error: type[imgkit.ImgkitError], billed: bool
) -> None:
    """Reads the class of an error from its header, with the wait and the id of the request."""
    headers = {"x-comfy-error-type": kind, "retry-after": "9", "x-comfy-request-id": "req_1"}
    found: Any = ComfyRouterProvider().error(Head(status, headers), b'{"detail": "It is so."}', ())
    assert type(found).__name__ == error.__name__
    assert found.maybe_billed == billed
    assert found.request_id == "req_1"
    assert "It is so" in str(found)
    assert kind != "not_enabled" or '"queue": False' in str(found)
    if status in (429, 504, 409) and kind != "invalid_input":
        assert found.retry_after_s == 9


@pytest.mark.parametrize(
    ("status", "value", "job", "kind"),
    [
        (404, {"detail": "x"}, WAITING, imgkit.JobFailedError),
        (401, {"detail": "x"}, WAITING, imgkit.AuthenticationError),
        (400, {"detail": "odd"}, WAITING, imgkit.UnreadableReplyError),
        (400, {"detail": "odd"}, DONE, imgkit.UnreadableReplyError),
        (
            500,
            {},
            DONE.advance(state={**DONE.state, "error_type": "provider_timeout"}),
            imgkit.JobFailedError,
        ),
        (200, {}, DONE.advance(state={**DONE.state, "error_type": "internal_error"}), imgkit.JobFailedError),
    ],
)
def test_polls_that_are_no_result(status: int, value: Any, job: Job, kind: type[imgkit.ImgkitError]) -> None:
    """Only the API's own word about the request ends it."""
    with pytest.raises(kind):
        decode(status, value, job)


def test_polls_wait_as_long_as_the_api_asks() -> None:
    """Waits for Retry-After between polls, and follows a word that it does not know."""
    update = decode(200, {"status": "RESTING"}, WAITING, {"retry-after": "4"})
    assert isinstance(update, JobUpdate)
    assert (update.poll_after_s, update.note) == (4, "RESTING")


def test_offline_works_without_a_key(flavor: ServiceRunner) -> None:
    """The offline backend answers creations, edits with masks and emulated variations."""

    def work(name: str, *arguments: Any, **fields: Any) -> Any:
        return flavor.run(
            lambda service: getattr(service, name)(*arguments, size="256x256", **fields),
            backend="offline",
            provider="comfy_router",
        )

    assert len(work("create_image", "a fox", n=2)) == 2
    assert len(work("create_image", "a fox", **DIRECT)) == 1
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 4))
    assert work("create_image_edit", png(1), "a hat", mask=hole)[0].width == 256
    assert work("create_image_variation", png(1)).meta.emulated
