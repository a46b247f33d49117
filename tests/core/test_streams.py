"""Streams of both services, on every backend, against well-behaved and broken servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import Completed, PartialImage
from imgkit.core.recovery import recover
from imgkit.default_plugins.retry import NoWaitRetry
from imgkit.default_plugins.spool import open_spool
from tests.conftest import ServiceRunner
from tests.support.event_streams import (
    END,
    HEAD,
    PARTIAL,
    WHOLE,
    Seen,
    chunk,
    completed,
    event,
    partial,
    streamed,
    then,
    watch,
)
from tests.support.pictures import encoded, noise, picture
from tests.support.wire_server import WireServer, drip, head, reply


class EventLog:
    """A plugin that keeps the events of calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None:
        self.events.append(event)

    @property
    def last(self) -> Any:
        return self.events[-1]


def stream_fox(service: Any, **more: Any) -> Any:
    """Return a stream of one prompt."""
    return service.stream_image("a fox", **more)


def fail_stream(
    flavor: ServiceRunner, kind: type[Exception], script: Any, backend: str, **options: Any
) -> tuple[Any, Seen]:
    """Return the error that ends a stream, and the events before it."""
    seen = Seen()
    with WireServer(script) as server, pytest.raises(kind) as caught:
        watch(flavor, stream_fox, backend, base_url=server.base_url, seen=seen, **options)
    assert server.posts == 1
    return caught.value, seen


def test_the_offline_backend_streams(flavor: ServiceRunner) -> None:
    """Streams offline partial images that get sharper, up to the image of create_image."""
    seen = watch(flavor, lambda service: stream_fox(service, size="64x64", partial_images=3))
    assert seen.kinds == ["PartialImage"] * 3 + ["Completed"]
    assert [item.index for item in seen.events[:3]] == [0, 1, 2]
    whole = seen.events[3].image
    assert seen.response[0] is whole
    assert seen.events[3].usage == seen.response.usage
    with imgkit.ImageService() as service:
        assert service.create_image("a fox", size="64x64")[0].data == whole.data
        usage = service.create_image("a fox", size="64x64").usage
        assert usage is not None
        assert usage.output_tokens == seen.response.usage.output_tokens - 300
    final_pixels = whole.to_pil().convert("RGB").tobytes()
    distances = [
        sum(
            abs(a - b)
            for a, b in zip(item.image.to_pil().convert("RGB").tobytes(), final_pixels, strict=True)
        )
        for item in seen.events[:3]
    ]
    assert distances[0] > distances[1] > distances[2] > 0
    edited = watch(flavor, lambda service: service.stream_image_edit(whole, "with a hat", partial_images=1))
    assert edited.kinds == ["PartialImage", "Completed"]


def test_request_and_events(flavor: ServiceRunner, http_backend: str) -> None:
    """Sends the stream parameters and returns events with images, usage and metadata."""
    with WireServer(streamed(partial(), completed() + event("[DONE]")[:6] + b"[DONE]\n\n")) as server:
        seen = watch(
            flavor,
            lambda service: stream_fox(service, partial_images=2, quality="low"),
            http_backend,
            base_url=server.base_url,
            model="m",
        )
    assert json.loads(server.lines[0].body) == {
        "prompt": "a fox", "stream": True, "partial_images": 2, "quality": "low", "model": "m",
    }  # fmt: skip
    assert server.lines[0].headers["accept"] == "text/event-stream, application/json"
    first, last = seen.events
    assert isinstance(first, PartialImage)
    assert (first.index, first.image.data, first.image.about["partial_image_index"]) == (0, PARTIAL, 0)
    assert isinstance(last, Completed)
    assert (last.image.data, last.created, last.size, last.quality) == (WHOLE, 5, "48x48", "low")
    assert last.usage is not None
    assert last.usage.total_tokens == 9
    assert last.meta.request_id == "req_s"
    assert [image.data for image in seen.response] == [WHOLE]
    assert seen.response.meta.attempts[0].status == 200
    assert seen.response.created == 5


