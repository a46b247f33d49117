"""The core, stepped by hand: no event loop, no clock, no server."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from collections.abc import Generator
from typing import Any

import pytest

import imgkit
from imgkit.core.core import Core
from imgkit.core.operations import OperationFlows
from imgkit.runtime.flow import (
    EffectFailed,
    EmitEvent,
    Finished,
    ReadChunk,
    RunBlocking,
    SendRequest,
    advance,
)
from imgkit.wire.messages import Head
from tests.support.pictures import answer, picture

HEAD = Head(
    200, {"content-type": "application/json", "x-request-id": "req_1", "x-ratelimit-limit-requests": "5"}
)


EVENT = imgkit.PartialImage(0, imgkit.Image.from_bytes(b"x"))


def build_core(**options: Any) -> Core:
    """Return the core of a closed service."""
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=False, **options)
    service.close()
    return service._core


class EventLog:
    """An observer that keeps the events of calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def test_a_call_step_by_step() -> None:
    """A call sends one request, reads the reply to its end, and finishes."""
    log = EventLog()
    flow = OperationFlows(build_core(plugins=[log])).create_image("a fox", n=1)
    effect = advance(flow, None)
    assert isinstance(effect, SendRequest)
    assert effect.request.url == "http://127.0.0.1:1/v1/images/generations"
    assert b"".join(effect.request.body.blocks()) == b'{"n":1,"prompt":"a fox"}'
    assert advance(flow, HEAD) == ReadChunk()
    body = json.dumps(answer()).encode()
    assert advance(flow, body[:10]) == ReadChunk()
    assert advance(flow, body[10:]) == ReadChunk()
    end = advance(flow, b"")
    assert isinstance(end, Finished)
    assert end.value[0].data == picture()
    assert end.value.meta.request_id == "req_1"
    assert end.value.meta.rate_limits == {"limit-requests": "5"}
    assert [attempt.status for attempt in end.value.meta.attempts] == [200]
    assert log.names == ["Started", "Sent", "FirstByte", "Progress", "Progress", "Succeeded"]


def test_inputs_are_opened_by_effects(tmp_path: Any) -> None:
    """Opens input files in RunBlocking effects, sends them as a form, and closes them at the end."""
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    mask = picture(mode="RGBA", color="#0000")
    flow = OperationFlows(build_core()).create_image_edit([path, picture()], "blue", mask=mask)
    effect = advance(flow, None)
    assert isinstance(effect, RunBlocking)
    prepared: Any = effect.fn()
    inputs, warnings = prepared
    files = list(inputs)
    effect = advance(flow, (inputs, warnings))
    assert isinstance(effect, SendRequest)
    assert [file.field for file in files] == ["image.0", "image.1", "mask"]
    assert "transparent everywhere" in warnings[0]
    body: Any = effect.request.body
    assert [part.name for part in body.parts] == ["prompt", "image[]", "image[]", "mask"]
    flow.close()
    with pytest.raises(imgkit.InvalidRequestError, match="descriptor"):
        files[0].read_at(1, 0)


def test_transport_errors_reach_the_flow() -> None:
    """A transport error reaches the flow at its effect, counts as an attempt, and is raised."""
    log = EventLog()
    flow = OperationFlows(build_core(plugins=[log])).create_image("a fox")
    advance(flow, None)
    with pytest.raises(imgkit.NotSentError):
        advance(flow, EffectFailed(imgkit.NotSentError("no")))
    assert log.names == ["Started", "Sent", "Failed"]


@pytest.mark.parametrize(("steps", "billed"), [(1, True), (2, True), (0, False)])
def test_a_closed_flow_reports_maybe_billed(steps: int, billed: bool) -> None:
    """A flow that is closed after sending reports that it may be billed; before sending, it does not."""
    log = EventLog()
    flow = OperationFlows(build_core(plugins=[log])).create_image_edit(picture(), "blue")
    effect = advance(flow, None)
    assert isinstance(effect, RunBlocking)
    for step in range(steps):
        advance(flow, effect.fn() if step == 0 else HEAD)
    flow.close()
    assert log.names[-1] == "Cancelled"
    assert log.events[-1].maybe_billed is billed


