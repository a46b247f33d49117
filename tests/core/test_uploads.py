"""Uploads that calls share: concurrent calls, failures, cancellations, forks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import imgkit
from imgkit import CreateImageEditRequest, ImageService
from imgkit.core import job_requests, upload_memory
from imgkit.core.lifecycle import run_call
from imgkit.core.upload_memory import RememberedUpload, UploadMemory
from imgkit.plugins import hookimpl
from imgkit.plugins.events import Started
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.fakes import FakeReply, FakeRequest
from imgkit.runtime.flow import Effect, Finished, Flow, RunBlocking, SendRequest, Sleep, advance
from imgkit.testing.wire_server import serve_fake
from tests.conftest import ServiceRunner
from tests.support.pictures import picture
from tests.support.processes import TIMEOUT_S, run_in_fork

CALLS = 8
UPLOAD = "POST /upload/image"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between polls of a job."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(job_requests, "LONGEST_PAUSE_S", 0.01)


class Gate:
    """A plugin that opens once all calls have started."""

    def __init__(self, calls: int) -> None:
        self.opened = threading.Event()
        self._missing = calls

    @hookimpl
    def imgkit_on_event(self, event: object) -> None:
        """Count a call that starts."""
        if isinstance(event, Started):
            self._missing -= 1
            if not self._missing:
                self.opened.set()


class SlowUploads(FakeComfyUI):
    """The fake of ComfyUI, whose first uploads wait for a gate and are refused if the test says so."""

    def __init__(self, gate: Gate, refused: int = 0) -> None:
        super().__init__()
        self._gate = gate
        self._refused = refused

    def handle(self, request: FakeRequest) -> FakeReply:
        """Answer once the gate is open."""
        if request.path == "/upload/image":
            assert self._gate.opened.wait(TIMEOUT_S)
            self._refused -= 1
            if self._refused >= 0:
                return FakeReply(400)
        return super().handle(request)


def edit_at_once(service: Any, flavor: str) -> Any:
    """Edit an image by concurrent calls; return their responses and errors."""

    def edit(number: int) -> Any:
        return service.create_image_edit(picture(), f"hat {number}")

    if flavor == "async":
        return asyncio.gather(*map(edit, range(CALLS)), return_exceptions=True)
    with ThreadPoolExecutor(CALLS) as threads:
        ends = [threads.submit(edit, number) for number in range(CALLS)]
        return [end.exception() or end.result() for end in ends]


@pytest.mark.parametrize("refused", [0, 2])
def test_concurrent_calls_share_an_upload(flavor: ServiceRunner, http_backend: str, refused: int) -> None:
    """Uploads an input once for all calls that run; a call whose upload is refused lets the next try."""
    gate = Gate(CALLS)
    api = SlowUploads(gate, refused)

    async def gather(service: Any) -> Any:
        return await edit_at_once(service, "async")

    with serve_fake(api) as server:
        settings = {"provider": "comfyui", "base_url": server.origin, "model": "a.safetensors"}
        work = gather if flavor.flavor == "async" else lambda service: edit_at_once(service, "sync")
        ends = flavor.run(work, http_backend, plugins=[gate], **settings)
    errors = [end for end in ends if isinstance(end, BaseException)]
    assert [type(error) for error in errors] == [imgkit.BadRequestError] * refused
    assert api.count[UPLOAD] == 1 + refused
    assert api.count["POST /prompt"] == CALLS - refused


@pytest.fixture
def service() -> Iterator[ImageService]:
    """A service whose flows the tests step by hand."""
    settings = {"provider": "comfyui", "base_url": "http://127.0.0.1:1", "model": "a.safetensors"}
    with ImageService("requests", **settings) as made:  # type: ignore[arg-type]  # texts for these three
        yield made


def edit(service: ImageService, **arguments: object) -> Flow[object]:
    """Return the flow of an edit."""
    request = CreateImageEditRequest(image=picture(), prompt="a hat")
    return run_call(service._core, CreateImageEditRequest, request, {"cache": None, **arguments})


def step(flow: Flow[object], result: object = None) -> Effect | Finished[object]:
    """Return the next effect of a flow that is no work in a thread."""
    effect = advance(flow, result)
    while isinstance(effect, RunBlocking):
        effect = advance(flow, effect.fn())
    return effect


def test_an_interrupted_upload_lets_the_next_try(service: ImageService) -> None:
    """A call that waits for an upload sends its own once the first is interrupted."""
    first, second = edit(service), edit(service)
    assert isinstance(step(first), SendRequest)
    assert isinstance(step(second), Sleep)
    assert isinstance(step(second), Sleep)
    first.close()
    assert isinstance(step(second), SendRequest)
    second.close()


def test_the_deadline_ends_the_wait(service: ImageService) -> None:
    """A call whose time is over before the upload of another sends nothing and says so."""
    first = edit(service)
    step(first)
    with pytest.raises(imgkit.NotSentError, match="still uploading the input image"):
        step(edit(service, timeout_s=0.005))
    first.close()


def test_a_forked_child_uploads_itself(service: ImageService) -> None:
    """A child waits for no upload of its parent, and the flow that it inherits ends no upload of its own."""
    first = edit(service)
    step(first)

    def upload() -> bool:
        own, other = edit(service), edit(service)
        is_sent = isinstance(step(own), SendRequest)
        first.close()
        return is_sent and isinstance(step(other), Sleep)

    assert run_in_fork(upload) == 0
    first.close()


def test_the_memory_keeps_inputs_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets the upload that was used least recently, and remembers a handle that is None."""
    monkeypatch.setattr(upload_memory, "MAX_REMEMBERED_UPLOADS", 2)
    memory = UploadMemory()
    for digest in ("shared", "first", "second"):
        memory.add(digest, None)
        assert memory.find("shared") == RememberedUpload(None)
    assert memory.find("first") is None
    assert not memory.lead("second", object())