def test_an_edit_streams_from_a_form(flavor: ServiceRunner, http_backend: str) -> None:
    """Sends the stream parameters of an edit as form fields, and reads its event names."""
    with WireServer(streamed(partial(kind="image_edit"), completed(kind="image_edit"))) as server:
        seen = watch(
            flavor,
            lambda service: service.stream_image_edit(picture(), "a hat", partial_images=0),
            http_backend,
            base_url=server.base_url,
        )
    assert seen.kinds == ["PartialImage", "Completed"]
    body = server.lines[0].body
    assert b'name="stream"\r\n\r\ntrue\r\n' in body
    assert b'name="partial_images"\r\n\r\n0\r\n' in body


def test_events_arrive_as_they_are_sent(flavor: ServiceRunner, http_backend: str) -> None:
    """Delivers each event before the server sends the next."""
    gate = threading.Semaphore(0)

    def wait(line: Any) -> None:
        assert gate.acquire(timeout=20)

    script = then(partial(0), wait, b": still here\n\n", partial(1), wait, completed(), wait)
    with WireServer(script) as server:
        seen = watch(
            flavor, stream_fox, http_backend, base_url=server.base_url, see=lambda item: gate.release()
        )
    assert seen.kinds == ["PartialImage", "PartialImage", "Completed"]


def test_any_chunking_of_the_transport(flavor: ServiceRunner, http_backend: str) -> None:
    """Yields the same events from single bytes, CRLF, a byte-order mark and comments."""
    sketch, whole = noise(11, 8), noise(12, 8)
    stream = b"\xef\xbb\xbf: hi\n\n" + partial(0, sketch) + completed(whole)
    stream = stream.replace(b"\n", b"\r\n")
    with WireServer(streamed(*(stream[at : at + 1] for at in range(len(stream))))) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url)
    assert [item.image.data for item in seen.events] == [sketch, whole]


@pytest.mark.parametrize("reuse", [False, True])
def test_leaving_early(flavor: ServiceRunner, http_backend: str, reuse: bool) -> None:
    """Leaving early closes the connection at once; observers learn that it may be billed."""
    left = threading.Event()
    watcher = EventLog()

    def script(line: Any) -> None:
        line.send(HEAD + chunk(partial()) + chunk(b"data: {half an event"))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    with WireServer(script) as server:

        def blocking(service: Any) -> None:
            with stream_fox(service) as events:
                assert isinstance(next(events), PartialImage)
            assert left.wait(10)
            assert watcher.last == imgkit.plugins.events.Cancelled(maybe_billed=True)
            with stream_fox(service) as events:
                next(events)

        async def awaiting(service: Any) -> None:
            async with stream_fox(service) as events:
                assert isinstance(await anext(events), PartialImage)
            assert await asyncio.to_thread(left.wait, 10)
            assert watcher.last == imgkit.plugins.events.Cancelled(maybe_billed=True)
            async with stream_fox(service) as events:
                await anext(events)

        work = blocking if flavor.flavor == "sync" else awaiting
        flavor.run(work, http_backend, base_url=server.base_url, reuse_connections=reuse, plugins=[watcher])
        assert server.accepted == 2


def test_a_cancelled_task(http_backend: str) -> None:
    """A task cancelled within an event raises CancelledError and closes its connection."""
    left = threading.Event()

    def script(line: Any) -> None:
        line.send(HEAD + chunk(partial()) + chunk(b"data: {half an event"))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    async def main(base_url: str) -> None:
        watcher = EventLog()
        async with imgkit.AsyncImageService(http_backend, base_url=base_url, plugins=[watcher]) as service:
            first = asyncio.Event()

            async def read() -> None:
                async with stream_fox(service) as events:
                    async for _ in events:
                        first.set()

            task = asyncio.create_task(read())
            await first.wait()
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert watcher.last == imgkit.plugins.events.Cancelled(maybe_billed=True)
            assert await asyncio.to_thread(left.wait, 10)

    with WireServer(script) as server:
        asyncio.run(main(server.base_url))


