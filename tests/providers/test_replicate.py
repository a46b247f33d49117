"""The provider of Replicate: requests like its SDK's, predictions, outputs of any shape, refusals."""

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
from imgkit.providers import ReplicateProvider
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.replicate_fake import FakeReplicate
from imgkit.testing import png
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json

pytestmark = pytest.mark.usefixtures("short_pauses")

SUBMIT = "POST /models/black-forest-labs/flux-schnell/predictions"
KEY = "r8_0123456789abcdefghij"
TARGET = Target(base_url="https://api.replicate.com/v1", host_class="official")
PIXELS = base64.b64encode(png(1)).decode()
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
WAITING = Job(
    id="a-0",
    provider="replicate",
    base_url=TARGET.base_url,
    operation="create_image",
    state={"get": "https://api.replicate.com/v1/predictions/p1"},
)


class LoggedReplicate(RequestLog, FakeReplicate):
    """The API of Replicate, with the requests that it has received."""


@pytest.fixture
def fake() -> LoggedReplicate:
    """The API of Replicate."""
    return LoggedReplicate()


@pytest.fixture
def server(fake: LoggedReplicate) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


@pytest.fixture
def call(flavor: ServiceRunner, server: WireServer, tmp_path: Path) -> Callable[..., imgkit.ImagesResponse]:
    """Return a function that creates an image, or lets a service do other work."""

    def run(work: Callable[[Any], Any] | None = None, *, fields: Any = None, **settings: Any) -> Any:
        settings = {"provider": "replicate", "base_url": server.origin, "api_key": KEY, **settings}
        settings["models"] = {"dialect": {"most_pictures": 4}}
        work = work or (lambda service: service.create_image("a red fox", **(fields or {})))
        return flavor.run(work, "requests", state_folder=tmp_path / "state", **settings)

    return run


def encode(request: Any, **inputs: Any) -> tuple[str, Any]:
    """Return the path below the API's address and the JSON body of a request."""
    url, body = encode_json(ReplicateProvider(), request, TARGET, **inputs)
    return url.removeprefix(TARGET.base_url), body


def decode(status: int, value: Any, job: Job | None = WAITING) -> DecodedImages | Any:
    """Decode a reply about a prediction, or to a submit if `job` is None."""
    provider = ReplicateProvider()
    body = JsonReply(provider.base64_keys)
    body.feed(value if isinstance(value, bytes) else json.dumps(value).encode())
    body.close()
    if job is None:
        return provider.decode(Head(status, {}), body, TARGET)
    return provider.decode_poll(job, Head(status, {}), body, TARGET)


def prediction(status: str, **more: Any) -> dict[str, Any]:
    """Return a prediction."""
    urls = {"get": "https://api.replicate.com/v1/predictions/p1"}
    return {"id": "p1", "status": status, "output": None, "error": None, "urls": urls, **more}


# --- Requests --------------------------------------------------------------------------------


def test_sends_the_requests_of_the_sdks() -> None:
    """Sends the bodies of @ai-sdk/replicate and replicate 1.0.7, but for the name of FLUX.2's images.

    The schema of FLUX.2 at Replicate has ``input_images``, and a model ignores inputs that it does not know.
    """
    request = CreateImageRequest(prompt="p", model="o/n", extra_headers={"Prefer": "wait=5"})
    encoded = ReplicateProvider().encode(request, imgkit.providers.OpenedInputs(), TARGET)
    assert encode(request) == ("/models/o/n/predictions", {"input": {"prompt": "p"}})
    assert {name.lower(): value for name, value in encoded.headers.items()}["prefer"] == "wait=5"
    link = f"data:image/png;base64,{PIXELS}"
    with ExitStack() as cleanup:
        picture = open_input(png(1), "image", cleanup)
        fields: Any = {"prompt": "a mug", "aspect_ratio": "16:9", "seed": 7, "n": 1}
        edit = CreateImageEditRequest(image=png(1), model="black-forest-labs/flux-2-pro", **fields)
        path, body = encode(edit, image=(picture,))
        assert path == "/models/black-forest-labs/flux-2-pro/predictions"
        sdk = {"prompt": "a mug", "aspect_ratio": "16:9", "seed": 7, "num_outputs": 1}
        assert body == {"input": {**sdk, "input_images": [link]}}
        path, body = encode(CreateImageEditRequest(image=png(1), **fields), image=(picture,))
        assert path == "/models/black-forest-labs/flux-kontext-pro/predictions"
        assert body == {"input": {**sdk, "input_image": link}}
        edit = CreateImageEditRequest(image=(png(1), png(1)), prompt="x", model="acme/paint")
        assert encode(edit, image=(picture, picture))[1]["input"]["image"] == [link, link]


