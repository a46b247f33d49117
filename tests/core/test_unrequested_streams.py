"""Events that nobody asked for, under any Content-Type and with unknown fields: their images are kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.spool_record import SpooledReply
from imgkit.core.recovery import recover
from imgkit.default_plugins.retry import NoWaitRetry
from imgkit.default_plugins.spool import open_spool
from imgkit.providers.openai import OpenAIProvider
from imgkit.wire.event_body import EventReply
from tests.conftest import ServiceRunner
from tests.support.event_streams import PARTIAL, WHOLE, Seen, completed, event, partial, streamed, watch
from tests.support.pictures import encoded, noise
from tests.support.wire_server import WireServer, reply

DONE = b"data: [DONE]\n\n"
EVENTS, JSON, TEXT = "text/event-stream", "application/json", "text/plain"
WHOLE_REPLY = event({"created": 7, "data": [{"b64_json": encoded(WHOLE), "revised_prompt": "a red fox"}]})

CALLS: dict[str, Callable[..., Any]] = {
    "create": lambda service, **more: service.create_image("a fox", **more),
    "edit": lambda service, **more: service.create_image_edit(noise(1), "a hat", **more),
}
STREAMS = {
    "an event": completed(),
    "an edit": completed(kind="image_edit"),
    "partial images": partial() + completed() + DONE,
    "a whole reply": WHOLE_REPLY + DONE,
    "a comment first": b": hello\n\n" + completed(),
    "a known field first": b"retry: 5\n\n" + completed(),
    "blank lines first": b"\xef\xbb\xbf\r\n\r\n" + completed(),
    "no blank line at the end": completed()[:-2],
}
UNKNOWN = {
    "a version": b"version: 1\n",
    "a letter of JSON": b"note: true\n",
    "a capital": b"X-Request: 9\n\n",
    "no colon": b"hello\n",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [EVENTS, JSON, TEXT])
@pytest.mark.parametrize("name", [*STREAMS, *UNKNOWN])
def test_a_call_without_a_stream(http_backend: str, call: str, kind: str, name: str, tmp_path: Path) -> None:
    """Reads events as a result, pays once, keeps nothing, and saves the image."""
    stream = STREAMS.get(name) or UNKNOWN[name] + completed()
    target = tmp_path / "fox.png"
    with WireServer(reply(200, stream, content_type=kind)) as server:
        flavor = ServiceRunner("sync" if kind == EVENTS else "async")
        response = flavor.run(
            lambda service: CALLS[call](service, save_to=target), http_backend,
            base_url=server.base_url, state_folder=tmp_path / "state", retry=NoWaitRetry(),
        )  # fmt: skip
    assert [image.data for image in response] == [WHOLE]
    assert target.read_bytes() == WHOLE
    assert response.warnings == ()
    assert server.posts == 1
    assert open_spool(tmp_path / "state").list_replies() == []
    assert list(tmp_path.glob(".*")) == []


def test_values_of_events(flavor: ServiceRunner, http_backend: str) -> None:
    """Merges the values of events, and reads several images."""
    with WireServer(streamed(completed(PARTIAL), completed(quality="high"), DONE)) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox", n=2), http_backend, base_url=server.base_url
        )
    assert [image.data for image in response] == [PARTIAL, WHOLE]
    assert (response.quality, response.usage.total_tokens, response.created) == ("high", 9, 5)
    with WireServer(reply(200, WHOLE_REPLY, content_type=EVENTS)) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url
        )
    assert (response.created, response[0].revised_prompt) == (7, "a red fox")


@pytest.mark.parametrize("kind", [EVENTS, TEXT])
@pytest.mark.parametrize(("stream", "images"), [(DONE, []), (partial() + DONE, [PARTIAL])])
def test_no_complete_image(
    flavor: ServiceRunner, http_backend: str, kind: str, stream: bytes, images: list[bytes], tmp_path: Path
) -> None:
    """A stream without a complete image may be billed, and its error has the partial image."""
    with (
        WireServer(reply(200, stream, content_type=kind)) as server,
        pytest.raises(imgkit.StreamError, match="ended before an image") as caught,
    ):
        flavor.run(
            lambda service: service.create_image("a fox", save_to=f"{tmp_path}/"), http_backend,
            base_url=server.base_url, retry=NoWaitRetry(),
        )  # fmt: skip
    assert server.posts == 1
    assert caught.value.maybe_billed
    assert [image.data for image in caught.value.images] == images
    assert "create_image" not in str(caught.value)


def test_an_error_event(flavor: ServiceRunner, http_backend: str) -> None:
    """An error event is the error of the API."""
    stream = event({"type": "error", "error": {"message": "no", "code": "moderation_blocked"}})
    with (
        WireServer(reply(200, stream, content_type=EVENTS)) as server,
        pytest.raises(imgkit.ModerationBlockedError),
    ):
        flavor.run(lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url)


def test_a_cut(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A cut stream is an unknown outcome; `recover` finds its image."""
    with (
        WireServer(streamed(b"version: 1\n", partial(), completed()[:4000], end=b"")) as server,
        pytest.raises(imgkit.OutcomeUnknownError) as caught,
    ):
        flavor.run(
            lambda service: service.create_image("a fox"), http_backend,
            base_url=server.base_url, state_folder=tmp_path,
        )  # fmt: skip
    assert [image.data for image in caught.value.images] == [PARTIAL]
    (record,) = open_spool(tmp_path).list_replies()
    assert recover(record).images[0].data == PARTIAL


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("kind", [EVENTS, JSON])
def test_a_stream_with_an_unknown_field(
    flavor: ServiceRunner, http_backend: str, name: str, kind: str
) -> None:
    """Reads a stream whose first line has an unknown field."""
    pieces = UNKNOWN[name] + partial() + completed()
    with WireServer(reply(200, pieces, content_type=kind)) as server:
        seen: Seen = watch(
            flavor, lambda service: service.stream_image("a fox"), http_backend, base_url=server.base_url
        )
    assert seen.kinds == ["PartialImage", "Completed"]
    assert [image.data for image in seen.response] == [WHOLE]


