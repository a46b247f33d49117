"""The end of a server: calls that may still end, and what is kept of the others."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from imgkit.images.sniff import sniff
from imgkit.providers.bfl import BflProvider
from imgkit.server.served_service import ServedService
from imgkit.server.server_files import UNDELIVERED, open_work_folder
from imgkit.server.thread import ServerThread
from imgkit.testing.wire_server import serve_fake
from tests.server.test_repeats import FOX, HeldReply, leave_after_sending, list_calls, wait_until
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.processes import start_process
from tests.support.served import (
    GENERATIONS,
    SETTINGS,
    find_error,
    find_status,
    open_socket,
    read_all,
    request_bytes,
    send,
    serve_before,
)
from tests.support.wire_server import Line, hang, reply


def test_a_call_that_ends_in_time_is_answered(tmp_path: Path) -> None:
    """Answers the calls that run when the server stops, and takes no more."""
    held = HeldReply(reply(200, answer()))
    with ThreadPoolExecutor() as threads:
        with serve_before(tmp_path, held, settings=SETTINGS._replace(stop_s=20.0)) as (server, _):
            first = threads.submit(send, server, GENERATIONS, FOX)
            assert held.has_begun.wait(10)
            stopping = threads.submit(server.stop)
            held.release.set()
            assert first.result().status == 200
            stopping.result()
        assert server.report is not None
        assert server.report.unfinished == []


def test_a_request_whose_body_comes_during_the_stop_is_refused(tmp_path: Path) -> None:
    """Begins no call that the stop would not wait for."""
    held = HeldReply(reply(200, answer()))
    settings = SETTINGS._replace(stop_s=20.0)
    body = json.dumps({**FOX, "prompt": "an owl"}).encode()
    with ThreadPoolExecutor() as threads, serve_before(tmp_path, held, settings=settings) as (server, api):
        first = threads.submit(send, server, GENERATIONS, FOX)
        assert held.has_begun.wait(10)
        with open_socket(server) as client, open_socket(server) as other:
            head = request_bytes("POST", GENERATIONS, body=body).replace(
                b"{H}", server.address.removeprefix("http://").encode()
            )
            client.sendall(head[:-10])
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: " + server.address[7:].encode() + b"\r\n\r\n")
            assert other.recv(4096)
            stopping = threads.submit(server.stop)
            wait_until(lambda: _is_stopping(other, server))
            client.sendall(head[-10:])
            got = read_all(client)
        held.release.set()
        assert first.result().status == 200
        stopping.result()
        assert (find_status(got), find_error(got)["code"], api.posts) == (503, "server_stopping", 1)


def _is_stopping(connection: socket.socket, server: ServerThread) -> bool:
    host = server.address.removeprefix("http://").encode()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    return b"stopping" in connection.recv(4096)


def test_a_call_that_ends_too_late_is_listed(tmp_path: Path) -> None:
    """Ends it as one that may be billed, and writes it down."""
    with ThreadPoolExecutor() as threads:
        with serve_before(tmp_path, hang, settings=SETTINGS._replace(stop_s=0.1)) as (server, api):
            first = threads.submit(send, server, GENERATIONS, FOX)
            wait_until(lambda: api.posts == 1)
            server.stop()
            got = first.result()
    assert (got.status, got.headers["x-should-retry"]) == (424, "false")
    assert got.error["imgkit"]["maybe_billed"] is True
    report = server.report
    assert report is not None
    assert report.listed_in is not None
    [facts] = [json.loads(line) for line in report.listed_in.read_text().splitlines()]
    assert (facts["prompt"], facts["state"]) == (FOX["prompt"], "unknown")


def test_a_job_that_runs_on_is_left_to_a_later_process(tmp_path: Path) -> None:
    """Keeps the job of a provider that works on after the end of the server."""
    fake = BflProvider.fake(polls=1_000_000)
    with serve_fake(fake) as api, ThreadPoolExecutor() as threads:
        make_service = partial(
            ServedService,
            "aiohttp",
            provider="bfl",
            base_url=api.base_url,
            api_key="bfl-key-0123456789abcdef",
            state_folder=tmp_path,
        )
        with ServerThread(SETTINGS._replace(stop_s=0.1), make_service) as server:
            first = threads.submit(send, server, GENERATIONS, {"prompt": "a fox", "model": "flux-2-pro"})
            wait_until(
                lambda: any((tmp_path / "jobs").glob("*.json")) if (tmp_path / "jobs").exists() else False
            )
            server.stop()
            got = first.result()
    assert (got.status, got.error["code"]) == (424, "job_pending")
    assert got.error["imgkit"]["jobs"]


def test_an_image_that_no_client_has_is_kept(tmp_path: Path) -> None:
    """Saves the paid image of a client that left, with a sidecar."""
    with serve_before(tmp_path, reply(200, answer())) as (server, _):
        leave_after_sending(server, FOX)
        wait_until(lambda: list_calls(server)[0]["state"] == "done")
    assert server.report is not None
    [path] = server.report.kept
    assert Path(path).parent == tmp_path / UNDELIVERED
    assert sniff(Path(path).read_bytes()) is not None
    assert json.loads(Path(f"{path}.json").read_text())["prompt"] == FOX["prompt"]


def test_an_image_behind_a_url_that_no_client_has_is_kept_once(tmp_path: Path) -> None:
    """Saves a paid image for its URL, and not again for its call; it saves no image of the cache."""
    asked = {**FOX, "response_format": "url"}
    settings = SETTINGS._replace(cache="use")
    with serve_before(tmp_path, reply(200, answer()), settings=settings, plugins=["cache"]) as (server, _):
        leave_after_sending(server, asked)
        wait_until(lambda: list_calls(server)[0]["state"] == "done")
        got = send(server, GENERATIONS, asked, x_stainless_retry_count="0")
        assert got.headers["x-imgkit-cached"] == "true"
    assert server.report is not None
    assert len(server.report.kept) == 1


def test_an_image_that_a_client_has_is_not_kept(tmp_path: Path) -> None:
    """Leaves nothing behind where every reply was read."""
    with serve_before(tmp_path, reply(200, answer())) as (server, _):
        assert send(server, GENERATIONS, FOX).status == 200
    assert server.report is not None
    assert server.report.kept == []
    assert not (tmp_path / UNDELIVERED).exists()
    assert list((tmp_path / "serve").iterdir()) == []


def test_the_images_of_a_killed_server_are_kept(tmp_path: Path) -> None:
    """Moves the images of a server that was killed out of its folder."""
    folder, lock = open_work_folder(tmp_path)
    (folder / "c0ffee-1.png").write_bytes(picture())
    (folder / "partial-1.bin").write_bytes(b"half")
    (folder / ".imgkit-1.part").write_bytes(b"half")
    lock.release(remove=False)
    other, other_lock = open_work_folder(tmp_path)
    assert [path.name for path in (tmp_path / UNDELIVERED).iterdir()] == ["c0ffee-1.png"]
    assert not folder.exists()
    assert other.exists()
    other_lock.release()


def test_the_command_serves_until_a_signal(tmp_path: Path) -> None:
    """Prints the address first, writes the ready file, and ends with 0 after SIGTERM."""
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", "--ready-file", str(ready)]
    child = start_process(
        command,
        env={**os.environ, "IMGKIT_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    address = child.stdout.readline().decode().strip()
    wait_until(ready.exists)
    assert ready.read_text().strip() == address
    child.send_signal(signal.SIGTERM)
    _, messages = child.communicate(timeout=20)
    assert child.returncode == 0, messages
    assert b"Traceback" not in messages
    assert not ready.exists()


def test_an_image_that_is_read_slowly_is_moved_to_a_file(tmp_path: Path) -> None:
    """Sends an image from memory at once, and from a file of the server if its client takes long."""
    large = noise(4, 1600)
    answered = reply(200, {"created": 1, "data": [{"b64_json": encoded(large)}]})
    with serve_before(tmp_path, answered) as (server, _):
        parts = urlsplit(server.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        body = json.dumps(FOX).encode()
        connection.request("POST", GENERATIONS, body, {"content-type": "application/json"})
        wait_until(lambda: any((tmp_path / "serve").rglob("*-1.png")))
        got = json.loads(connection.getresponse().read())
        connection.close()
    assert got["data"][0]["b64_json"] == encoded(large)
    assert not any((tmp_path / "serve").rglob("*.png"))


def test_the_images_of_a_stream_that_broke_off_are_removed(tmp_path: Path) -> None:
    """Deletes the file of a partial image with its call, although the stream has failed."""
    partial_image = {
        "type": "image_generation.partial_image",
        "b64_json": encoded(noise(5, 400)),
        "partial_image_index": 0,
    }

    def script(line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        line.send(f"event: {partial_image['type']}\ndata: {json.dumps(partial_image)}\n\n".encode())

    with serve_before(tmp_path, script, settings=SETTINGS._replace(repeat_s=0.1)) as (server, _):
        got = send(server, GENERATIONS, {**FOX, "stream": True, "partial_images": 1})
        assert b"partial_image" in got.body
        assert b"event: error" in got.body
        wait_until(lambda: not list((tmp_path / "serve").rglob("partial-*")))