def test_leaving_after_the_last_image(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Leaving after the last image counts as success, and keeps nothing in the spool."""
    watcher = EventLog()
    with WireServer(then(completed(), lambda line: line.until_client_leaves())) as server:
        watch(
            flavor,
            stream_fox,
            http_backend,
            base_url=server.base_url,
            plugins=[watcher],
            state_folder=tmp_path,
            see=lambda item: isinstance(item, Completed),
        )
    assert [image.data for image in watcher.last.response] == [WHOLE]
    assert open_spool(tmp_path).list_replies() == []


@pytest.mark.parametrize(
    "members",
    [
        {"error": {"message": "boom", "code": "moderation_blocked"}},
        {"type": "error", "message": "boom", "code": "moderation_blocked"},
        {"type": "error", "error": {"message": "boom", "code": "moderation_blocked"}},
    ],
)
def test_an_error_event(flavor: ServiceRunner, http_backend: str, members: Any) -> None:
    """An error event raises the error of an equal reply, ends the stream, and is not retried."""
    script = streamed(partial(), event(members, "error"), completed())
    error, seen = fail_stream(flavor, imgkit.ModerationBlockedError, script, http_backend)
    assert "boom" in str(error)
    assert error.request_id == "req_s"
    assert seen.kinds == ["PartialImage"]
    assert [image.data for image in error.images] == [PARTIAL]


@pytest.mark.parametrize(("n", "pieces"), [(1, ()), (1, (partial(),)), (2, (partial(), completed()))])
def test_images_before_an_error_event_may_be_billed(
    flavor: ServiceRunner, tmp_path: Path, n: int, pieces: tuple[bytes, ...]
) -> None:
    """Budget, spool and error keep images that arrived before an error event; without images, none does."""
    budget = imgkit.Budget(1, allow_unknown=True)
    script = streamed(*pieces, event({"type": "error", "error": {"message": "boom", "code": "server_error"}}))
    seen = Seen()
    with WireServer(script) as server, pytest.raises(imgkit.ServerError) as caught:
        watch(
            flavor, lambda service: stream_fox(service, n=n), "requests", base_url=server.base_url,
            plugins=[budget], state_folder=tmp_path, seen=seen,
        )  # fmt: skip
    assert budget.unpriced == bool(pieces)
    assert caught.value.maybe_billed == bool(pieces)
    assert [image.data for image in caught.value.images] == ([seen.events[-1].image.data] if pieces else [])
    left = open_spool(tmp_path).list_replies()
    assert caught.value.spool_path == (str(left[0].folder) if pieces else None)
    if pieces:
        assert left[0].why == "the API reported an error during the stream"


@pytest.mark.parametrize(
    "behind",
    [
        event({"type": "error", "error": {"message": "boom", "code": "server_error"}}),
        b"data: {oops\n\n",
        completed(noise(1, 200)),
        completed()[:3000],
    ],
)
@pytest.mark.parametrize("end", [END, b""])
def test_trailing_garbage_keeps_the_last_image(
    flavor: ServiceRunner, tmp_path: Path, behind: bytes, end: bytes
) -> None:
    """Errors, garbage, large events or a cut after the last image cost at most a warning."""
    watcher = EventLog()
    with WireServer(streamed(partial(), completed(), behind, end=end)) as server:
        seen = watch(
            flavor, stream_fox, "requests", base_url=server.base_url, plugins=[watcher],
            state_folder=tmp_path,
            max_reply_bytes=len(completed()) + 500,
        )  # fmt: skip
    assert [image.data for image in seen.response] == [WHOLE]
    assert [image.data for image in watcher.last.response] == [WHOLE]
    expected = ("broke off after its last image", "was skipped")
    assert all(any(text in warning for text in expected) for warning in seen.response.warnings)
    assert open_spool(tmp_path).list_replies() == []


def test_a_cut_within_the_final_blank_line(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Delivers a complete image whose event lacks its final blank line."""
    with WireServer(streamed(partial(), completed()[:-2], end=b"")) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url, state_folder=tmp_path)
    assert seen.kinds == ["PartialImage", "Completed"]
    assert [image.data for image in seen.response] == [WHOLE]
    assert open_spool(tmp_path).list_replies() == []