@pytest.mark.parametrize(
    ("model", "path", "version"),
    [
        ("acme/paint", "/models/acme/paint/predictions", None),
        (f"acme/paint:{VERSION}", "/predictions", f"acme/paint:{VERSION}"),
        (VERSION, "/predictions", VERSION),
        ("deployments/acme/paint", "/deployments/acme/paint/predictions", None),
    ],
)
def test_a_model_has_several_forms(model: str, path: str, version: str | None) -> None:
    """Names a model, a version of it, a version alone, or a deployment."""
    request = CreateImageRequest(
        prompt="x", model=model, output_format="jpeg", extra_body={"webhook": "https://w"}
    )
    ReplicateProvider().check(request, TARGET)
    sent_path, body = encode(request)
    assert (sent_path, body.get("version")) == (path, version)
    assert body["webhook"] == "https://w"
    assert body["input"] == {"prompt": "x", "output_format": "jpg"}


@pytest.mark.parametrize("model", ["paint", "../x", "a/..", "a/b/c", "a/b:latest", "https://x/y", "a/b?c"])
def test_refuses_other_models(model: str) -> None:
    """Refuses a model that would lead to another address."""
    with pytest.raises(imgkit.InvalidRequestError, match="owner/name"):
        ReplicateProvider().check(CreateImageRequest(prompt="x", model=model), TARGET)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"size": "1024x768"}, "aspect_ratio='4:3'"),
        ({"model_options": {"output_quality": 101}}, "from 0 to 100"),
        ({"model_options": {"go_fast": "yes"}}, "true or false"),
        ({"style": "vivid"}, "takes no style"),
    ],
)
def test_refuses_before_sending(fields: dict[str, Any], match: str) -> None:
    """Refuses fields that the API lacks, and options out of range."""
    with (
        imgkit.ImageService("requests", provider="replicate", api_key=KEY) as service,
        pytest.raises(imgkit.InvalidRequestError, match=match),
    ):
        service.create_image("a fox", model="black-forest-labs/flux-schnell", **fields)
    hole, many = imgkit.masks.from_box((8, 8), (0, 0, 4, 8)), [png(1), png(1)]
    with (
        imgkit.ImageService("requests", provider="replicate", api_key=KEY) as service,
        pytest.raises(imgkit.InvalidRequestError, match="at most 1"),
    ):
        service.create_image_edit(many, "a hat", mask=hole, model="black-forest-labs/flux-fill-pro")


def test_white_pixels_of_a_mask_change(fake: LoggedReplicate, call: Any) -> None:
    """Sends a mask whose white pixels may change, and options that only the model knows, with a warning."""
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 8))
    options = {"guidance": 30, "output_quality": 90}
    response = call(
        lambda service: service.create_image_edit(png(1), "a hat", mask=hole, model_options=options)
    )
    sent = fake.requests[0].json()["input"]
    assert fake.requests[0].path == "/models/black-forest-labs/flux-fill-pro/predictions"
    assert (sent["guidance"], sent["output_quality"]) == (30, 90)
    assert [text for text in response.warnings if "guidance" in text]
    mask = PIL.Image.open(BytesIO(base64.b64decode(sent["mask"].partition(",")[2]))).convert("L")
    assert (mask.getpixel((1, 1)), mask.getpixel((6, 1))) == (255, 0)


# --- Predictions -----------------------------------------------------------------------------


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
        ("failing", imgkit.OutcomeUnknownError, 1),
        ("lost_submit", imgkit.OutcomeUnknownError, 1),
        ("expired_link", JobPendingError, 1),
    ],
)
def test_scenarios(
    call: Any, fake: LoggedReplicate, scenario: str, error: type[Exception] | None, submits: int
) -> None:
    """Submits again only what was refused for now, and downloads without the key."""
    fake.scenario = scenario
    retry = imgkit.RetryPlugin(chance=lambda: -1.0)  # draws waits of 0 s
    if error is None:
        assert len(call(fields={"n": 2}, retry=retry)) == (1 if scenario == "fewer" else 2)
    else:
        with pytest.raises(error):
            call(fields={"n": 2}, retry=retry)
    assert fake.count[SUBMIT] == submits
    keys = {each.headers.get("authorization") for each in fake.requests if each.path.startswith("/files/")}
    assert keys <= {None}
    assert {each.headers.get("authorization") for each in fake.requests} <= {None, f"Bearer {KEY}"}


def test_the_api_may_hold_its_first_reply(call: Any, fake: LoggedReplicate, http_backend: str) -> None:
    """Takes the images of the first reply, when the caller lets the API wait; then there is no poll."""
    response = call(fields={"extra_headers": {"prefer": "wait=30"}})
    assert response.extra["metrics"] == {"predict_time": 0.5}
    assert response.cost.amount is None
    assert not [each for each in fake.requests if each.method == "GET" and "/predictions/" in each.path]


