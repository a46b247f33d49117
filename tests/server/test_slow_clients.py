"""Clients that say nothing, send slowly or read nothing: their connections end, and others have an answer."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp.web import BaseRequest, StreamResponse

from imgkit.server import arriving_bodies, silent_clients
from imgkit.server.silent_clients import Connection, ConnectionServer
from tests.support.pictures import noise
from tests.support.served import (
    EDITS,
    GENERATIONS,
    SETTINGS,
    exchange,
    find_error,
    find_status,
    open_socket,
    read_all,
    request_bytes,
    send,
    serve_before,
    serve_offline,
)
from tests.support.wire_server import reply

SHORT_S = 0.05
FOX = b'{"prompt": "a red fox"}'
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limits for slow clients."""
    monkeypatch.setattr(silent_clients, "HEAD_S", SHORT_S)
    monkeypatch.setattr(silent_clients, "KEEPALIVE_S", SHORT_S)
    monkeypatch.setattr(silent_clients, "LINGER_S", SHORT_S)
    monkeypatch.setattr(arriving_bodies, "READ_S", SHORT_S)


@pytest.mark.parametrize("data", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_ends_a_connection_without_a_request(tmp_path: Path, data: bytes) -> None:
    """Ends a connection whose client says nothing, or stops in the midst of the head."""
    with serve_offline(tmp_path) as server:
        assert exchange(server, data) == b""


def test_ends_an_idle_connection(tmp_path: Path) -> None:
    """Ends a connection whose client sends half a second request."""
    head = b"GET /healthz HTTP/1.1\r\nHost: {H}\r\n\r\n"
    with serve_offline(tmp_path) as server:
        got = exchange(server, head + head[:12])
    assert got.count(b"HTTP/1.1 200") == 1


def test_ends_a_body_that_does_not_come(tmp_path: Path) -> None:
    """Answers 408 to half a body, and executes nothing."""
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nabc'
    tries = [
        (GENERATIONS, (JSON, "Content-Length: 100"), b'{"prompt":'),
        (GENERATIONS, (JSON, "Content-Length: 100"), b""),
        (GENERATIONS, (JSON, "Transfer-Encoding: chunked"), b"5\r\n{    \r\n"),
        (EDITS, (FORM, "Content-Length: 999"), part),
        (EDITS, (FORM, "Transfer-Encoding: chunked"), b"1000\r\n" + b"ab\r\n" * 1024 + b"\r\n"),
    ]
    with serve_before(tmp_path) as (server, api):
        for path, headers, body in tries:
            got = exchange(server, request_bytes("POST", path, *headers) + body)
            assert (find_status(got), find_error(got)["code"]) == (408, "body_timeout"), (path, body[:40])
        assert api.posts == 0


def test_executes_nothing_for_a_client_that_leaves_before_the_end_of_its_body(tmp_path: Path) -> None:
    """Takes a half body for nothing."""
    with serve_before(tmp_path) as (server, api):
        for headers, body in (
            ((JSON, "Content-Length: 100"), FOX),
            ((JSON, "Transfer-Encoding: chunked"), b"17\r\n" + FOX + b"\r\n"),
        ):
            assert exchange(server, request_bytes("POST", GENERATIONS, *headers) + body, ends=True) == b""
        assert send(server, "/status").json["requests"] == []
        assert api.posts == 0


def test_asks_for_a_body_that_a_client_holds_back(tmp_path: Path) -> None:
    """Answers ``Expect: 100-continue`` with the wish for the body, or with the refusal before the body."""
    expect = "Expect: 100-continue"
    with serve_offline(tmp_path, SETTINGS._replace(max_body_bytes=10_000)) as server:
        head = request_bytes("POST", GENERATIONS, expect, JSON, f"Content-Length: {len(FOX)}")
        with open_socket(server) as connection:
            connection.sendall(head.replace(b"{H}", server.address.removeprefix("http://").encode()))
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(FOX)
            assert find_status(read_all(connection)) == 200
        for headers, status in (
            ((expect, JSON, "Content-Length: 10001"), 413),
            ((expect, "Content-Type: text/plain", "Content-Length: 9"), 415),
            (("Expect: wonders", JSON, "Content-Length: 9"), 417),
        ):
            got = exchange(server, request_bytes("POST", GENERATIONS, *headers))
            assert find_status(got) == status
            assert find_error(got)


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/models"])
def test_ends_a_connection_whose_client_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], path: str
) -> None:
    """Ends a connection when the client leaves its reply unread; a paid image is kept."""
    ended, lose = threading.Event(), Connection.connection_lost

    def note_end(connection: Connection, error: BaseException | None) -> None:
        lose(connection, error)
        ended.set()

    monkeypatch.setattr(Connection, "connection_lost", note_end)
    monkeypatch.setattr(silent_clients, "UNREAD_S", SHORT_S)
    monkeypatch.setattr(silent_clients, "WRITE_S", SHORT_S)
    large = {"created": 1, "data": [{"b64_json": base64.b64encode(noise(1) + bytes(9_000_000)).decode()}]}
    with serve_before(tmp_path, reply(200, large)) as (server, api):
        request = request_bytes("POST", path, JSON, body=FOX)
        if path != GENERATIONS:
            request = request_bytes("GET", path).replace(b"close", b"keep-alive") * 900
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            host, port = server.address.removeprefix("http://").split(":")
            connection.connect((host, int(port)))
            connection.sendall(request.replace(b"{H}", f"{host}:{port}".encode()))
            assert ended.wait(20)
        assert find_status(exchange(server, request_bytes("GET", "/healthz"))) == 200
    assert server.report is not None
    assert len(server.report.kept) == api.posts
    assert capfd.readouterr().err == ""