def test_a_cut_stream(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A cut stream is an unknown outcome; the error and the spool hold the received data."""
    pieces = (partial(), partial(1, noise(13)), completed()[:4000])
    error, seen = fail_stream(
        flavor, imgkit.OutcomeUnknownError, streamed(*pieces, end=b""), http_backend, state_folder=tmp_path
    )
    assert seen.kinds == ["PartialImage", "PartialImage"]
    assert [image.data for image in error.images] == [noise(13)]
    assert b'"image_generation.completed"' in error.body
    (record,) = open_spool(tmp_path).list_replies()
    assert str(record.folder) == error.spool_path
    recovered = recover(record)
    assert recovered.images[0].data == noise(13)
    assert WHOLE.startswith(recovered.images[1].data)
    assert len(recovered.images) == 2
    assert recovered.damaged == (1,)
    assert not recovered.whole


def test_a_cut_after_the_last_image(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A cut after the last image costs a warning, and keeps nothing in the spool."""
    with WireServer(streamed(completed(), end=b"")) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url, state_folder=tmp_path)
    assert seen.kinds == ["Completed"]
    assert "broke off after its last image" in seen.response.warnings[0]
    assert open_spool(tmp_path).list_replies() == []


@pytest.mark.parametrize(
    ("pieces", "reported", "images"),
    [
        ((partial(),), "1 events", 1),
        ((), "no event", 0),
        ((b": only comments\n\nevent: image_generation.completed\n\n",), "no event", 0),
        ((partial(), b"data: [DONE]\n\n"), "1 events", 1),
        ((completed(b""),), "1 events", 0),
        ((completed()[:-20],), "no event", 0),
    ],
)
def test_a_stream_without_a_complete_image(
    flavor: ServiceRunner, tmp_path: Path, pieces: tuple[bytes, ...], reported: str, images: int
) -> None:
    """A stream that ends without a complete image raises an error."""
    error, seen = fail_stream(
        flavor, imgkit.StreamError, streamed(*pieces), "requests", state_folder=tmp_path
    )
    assert reported in str(error)
    assert error.maybe_billed
    assert error.request_id == "req_s"
    assert len(error.images) == images
    assert len(seen.events) == images
    (record,) = open_spool(tmp_path).list_replies()
    assert record.why == "the stream ended before its image was complete"
    assert [image.data for image in recover(record).images][:images] == [PARTIAL][:images]


def test_the_final_blank_line_is_missing(flavor: ServiceRunner, http_backend: str) -> None:
    """Delivers a complete event without its blank line, which the standard would drop."""
    with WireServer(streamed(completed()[:-2])) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url)
    assert [image.data for image in seen.response] == [WHOLE]


def test_json_in_place_of_a_stream(flavor: ServiceRunner, http_backend: str) -> None:
    """Yields an event per image from servers that reply with plain JSON."""
    body = {"created": 7, "data": [{"b64_json": encoded(PARTIAL)}, {"b64_json": encoded(WHOLE)}]}
    for kind in ("application/json", "text/event-stream"):
        with WireServer(reply(200, body, content_type=kind)) as server:
            seen = watch(
                flavor, lambda service: stream_fox(service, n=2), http_backend, base_url=server.base_url
            )
        assert seen.kinds == ["Completed", "Completed"]
        assert [item.image.data for item in seen.events] == [PARTIAL, WHOLE]
        assert [item.image.index for item in seen.events] == [0, 1]
        assert seen.response.created == 7
    error, seen = fail_stream(flavor, imgkit.EmptyResultError, reply(200, {"data": []}), http_backend)
    assert seen.events == []
    error, seen = fail_stream(flavor, imgkit.UnreadableReplyError, reply(200, b"<html>"), http_backend)
    assert error.body == b"<html>"


