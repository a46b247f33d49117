"""The provider of Fireworks: requests like its SDK's, images as bytes, jobs, refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import JobPendingError
from imgkit.images.inputs import open_input
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import FireworksProvider, OpenedInputs
from imgkit.providers.base import DecodedImages, Target
from imgkit.providers.fireworks_fake import FakeFireworks
from imgkit.providers.job_values import JobUpdate
from imgkit.testing import png
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json

pytestmark = pytest.mark.usefixtures("short_pauses")

PLACE = "/workflows/accounts/fireworks/models"
IMAGE = f"POST {PLACE}/flux-1-schnell-fp8/text_to_image"
EDIT = f"POST {PLACE}/flux-kontext-pro"
KEY = "fw_0123456789abcdefghij"
TARGET = Target(base_url="https://api.fireworks.ai/inference/v1", host_class="official")
PIXELS = base64.b64encode(png(1)).decode()
WAITING = Job(
    id="a-0",
    provider="fireworks",
    base_url=TARGET.base_url,
    operation="create_image_edit",
    state={"id": "r1"},
    facts={"model": "flux-kontext-max"},
)


class LoggedFireworks(RequestLog, FakeFireworks):
    """The API of Fireworks, with the requests that it has received."""


@pytest.fixture
def fake() -> LoggedFireworks:
    """The API of Fireworks."""
    return LoggedFireworks()


@pytest.fixture
def server(fake: LoggedFireworks) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


@pytest.fixture
def call(flavor: ServiceRunner, server: WireServer, tmp_path: Path) -> Callable[..., imgkit.ImagesResponse]:
    """Return a function that lets a service work."""

    def run(work: Callable[[Any], Any], backend: str = "requests", **settings: Any) -> Any:
        settings = {"provider": "fireworks", "base_url": server.origin, "api_key": KEY, **settings}
        return flavor.run(work, backend, state_folder=tmp_path / "state", **settings)

    return run


def encode(request: Any, **inputs: Any) -> tuple[str, Any]:
    """Return the path below the API's address and the JSON body of a request."""
    url, body = encode_json(FireworksProvider(), request, TARGET, **inputs)
    return url.removeprefix(TARGET.base_url), body


def decode(
    status: int, value: Any, job: Job | None = None, headers: dict[str, str] | None = None
) -> DecodedImages | Any:
    """Decode a reply to a request, or about a job."""
    provider = FireworksProvider()
    body = JsonReply(provider.base64_keys)
    body.feed(value if isinstance(value, bytes) else json.dumps(value).encode())
    body.close()
    if job is None:
        return provider.decode(Head(status, headers or {}), body, TARGET)
    return provider.decode_poll(job, Head(status, headers or {}), body, TARGET)


def test_sends_the_requests_of_the_sdk() -> None:
    """Sends the bodies that @ai-sdk/fireworks 3.0.62 sends to its three doors."""
    fields: Any = {"prompt": "a mug", "aspect_ratio": "16:9", "seed": 7, "n": 1}
    sdk = {"prompt": "a mug", "aspect_ratio": "16:9", "seed": 7, "samples": 1}
    request = CreateImageRequest(output_format="jpeg", **fields)
    assert encode(request) == (f"{PLACE}/flux-1-schnell-fp8/text_to_image", sdk)
    encoded = FireworksProvider().encode(request, OpenedInputs(), TARGET)
    assert encoded.headers["accept"] == "image/jpeg"
    with ExitStack() as cleanup:
        picture = open_input(png(1), "image", cleanup)
        edit = CreateImageEditRequest(image=png(1), **fields)
        link = {"input_image": f"data:image/png;base64,{PIXELS}"}
        assert encode(edit, image=(picture,)) == (f"{PLACE}/flux-kontext-pro", {**sdk, **link})
    model = "accounts/fireworks/models/stable-diffusion-xl-1024-v1-0"
    request = CreateImageRequest(prompt="a mug", model=model, size="1024x768", model_options={"steps": 30})
    sides = {"prompt": "a mug", "width": 1024, "height": 768, "steps": 30}
    assert encode(request) == (f"/image_generation/{model}", sides)


