"""The fake of OpenAI's shape: its scenarios, JSON and forms, links, streams and hooks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from imgkit import (
    BadRequestError,
    ImageService,
    ImagesResponse,
    ModerationBlockedError,
    OutcomeUnknownError,
    RateLimitError,
    ServerError,
)
from imgkit.images.inputs import OpenedInputs, open_input
from imgkit.images.sniff import sniff
from imgkit.models import CreateImageEditRequest
from imgkit.providers import FakeReply, FakeRequest, OpenAIProvider, Target
from imgkit.providers.fakes import SCENARIOS
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI
from imgkit.testing import png, serve_fake
from tests.support.provider_apis import paint_input

ROOT = "https://api.acme.example/v1/images"


TARGET = Target(base_url="https://api.acme.example/v1", host_class="compatible")


def post(fake: FakeOpenAI, path: str, **values: Any) -> FakeReply:
    """Return the reply to a JSON body."""
    headers = {"content-type": "application/json"}
    return fake.answer_parts("POST", f"{ROOT}/{path}", headers, json.dumps(values).encode())


OUTCOMES: dict[str, type[Exception] | int] = {
    **dict.fromkeys(SCENARIOS, 2),
    "fewer": 1,
    "refused": ModerationBlockedError,
    "invalid": BadRequestError,
    "failing": ServerError,
    "lost_submit": OutcomeUnknownError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_creations_and_edits_in_each_scenario(scenario: str) -> None:
    """Answers JSON and a form over loopback; a paid request arrives once, after a 429 twice."""
    fake, outcome, hole = FakeOpenAI(scenario), OUTCOMES[scenario], paint_input((64, 48), hole=True)
    with serve_fake(fake) as server:
        with ImageService("requests", base_url=server.base_url, api_key="a-key", retry=False) as service:
            if scenario == "rate_limited":
                with pytest.raises(RateLimitError):
                    service.create_image("a fox", n=2)
            calls: list[Callable[[], ImagesResponse]] = [
                lambda: service.create_image("a fox", n=2),
                lambda: service.create_image_edit([paint_input(), png(2)], "a hat", n=2, mask=hole),
            ]
            for call in calls:
                if isinstance(outcome, int):
                    assert len(call()) == outcome
                else:
                    with pytest.raises(outcome):
                        call()
    assert fake.count["POST /v1/images/generations"] == (2 if scenario == "rate_limited" else 1)
    assert fake.count["POST /v1/images/edits"] == 1


def test_sends_links_and_their_images() -> None:
    """Sends links where the request asks for them, serves their images, and loses expired links."""
    for scenario, status in (("success", 200), ("expired_link", 404)):
        fake = FakeOpenAI(scenario)
        reply = post(fake, "generations", prompt="a fox", response_format="url", aspect_ratio="16:9")
        link = json.loads(reply.body)["data"][0]["url"]
        served = fake.answer_parts("GET", link, {}, b"")
        assert (served.status, link) == (status, "https://api.acme.example/files/0.png")
    assert fake.answer_parts("GET", "https://api.acme.example/files/1.png", {}, b"").status == 404


def test_reads_inputs_of_json_and_forms() -> None:
    """Finds the images and the mask of both bodies, and refuses a body that the API does not read."""
    fake = FakeOpenAI()
    data_url = f"data:image/png;base64,{base64.b64encode(png(1)).decode()}"
    values = {"prompt": "a hat", "images": [{"image_url": data_url}], "mask": {"file_id": "file-1"}}
    for request, mask in ((to_json(values), "file-1"), (to_form(), png(2))):
        call = fake.read_call(request, "create_image_edit")
        assert isinstance(call, FakeCall)
        assert (call.images, call.mask, call.prompt) == ((png(1),), mask, "a hat")

    class JsonOnly(FakeOpenAI):
        takes_form_edits = False

    assert JsonOnly().answer(to_form()).status == 415
    assert fake.answer(to_form()._replace(url=f"{ROOT}/generations")).status == 415


@pytest.mark.parametrize(
    ("path", "values", "param"),
    [
        ("generations", {"prompt": "a fox", "n": 11}, "n"),
        ("generations", {"prompt": "a fox", "n": True}, "n"),
        ("generations", {"n": 1}, "prompt"),
        ("edits", {"prompt": "a fox"}, "image"),
        ("edits", {"prompt": "a fox", "images": [{"file_id": "x"}] * 17}, "image"),
        ("generations", {"prompt": "a fox", "size": "1x1"}, "size"),
    ],
)
def test_refuses_wrong_requests(path: str, values: dict[str, Any], param: str) -> None:
    """Names the parameter of a request that the API would refuse, also an unknown one."""

    class Strict(FakeOpenAI):
        members = frozenset({"prompt", "n", "images"})

    reply = post(Strict(), path, **values)
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"] == param


def test_sends_jpegs_and_events() -> None:
    """Sends JPEGs for an API of JPEGs, a PNG on request, may declare another type, and streams."""

    class Jpegs(FakeOpenAI):
        image_type = "image/jpeg"

    reply = json.loads(post(Jpegs(), "generations", prompt="a fox", output_format="png").body)
    kind = sniff(base64.b64decode(reply["data"][0]["b64_json"]))
    assert kind is not None
    assert kind.format == "png"
    reply = json.loads(post(Jpegs("wrong_type"), "generations", prompt="a fox", size="64x32").body)
    kind = sniff(base64.b64decode(reply["data"][0]["b64_json"]))
    assert kind is not None
    assert (kind.format, kind.width, kind.height, reply["output_format"]) == ("jpeg", 64, 32, "png")
    stream = post(FakeOpenAI(), "generations", prompt="a fox", stream=True, partial_images=2)
    events = [line for line in stream.body.decode().splitlines() if line.startswith("event: ")]
    assert events == [
        *["event: image_generation.partial_image"] * 2,
        "event: image_generation.completed",
    ]


def to_json(values: dict[str, Any]) -> FakeRequest:
    """Return a JSON edit."""
    headers = {"content-type": "application/json"}
    return FakeRequest("POST", f"{ROOT}/edits", headers, json.dumps(values).encode())


def to_form() -> FakeRequest:
    """Return the same edit as a form."""
    with ExitStack() as cleanup:
        image, mask = (open_input(png(number), "image", cleanup) for number in (1, 2))
        request = CreateImageEditRequest(image=(png(1),), prompt="a hat")
        encoded = OpenAIProvider().encode(request, OpenedInputs(image=(image,), mask=mask), TARGET)
        assert encoded.body is not None
        body = b"".join(encoded.body.blocks())
    return FakeRequest("POST", f"{ROOT}/edits", {"content-type": encoded.body.content_type}, body)