def test_unknown_events_are_skipped(flavor: ServiceRunner) -> None:
    """Skips events of unknown or no type, non-objects, and partial images without data."""
    others: tuple[Any, ...] = (
        {"type": "image_generation.telemetry", "x": 1}, {"x": 1}, [], 3, {"type": 5},
        {"type": "image_generation.partial_image"},
        {"type": "image_generation.partial_image", "b64_json": "%%%"},
    )  # fmt: skip
    empty = (b"data\n\n", b"data:\n\n", b"event: ping\ndata: \n\n", b"event: image_generation.completed\n\n")
    with WireServer(streamed(*map(event, others), *empty, completed(), *empty)) as server:
        seen = watch(flavor, stream_fox, "requests", base_url=server.base_url)
    assert seen.kinds == ["Completed"]
    assert seen.response.warnings == ()


def test_retry_and_id_fields_are_ignored(flavor: ServiceRunner, http_backend: str) -> None:
    """Ignores the fields ``retry:`` and ``id:``, since another request would be another image."""
    script = streamed(b"retry: 1\nid: 7\n\n", partial(), b"retry: 1\nid: 8\ndata:\n\n", end=b"")
    _, seen = fail_stream(flavor, imgkit.OutcomeUnknownError, script, http_backend, retry=True)
    assert seen.kinds == ["PartialImage"]


def test_unrequested_gzip(flavor: ServiceRunner, http_backend: str) -> None:
    """Decompresses gzip in any chunking; a false gzip header is an unknown outcome."""
    stream = partial() + completed()
    packed = gzip.compress(stream)
    start = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    pieces = [packed[at : at + 997] for at in range(0, len(packed), 997)]
    with WireServer(lambda line: line.send(start + b"".join(map(chunk, pieces)) + END)) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url)
    assert [item.image.data for item in seen.events] == [PARTIAL, WHOLE]
    lie = lambda line: line.send(start + chunk(stream) + END)  # noqa: E731
    _, seen = fail_stream(flavor, imgkit.OutcomeUnknownError, lie, http_backend)
    assert seen.events == []


def test_odd_indexes_of_partial_images(flavor: ServiceRunner) -> None:
    """Delivers partial images with repeated, disordered or impossible indexes, and numbers those without."""
    numbers = (5, 5, 2, -1, None, "x", True, 1.5, 10**30)
    members = [
        {
            "type": "image_generation.partial_image",
            "partial_image_index": number,
            "b64_json": encoded(PARTIAL),
        }
        for number in numbers
    ]
    with WireServer(streamed(*map(event, members), completed())) as server:
        seen = watch(flavor, stream_fox, "requests", base_url=server.base_url)
    assert [item.index for item in seen.events[:-1]] == [5, 5, 2, 3, 4, 5, 6, 7, 10**30]


def test_images_of_unknown_formats(flavor: ServiceRunner) -> None:
    """Delivers images of unknown formats unchanged, and warns if a complete image is one."""
    with WireServer(streamed(partial(0, b"a sketch"), completed(b"a painting"))) as server:
        seen = watch(flavor, stream_fox, "requests", base_url=server.base_url)
    assert [item.image.data for item in seen.events] == [b"a sketch", b"a painting"]
    assert "not an image of a known format" in seen.response.warnings[0]


@pytest.mark.parametrize("data", [b"{oops", b"hello", b'{"type": NaN}', b"\xff"])
def test_an_event_without_json(flavor: ServiceRunner, data: bytes) -> None:
    """An event that is not JSON is skipped; if no image comes, its error has the received data."""
    junk = b"data: " + data + b"\n\n"
    with WireServer(streamed(partial(), junk, completed())) as server:
        seen = watch(flavor, stream_fox, "requests", base_url=server.base_url)
    assert [image.data for image in seen.response] == [WHOLE]
    assert seen.response.warnings == ("An event without an image could not be read, and was skipped.",)
    error, seen = fail_stream(flavor, imgkit.UnreadableReplyError, streamed(partial(), junk), "requests")
    assert seen.kinds == ["PartialImage"]
    assert error.body == data


def test_an_event_that_is_too_large(flavor: ServiceRunner) -> None:
    """Limits the size of an event as of a reply, but not the size of the stream."""
    small = len(partial()) + 500
    with WireServer(streamed(partial(0), partial(1), completed(PARTIAL))) as server:
        assert (
            len(watch(flavor, stream_fox, "requests", base_url=server.base_url, max_reply_bytes=small).events)
            == 3
        )
    error, seen = fail_stream(
        flavor, imgkit.UnreadableReplyError, streamed(partial(), completed(noise(1, 200))), "requests",
        max_reply_bytes=small,
    )  # fmt: skip
    assert "max_reply_bytes" in str(error)
    assert seen.kinds == ["PartialImage"]


