"""The disk space for images of requests: all requests together have a limit."""

from __future__ import annotations

import base64
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgkit.server.envelopes import Rejection
from imgkit.server.thread import ServerThread
from imgkit.server.upload_folder import UploadFolder
from tests.server.test_repeats import HeldReply, wait_until
from tests.support.pictures import answer, noise
from tests.support.served import EDITS, SETTINGS, Received, form, open_socket, send, serve_before
from tests.support.wire_server import reply

LARGE = noise(1) + bytes(700_000)
ROOM = SETTINGS._replace(max_uploads_bytes=1_000_000, max_body_bytes=1_000_000)


def send_form(server: ServerThread, image: bytes = LARGE) -> Received:
    """Send an edit as a form."""
    body, kind = form(image=image, prompt="a hat")
    return send(server, EDITS, body, content_type=kind)


def send_json(server: ServerThread, image: bytes = LARGE) -> Received:
    """Send an edit as JSON."""
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    return send(server, EDITS, {"prompt": "a hat", "images": [{"image_url": url}]})


def list_uploads(folder: Path) -> list[Path]:
    """Return the images of requests on the disk."""
    return list((folder / "serve").glob("*/.imgkit-*.part"))


def test_refuses_images_beyond_its_space(tmp_path: Path) -> None:
    """Answers 503 while others fill the space, sends nothing, and takes images again afterwards."""
    held = HeldReply(reply(200, answer()))
    more = [reply(200, answer()) for _ in range(3)]
    with serve_before(tmp_path, held, *more, settings=ROOM) as (server, api):
        with ThreadPoolExecutor() as threads:
            first = threads.submit(send_form, server)
            assert held.has_begun.wait(10)
            for got in (send_form(server), send_json(server)):
                assert (got.status, got.error["code"]) == (503, "server_busy")
                assert (got.headers["x-should-retry"], got.headers["retry-after"]) == ("true", "5")
                assert "Nothing was sent." in got.error["message"]
            assert api.posts == 1
            assert send_form(server, noise(1)).status == 200  # small images need no space
            held.release.set()
            assert first.result().status == 200
        wait_until(lambda: not list_uploads(tmp_path))
        assert [send_form(server).status, send_json(server).status] == [200, 200]
        assert api.posts == 4


def test_an_upload_that_breaks_off_leaves_its_space(tmp_path: Path) -> None:
    """Takes an image after the client of another one has left in the midst of it."""
    body, kind = form(image=LARGE, prompt="a hat")
    head = (
        f"POST {EDITS} HTTP/1.1\r\nHost: {{}}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with serve_before(tmp_path, reply(200, answer()), settings=ROOM) as (server, api):
        with open_socket(server) as leaving:
            host = server.address.removeprefix("http://")
            leaving.sendall(head.format(host).encode() + body[:-1000])
            wait_until(lambda: sum(path.stat().st_size for path in list_uploads(tmp_path)) > 500_000)
            assert send_form(server).status == 503
        wait_until(lambda: not list_uploads(tmp_path))
        assert send_form(server).status == 200
        assert api.posts == 1


@pytest.mark.parametrize(
    ("free", "most", "largest_body", "room"),
    [(10**12, 3000, 1000, 3000), (5000, 3000, 1000, 2500), (0, 3000, 1000, 1000)],
)
def test_leaves_half_of_the_disk(
    free: int, most: int, largest_body: int, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes half of the free disk at most, and one request in any case."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    uploads = UploadFolder(tmp_path, most, largest_body)
    file = uploads.new_file()
    file.add(bytes(room))
    file.write()
    other = uploads.new_file()
    other.add(b"x")
    with pytest.raises(Rejection, match="fill the space"):
        other.write()
    file.discard()
    other.write()
