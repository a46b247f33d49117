"""The contract of providers: dialects of other kinds pass it, and its guards and checks work."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from imgkit import EmptyResultError, InvalidRequestError
from imgkit.models import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import (
    BaseProvider,
    BytesBody,
    Credential,
    DecodedImage,
    DecodedImages,
    Head,
    HttpRequest,
    ImageFile,
    MaskPolarity,
    OpenAIProvider,
    OpenedInputs,
    Provider,
    ReplyBody,
    Target,
    error_from_reply,
    readable,
)
from imgkit.testing import ProviderContract, StreamingProviderContract, png, provider_guards
from imgkit.testing.provider_guards import forbid_io, run_interleaved
from imgkit.testing.request_checks import assert_body_type, find_image_types
from tests.support.openai_samples import OpenAISamples


class TestOpenAI(OpenAISamples, StreamingProviderContract):
    """The OpenAI provider passes the streaming contract."""


SAMPLE_FILE = Path(__file__).parents[1] / "cassettes" / "create_image_edit.yaml.files"
SAMPLE_FILE /= "cdf9cf0ada9671322eded5ccaecb7bb25c90af0bfab47cc804bd6f7771418755.png"


class LinkProvider(BaseProvider):
    """A dialect with one endpoint, white masks, a key header of its own, and URLs as results."""

    base_url = "https://run.link.example"
    env = {"api_key": "LINK_KEY"}
    credentials = (Credential(variable="LINK_KEY", header="x-link-key", scheme=""),)
    mask_polarity: ClassVar[MaskPolarity] = "white"
    accepts = {
        "create_image": ("prompt", "model", "extra_body"),
        "create_image_edit": ("prompt", "image", "mask", "model", "extra_body"),
    }

    def check(self, request: Any, target: Target) -> None:
        super().check(request, target)
        if isinstance(getattr(request, "image", ()), tuple) and len(getattr(request, "image", ())) > 1:
            raise InvalidRequestError({"image": "This provider edits a single image."})

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        files = {"image_url": next(iter(inputs.image), None), "mask_url": inputs.mask}
        members: dict[str, object] = {"model": request.model or target.model, "prompt": request.prompt}
        members |= {name: to_data_url(file) for name, file in files.items() if isinstance(file, ImageFile)}
        body = json.dumps({**members, **(request.extra_body or {})}, sort_keys=True).encode()
        return HttpRequest("POST", f"{target.base_url}/run", {}, BytesBody(body, "application/json"))

    def decode(self, head: Head, body: ReplyBody, target: Target, secrets: Any = ()) -> DecodedImages:
        with readable(head, body, secrets):
            images = tuple(DecodedImage(url=image["url"]) for image in body.json()["images"])
        if not images:
            raise EmptyResultError("There are no images. The call may have been billed.")
        return DecodedImages(pictures=images)

    def error(self, head: Head, body: bytes, secrets: Any) -> Any:
        return error_from_reply(head, body, secrets)


def to_data_url(file: ImageFile) -> str:
    return f"data:{file.kind.media_type};base64,{base64.b64encode(file.read()).decode()}"


class TestLink(ProviderContract):
    """A dialect without images in its replies passes the contract."""

    endpoints: ClassVar[Mapping[str, str]] = {"create_image": "/run", "create_image_edit": "/run"}

    def provider(self) -> Provider:
        return LinkProvider()

    def reply(self, pictures: list[bytes]) -> None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"images": [{"url": url} for url in urls]}).encode()


class RawProvider(LinkProvider):
    """A dialect whose reply is the image itself."""

    accepts = {"create_image": ("prompt", "model", "extra_body")}

    def decode(self, head: Head, body: ReplyBody, target: Target, secrets: Any = ()) -> DecodedImages:
        data = body.raw()
        if not (data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")):
            raise error_from_reply(head, data, secrets)
        return DecodedImages(pictures=(DecodedImage(data=data),))


class TestFiles(OpenAISamples, ProviderContract):
    """Requests may name files: the contract opens them, not the provider."""

    def requests(self) -> list[Any]:
        return [CreateImageEditRequest(image=SAMPLE_FILE, prompt="a hat")]


class TestRaw(ProviderContract):
    """A dialect whose reply is the image itself passes the contract."""

    images_per_reply: ClassVar[int] = 1
    reply_headers: ClassVar[Mapping[str, str]] = {"content-type": "image/png"}

    def provider(self) -> Provider:
        return RawProvider()

    def reply(self, pictures: list[bytes]) -> bytes:
        return b"".join(pictures)


# --- Samples -----------------------------------------------------------------------------------


class NeedsSize(OpenAIProvider):
    def check(self, request: Any, target: Target) -> None:
        if request.operation == "create_image_variation":
            raise InvalidRequestError({"operation": "There are no variations. Use another operation."})
        if request.size is None:
            raise InvalidRequestError({"size": "This provider has no default size."})


class NeedsSizeContract(OpenAISamples, ProviderContract):
    def provider(self) -> Provider:
        return NeedsSize()

    def requests(self) -> list[Any]:
        return [CreateImageRequest(prompt="a fox", size="64x64")]


def test_an_operation_without_a_sample_is_not_skipped() -> None:
    """Asks the author for a request of an operation that needs more fields than the samples have."""
    with pytest.raises(AssertionError, match="create_image_edit needs size. Override requests"):
        NeedsSizeContract().list_requests()


def test_refused_operations_need_no_sample() -> None:
    """Leaves out the operations that the provider refuses, and adds those that it takes."""

    class Contract(NeedsSizeContract):
        def requests(self) -> list[Any]:
            edit = CreateImageEditRequest(image=png(1), prompt="a hat", size="64x64")
            return [*super().requests(), edit]

    operations = [request.operation for request in Contract().list_requests()]
    assert operations == ["create_image", "create_image_edit"]


def test_each_operation_of_a_provider_is_tested() -> None:
    """Adds a request for each operation that the author's requests leave out."""

    class Contract(OpenAISamples, ProviderContract):
        def requests(self) -> list[Any]:
            return []

    assert len({request.operation for request in Contract().list_requests()}) == 3