def test_save_target_is_checked_before_sending(tmp_path: Any) -> None:
    """Checks the target of save_to first, so a bad target ends the call before it sends."""
    flow = OperationFlows(build_core()).create_image("a fox", save_to=tmp_path / "missing" / "fox.png")
    effect = advance(flow, None)
    assert isinstance(effect, RunBlocking)
    with pytest.raises(imgkit.InvalidRequestError, match="save_to") as caught:
        effect.fn()
    with pytest.raises(imgkit.InvalidRequestError):
        advance(flow, EffectFailed(caught.value))


def test_a_failed_save_keeps_the_paid_reply(tmp_path: Any) -> None:
    """Attaches the whole response to the error if saving fails after paying."""
    flow = OperationFlows(build_core()).create_image("a fox", save_to=tmp_path / "fox.png")
    effect = advance(flow, None)
    assert isinstance(effect, RunBlocking)
    advance(flow, effect.fn())
    advance(flow, HEAD)
    advance(flow, json.dumps(answer(2)).encode())
    effect = advance(flow, b"")
    for _ in ("decode", "save the first"):
        assert isinstance(effect, RunBlocking)
        saved: Any = effect.fn()
        effect = advance(flow, saved)
    with pytest.raises(imgkit.SaveError) as caught:
        advance(flow, EffectFailed(imgkit.SaveError("disk full")))
    response: Any = caught.value.response
    assert [image.data for image in response] == [picture(), picture()]
    assert response[0].path == saved[0].path == tmp_path / "fox-1.png"
    assert [image.index for image in caught.value.images] == [1]


def test_a_stray_stop_iteration_is_a_bug() -> None:
    """A StopIteration raised inside a flow is a bug of the flow, not its result."""

    def flow() -> Generator[Any, Any, int]:
        yield EmitEvent(EVENT)
        raise StopIteration(7)

    steps = flow()
    assert advance(steps, None) == EmitEvent(EVENT)
    with pytest.raises(RuntimeError):
        advance(steps, None)


def test_a_bug_in_a_backend_closes_the_flow() -> None:
    """A bug in a backend closes the flow and is raised unchanged, with a note."""

    class Broken:
        wire_errors: tuple[type[Exception], ...] = (OSError,)
        unsent_errors: tuple[type[Exception], ...] = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise LookupError("a bug")

        def close(self) -> None: ...

    log = EventLog()
    with (
        imgkit.ImageService(Broken(), base_url="http://127.0.0.1:1/v1", plugins=[log]) as service,
        pytest.raises(LookupError) as caught,
    ):
        service.create_image("a fox")
    assert "Broken" in caught.value.__notes__[0]
    assert log.names == ["Started", "Sent", "Cancelled"]


def test_undeclared_failures_have_an_unknown_outcome() -> None:
    """A failure without proof that nothing was sent is an unknown outcome."""

    class Cut:
        wire_errors: tuple[type[Exception], ...] = (ConnectionError,)
        unsent_errors: tuple[type[Exception], ...] = (ConnectionRefusedError,)

        def __init__(self, error: Exception) -> None:
            self._error = error

        def open(self, request: Any, transfer: Any) -> Any:
            raise self._error

        def close(self) -> None: ...

    for error, expected in (
        (ConnectionResetError("x"), imgkit.OutcomeUnknownError),
        (ConnectionRefusedError("x"), imgkit.NotSentError),
    ):
        with imgkit.ImageService(Cut(error), base_url="http://127.0.0.1:1/v1", retry=False) as service:
            with pytest.raises(expected):
                service.create_image("a fox")


def test_a_chunk_on_disk_leaves_memory(tmp_path: Any) -> None:
    """A flow holds almost nothing of a chunk after it is written to disk."""
    chunk = base64.b64encode(os.urandom(3 << 17))
    flow = OperationFlows(build_core()).create_image("a fox", save_to=tmp_path / "fox.png")
    effect, chunks = advance(flow, None), 0
    while not isinstance(effect, SendRequest):
        assert isinstance(effect, RunBlocking)
        effect = advance(flow, effect.fn())
    effect = advance(flow, Head(200, {}))
    effect = advance(flow, b'{"data":[{"b64_json":"')
    tracemalloc.start()
    while chunks < 3:
        if isinstance(effect, ReadChunk):
            assert tracemalloc.get_traced_memory()[0] < len(chunk) // 8
            chunks += 1
            # The flow holds the only reference to this copy.
            effect = advance(flow, bytes(bytearray(chunk)))
        else:
            assert isinstance(effect, RunBlocking)
            effect = advance(flow, effect.fn())
    tracemalloc.stop()
    flow.close()