@pytest.mark.parametrize(
    ("name", "arguments", "fields", "match"),
    [
        ("create_image", (), {"size": "1024x768"}, "aspect_ratio='4:3'"),
        ("create_image", (), {"size": "1024x768", "model": None}, "aspect_ratio='4:3'"),
        ("create_image", (), {"model_options": {"guidance": 3}}, "guidance_scale"),
        ("create_image", (), {"model_options": {"num_inference_steps": 0}}, "from 1"),
        ("create_image_edit", ([png(1), png(1)],), {"model": "flux-kontext-pro"}, "one image"),
        ("create_image_edit", (png(1),), {}, "flux-1-schnell-fp8"),
        ("create_image_edit", (png(1),), {"model": "acme-1"}, "edits no images"),
        ("create_image_edit", (png(1),), {"model": "flux-kontext-pro", "mask": png(1)}, "mask"),
    ],
)
def test_refuses_before_sending(name: str, arguments: Any, fields: dict[str, Any], match: str) -> None:
    """Refuses masks, more than one image, models that edit none, and options that the model lacks."""
    fields = {"model": "flux-1-schnell-fp8", **fields}
    with (
        imgkit.ImageService("requests", provider="fireworks", api_key=KEY) as service,
        pytest.raises(imgkit.InvalidRequestError, match=match),
    ):
        getattr(service, name)(*arguments, prompt="a fox", **fields)


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
    call: Any, fake: LoggedFireworks, scenario: str, error: type[Exception] | None, submits: int
) -> None:
    """Sends a request again only if it was refused for now, at both doors, and downloads without the key."""
    fake.scenario = scenario
    retry = imgkit.RetryPlugin(chance=lambda: -1.0)  # draws waits of 0 s
    for name, place in (("create_image", IMAGE), ("create_image_edit", EDIT)):
        arguments = (png(1),) if name == "create_image_edit" else ()
        fake.count.clear()

        def work(service: Any, name: str = name, arguments: Any = arguments) -> Any:
            return getattr(service, name)(*arguments, prompt="a red fox")

        if error is None or (error is JobPendingError and not arguments):
            assert len(call(work, retry=retry)) == 1
        else:
            with pytest.raises(error):
                call(work, retry=retry)
        assert fake.count[place] == submits
    keys = {each.headers.get("authorization") for each in fake.requests if each.path.startswith("/files/")}
    assert keys <= {None}


def test_bytes_are_saved_as_they_are(call: Any, http_backend: str, tmp_path: Path) -> None:
    """Saves the image of the body under its real format, whatever type it declares."""

    def work(service: Any) -> Any:
        return service.create_image("a red fox", save_to=tmp_path / "fox.{ext}", output_format="jpeg")

    response = call(work, http_backend)
    assert response[0].format == "png"
    assert (tmp_path / "fox.png").read_bytes() == response[0].data


def test_polls_ask_at_the_door_of_the_model(call: Any, fake: LoggedFireworks) -> None:
    """Asks for the result at the model that the call named."""
    call(lambda service: service.create_image_edit(png(1), "a hat", model="flux-kontext-max"))
    assert fake.count[f"POST {PLACE}/flux-kontext-max/get_result"] == 3
    poll = FireworksProvider().poll(WAITING.advance(facts={}), TARGET)
    assert poll.url == f"{TARGET.base_url}{PLACE}/flux-kontext-pro/get_result"
    assert b"".join(poll.body.blocks()) == b'{"id": "r1"}'


def test_decodes_json_replies() -> None:
    """Reads images in base64, alone or in a list, with the seed."""
    link = f"data:image/png;base64,{PIXELS}"
    decoded = decode(200, {"id": "1", "base64": [link, PIXELS], "finishReason": "SUCCESS", "seed": 7})
    assert [image.data for image in decoded.pictures] == [png(1), png(1)]
    assert decoded.extra == {"seed": 7}
    assert decode(200, [{"base64": PIXELS}]).pictures[0].data == png(1)


@pytest.mark.parametrize(
    ("value", "headers", "kind"),
    [
        (png(1), {"finish-reason": "CONTENT_FILTERED"}, imgkit.ModerationBlockedError),
        ([{"base64": PIXELS, "finishReason": "CONTENT_FILTERED"}], {}, imgkit.ModerationBlockedError),
        ([], {}, imgkit.EmptyResultError),
        (b"<html>", {}, imgkit.UnreadableReplyError),
        ({"base64": []}, {}, imgkit.EmptyResultError),
    ],
)
def test_replies_without_an_image(
    value: Any, headers: dict[str, str], kind: type[imgkit.ImgkitError]
) -> None:
    """Reports filtered images as refusals that may cost, and replies without an image."""
    with pytest.raises(kind) as caught:
        decode(200, value, None, headers)
    assert type(caught.value) is kind
    assert caught.value.maybe_billed


@pytest.mark.parametrize(
    ("status", "value", "kind"),
    [
        (200, {"id": "r1", "status": "Content Moderated"}, imgkit.ModerationBlockedError),
        (200, {"id": "r1", "status": "Error"}, imgkit.JobFailedError),
        (200, {"id": "r1", "status": "Task not found"}, imgkit.JobFailedError),
        (401, {"error": {"message": "x"}}, imgkit.AuthenticationError),
        (400, {"error": {"message": "x"}}, imgkit.UnreadableReplyError),
    ],
)
def test_polls_that_are_no_result(status: int, value: Any, kind: type[imgkit.ImgkitError]) -> None:
    """Only the API's own word about the job ends it."""
    with pytest.raises(kind):
        decode(status, value, WAITING)
    update = decode(200, {"id": "r1", "status": "Resting", "progress": 0.5}, WAITING)
    assert isinstance(update, JobUpdate)
    assert (update.note, update.progress) == ("Resting", 0.5)


def test_offline_works_without_a_key(flavor: ServiceRunner) -> None:
    """The offline backend answers creations, edits and emulated variations."""

    def work(name: str, *arguments: Any, **fields: Any) -> Any:
        return flavor.run(
            lambda service: getattr(service, name)(*arguments, **fields),
            backend="offline",
            provider="fireworks",
        )

    assert work("create_image", "a fox", n=2, aspect_ratio="16:9")[1].width == 1360
    assert len(work("create_image_edit", png(1), "a hat")) == 1
    assert work("create_image_variation", png(1)).meta.emulated
