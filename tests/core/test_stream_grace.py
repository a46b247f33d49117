"""Streams whose server does not hang up after the last image: a moment of grace, then a quiet close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.core import event_reader
from imgkit.core.operations import OperationFlows
from imgkit.default_plugins.spool import open_spool
from imgkit.runtime.flow import EmitEvent, Finished, ReadChunk, SendRequest, advance
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.event_streams import HEAD, WHOLE, chunk, completed, partial, streamed, watch
from tests.support.pictures import noise
from tests.support.wire_server import Line, Script, WireServer


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the grace, so that no test waits for it."""
    monkeypatch.setattr(event_reader, "GRACE_S", 0.03)


def hold_open(left: threading.Event, *pieces: bytes, beat: bytes = b"") -> Script:
    """Return a script that sends chunks and never ends the reply; `left` is set on disconnect.

    Args:
        left: event to set.
        pieces: the chunks.
        beat: a chunk to repeat until the client leaves.
    """

    def script(line: Line) -> None:
        line.send(HEAD + b"".join(map(chunk, pieces)))
        try:
            while beat and not line.wait(0.005):
                line.send(chunk(beat))
            line.until_client_leaves()
        finally:
            if not line.closing.is_set():
                left.set()

    return script


EDIT = "image_edit"
CALLS: dict[str, tuple[Callable[[Any], Any], tuple[bytes, ...], int]] = {
    "create": (lambda service: service.stream_image("a fox"), (partial(), completed()), 1),
    "two": (lambda service: service.stream_image("a fox", n=2), (completed(), completed()), 2),
    "edit": (
        lambda service: service.stream_image_edit(noise(1), "a hat"),
        (partial(kind=EDIT), completed(kind=EDIT)),
        1,
    ),
}


@pytest.mark.usefixtures("_short_grace")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("beat", [b"", b": still here\n\n"])
def test_a_server_that_does_not_hang_up(
    flavor: ServiceRunner, http_backend: str, name: str, beat: bytes, tmp_path: Path
) -> None:
    """Closes the connection after the grace, without a warning and without anything kept."""
    call, pieces, count = CALLS[name]
    left = threading.Event()
    with WireServer(hold_open(left, *pieces, beat=beat)) as server:
        started = time.monotonic()
        seen = watch(flavor, call, http_backend, base_url=server.base_url, state_folder=tmp_path, retry=True)
        assert left.wait(5)
        assert time.monotonic() - started < 30
    assert [image.data for image in seen.response] == [WHOLE] * count
    assert seen.response.warnings == ()
    assert server.posts == 1
    assert open_spool(tmp_path).list_replies() == []


@pytest.mark.usefixtures("_short_grace")
def test_the_images_are_saved(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Saves the image of a reply that never ends, and leaves no part file."""
    left = threading.Event()
    with WireServer(hold_open(left, partial(), completed(noise(3, 200)))) as server:
        seen = watch(
            flavor,
            lambda service: service.stream_image("a fox", save_to=tmp_path / "fox.png"),
            http_backend,
            base_url=server.base_url,
        )
        assert left.wait(5)
    assert (tmp_path / "fox.png").read_bytes() == noise(3, 200)
    assert seen.response.warnings == ()
    assert list(tmp_path.glob(".*")) == []


def test_a_deadline_within_the_grace(
    flavor: ServiceRunner, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends the grace at the deadline of the call, without a warning."""
    monkeypatch.setattr(event_reader, "GRACE_S", 30.0)

    def blocking(service: Any) -> Any:
        with service.stream_image("a fox") as events:
            next(events)
            transfer = events._driver._transfer
            transfer._deadline = transfer.abort_at = time.monotonic() + 0.03
            assert list(events) == []
        return events.response

    async def awaiting(service: Any) -> Any:
        async with service.stream_image("a fox") as events:
            await anext(events)
            deadline = events._driver._deadline
            deadline.close()
            deadline._timer, deadline._at = None, deadline.loop.time() + 0.03
            assert [event async for event in events] == []
        return events.response

    left = threading.Event()
    with WireServer(hold_open(left, completed())) as server:
        work = blocking if flavor.flavor == "sync" else awaiting
        response = flavor.run(work, http_backend, base_url=server.base_url)
        assert left.wait(5)
    assert response.warnings == ()


@pytest.mark.parametrize("hangs_up", [False, True])
def test_images_behind_the_end_mark(
    flavor: ServiceRunner, http_backend: str, hangs_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads images behind ``[DONE]`` while images are missing, and waits no longer than the grace."""
    monkeypatch.setattr(event_reader, "GRACE_S", 0.5)  # a busy machine may take a while between two chunks
    pieces = (completed(), b"data: [DONE]\n\n", completed(noise(3)))
    script = streamed(*pieces) if hangs_up else hold_open(threading.Event(), *pieces)
    with WireServer(script) as server:
        options: dict[str, Any] = {"base_url": server.base_url, "state_folder": tmp_path}
        seen = watch(flavor, lambda service: service.stream_image("a fox", n=3), http_backend, **options)
    assert [image.data for image in seen.response] == [WHOLE, noise(3)]
    assert seen.response.warnings == ("3 images were requested, 2 arrived.",)


@pytest.mark.usefixtures("_short_grace")
def test_a_call_without_a_stream(flavor: ServiceRunner, http_backend: str) -> None:
    """Ends a call that did not ask for events alike."""
    left = threading.Event()
    with WireServer(hold_open(left, completed())) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url
        )
        assert left.wait(5)
    assert [image.data for image in response] == [WHOLE]
    assert response.warnings == ()


@pytest.mark.parametrize(("silence_s", "grace_s"), [(300.0, 1.0), (0.5, 0.25)])
def test_the_steps_of_the_grace(silence_s: float, grace_s: float) -> None:
    """Waits without a limit up to the last image, and a second in total after it, or half a silence."""
    base_url = "http://127.0.0.1:9/v1"
    with imgkit.ImageService("requests", base_url=base_url, read_timeout_s=silence_s) as service:
        flow = OperationFlows(service._core).stream_image("a fox")
        assert isinstance(advance(flow, None), SendRequest)
        assert advance(flow, Head(200, {"content-type": "text/event-stream"})) == ReadChunk()
        assert isinstance(advance(flow, partial()), EmitEvent)
        assert advance(flow, None) == ReadChunk()
        assert isinstance(advance(flow, completed()), EmitEvent)
        graces: list[float] = []
        effect = advance(flow, None)
        while isinstance(effect, ReadChunk) and len(graces) < 3:
            assert effect.grace_s is not None
            graces.append(effect.grace_s)
            effect = advance(flow, b": still here\n\n")
        assert grace_s >= graces[0] > graces[1] > graces[2] > 0
        end = advance(flow, b"")
        assert isinstance(end, Finished)
        assert end.value.warnings == ()