def test_makes_room_for_clients_that_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the oldest silent connections when there are too many, and answers a client that asks."""
    monkeypatch.setattr(silent_clients, "HEAD_S", 30.0)
    monkeypatch.setattr(silent_clients, "MOST_SILENT", 5)
    monkeypatch.setattr(silent_clients, "YOUNG_S", 0.0)
    with serve_offline(tmp_path) as server, ExitStack() as stack:
        silent = [stack.enter_context(open_socket(server)) for _ in range(20)]
        assert find_status(exchange(server, request_bytes("GET", "/healthz"))) == 200
        assert [read_all(connection) for connection in silent[:14]] == [b""] * 14
        silent[-1].sendall(request_bytes("GET", "/healthz").replace(b"{H}", server.address[7:].encode()))
        assert find_status(read_all(silent[-1])) == 200


def test_spares_new_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers a burst of clients that is larger than the number of silent ones."""
    monkeypatch.setattr(silent_clients, "HEAD_S", 30.0)
    monkeypatch.setattr(silent_clients, "MOST_SILENT", 2)
    monkeypatch.setattr(silent_clients, "YOUNG_S", 30.0)
    with serve_offline(tmp_path) as server, ExitStack() as stack:
        burst = [stack.enter_context(open_socket(server)) for _ in range(20)]
        for connection in burst:
            connection.sendall(request_bytes("GET", "/healthz").replace(b"{H}", server.address[7:].encode()))
        assert [find_status(read_all(connection)) for connection in burst] == [200] * 20


def test_ends_half_of_the_silent_when_the_system_has_no_more_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Makes room once for a row of failed accepts, with one notice; other problems go to the loop."""
    others: list[object] = []

    async def run() -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: others.append(context["message"]))
        connections = ConnectionServer(_never_answer)
        silent = [connections() for _ in range(10)]
        for _ in range(100):
            loop.call_exception_handler(
                {"message": "socket.accept() out of system resource", "exception": OSError(24, "x")}
            )
        loop.call_exception_handler({"message": "other"})
        await asyncio.sleep(0)
        left = sum(connection in connections._silent for connection in silent)
        await connections.shutdown(0)
        loop.call_exception_handler({"message": "after"})
        return left

    with caplog.at_level(logging.WARNING, "imgkit"):
        assert asyncio.run(run()) == 5
    assert others == ["other", "after"]
    assert len(caplog.records) == 1


async def _never_answer(request: BaseRequest) -> StreamResponse:
    raise NotImplementedError
