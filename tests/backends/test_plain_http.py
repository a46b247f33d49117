"""The `requests` backend where urllib3-future has replaced urllib3: http.client sends the requests."""

from __future__ import annotations

import http.client
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.backends import BackendOptions
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.testing import WireServer, answer, png, reply
from imgkit.testing.backend_connections import WHOLE_REPLY
from tests.support.processes import run_process
from tests.support.wire_server import Line

REPLACED = """
import sys
import urllib3.connection

class HTTPConnection:
    def __init__(self, *args, **options):
        raise TypeError("setsockopt() takes exactly 3 arguments (4 given)")

HTTPConnection.__module__ = "urllib3.connection"
urllib3.connection.HTTPConnection = HTTPConnection

import imgkit

with imgkit.ImageService("requests", base_url=sys.argv[1], reuse_connections=True) as images:
    print(images.create_image("a fox")[0].width)
from imgkit.backends import RequestsBackend

print(RequestsBackend.is_patched_by_vcrpy)
try:
    imgkit.ImageService("requests", base_url=sys.argv[1], proxy="https://127.0.0.1:1")
except imgkit.ConfigurationError as error:
    print(error)
"""


def test_requests_without_urllib3() -> None:
    """Works though urllib3's connections are not those of http.client; https proxies and vcrpy do not."""
    with WireServer(reply(200, answer(png(1, 16)))) as server:
        done = run_process(
            [sys.executable, "-c", REPLACED, server.base_url],
            capture_output=True, text=True, timeout=50, check=False,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "16",
        "False",
        "proxy: backend 'requests' would ignore it. It lacks the capability 'https proxy'. Leave it out, or "
        "use another backend.",
    ]


def test_replaces_a_connection_that_the_server_has_closed(flavor: Any) -> None:
    """Opens a new connection if the server has closed the idle connection."""
    closed = threading.Event()

    def close_after_reply(line: Line) -> None:
        line.send(WHOLE_REPLY)
        line.connection.close()
        closed.set()

    class WaitsForServer:
        @imgkit.hookimpl
        def imgkit_before_send(self, request: Any) -> None:
            if server.accepted:
                assert closed.wait(5)

    def call_twice(service: Any) -> Any:
        if flavor.flavor == "sync":
            return [service.create_image("a"), service.create_image("b")]

        async def main() -> Any:
            return [await service.create_image("a"), await service.create_image("b")]

        return main()

    backend = PlainHttpBackend(BackendOptions(reuse_connections=True))
    with WireServer(close_after_reply) as server:
        flavor.run(call_twice, backend, base_url=server.base_url, plugins=[WaitsForServer()])
        assert (server.posts, server.accepted) == (2, 2)


def test_a_small_request_is_a_single_packet() -> None:
    """Sends head and body together."""
    packets: list[bytes] = []

    def keep_first_packet(line: Line) -> None:
        packets.append(line.connection.recv(65536))
        reply(200, answer())(line)

    with WireServer(keep_first_packet, read_first=False) as server:
        with imgkit.ImageService(PlainHttpBackend(BackendOptions()), base_url=server.base_url) as service:
            service.create_image("a fox")
    assert packets[0].endswith(b'{"prompt":"a fox"}')


def test_classes_of_a_recorder_are_no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport never derives from the patched classes of an open cassette."""

    class VCRHTTPConnection(http.client.HTTPConnection):
        pass

    monkeypatch.setattr(http.client, "HTTPConnection", VCRHTTPConnection)
    monkeypatch.delitem(sys.modules, "imgkit.backends.plain_http")
    with pytest.raises(imgkit.ConfigurationError, match="Close the cassette before the first request"):
        import_module("imgkit.backends.plain_http")