@pytest.mark.parametrize("prefix", [b"", *UNKNOWN.values()])
@pytest.mark.parametrize("is_marked", [True, False])
def test_recover_reads_events(prefix: bytes, is_marked: bool, tmp_path: Path) -> None:
    """Recovers the images of a stream, also from a record that holds its text as it arrived."""
    stream = prefix + partial() + completed() + WHOLE_REPLY + DONE
    (tmp_path / "call.json").write_text("{}")
    if is_marked:
        body = EventReply(OpenAIProvider.base64_keys, expect_events=True)
        body.feed(stream)
        files: dict[str, bytes] = {}
        for part, data in body.take_spool_chunks():
            files[part] = files.get(part, b"") + data
        for part, data in files.items():
            (tmp_path / ("reply.json.part" if part == "reply" else f"{part}.part")).write_bytes(data)
    else:
        (tmp_path / "reply.json.part").write_bytes(stream)
    record = SpooledReply(tmp_path, {"provider": "openai", "base_url": "", "status": 200}, "kept", 1)
    assert [image.data for image in recover(record).images] == [WHOLE, WHOLE]


@pytest.mark.parametrize(
    ("body", "expect_events", "is_stream"),
    [
        (b'{"data": []}', True, False),
        (b" \n[1]", True, False),
        (b"version: 1\n\n", True, True),
        (b"true: 1\n\n", True, True),
        (b": hi\n\n", False, True),
        (b"data: 1\n\n", False, True),
        (b"debug output", False, False),
        (b"event planned", False, False),
        (b"<html>", False, False),
        (b"da", False, False),
    ],
)
def test_the_kind_of_a_body(body: bytes, expect_events: bool, is_stream: bool) -> None:
    """The first bytes decide if they can, then the Content-Type; in any chunks."""
    for size in (1, 2, 100):
        reply_body = EventReply(frozenset({"b64_json"}), expect_events=expect_events)
        for start in range(0, len(body), size):
            reply_body.feed(body[start : start + size])
        rest = reply_body.close()
        assert reply_body.is_stream is is_stream
        assert is_stream or (rest is not None and rest.raw() == body)


def test_text_without_events_keeps_its_error(flavor: ServiceRunner, http_backend: str) -> None:
    """Text that holds no event stays an unreadable reply with its body."""
    for body in (b"error: overloaded", b"<p>\nmetadata: x</p>", base64.b64encode(WHOLE), b'"data: x"'):
        with (
            WireServer(reply(200, body, content_type=TEXT)) as server,
            pytest.raises(imgkit.UnreadableReplyError) as caught,
        ):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url)
        assert caught.value.body == body


def test_events_behind_a_provider_without_streams(flavor: ServiceRunner) -> None:
    """A provider that does not stream reads every reply itself."""

    class PlainProvider(OpenAIProvider):
        encode_stream = decode_event = None  # type: ignore[assignment]  # not a streaming provider

        def decode(self, head: Any, body: Any, target: Any, secrets: Any = ()) -> Any:
            text = json.dumps({"data": [{"b64_json": encoded(body.raw())}]})
            whole = type("Whole", (), {"json": lambda self: json.loads(text), "length": 1})
            return super().decode(head, whole(), target, secrets)

    with WireServer(reply(200, completed(), content_type=EVENTS)) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox"), "requests",
            provider=PlainProvider(), base_url=server.base_url,
        )  # fmt: skip
    assert response[0].data == completed()