def test_operations_that_share_an_endpoint_are_declared() -> None:
    """Asks the author for `endpoints` if two operations have the same URL."""

    class Contract(TestLink):
        endpoints: ClassVar[Mapping[str, str]] = {}

    with pytest.raises(AssertionError) as caught:
        Contract().test_sends_operations_to_their_endpoints()
    assert 'endpoints = {"create_image": "/run", "create_image_edit": "/run"}' in str(caught.value)


# --- Guards ------------------------------------------------------------------------------------


def sleep_by_another_name() -> None:
    from time import sleep

    sleep(0)


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (lambda: os.open(__file__, os.O_RDONLY), "open"),
        (lambda: Path(__file__).read_bytes(), "open"),
        (lambda: os.listdir("."), "os.listdir"),
        (lambda: socket.getaddrinfo("localhost", 80), "socket.getaddrinfo"),
        (lambda: socket.socket(), "socket.__new__"),
        (lambda: subprocess.run([sys.executable, "-c", ""], check=False), "subprocess.Popen"),
        (lambda: time.sleep(0), "time.sleep"),
        (sleep_by_another_name, "time.sleep"),
        (threading.Thread(target=print).start, "_thread.start"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_forbids_io(action: Callable[[], object], event: str) -> None:
    """Stops each kind of I/O before it happens, and names it."""
    with pytest.raises(AssertionError, match=rf"encode does I/O: {event}"), forbid_io("encode"):
        action()


def test_forbidden_io_cannot_be_caught() -> None:
    """Fails although the provider catches every exception, or raises another in its place."""
    with pytest.raises(AssertionError, match="decode does I/O: open"), forbid_io("decode"):
        try:
            Path(__file__).read_bytes()
        except Exception:
            raise EmptyResultError("There are no images.") from None
    with pytest.raises(AssertionError, match="decode does I/O: open"), forbid_io("decode"):
        with contextlib.suppress(BaseException):
            Path(__file__).read_bytes()


def test_reading_is_allowed_on_first_use(tmp_path: Path) -> None:
    """Allows package data to be read, and nothing to be written."""
    with forbid_io("encode", allow_reading=True):
        assert Path(__file__).read_bytes()
    with (
        pytest.raises(AssertionError, match="open"),
        forbid_io("encode", allow_reading=True),
        open(tmp_path / "x", "w"),
    ):
        pass
    assert not (tmp_path / "x").exists()


def test_imports_and_other_threads_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows modules to load, and leaves other threads and later code alone."""
    (tmp_path / "lazy_module_of_a_provider.py").write_text("VALUE = 1")
    monkeypatch.syspath_prepend(tmp_path)
    read: list[bytes] = []
    started, finish = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finish.wait(10)
        read.append(Path(__file__).read_bytes())

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    with forbid_io("encode"):
        assert __import__("lazy_module_of_a_provider").VALUE == 1
        finish.set()
        thread.join(10)
    assert read
    assert Path(__file__).read_bytes()
    assert sys.getprofile() is None


class Cell:
    """An object with state that two calls share."""

    def __init__(self) -> None:
        self.value = ""
        self.lock = threading.Lock()

    def repeat(self, value: str) -> str:
        self.value = value
        return self.value * 2

    def repeat_with_lock(self, value: str) -> str:
        with self.lock:
            self.value = value
            return self.value * 2

    def fail(self) -> None:
        raise ValueError("of the other call")


FILES = frozenset({__file__})


def test_interleaving_finds_shared_state() -> None:
    """Runs the other call between the lines of the first, on every run."""
    cell = Cell()
    assert run_interleaved(lambda: cell.repeat("a"), lambda: cell.repeat("b"), FILES) == ["bb"]
    assert run_interleaved(lambda: cell.repeat("a"), lambda: cell.repeat("b"), frozenset()) == ["aa"]


def test_interleaving_respects_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the other call wait where the first holds a lock."""
    monkeypatch.setattr(provider_guards, "LOCK_WAIT_S", 0.02)
    cell = Cell()
    others: list[str] = []
    outcome = run_interleaved(
        lambda: cell.repeat_with_lock("a"), lambda: others.append(cell.repeat_with_lock("b")), FILES
    )
    assert outcome == ["aa"]
    assert set(others) == {"bb"}


def test_interleaving_returns_exceptions() -> None:
    """Returns the exceptions of both calls, and restores the trace function."""
    cell, before = Cell(), sys.gettrace()
    first, *others = run_interleaved(cell.fail, cell.fail, FILES)
    assert isinstance(first, ValueError)
    assert [type(error) for error in others] == [ValueError]
    assert sys.gettrace() is before


# --- Checks of requests ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "is_true"),
    [
        ("application/json", b'{"a": 1}', True),
        ("application/json; charset=utf-8", b"[1]", True),
        ("application/json", b"a=1", False),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--\r\n", True),
        ("multipart/form-data; boundary=y", b"--x\r\n\r\n--x--\r\n", False),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n", False),
        ("multipart/form-data", b"--x\r\n\r\n--x--\r\n", False),
        ("application/x-www-form-urlencoded", b"prompt=a+fox", True),
        ("application/x-www-form-urlencoded", b'{"a": 1}', False),
        ("text/plain", b"a fox", True),
        ("text/plain", b'{"a": 1}', False),
        ("image/png", png(1), True),
    ],
)
def test_body_types(content_type: str, body: bytes, is_true: bool) -> None:
    """Knows forms and JSON by their content."""
    if is_true:
        assert_body_type(content_type, body)
    else:
        with pytest.raises(AssertionError, match="The body is sent as"):
            assert_body_type(content_type, body)


def test_image_types_are_found_wherever_they_stand() -> None:
    """Finds the stated type of an image in a form, in a data: URL and beside base64."""
    image = png(1)
    text = base64.b64encode(image).decode()
    form = b"--x\r\ncontent-disposition: form-data\r\nContent-Type: image/webp\r\n\r\n" + image + b"\r\n--x--"
    assert find_image_types(form, image) == {"image/webp"}
    for value in (
        {"image": f"data:image/webp;base64,{text}"},
        {"parts": [{"inlineData": {"mimeType": "image/webp", "data": text}}]},
    ):
        assert find_image_types(json.dumps(value).encode(), image) == {"image/webp"}
    assert find_image_types(json.dumps({"images": [text], "format": "image/gif"}).encode(), image) == set()
