"""Streams that others end: dropped, closed by another thread or a plugin, read elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import PartialImage
from imgkit.default_plugins.spool import open_spool
from tests.conftest import ServiceRunner
from tests.support.event_streams import WHOLE, completed, half_a_stream, partial, streamed, then
from tests.support.processes import run_process
from tests.support.wire_server import WireServer


class EventLog:
    """A plugin that keeps the events of calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None:
        self.events.append(event)


def test_a_dropped_stream(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A stream without references closes itself, with a ResourceWarning."""
    left = threading.Event()
    watcher = EventLog()

    def blocking(service: Any) -> None:
        events = service.stream_image("a fox").__enter__()
        assert isinstance(next(events), PartialImage)
        del events
        gc.collect()
        assert left.wait(10)

    async def awaiting(service: Any) -> None:
        events = await service.stream_image("a fox").__aenter__()
        assert isinstance(await anext(events), PartialImage)
        del events
        gc.collect()
        assert await asyncio.to_thread(left.wait, 10)

    work = blocking if flavor.flavor == "sync" else awaiting
    with (
        WireServer(half_a_stream(left)) as server,
        pytest.warns(ResourceWarning, match="was dropped without"),
    ):
        flavor.run(work, http_backend, base_url=server.base_url, plugins=[watcher], state_folder=tmp_path)
    assert watcher.events[-1] == imgkit.plugins.events.Cancelled(maybe_billed=True)
    assert [record.why for record in open_spool(tmp_path).list_replies()] == ["the call was cancelled"]


def test_a_stream_that_outlives_its_loop(http_backend: str) -> None:
    """A stream that outlives its event loop is dropped with a warning and no error."""
    kept: list[Any] = []

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService(http_backend, base_url=base_url) as service:
            kept.append(await service.stream_image("a fox").__aenter__())
            await anext(kept[0])

    with WireServer(half_a_stream(threading.Event())) as server:
        asyncio.run(main(server.base_url))
        with pytest.warns(ResourceWarning, match="AsyncImageStream"):
            del kept[0]


def test_closed_streams_drop_silently() -> None:
    """Only an open stream warns when it is dropped."""
    with imgkit.ImageService() as service, warnings.catch_warnings():
        warnings.simplefilter("error")
        service.stream_image("a fox")
        with service.stream_image("a fox", size="64x64") as events:
            next(events)
        with service.stream_image("a fox", size="64x64") as events:
            list(events)
        del events
        gc.collect()


def test_closing_a_stream_ends_its_reader(flavor: ServiceRunner, http_backend: str) -> None:
    """Closing a stream from another thread or task ends its waiting reader with an imgkit error."""

    def blocking(service: Any) -> None:
        with service.stream_image("a fox") as events:
            next(events)
            stop = threading.Timer(0.05, events.close)
            stop.start()
            with pytest.raises(imgkit.OutcomeUnknownError, match="aborted"):
                next(events)
            stop.join()
            with pytest.raises(imgkit.StreamError):
                iter(events)

    async def awaiting(service: Any) -> None:
        async with service.stream_image("a fox") as events:
            await anext(events)
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0.05)
            await events.close()
            with pytest.raises(imgkit.OutcomeUnknownError, match="aborted"):
                await waiting

    left = threading.Event()
    with WireServer(half_a_stream(left)) as server:
        flavor.run(blocking if flavor.flavor == "sync" else awaiting, http_backend, base_url=server.base_url)
        assert left.wait(10)


def test_received_events_survive_the_deadline() -> None:
    """Delivers events received before the deadline, although the caller was busy when it passed."""
    seen: list[str] = []

    with (
        WireServer(then(partial(), completed())) as server,
        imgkit.ImageService("requests", base_url=server.base_url) as service,
        service.stream_image("a fox", timeout_s=0.3) as events,
    ):
        for item in events:
            seen.append(type(item).__name__)
            while events._driver is not None and not events._driver._transfer.aborted:
                time.sleep(0.01)
    assert seen == ["PartialImage", "Completed"]


def test_another_event_loop_is_refused(http_backend: str) -> None:
    """Refuses reads from another event loop, and goes on in its own."""
    kept: list[Any] = []

    async def elsewhere() -> None:
        with pytest.raises(imgkit.StreamError, match="belongs to the event loop"):
            await anext(kept[0])

    async def main(base_url: str) -> None:
        service = imgkit.AsyncImageService(http_backend, base_url=base_url)
        kept.append(await service.stream_image("a fox").__aenter__())
        await anext(kept[0])
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert type(await anext(kept[0])).__name__ == "Completed"
        await service.close()

    async def close() -> None:
        await kept[0].close()

    with WireServer(then(partial(), completed())) as server:
        asyncio.run(main(server.base_url))
        asyncio.run(elsewhere())
        asyncio.run(close())


def test_a_forked_child_cannot_read_the_stream(http_backend: str, tmp_path: Path) -> None:
    """A forked child cannot read its parent's stream, nor change the budget or the spool record."""
    program = f"""
import os, sys
import imgkit
from imgkit.default_plugins.spool import open_spool
from pathlib import Path
budget = imgkit.Budget(1, folder={str(tmp_path / "budget")!r}, allow_unknown=True)
service = imgkit.ImageService(
    {http_backend!r}, base_url=sys.argv[1], state_folder={str(tmp_path)!r}, plugins=[budget]
)
with service, service.stream_image("a fox") as events:
    next(events)
    child = os.fork()
    if not child:
        try:
            next(events)
        except imgkit.StreamError as error:
            print(error, flush=True)
        events.close()
        os._exit(0)
    os.waitpid(child, 0)
    (record,) = open_spool(Path({str(tmp_path)!r})).list_replies()
    print(budget.unpriced, record.state, record.facts.get("why"), flush=True)
    print([type(one).__name__ for one in events], budget.unpriced)
"""
    with WireServer(then(partial(), completed())) as server:
        run = [sys.executable, "-W", "error", "-c", program, server.base_url]
        done = run_process(run, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert "belongs to the process" in done.stdout
    assert done.stdout.splitlines()[1:] == ["0 running None", "['Completed'] 1"]


def test_a_plugin_may_close_the_stream(http_backend: str) -> None:
    """An observer may close the stream whose event it receives."""

    class Closer:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any, call: Any) -> None:
            if isinstance(event, imgkit.plugins.events.Progress):
                events.close()

    left = threading.Event()
    with (
        WireServer(half_a_stream(left)) as server,
        imgkit.ImageService(http_backend, base_url=server.base_url, plugins=[Closer()]) as service,
        service.stream_image("a fox") as events,
    ):
        with contextlib.suppress(imgkit.OutcomeUnknownError):
            list(events)
        assert left.wait(10)


JUNK = (b"data: keepalive\n\n", b"event: ping\ndata: ping\n\n", b'data: {"loss": NaN}\n\n')


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("streams", [True, False])
def test_an_event_that_is_no_json_costs_no_image(http_backend: str, junk: bytes, streams: bool) -> None:
    """Skips an event without an image that is not JSON, and warns; without an image it is the error."""
    for events in ((junk, completed()), (junk,)):
        with WireServer(streamed(*events)) as server:
            with imgkit.ImageService(http_backend, base_url=server.base_url, retry=False) as service:
                if len(events) == 1:
                    with pytest.raises(imgkit.UnreadableReplyError):
                        run_call(service, streams=streams)
                    continue
                response = run_call(service, streams=streams)
        assert [image.data for image in response] == [WHOLE]
        assert any("was skipped" in warning for warning in response.warnings)


def run_call(service: imgkit.ImageService, *, streams: bool) -> imgkit.ImagesResponse:
    """Return the response of a stream, or of a call that asked for none."""
    if not streams:
        return service.create_image("a fox")
    with service.stream_image("a fox") as events:
        list(events)
        return events.response
