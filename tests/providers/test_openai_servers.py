"""vLLM-Omni, SGLang and LocalAI: OpenAI's shape with the fields and the traps of each server."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import FakeApi, FakeRequest, ImageReference, Target
from imgkit.providers.fakes import SCENARIOS
from imgkit.providers.openai_servers import OpenAIServer
from imgkit.providers.openai_servers_fake import FakeLocalAI, FakeSGLang, FakeVllm
from imgkit.providers.sglang import SGLangProvider
from imgkit.providers.vllm import VllmProvider
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.provider_apis import RequestLog, encode_json, paint_input

CREATE = "POST /v1/images/generations"
TARGET = Target(base_url="http://127.0.0.1:8000/v1", host_class="official")
LINK = ImageReference(url="https://files.example/1.png")


class LoggedVllm(RequestLog, FakeVllm):
    """The fake of vLLM-Omni, with the requests that it has received."""


class LoggedSGLang(RequestLog, FakeSGLang):
    """The fake of SGLang, with the requests that it has received."""


class LoggedLocalAI(RequestLog, FakeLocalAI):
    """The fake of LocalAI, with the requests that it has received."""


FAKES: dict[str, type[Any]] = {"vllm": LoggedVllm, "sglang": LoggedSGLang, "localai": LoggedLocalAI}
OUTCOMES: dict[str, type[BaseException]] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.BadRequestError,
    "failing": imgkit.OutcomeUnknownError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


def run(
    name: str, fake: FakeApi, call: Callable[[Any], Any], backend: str = "requests", **settings: Any
) -> Any:
    """Return the result of a call that a fake answers over loopback."""
    with serve_fake(fake) as server:
        return ServiceRunner("sync" if backend == "requests" else "async").run(
            call, backend, provider=name, base_url=server.base_url, **settings
        )


def find_part(request: FakeRequest, name: str) -> bytes:
    """Return the content of the part of a form."""
    return next(part.data for part in request.form() if part.name == name)


def read_mask(data: bytes) -> tuple[str, object, object]:
    """Return the mode of a mask, a pixel that may change, and another."""
    mask = PIL.Image.open(io.BytesIO(data))
    return mask.mode, mask.getpixel((1, 1)), mask.getpixel((1, 47))


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(name: str, scenario: str) -> None:
    """Sends one request in each situation but a refused one, without a key."""
    fake = FAKES[name](scenario)
    settings = {"retry": scenario == "rate_limited"}
    backend = "aiohttp" if scenario in ("success", "lost_submit") else "requests"
    call = lambda service: service.create_image("a red fox", size="64x48", n=3)  # noqa: E731
    outcome = OUTCOMES.get(scenario)
    if outcome is None:
        response = run(name, fake, call, backend, **settings)
        assert len(response) == (2 if scenario == "fewer" else 3)
        assert (response[0].width, response[0].height) == (64, 48)
        assert not response.cost.known
    else:
        # vLLM answers with OpenAI's own error object, which proves that nothing runs on.
        is_own = scenario == "failing" and name == "vllm"
        with pytest.raises(imgkit.ServerError if is_own else outcome):
            run(name, fake, call, backend, **settings)
    assert fake.count[CREATE] == (2 if scenario == "rate_limited" else 1)
    assert not any("authorization" in each.headers for each in fake.requests)


def test_sends_the_documented_bodies() -> None:
    """Sends the members of the servers' own examples, and asks each server for base64."""
    request = CreateImageRequest(
        prompt="a mug", size="1024x1024", seed=42, model_options={"num_inference_steps": 50}
    )
    expected = {"prompt": "a mug", "size": "1024x1024", "seed": 42, "num_inference_steps": 50}
    for provider in (VllmProvider(), SGLangProvider()):
        url, body = encode_json(provider, request, TARGET)
        assert url == "http://127.0.0.1:8000/v1/images/generations"
        assert body == {**expected, "response_format": "b64_json"}
        assert "size" not in encode_json(provider, CreateImageRequest(prompt="p", size="auto"), TARGET)[1]


def test_vllm_reads_masks_by_another_name() -> None:
    """Sends an edit as a form with ``mask_image``, white where the image may change, and objects as JSON."""
    fake = LoggedVllm()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        [paint_input(), paint_input((32, 32))],
        "a hat",
        mask=paint_input(hole=True),
        seed=7,
        model_options={"lora": {"name": "a", "scale": 0.5}, "strength": 0.8},
    )
    assert len(run("vllm", fake, edit)) == 1
    parts = [(part.name, part.filename is not None) for part in fake.requests[0].form()]
    assert [name for name, is_file in parts if is_file] == ["image[]", "image[]", "mask_image"]
    assert find_part(fake.requests[0], "lora") == b'{"name": "a", "scale": 0.5}'
    assert find_part(fake.requests[0], "seed") == b"7"
    assert read_mask(find_part(fake.requests[0], "mask_image")) == ("L", 255, 0)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_references_are_form_fields(name: str) -> None:
    """Names all images of an edit by URL, in their order, if any of them is a reference."""
    fake = FAKES[name]()
    run(name, fake, lambda service: service.create_image_edit([paint_input(), LINK], "a hat"))
    links = [part.data.decode() for part in fake.requests[0].form() if part.name == "url[]"]
    assert links[0].startswith("data:image/png;base64,")
    assert links[1] == LINK.url
    with pytest.raises(InvalidRequestError, match="no uploaded files"):
        run(name, fake, lambda service: service.create_image_edit(ImageReference(file_id="file-1"), "a hat"))
    assert len(fake.requests) == 1


