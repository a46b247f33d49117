"""The core stepped by hand: no loop, no clock, no server."""

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


def core(**options: Any) -> Core:
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=False, **options)
    service.close()
    return service._core


class Watch:
    """An observer that keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        self.seen.append(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]


def test_a_call_step_by_step() -> None:
    """A creation opens one request, reads to the end, and is done."""
    watch = Watch()
    flow = OperationFlows(core(plugins=[watch])).create_image("a fox", n=1)
    need = advance(flow, None)
    assert isinstance(need, SendRequest)
    assert need.request.url == "http://127.0.0.1:1/v1/images/generations"
    assert b"".join(need.request.body.blocks()) == b'{"n":1,"prompt":"a fox"}'
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
    assert watch.names == ["Started", "Sent", "FirstByte", "Progress", "Progress", "Succeeded"]


def test_inputs_are_opened_by_need(tmp_path: Any) -> None:
    """Files are opened in `Run` needs, closed when the flow ends, and sent as the form says."""
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    mask = picture(mode="RGBA", color="#0000")
    flow = OperationFlows(core()).create_image_edit([path, picture()], "blue", mask=mask)
    need = advance(flow, None)
    assert isinstance(need, RunBlocking)
    inputs, warnings = need.fn()
    opened = list(inputs)
    need = advance(flow, (inputs, warnings))
    assert isinstance(need, SendRequest)
    assert [one.field for one in opened] == ["image.0", "image.1", "mask"]
    assert "transparent everywhere" in warnings[0]
    assert [part.name for part in need.request.body.parts] == ["prompt", "image[]", "image[]", "mask"]
    flow.close()
    with pytest.raises(imgkit.InvalidRequestError, match="descriptor"):
        opened[0]._read_at(1, 0)


def test_failures_of_the_wire_are_thrown_in() -> None:
    """A transport error reaches the plan at its need, is noted as an attempt, and comes out."""
    watch = Watch()
    flow = OperationFlows(core(plugins=[watch])).create_image("a fox")
    advance(flow, None)
    with pytest.raises(imgkit.NotSentError):
        advance(flow, EffectFailed(imgkit.NotSentError("no")))
    assert watch.names == ["Started", "Sent", "Failed"]


@pytest.mark.parametrize(("steps", "billed"), [(1, True), (2, True), (0, False)])
def test_breaking_off(steps: int, billed: bool) -> None:
    """A flow that is closed after sending says that it may have been billed; before, that it was not."""
    watch = Watch()
    flow = OperationFlows(core(plugins=[watch])).create_image_edit(picture(), "blue")
    need = advance(flow, None)
    assert isinstance(need, RunBlocking)
    for step in range(steps):
        advance(flow, need.fn() if step == 0 else HEAD)
    flow.close()
    assert watch.names[-1] == "Cancelled"
    assert watch.seen[-1].maybe_billed is billed


def test_save_target_is_checked_before_sending(tmp_path: Any) -> None:
    """The first need of a call with save_to= is the check of its target, which can end it unsent."""
    flow = OperationFlows(core()).create_image("a fox", save_to=tmp_path / "missing" / "fox.png")
    need = advance(flow, None)
    assert isinstance(need, RunBlocking)
    with pytest.raises(imgkit.InvalidRequestError, match="save_to") as caught:
        need.fn()
    with pytest.raises(imgkit.InvalidRequestError):
        advance(flow, EffectFailed(caught.value))


def test_a_failed_save_keeps_the_paid_reply(tmp_path: Any) -> None:
    """When writing fails after paying, the error carries the whole reply."""
    flow = OperationFlows(core()).create_image("a fox", save_to=tmp_path / "fox.png")
    need = advance(flow, None)
    assert isinstance(need, RunBlocking)
    advance(flow, need.fn())
    advance(flow, HEAD)
    advance(flow, json.dumps(answer(2)).encode())
    need = advance(flow, b"")
    for _ in ("decode", "save the first"):
        assert isinstance(need, RunBlocking)
        first = need.fn()
        need = advance(flow, first)
    with pytest.raises(imgkit.SaveError) as caught:
        advance(flow, EffectFailed(imgkit.SaveError("disk full")))
    assert caught.value.response is not None
    assert [image.data for image in caught.value.response] == [picture(), picture()]
    assert caught.value.response[0].path == first.path == tmp_path / "fox-1.png"
    assert [image.index for image in caught.value.images] == [1]


def test_advance_tells_a_result_from_a_stray_stop() -> None:
    """A StopIteration raised inside a flow is a bug of the flow, not its result."""

    def flow() -> Generator[Any, Any, int]:
        yield EmitEvent("x")
        raise StopIteration(7)

    steps = flow()
    assert advance(steps, None) == EmitEvent("x")
    with pytest.raises(RuntimeError):
        advance(steps, None)


def test_only_our_errors_are_thrown_in() -> None:
    """A bug in a backend closes the flow and comes out as it is, with a note."""

    class Broken:
        errors = (OSError,)
        unsent_errors = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise LookupError("a bug")

        def close(self) -> None: ...

    watch = Watch()
    with (
        imgkit.ImageService(Broken(), base_url="http://127.0.0.1:1/v1", plugins=[watch]) as service,
        pytest.raises(LookupError) as caught,
    ):
        service.create_image("a fox")
    assert "Broken" in caught.value.__notes__[0]
    assert watch.names == ["Started", "Sent", "Cancelled"]


def test_unmapped_wire_failure_is_unknown() -> None:
    """An exception that a backend declares without proof that nothing left is an unknown outcome."""

    class Cut:
        errors = (ConnectionError,)
        unsent_errors = (ConnectionRefusedError,)

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


def test_nothing_of_a_chunk_is_kept_once_it_is_on_disk(tmp_path: Any) -> None:
    """With hundreds of replies at once, what each holds while the others have their turn is what counts."""
    chunk = base64.b64encode(os.urandom(3 << 17))
    flow = OperationFlows(core()).create_image("a fox", save_to=tmp_path / "fox.png")
    need, chunks = advance(flow, None), 0
    while not isinstance(need, SendRequest):
        assert isinstance(need, RunBlocking)
        need = advance(flow, need.fn())
    need = advance(flow, Head(200, {}))
    need = advance(flow, b'{"data":[{"b64_json":"')
    tracemalloc.start()
    while chunks < 3:
        if isinstance(need, ReadChunk):
            assert tracemalloc.get_traced_memory()[0] < len(chunk) // 8
            chunks += 1
            need = advance(flow, bytes(bytearray(chunk)))  # a new object, of which only the flow knows
        else:
            assert isinstance(need, RunBlocking)
            need = advance(flow, need.fn())
    tracemalloc.stop()
    flow.close()
