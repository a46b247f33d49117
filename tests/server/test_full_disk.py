"""A full disk: uploads are refused before anything is sent, and paid images reach their client."""

from __future__ import annotations

import base64
import errno
from pathlib import Path

import pytest

from imgkit.images import part_files
from imgkit.server import served_service
from tests.support.pictures import answer, noise
from tests.support.served import EDITS, GENERATIONS, form, send, serve_before
from tests.support.wire_server import reply

LARGE = noise(1) + bytes(700_000)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk take no more bytes."""

    def write(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part_files, "write_all", write)
    monkeypatch.setattr(served_service, "write_all", write)


def test_refuses_uploads_that_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers 503 to a large image of a form or of JSON; small images need no disk."""
    with serve_before(tmp_path, reply(200, answer())) as (server, api):
        fill_disk(monkeypatch)
        body, kind = form(image=LARGE, prompt="a hat")
        url = "data:image/png;base64," + base64.b64encode(LARGE).decode()
        for got in (
            send(server, EDITS, body, content_type=kind),
            send(server, EDITS, {"prompt": "a hat", "images": [{"image_url": url}]}),
        ):
            assert (got.status, got.error["code"]) == (503, "no_disk_space")
            assert got.headers["x-should-retry"] == "false"
        assert api.posts == 0
        body, kind = form(image=noise(1), prompt="a hat")
        assert send(server, EDITS, body, content_type=kind).status == 200


def test_delivers_a_paid_image_that_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends a large image from memory, as JSON and by its URL."""
    large = {"created": 1, "data": [{"b64_json": base64.b64encode(LARGE).decode()}]}
    with serve_before(tmp_path, reply(200, large), reply(200, large)) as (server, api):
        fill_disk(monkeypatch)
        got = send(server, GENERATIONS, {"prompt": "a fox"})
        assert got.status == 200, got.body[:300]
        assert base64.b64decode(got.json["data"][0]["b64_json"]) == LARGE
        linked = send(server, GENERATIONS, {"prompt": "an owl", "response_format": "url"}).json["data"][0]
        assert send(server, linked["url"].removeprefix(server.address)).body == LARGE
        assert api.posts == 2
