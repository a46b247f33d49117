"""Repetitions: an SDK that asks again gets the call that runs, and nothing is paid twice."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI, RateLimitError

from imgkit.server.thread import ServerThread
from tests.support.pictures import answer, encoded, noise
from tests.support.served import EDITS, GENERATIONS, Received, form, send, serve_before
from tests.support.wire_server import Line, Script, drop, reply

FOX = {"prompt": "a red fox", "size": "64x64"}
SLOW = {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit"}}


class HeldReply:
    """A reply of the API that waits until the test releases it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.has_begun = threading.Event()
        self.release = threading.Event()

    def __call__(self, line: Line) -> None:
        """Wait, then reply."""
        self.has_begun.set()
        while not self.release.is_set() and not line.wait(0.005):
            pass
        self._script(line)


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait for a condition, at most 10 seconds."""
    until = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < until, "the condition did not come true"
        time.sleep(0.005)


def leave_after_sending(server: ServerThread, body: object, **headers: str) -> None:
    """Send a request, and leave once the server has begun its call."""
    count = len(list_calls(server))
    parts = urlsplit(server.address)
    data = json.dumps(body).encode()
    lines = [f"POST {GENERATIONS} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(data)}", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        wait_until(lambda: len(list_calls(server)) > count)
    wait_until(lambda: list_calls(server)[0]["clients"] == 0)


def list_calls(server: ServerThread) -> list[dict[str, object]]:
    """Return the calls of a server, the newest first."""
    calls: list[dict[str, object]] = send(server, "/status").json["requests"]
    return calls


def ask_again(server: ServerThread, body: object = FOX, count: int = 1) -> Received:
    """Send a request as the repetition of an SDK."""
    return send(server, GENERATIONS, body, x_stainless_retry_count=str(count))


def test_a_repetition_joins_the_call_that_runs(tmp_path: Path) -> None:
    """Gives the repetition of an SDK whose time is over the running call: one paid request."""
    held = HeldReply(reply(200, answer()))
    with serve_before(tmp_path, held) as (server, api), ThreadPoolExecutor() as threads:
        leave_after_sending(server, FOX, **{"x-stainless-retry-count": "0"})
        again = threads.submit(ask_again, server)
        wait_until(lambda: list_calls(server)[0]["joined"] == 1)
        held.release.set()
        assert again.result().json["data"][0]["b64_json"] == encoded()
        assert api.posts == 1


def test_a_repetition_joins_the_call_that_ended_a_moment_ago(tmp_path: Path) -> None:
    """Gives a late repetition the reply of the call that has ended; a third one, too."""
    with serve_before(tmp_path, reply(200, answer())) as (server, api):
        first = send(server, GENERATIONS, FOX, x_stainless_retry_count="0")
        assert [ask_again(server, count=count).body for count in (1, 2)] == [first.body] * 2
        assert api.posts == 1


def test_a_fresh_equal_request_is_a_new_image(tmp_path: Path) -> None:
    """Sends equal requests that are no repetitions each for itself, at the same time and later."""
    held = HeldReply(reply(200, answer()))
    scripts: list[Script] = [held, reply(200, answer()), reply(200, answer()), reply(200, answer())]
    with serve_before(tmp_path, *scripts) as (server, api), ThreadPoolExecutor() as threads:
        first = threads.submit(send, server, GENERATIONS, FOX)
        assert held.has_begun.wait(10)
        assert send(server, GENERATIONS, FOX).status == 200
        held.release.set()
        assert first.result().status == 200
        assert send(server, GENERATIONS, FOX).status == 200
        assert send(server, GENERATIONS, FOX, x_stainless_retry_count="0").status == 200
        assert api.posts == 4


def test_an_image_that_nobody_has_goes_to_the_next_who_asks(tmp_path: Path) -> None:
    """Gives the reply of a client that left to an equal request without a count of repetitions."""
    held = HeldReply(reply(200, answer()))
    with serve_before(tmp_path, held, reply(200, answer())) as (server, api):
        leave_after_sending(server, FOX)
        held.release.set()
        assert send(server, GENERATIONS, FOX).status == 200
        assert api.posts == 1
        assert send(server, GENERATIONS, FOX).status == 200
        assert api.posts == 2


@pytest.mark.parametrize("image", [noise(3, 40), noise(3, 500)], ids=["small", "large"])
def test_a_reply_whose_image_is_gone_ends_without_a_word(tmp_path: Path, image: bytes) -> None:
    """Cuts the connection if somebody has deleted the file of an image, and sends nothing anew."""
    held = HeldReply(reply(200, {"created": 1, "data": [{"b64_json": encoded(image)}]}))
    with serve_before(tmp_path, held) as (server, api):
        leave_after_sending(server, FOX)
        held.release.set()
        wait_until(lambda: any(tmp_path.rglob("*-1.png")))  # a moment after its end
        next(tmp_path.rglob("*-1.png")).unlink()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask_again(server)
        assert api.posts == 1
        assert send(server, "/healthz").status == 200


def test_each_repetition_gets_a_call_of_its_own(tmp_path: Path) -> None:
    """Gives two repetitions of two equal requests one image each, so that none is lost."""
    one, two = HeldReply(reply(200, answer())), HeldReply(reply(200, answer()))
    with serve_before(tmp_path, one, two) as (server, api), ThreadPoolExecutor() as threads:
        for held in (one, two):
            leave_after_sending(server, FOX, **{"x-stainless-retry-count": "0"})
            assert held.has_begun.wait(10)
        again = [threads.submit(ask_again, server) for _ in range(2)]
        wait_until(lambda: [call["joined"] for call in list_calls(server)] == [1, 1])
        one.release.set()
        two.release.set()
        replies = [each.result() for each in again]
        assert len({reply.headers["x-imgkit-call-id"] for reply in replies}) == 2
        assert api.posts == 2


def test_a_repetition_after_a_free_failure_is_sent(tmp_path: Path) -> None:
    """Sends again after a refusal that cost nothing."""
    with serve_before(tmp_path, reply(429, SLOW), reply(200, answer())) as (server, api):
        first = send(server, GENERATIONS, FOX, x_stainless_retry_count="0")
        assert (first.status, first.headers["x-should-retry"]) == (429, "true")
        assert ask_again(server).status == 200
        assert api.posts == 2


def test_a_rate_limit_that_the_server_has_waited_for_is_not_repeated(tmp_path: Path) -> None:
    """Sends a refused request five times, and lets the official client not multiply that by three."""
    refused = [reply(429, SLOW, retry_after_ms="1") for _ in range(15)]
    with serve_before(tmp_path, *refused, retry=True) as (server, api):
        with OpenAI(base_url=server.base_url, api_key="any") as client, pytest.raises(RateLimitError) as got:
            client.images.generate(prompt="a red fox")
        assert (api.posts, len(server.last_calls)) == (5, 1)
    headers = got.value.response.headers
    assert (headers["x-should-retry"], headers["retry-after"]) == ("false", "1")


def test_a_rate_limit_of_a_shared_request_is_not_repeated(tmp_path: Path) -> None:
    """Tells the clients of all equal calls that share a request not to repeat its failure."""
    held = HeldReply(reply(429, SLOW, retry_after_ms="1"))
    refused = [reply(429, SLOW, retry_after_ms="1") for _ in range(9)]
    given: dict[str, Any] = {"retry": True, "plugins": ["cache"]}
    with serve_before(tmp_path, held, *refused, **given) as (server, api), ThreadPoolExecutor() as threads:
        sent = [threads.submit(send, server, GENERATIONS, FOX) for _ in range(2)]
        wait_until(lambda: len(list_calls(server)) == 2)
        held.release.set()
        assert [each.result().headers["x-should-retry"] for each in sent] == ["false", "false"]
        assert api.posts == 5


def test_a_rate_limit_that_asks_for_no_repetition_is_not_repeated(tmp_path: Path) -> None:
    """Hands on the word of the API that its refusal is final."""
    with serve_before(tmp_path, reply(429, SLOW, x_should_retry="false")) as (server, _):
        got = send(server, GENERATIONS, FOX)
    assert (got.status, got.headers["x-should-retry"]) == (429, "false")


def test_a_repetition_of_an_unknown_outcome_is_not_sent(tmp_path: Path) -> None:
    """Repeats the error of a call that may be billed, and sends nothing."""
    with serve_before(tmp_path, drop) as (server, api):
        first = send(server, GENERATIONS, FOX, x_stainless_retry_count="0")
        again = ask_again(server)
        assert (first.status, again.status, again.body) == (424, 424, first.body)
        assert api.posts == 1


def test_forms_are_compared_by_their_content(tmp_path: Path) -> None:
    """Joins a repeated form although its boundary is another one."""
    with serve_before(tmp_path, reply(200, answer()), reply(200, answer())) as (server, api):
        body, kind = form(image=noise(1, 300), prompt="a hat")
        send(server, EDITS, body, content_type=kind, x_stainless_retry_count="0")
        other = (
            body.replace(b"imgkit-test-boundary", b"another-boundary"),
            kind.replace("imgkit-test", "another"),
        )
        got = send(server, EDITS, other[0], content_type=other[1], x_stainless_retry_count="1")
        assert (got.status, api.posts) == (200, 1)
        body, kind = form(image=noise(2, 300), prompt="a hat")
        send(server, EDITS, body, content_type=kind, x_stainless_retry_count="1")
        assert api.posts == 2


def test_references_are_compared_whole(tmp_path: Path) -> None:
    """Joins no edit of an image whose URL differs in its query only."""
    with serve_before(tmp_path, reply(200, answer()), reply(200, answer())) as (server, api):
        for number in (1, 2):
            url = f"https://images.example.org/get?id={number}"
            body = {"prompt": "a hat", "images": [{"image_url": url}]}
            assert send(server, EDITS, body, x_stainless_retry_count="1").status == 200
        assert api.posts == 2


def test_a_repeated_stream_has_all_events(tmp_path: Path) -> None:
    """Sends the events of a running stream to its repetition from the first one on."""
    first = {"type": "image_generation.partial_image", "b64_json": encoded(), "partial_image_index": 0}
    last = {"type": "image_generation.completed", "b64_json": encoded()}
    begun, release = threading.Event(), threading.Event()

    def script(line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        line.send(f"event: {first['type']}\ndata: {json.dumps(first)}\n\n".encode())
        begun.set()
        while not release.is_set() and not line.wait(0.005):
            pass
        line.send(f"event: {last['type']}\ndata: {json.dumps(last)}\n\n".encode())

    body = {**FOX, "stream": True, "partial_images": 1}
    with serve_before(tmp_path, script) as (server, api), ThreadPoolExecutor() as threads:
        leave_after_sending(server, body, **{"x-stainless-retry-count": "0"})
        assert begun.wait(10)
        again = threads.submit(ask_again, server, body)
        wait_until(lambda: list_calls(server)[0]["joined"] == 1)
        release.set()
        events = [line for line in again.result().body.decode().splitlines() if line.startswith("event")]
        assert events == [f"event: {first['type']}", f"event: {last['type']}"]
        assert api.posts == 1