@pytest.mark.parametrize("polls", [2, -1])
def test_a_pending_job_is_cancelled(call: Any, fake: LoggedReplicate, polls: int) -> None:
    """A cancelled prediction is gone; a cancellation that comes too late collects the image."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(JobPendingError) as caught:
        patch.setattr(job_requests, "FIRST_PAUSE_S", 10**9)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", 10**9)
        call()
    (job,) = caught.value.jobs
    assert KEY not in job.to_json()
    fake.polls = polls
    response = call(lambda service: service.cancel_job(job))
    assert fake.count["POST /predictions/job-1/cancel"] == 1
    assert (response is None) == (polls > 0)
    assert fake.count[SUBMIT] == 1


# --- Replies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "links"),
    [
        ("https://replicate.delivery/a.png", ["a.png"]),
        (["https://replicate.delivery/a.png", "https://replicate.delivery/b.png"], ["a.png", "b.png"]),
        ({"image": "https://replicate.delivery/a.png", "caption": "a fox"}, ["a.png"]),
        ([{"url": "https://replicate.delivery/a.png"}, {"mask": None}], ["a.png"]),
    ],
)
def test_finds_images_in_any_output(output: Any, links: list[str]) -> None:
    """Finds the images of a text, a list and an object."""
    decoded = decode(200, prediction("succeeded", output=output, metrics={"predict_time": 2}))
    assert [str(image.url).rpartition("/")[2] for image in decoded.pictures] == links
    assert decoded.extra["metrics"] == {"predict_time": 2}


def test_takes_images_within_the_reply() -> None:
    """Takes a ``data:`` URL, also from the reply to a submit."""
    value = prediction("succeeded", output=f"data:image/png;base64,{PIXELS}")
    assert decode(201, value, None).pictures[0].data == png(1)


@pytest.mark.parametrize(
    ("value", "error", "billed"),
    [
        (prediction("failed", error="NSFW content detected."), imgkit.ModerationBlockedError, True),
        (
            prediction("failed", error="Your input was flagged as sensitive (E005)"),
            imgkit.ModerationBlockedError,
            True,
        ),
        (prediction("failed", error="CUDA out of memory"), imgkit.JobFailedError, True),
        (prediction("canceled"), imgkit.JobFailedError, True),
        (prediction("aborted"), imgkit.JobFailedError, False),
        (prediction("succeeded"), imgkit.EmptyResultError, True),
        (prediction("succeeded", output=["a fox"]), imgkit.EmptyResultError, True),
    ],
)
def test_ends_without_images(value: Any, error: type[imgkit.ImgkitError], billed: bool) -> None:
    """Tells a refusal from a failure, and whether the API may charge for it."""
    for job in (WAITING, None):
        with pytest.raises(error) as caught:
            decode(200, value, job)
        assert type(caught.value) is error
        assert caught.value.maybe_billed == billed


def test_a_prediction_at_work() -> None:
    """Reads the progress of the logs, follows an unknown word, and asks at the named address."""
    update = decode(200, prediction("resting", logs=" 10%|#         |\n 45%|####     | 9/20"))
    assert isinstance(update, JobUpdate)
    assert (update.note, update.progress) == ("resting", 0.45)
    assert ReplicateProvider().poll(WAITING.advance(state=update.state), TARGET).url == WAITING.state["get"]
    nameless: Any = decode(201, {"id": "p 2", "status": "starting"}, None)
    assert nameless.state == {"get": f"{TARGET.base_url}/predictions/p%202"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, imgkit.JobFailedError), (401, imgkit.AuthenticationError), (400, imgkit.UnreadableReplyError)],
)
def test_polls_that_are_no_result(status: int, kind: type[imgkit.ImgkitError]) -> None:
    """Only the API's own word about the prediction ends it."""
    with pytest.raises(kind):
        decode(status, {"detail": "x"})


@pytest.mark.parametrize(
    ("status", "value", "kind"),
    [
        (402, {"title": "Insufficient credit", "detail": "Buy credit"}, imgkit.QuotaExceededError),
        (422, {"title": "Invalid", "detail": "- input.n: no"}, imgkit.BadRequestError),
        (429, {"detail": "Throttled.", "retry_after": 8}, imgkit.RateLimitError),
    ],
)
def test_errors_quote_the_api(status: int, value: Any, kind: type[imgkit.ImgkitError]) -> None:
    """Quotes the detail of an error, and honours the wait of its body."""
    error: Any = ReplicateProvider().error(Head(status, {}), json.dumps(value).encode(), ())
    assert type(error).__name__ == kind.__name__
    assert value["detail"].rstrip(".") in str(error)
    assert status != 429 or error.retry_after_s == 8


def test_offline_works_without_a_key(flavor: ServiceRunner) -> None:
    """The offline backend answers creations, edits with masks and emulated variations."""

    def work(name: str, *arguments: Any, **fields: Any) -> Any:
        return flavor.run(
            lambda service: getattr(service, name)(*arguments, **fields),
            backend="offline",
            provider="replicate",
        )

    assert work("create_image", "a fox", n=2, aspect_ratio="16:9")[1].width == 1360
    hole = imgkit.masks.from_box((8, 8), (0, 0, 4, 4))
    assert len(work("create_image_edit", png(1), "a hat", mask=hole)) == 1
    assert work("create_image_variation", png(1)).meta.emulated
