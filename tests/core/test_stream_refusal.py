"""Servers that refuse streams: one more request without a stream where the refusal is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.retry import NoWaitRetry
from imgkit.default_plugins.spool import open_spool
from tests.conftest import ServiceRunner
from tests.support.event_streams import PARTIAL, WHOLE, event, partial, streamed, watch
from tests.support.pictures import encoded, noise
from tests.support.wire_server import Line, WireServer, reply

IMAGES = reply(200, {"created": 7, "data": [{"b64_json": encoded(WHOLE)}]})
REFUSALS = {
    "406": (406, {"detail": "Not acceptable"}),
    "406 without a body": (406, b""),
    "415": (415, {"error": {"message": "Unsupported media type"}}),
    "param": (400, {"error": {"message": "Unknown parameter.", "param": "stream"}}),
    "partial images": (400, {"error": {"message": "Unknown parameter: 'partial_images'."}}),
    "FastAPI": (422, {"detail": [{"loc": ["body", "stream"], "msg": "Extra inputs are not permitted"}]}),
    "a sentence": (400, {"error": {"message": "Streaming is not supported for this model"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("edits", [False, True])
def test_asks_again_without_a_stream(
    flavor: ServiceRunner, http_backend: str, name: str, edits: bool, tmp_path: Path
) -> None:
    """Sends a plain request once, and yields its image with a warning."""
    status, body = REFUSALS[name]

    def call(service: Any) -> Any:
        options = {"partial_images": 1, "save_to": tmp_path / "fox.png", "quality": "low"}
        if edits:
            return service.stream_image_edit(noise(1), "a hat", **options)
        return service.stream_image("a fox", **options)

    with WireServer(reply(status, body), IMAGES) as server:
        seen = watch(
            flavor, call, http_backend,
            base_url=server.base_url, retry=NoWaitRetry(), state_folder=tmp_path / "state",
        )  # fmt: skip
    assert seen.kinds == ["Completed"]
    assert (tmp_path / "fox.png").read_bytes() == WHOLE
    (warning,) = seen.response.warnings
    assert "refuses to stream" in warning
    assert str(status) in warning
    first, second = server.lines
    assert first.headers["accept"] == "text/event-stream, application/json"
    assert second.headers["accept"] == "application/json"
    assert b"stream" in first.body
    assert b"stream" not in second.body
    assert b"partial_images" not in second.body
    assert b"low" in second.body
    assert [attempt.status for attempt in seen.response.meta.attempts] == [status, 200]
    assert open_spool(tmp_path / "state").list_replies() == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "The stream bed is not allowed", "code": "moderation_blocked"}}),
        (400, {"error": {"message": "stream of errors", "param": "size"}}),
        (400, {"error": {"message": "No such size"}}),
        (401, {"error": {"message": "stream"}}),
        (404, {"error": {"message": "stream"}}),
        (500, {"detail": "Client must accept application/json, stream refused"}),
        (503, b"stream"),
        (415, {"error": {"message": "rejected", "code": "moderation_blocked"}}),
        (415, {"error": {"message": "no credit", "code": "insufficient_quota"}}),
        (406, {"error": {"message": "wrong key", "code": "invalid_api_key"}}),
        (406, {"error": {"message": "no such model", "code": "model_not_found"}}),
        (415, {"error": {"message": "no", "code": "unsupported_file_mimetype"}}),
        (415, {"error": {"message": "no", "code": "unknown_parameter", "param": "size"}}),
        (400, {"error": {"message": "too many streams", "code": "rate_limit_exceeded"}}),
    ],
)
def test_other_errors_are_not_repeated(flavor: ServiceRunner, status: int, body: Any) -> None:
    """Raises an error that does not refuse streams, after one request."""
    with WireServer(reply(status, body), IMAGES) as server, pytest.raises(imgkit.ImgkitError):
        watch(
            flavor, lambda service: service.stream_image("a fox"), "requests",
            base_url=server.base_url, retry=False,
        )  # fmt: skip
    assert server.posts == 1


def test_an_error_event_is_not_repeated(flavor: ServiceRunner, http_backend: str) -> None:
    """Sends nothing again once the server has begun to stream."""
    refusal = event({"error": {"message": "no", "param": "stream", "code": "invalid_value"}})
    for pieces in ([refusal], [partial(), refusal]):
        with WireServer(streamed(*pieces), IMAGES) as server, pytest.raises(imgkit.ApiError) as caught:
            watch(
                flavor, lambda service: service.stream_image("a fox"), http_backend, base_url=server.base_url
            )
        assert server.posts == 1
        assert [image.data for image in caught.value.images] == [PARTIAL] * (len(pieces) - 1)


def test_the_plain_request_fails_too(flavor: ServiceRunner, http_backend: str) -> None:
    """Raises the second error, which notes the first, and sends no third request."""
    with WireServer(reply(406, {"detail": "no"}), reply(415, {"detail": "form"})) as server:
        with pytest.raises(imgkit.ApiError, match="415") as caught:
            watch(
                flavor, lambda service: service.stream_image("a fox"), http_backend, base_url=server.base_url
            )
        assert server.posts == 2
    assert any("refused to stream" in note for note in caught.value.__notes__)


def test_a_server_that_needs_json(flavor: ServiceRunner, http_backend: str) -> None:
    """A server that serves only clients that accept JSON serves streams, too."""

    def strict(line: Line) -> None:
        is_fine = "application/json" in line.headers["accept"]
        body = {"data": [{"b64_json": encoded(WHOLE)}]} if is_fine else {"error": {"message": "no"}}
        reply(200 if is_fine else 500, json.dumps(body).encode())(line)

    with WireServer(strict) as server:
        seen = watch(
            flavor, lambda service: service.stream_image("a fox"), http_backend,
            base_url=server.base_url, retry=NoWaitRetry(),
        )  # fmt: skip
    assert seen.kinds == ["Completed"]
    assert server.posts == 1