def test_sglang_uses_no_mask() -> None:
    """Refuses a mask under every policy: the server would repaint the whole image."""
    for policy in ("raise", "warn", "drop", "adapt"):
        with (
            imgkit.ImageService("offline", provider="sglang", on_unsupported=policy) as service,
            pytest.raises(InvalidRequestError, match="takes no mask"),
        ):
            service.create_image_edit(paint_input(), "a hat", mask=paint_input(hole=True))


def test_localai_repaints_by_a_route_of_its_own(tmp_path: Path) -> None:
    """Sends image and mask as a form, white where the image may change, and fetches the link at its host."""
    fake = LoggedLocalAI()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        paint_input(),
        "a hat",
        mask=paint_input(hole=True),
        model="sd",
        model_options={"step": 9},
        save_to=tmp_path,
    )
    response = run("localai", fake, edit, api_key="local-key-12345")
    assert len(response) == 1
    submit, download = fake.requests
    assert submit.path == "/v1/images/inpainting"
    fields = {part.name: part.data for part in submit.form()}
    assert list(fields) == ["prompt", "model", "steps", "image", "mask"]
    assert (fields["prompt"], fields["model"], fields["steps"]) == (b"a hat", b"sd", b"9")
    assert read_mask(fields["mask"]) == ("L", 255, 0)
    assert submit.headers["authorization"] == "Bearer local-key-12345"
    assert "authorization" not in download.headers


def test_localai_draws_from_references() -> None:
    """Sends the images of an edit in base64 or as URLs, and the negative prompt behind the prompt."""
    fake = LoggedLocalAI()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        [paint_input(), LINK], "a hat", negative_prompt="rain", n=2, seed=7
    )
    assert len(run("localai", fake, edit)) == 2
    body = fake.requests[0].json()
    assert base64.b64decode(body["ref_images"][0]) == paint_input()
    assert body == {
        "prompt": "a hat|rain",
        "n": 2,
        "seed": 7,
        "response_format": "b64_json",
        "ref_images": [body["ref_images"][0], LINK.url],
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "a fox | a hat"}, "text behind |"),
        ({"negative_prompt": "a|b"}, "text behind |"),
        ({"mask": True, "n": 2}, "draws one image"),
        ({"mask": True, "size": "64x64"}, "ignores size"),
        ({"mask": True, "seed": 7}, "ignores seed"),
        ({"mask": True, "model": None}, "needs a model"),
        ({"mask": True, "image": LINK}, "one image as a file"),
        ({"mask": True, "image": [paint_input(), paint_input()]}, "one image as a file"),
    ],
)
def test_localai_ignores_nothing(fields: dict[str, Any], words: str) -> None:
    """Refuses fields that the server would drop silently, before anything is sent."""
    fake = LoggedLocalAI()
    given = {"image": paint_input(), "prompt": "a hat", "model": "sd", **fields}
    if given.pop("mask", False):
        given["mask"] = paint_input(hole=True)
    with pytest.raises(InvalidRequestError) as caught:
        run("localai", fake, lambda service: service.create_image_edit(given.pop("image"), **given))
    assert words in str(caught.value)
    assert not fake.requests


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("vllm", {"quality": "high"}, "takes no quality"),
        ("vllm", {"aspect_ratio": "16:9"}, "Pass size='1360x768'"),
        ("vllm", {"model_options": {"num_inference_steps": 201}}, "from 1 to 200"),
        ("vllm", {"model_options": {"num_inference_step": 9}}, "num_inference_steps"),
        ("vllm", {"model_options": {"strength": 0.5}}, "no such option here"),
        ("sglang", {"moderation": "low"}, "takes no moderation"),
        ("sglang", {"model_options": {"upscaling_scale": 1.5}}, "a whole number"),
        ("localai", {"quality": "high"}, "takes no quality"),
        ("localai", {"model_options": {"steps": 9}}, "did you mean 'step'"),
    ],
)
def test_unknown_fields_and_options(name: str, fields: dict[str, Any], words: str) -> None:
    """Refuses fields and options that the server lacks, and values out of range."""
    with (
        imgkit.ImageService("offline", provider=name) as service,
        pytest.raises(InvalidRequestError) as caught,
    ):
        service.create_image("a fox", **fields)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", FAKES)
def test_servers_do_not_stream(name: str) -> None:
    """Refuses a stream: no server sends events that imgkit reads."""
    with (
        imgkit.ImageService("offline", provider=name) as service,
        pytest.raises(ConfigurationError, match="does not stream"),
        service.stream_image("a fox") as events,
    ):
        list(events)


def test_a_mask_is_a_file() -> None:
    """Refuses a mask that the server would have to fetch."""
    request = CreateImageEditRequest(image=(LINK,), prompt="a hat", mask=LINK)
    with pytest.raises(InvalidRequestError, match="mask as a file"):
        VllmProvider().check(request, TARGET)


def test_many_images_are_split() -> None:
    """Sends several requests for more than ten images: SGLang would make ten and say nothing."""
    fake = LoggedSGLang()
    assert len(run("sglang", fake, lambda service: service.create_image("a fox", size="16x16", n=12))) == 12
    assert sorted(each.json()["n"] for each in fake.requests) == [2, 10]


def test_each_server_has_a_default_address() -> None:
    """The default ports are those of the servers, on this machine, and no key is required."""
    addresses = {kind.__module__: kind.base_url for kind in OpenAIServer.__subclasses__()}
    assert sorted(addresses.values())[:3] == [
        "http://127.0.0.1:30000/v1",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8080/v1",
    ]