def test_comments_keep_a_stream_alive(flavor: ServiceRunner, http_backend: str) -> None:
    """Comments restart the read timeout, but not the deadline."""
    comments = [step for _ in range(15) for step in (b": wait\n\n", lambda line: line.wait(0.04))]
    with WireServer(then(*comments, completed())) as server:
        seen = watch(flavor, stream_fox, http_backend, base_url=server.base_url, read_timeout_s=0.5)
    assert seen.kinds == ["Completed"]
    comment = chunk(b": wait\n\n")
    with WireServer(drip(comment * 100, HEAD)) as server, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        watch(flavor, stream_fox, http_backend, base_url=server.base_url, timeout_s=0.3)
    assert "within 0.3 s" in str(caught.value)


def test_error_replies(flavor: ServiceRunner, http_backend: str) -> None:
    """Raises the usual errors for replies that are not 2xx."""
    no = reply(429, {"error": {"message": "slow", "code": "insufficient_quota"}})
    error, seen = fail_stream(flavor, imgkit.QuotaExceededError, no, http_backend)
    assert error.status == 429
    assert seen.events == []


def test_complete_images_are_saved(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Complete images are on disk when their events arrive; partial images are not saved."""
    saved: list[bytes] = []

    def look(item: Any) -> None:
        if isinstance(item, Completed):
            assert item.image.path is not None
            saved.append(item.image.path.read_bytes())
            assert sorted(path.name for path in tmp_path.iterdir()) == ["fox.png", "fox.png.json"]
        else:
            assert list(tmp_path.iterdir()) == []

    with WireServer(streamed(partial(), completed())) as server:
        seen = watch(
            flavor, lambda service: stream_fox(service, save_to=tmp_path / "fox.png"), "requests",
            base_url=server.base_url, see=look,
        )  # fmt: skip
    assert saved == [WHOLE]
    assert seen.response[0].path == tmp_path / "fox.png"


def test_a_failed_save_delivers_the_image(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Delivers an image that cannot be saved, and attaches the whole response to the final error."""
    folder = tmp_path / "out"
    folder.mkdir()
    seen = Seen()
    with WireServer(streamed(partial(), completed())) as server, pytest.raises(imgkit.SaveError) as caught:
        watch(
            flavor, lambda service: stream_fox(service, save_to=folder / "fox.png"), "requests",
            base_url=server.base_url, state_folder=tmp_path / "state", seen=seen,
            see=lambda item: shutil.rmtree(folder, ignore_errors=True),
        )  # fmt: skip
    assert seen.events[1].image.data == WHOLE
    assert seen.events[1].image.path is None
    assert caught.value.response is not None
    assert caught.value.response.images[0].data == WHOLE
    (record,) = open_spool(tmp_path / "state").list_replies()
    assert [image.data for image in recover(record).images] == [WHOLE]
    assert recover(record).whole


def test_images_at_urls(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Downloads an image that the final event names by URL."""
    members = {"type": "image_generation.completed", "url": "/v1/files/1.png"}
    served = reply(200, WHOLE, content_type="image/png")
    with WireServer(streamed(event(members)), served) as server:
        seen = watch(
            flavor, lambda service: stream_fox(service, save_to=tmp_path / "fox.png"), http_backend,
            base_url=server.base_url,
        )  # fmt: skip
    assert seen.kinds == ["Completed"]
    assert seen.response[0].path.read_bytes() == WHOLE


def test_closing_the_service_ends_its_streams(flavor: ServiceRunner, http_backend: str) -> None:
    """Closing the service ends its open streams with an error, and nothing hangs."""
    with WireServer(then(partial(), lambda line: line.until_client_leaves())) as server:

        def blocking(service: Any) -> None:
            with stream_fox(service) as events:
                next(events)
                service.close()
                with pytest.raises(imgkit.ImgkitError):
                    next(events)
            with pytest.raises(imgkit.ServiceClosedError), stream_fox(service):
                pass

        async def awaiting(service: Any) -> None:
            async with stream_fox(service) as events:
                await anext(events)
                await asyncio.wait_for(service.close(), 1)
                with pytest.raises(imgkit.ImgkitError):
                    await anext(events)
            with pytest.raises(imgkit.ServiceClosedError):
                async with stream_fox(service):
                    pass

        flavor.run(blocking if flavor.flavor == "sync" else awaiting, http_backend, base_url=server.base_url)


def test_more_than_one_image(flavor: ServiceRunner) -> None:
    """Partial images belong to the next complete image."""
    script = streamed(partial(0), completed(), partial(0, noise(13)), completed(noise(14), usage=None))
    with WireServer(script) as server:
        seen = watch(flavor, lambda service: stream_fox(service, n=2), "requests", base_url=server.base_url)
    assert [item.image.index for item in seen.events] == [0, 0, 1, 1]
    assert [image.data for image in seen.response] == [WHOLE, noise(14)]
    with WireServer(streamed(completed())) as server:
        seen = watch(flavor, lambda service: stream_fox(service, n=2), "requests", base_url=server.base_url)
    assert seen.response.warnings == ("2 images were requested, 1 arrived.",)


BROKEN = {
    "500": lambda line: line.send(head(500, {"content-length": "5000"}) + b"{"),
    "half a head": lambda line: line.send(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "no chunk": lambda line: line.send(HEAD + chunk(partial()) + b"zz"),
    "silence": lambda line: line.send(HEAD + chunk(partial())),
    "no event": lambda line: line.send(HEAD + END),
}


@pytest.mark.parametrize("how", ["500", "late"])
def test_retries_leak_no_connection(flavor: ServiceRunner, http_backend: str, how: str) -> None:
    """A stream that is retried leaves no connection of any attempt open."""
    left: list[int] = []

    def script(line: Any) -> None:
        if how == "500":
            line.send(head(500, {"content-type": "application/json", "content-length": "5000"}))
            line.send(json.dumps({"error": {"message": "no", "type": "server_error"}}).encode().ljust(5000))
        else:
            line.send(HEAD + chunk(event({"error": {"message": "no", "code": "rate_limit_exceeded"}})))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.append(1)

    def gone() -> bool:
        until = time.monotonic() + 10
        while len(left) < server.posts and time.monotonic() < until:
            time.sleep(0.01)
        return len(left) == server.posts > 1

    def blocking(service: Any) -> None:
        with pytest.raises(imgkit.ApiError), stream_fox(service) as events:
            list(events)
        assert gone()

    async def awaiting(service: Any) -> None:
        with pytest.raises(imgkit.ApiError):
            async with stream_fox(service) as events:
                async for _ in events:
                    pass
        assert await asyncio.to_thread(gone)

    work = blocking if flavor.flavor == "sync" else awaiting
    with WireServer(script) as server:
        flavor.run(work, http_backend, base_url=server.base_url, retry=NoWaitRetry())


@pytest.mark.parametrize("how", BROKEN)
def test_failures_leak_no_connection(flavor: ServiceRunner, http_backend: str, how: str) -> None:
    """A failing stream closes its connection at once, not with its service."""
    left = threading.Event()

    def script(line: Any) -> None:
        with contextlib.suppress(OSError):  # the client may leave first
            BROKEN[how](line)
            line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    def blocking(service: Any) -> None:
        with pytest.raises(imgkit.ImgkitError), stream_fox(service) as events:
            list(events)
        assert left.wait(10)

    async def awaiting(service: Any) -> None:
        with pytest.raises(imgkit.ImgkitError):
            async with stream_fox(service) as events:
                async for _ in events:
                    pass
        assert await asyncio.to_thread(left.wait, 10)

    work = blocking if flavor.flavor == "sync" else awaiting
    with WireServer(script) as server:
        flavor.run(work, http_backend, base_url=server.base_url, read_timeout_s=0.2)
