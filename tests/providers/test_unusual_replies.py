"""Success replies without images in their usual place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.spool import open_spool
from imgkit.testing.wire_server import WireServer, reply
from tests.conftest import ServiceRunner
from tests.support.event_streams import watch
from tests.support.pictures import encoded, picture

KEY = "sk-test-0123456789"
URL = "https://results.invalid/fox.png"


def create(flavor: Any, server: WireServer, **settings: Any) -> Any:
    """Create an image with a key."""
    settings = {"base_url": server.base_url, "api_key": KEY, **settings}
    return flavor.run(lambda service: service.create_image("a fox"), "requests", **settings)


FOUND: list[tuple[Any, str]] = [
    ({"images": [encoded()]}, "images"),
    ({"images": [{"b64_json": encoded()}]}, "images"),
    ({"output": [{"type": "image_generation_call", "result": encoded()}]}, "output"),
    ({"choices": [{"message": {"images": [{"image_url": {"url": f"data:image/png;base64,{encoded()}"}}]}}]},
     "choices"),
    ({"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": encoded()}]}, "predictions"),
    ({"data": {"b64_json": encoded()}}, "data"),
    ({"data": encoded()}, "data"),
    ({"data": [encoded()]}, "data"),
    ([encoded()], "data"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "place"), FOUND)
def test_finds_images(flavor: Any, body: Any, place: str) -> None:
    """Returns images under unusual keys, and warns about their place."""
    with WireServer(reply(200, body)) as server:
        response = create(flavor, server)
    assert [image.data for image in response] == [picture()]
    (warning,) = response.warnings
    assert f"under {place}," in warning


WHOLE = json.dumps({"created": 7, "data": [{"b64_json": encoded(), "revised_prompt": "a fox"}]}).encode()
DAMAGED: list[bytes] = [
    WHOLE.replace(b"7", b"NaN"),
    WHOLE.replace(b"7", b"-Infinity"),
    WHOLE.replace(b"a fox", b"a\nfox"),
    WHOLE.replace(b"a fox", b"a\xfffox"),
    WHOLE + b"\0",
    WHOLE + b"\n<!-- served by a proxy -->",
    WHOLE + b'{"status": "ok"}',
    b"\0\n" + WHOLE,
]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("body", DAMAGED)
def test_reads_damaged_json(flavor: ServiceRunner, body: bytes, streams: bool, tmp_path: Path) -> None:
    """Returns the images of a reply whose JSON is damaged elsewhere, with a warning, and keeps nothing."""
    with WireServer(reply(200, body)) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "state_folder": tmp_path}
        response = (
            watch(flavor, lambda service: service.stream_image("a fox"), "requests", **settings).response
            if streams
            else create(flavor, server, **settings)
        )
    assert [image.data for image in response] == [picture()]
    assert response.warnings == (
        "The reply is not valid JSON. Its images were read; other values may be missing.",
    )
    assert server.posts == 1
    assert open_spool(tmp_path).list_replies() == []


@pytest.mark.parametrize("body", [WHOLE + WHOLE, WHOLE.replace(b"7", b'7, "created": 8')])
def test_loses_no_image_of_damaged_json(flavor: ServiceRunner, body: bytes) -> None:
    """Raises an error with every image where mending would lose an image or a value."""
    with WireServer(reply(200, body)) as server, pytest.raises(imgkit.UnreadableReplyError) as caught:
        create(flavor, server)
    images = [image.data for image in caught.value.images]
    assert images == [picture()] * body.count(b"b64_json")


@pytest.mark.parametrize("body", [
    {"images": [URL]}, {"data": [URL]}, {"output": URL}, {"data": {"result": {"image_url": URL}}},
    {"id": "p-1", "status": "succeeded", "output": [URL], "input": {"image": "https://mine.invalid/in.png"}},
])  # fmt: skip
def test_finds_urls(flavor: Any, body: Any) -> None:
    """Returns images at URLs under usual keys, and ignores those of the request."""
    with WireServer(reply(200, body)) as server:
        assert [image.url for image in create(flavor, server)] == [URL]


JOBS: list[tuple[int, Any, dict[str, str], str | None, str | None]] = [
    (202, {"id": "cf-0"}, {"operation_location": "https://x.invalid/op/cf-0?sig=abc"}, "cf-0",
     "https://x.invalid/op/cf-0?sig=abc"),
    (200, {"id": "t-1", "object": "image.generation.task", "status": "queued"}, {}, "t-1", None),
    (202, b"", {"location": "/v1/jobs/9"}, None, "/v1/jobs/9"),
    (202, b"", {"location": "/jobs//9/../a%2fb"}, None, "/jobs//9/../a%2fb"),
    (202, {"id": "j"}, {"location": "http://["}, "j", None),
    (202, b"accepted", {}, None, None),
    (200, {"code": 0, "data": {"task_id": 9}}, {}, "9", None),
    (200, {"id": "p", "status": "starting", "output": None, "urls": {"get": "https://x.invalid/p"}}, {}, "p",
     "https://x.invalid/p"),
    (200, {"task_id": "t", "status": "processing", "images": [URL, encoded()]}, {}, "t", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "headers", "number", "url"), JOBS)
def test_jobs(
    flavor: Any, status: int, body: Any, headers: dict[str, str], number: str | None, url: str | None
) -> None:
    """Names the job that a server accepted, quotes the reply, and advises not to repeat the request."""
    with WireServer(reply(status, body, **headers)) as server:
        with pytest.raises(imgkit.EmptyResultError) as caught:
            create(flavor, server, retry=True)
        assert server.posts == 1
    error = caught.value
    assert error.maybe_billed
    assert error.job_id == number
    if url is None:
        assert error.job_url is None
    else:
        assert (error.job_url or "").endswith(url)
    assert error.body == (body if isinstance(body, bytes) else json.dumps(body).encode())
    assert "accepted the request as a job" in str(error)
    assert "Do not send the request again" in str(error)
    assert "sig=abc" not in str(error)


def test_an_empty_reply_is_quoted(flavor: Any, tmp_path: Path) -> None:
    """Quotes a reply without images, hides the key, and does not promise that recovery helps."""
    text = {"data": [], "message": f"filtered for {KEY}", "code": 1027, "detail": "x" * 5000}
    with WireServer(reply(200, text)) as server, pytest.raises(imgkit.EmptyResultError) as caught:
        create(flavor, server, state_folder=tmp_path)
    error = caught.value
    assert "filtered for …" in str(error)
    assert len(str(error)) < 1000
    assert KEY.encode() not in error.body
    assert b"1027" in error.body
    (note,) = error.__notes__
    assert str(error.spool_path) in note
    assert "restores" not in note
    assert error.job_id is None


def test_a_stream_without_images_is_quoted(flavor: Any) -> None:
    """Quotes the last unknown event of a stream that brings no image."""
    event = b'data: {"type": "task.accepted", "task_id": "t-7"}\n\n'
    with WireServer(reply(200, event, content_type="text/event-stream")) as server:
        with imgkit.ImageService("requests", base_url=server.base_url) as service:
            with pytest.raises(imgkit.StreamError, match="t-7"), service.stream_image("a fox") as events:
                list(events)
