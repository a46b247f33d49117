"""The part of a backend's contract about connections: reuse, time limits, hanging up, memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import imgkit
from imgkit.testing.backend_harness import MAX_DELAY_S, BackendHarness, call_once
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_faults import HEADERS, SLOW, UNKNOWN
from imgkit.testing.wire_server import CA_FILE, Line, WireServer, drop, hang, head, reply
from imgkit.wire.messages import BLOCK_BYTES, BackendOptions, HttpRequest, hash_blocks

MIB = 1 << 20
UPLOAD_BYTES = 64 * MIB
"""Size of a large upload: far above the buffers of an operating system for a connection."""

MAX_UPLOAD_MEMORY_BYTES = 16 * MIB

BODY = json.dumps(answer()).encode()
WHOLE_REPLY = head(200, {"content-length": str(len(BODY))}) + BODY


class LargeBody:
    """A body that exists only block by block, and counts the bytes that a backend has taken."""

    content_type = "application/octet-stream"
    length = UPLOAD_BYTES

    def __init__(self) -> None:
        self.taken_bytes = 0

    def sha256(self) -> str:
        """Return the digest of the body."""
        return hash_blocks(self)

    def blocks(self) -> Iterator[bytes]:
        """Yield the body."""
        block = bytes(BLOCK_BYTES)
        for _ in range(self.length // len(block)):
            self.taken_bytes += len(block)
            yield block

    def wait_until_backend_pauses(self, line: Line) -> int:
        """Wait until the backend takes no further blocks; return the bytes that it has taken."""
        taken = -1
        while taken != self.taken_bytes:
            taken = self.taken_bytes
            line.wait(0.05)
        return taken


class BackendConnectionTests(BackendHarness):
    """The tests about connections."""

    @pytest.mark.parametrize("slow", SLOW)
    def test_total_deadline(self, flavor: str, slow: str) -> None:
        """Ends a slow call at its total deadline, at any stage."""
        began = time.monotonic()
        with WireServer(SLOW[slow]) as server:
            with pytest.raises(UNKNOWN):
                self.create(flavor, server, timeout_s=0.3)
            assert time.monotonic() - began < MAX_DELAY_S, "The call outlives its deadline."
            assert server.posts == 1

    def test_read_timeout(self, flavor: str) -> None:
        """Ends a silent call at its read timeout, before its deadline."""
        began = time.monotonic()
        with WireServer(hang) as server, pytest.raises(UNKNOWN):
            self.create(flavor, server, read_timeout_s=0.2)
        assert time.monotonic() - began < MAX_DELAY_S, "The call outlives its read timeout."

    @pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
    def test_connection_reuse(self, flavor: str, tls: bool) -> None:
        """Opens a connection per request unless connections are reused."""
        if tls:
            self.require("ca")

        def serve_repeatedly(line: Line) -> None:
            line.send(WHOLE_REPLY)
            while line.read_request():
                line.send(WHOLE_REPLY)

        ca = CA_FILE if tls else None
        for reuse in (False, True) if self.can("reuse") else (False,):
            with WireServer(serve_repeatedly, tls=tls) as server:
                options = BackendOptions(ca=ca, reuse_connections=reuse)
                self.run(flavor, server.base_url, call_once, call_once, options=options)
                expected = 1 if reuse else 2
                assert server.accepted == expected, (
                    f"With reuse_connections={reuse}, two calls take {server.accepted} connections."
                )

    def test_sends_once_on_reused_connection(self, flavor: str) -> None:
        """Never repeats a request whose reused connection breaks: the server may have read it."""
        self.require("reuse")
        requests = []

        def break_second(line: Line) -> None:
            requests.append(line.request_line)
            line.send(WHOLE_REPLY)
            if line.read_request():
                requests.append(line.request_line)

        options = BackendOptions(reuse_connections=True)
        with WireServer(break_second) as server:
            with suppress(UNKNOWN):
                self.run(flavor, server.base_url, call_once, call_once, options=options)
            assert len(requests) == 2, f"Two calls send {len(requests)} requests, and all are billed."

    def test_close_disconnects(self, flavor: str) -> None:
        """Closes idle connections at once, even after a call that failed."""
        self.require("reuse")
        disconnected = threading.Event()

        def wait_for_end(line: Line) -> None:
            line.send(WHOLE_REPLY)
            line.until_client_leaves()
            if not line.closing.is_set():
                disconnected.set()

        def call_and_fail(service: Any) -> Any:
            if flavor == "sync":
                with pytest.raises(UNKNOWN):
                    call_once(service)
                return None
            return asyncio.gather(call_once(service), return_exceptions=True)

        with WireServer(drop, wait_for_end) as server:
            options = BackendOptions(reuse_connections=True)
            self.run(flavor, server.base_url, call_and_fail, call_once, options=options)
            assert disconnected.wait(MAX_DELAY_S), "The server did not see the backend disconnect."

    @pytest.mark.parametrize("stage", ["upload", "head", "body"])
    def test_hangs_up(self, flavor: str, stage: str) -> None:
        """Disconnects at once when its task is cancelled, or its service is closed."""
        self.require("hang up")
        started, ended, disconnected = threading.Event(), threading.Event(), threading.Event()

        def script(line: Line) -> None:
            if stage == "body":
                line.send(head(200, {**HEADERS, "content-length": "100"}) + b'{"data')
            elif stage == "upload":
                line.connection.recv(1000)
            started.set()
            ended.wait(5)
            line.until_client_leaves()
            if not line.closing.is_set():
                disconnected.set()

        # It fills the buffers of the connection, because the server does not read it yet.
        image = png(3, 2200) if stage == "upload" else b""

        def call(service: Any) -> Any:
            return service.create_image_edit(image, "x") if stage == "upload" else call_once(service)

        settings: dict[str, Any] = {"backend": self.backend(BackendOptions()), "retry": False}
        with WireServer(script, read_first=stage != "upload") as server:
            began = time.monotonic()
            settings["base_url"] = server.base_url
            if flavor == "sync":
                _close_while_calling(call, started, settings)
            else:
                asyncio.run(asyncio.wait_for(_cancel_while_calling(call, started, settings), 10))
            ended.set()
            assert disconnected.wait(MAX_DELAY_S), "The server did not see the backend disconnect."
        assert time.monotonic() - began < MAX_DELAY_S, "Hanging up takes too long."

    def test_streams_uploads(self) -> None:
        """Takes a large upload block by block as the server receives it, so memory stays flat."""
        body = LargeBody()
        taken_early = []

        def receive(line: Line) -> None:
            taken_early.append(body.wait_until_backend_pauses(line))
            data = bytearray(MIB)
            missing = UPLOAD_BYTES
            while missing > 0 and (received := line.connection.recv_into(data)):
                missing -= received
            reply(200, b"{}")(line)

        tracemalloc.start()
        try:
            with WireServer(receive, read_first=False) as server:
                assert self.send(HttpRequest("POST", f"{server.base_url}/images/edits", {}, body)) == b"{}"
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken_early[0] < UPLOAD_BYTES / 2, "The backend took the upload before the server read it."
        assert peak_bytes < MAX_UPLOAD_MEMORY_BYTES, f"The upload takes {peak_bytes} bytes of memory."

    def test_transfers_large_bodies(self, flavor: str) -> None:
        """Sends a large image with its length, and returns a large image byte for byte."""
        image = png(2, 1100)
        with WireServer(reply(200, answer(image))) as server:
            (result,) = self.run(
                flavor,
                server.base_url,
                lambda service: service.create_image_edit(image, "a hat"),
                timeout_s=30,
            )
        (line,) = server.lines
        length = line.headers.get("content-length")
        assert length == str(len(line.body)), f"Content-Length is {length} for {len(line.body)} bytes."
        assert "transfer-encoding" not in line.headers
        assert image in line.body
        assert result[0].data == image

    def test_yields_each_chunk_at_once(self, flavor: str) -> None:
        """Returns a chunk when it arrives, without waiting for more data."""
        received = threading.Event()
        has_arrived: list[bool] = []

        class WatchesEvents:
            @imgkit.hookimpl
            def imgkit_on_event(self, event: Any) -> None:
                if getattr(event, "received_bytes", 0) >= 1:
                    received.set()

        def script(line: Line) -> None:
            line.send(head(200, {**HEADERS, "content-length": str(len(BODY))}) + BODY[:10])
            has_arrived.append(received.wait(3))
            line.send(BODY[10:])

        with WireServer(script) as server:
            self.create(flavor, server, plugins=[WatchesEvents()])
        assert has_arrived == [True], "The first bytes of the reply arrive with the last."

    def test_concurrent_calls(self, flavor: str) -> None:
        """Keeps sixteen concurrent calls apart."""

        def script(line: Line) -> None:
            seed = int(json.loads(line.body)["prompt"])
            reply(200, answer(png(seed)))(line)

        with WireServer(script) as server:
            arguments: dict[str, Any] = {
                "backend": self.backend(BackendOptions()),
                "base_url": server.base_url,
                "retry": False,
            }
            if flavor == "sync":
                result: dict[int, bytes] = {}
                with imgkit.ImageService(**arguments) as service:
                    threads = [
                        threading.Thread(
                            target=lambda n=n: result.update({n: service.create_image(str(n))[0].data})
                        )
                        for n in range(16)
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join(30)
                assert result == {n: png(n) for n in range(16)}
                return

            async def main() -> list[bytes]:
                async with imgkit.AsyncImageService(**arguments) as service:
                    calls = [service.create_image(str(n)) for n in range(16)]
                    return [response[0].data for response in await asyncio.gather(*calls)]

            assert asyncio.run(main()) == [png(n) for n in range(16)]

    def test_reads_early_refusal(self, flavor: str) -> None:
        """Reads a refusal that arrives during the upload, and stops the upload."""
        self.require("early refusal")

        def refuse(line: Line) -> None:
            line.connection.recv(1000)
            reply(401, {"error": {"message": "no", "code": "invalid_api_key"}})(line)
            line.until_client_leaves()

        with WireServer(refuse, read_first=False) as server, pytest.raises(imgkit.AuthenticationError):
            self.run(flavor, server.base_url, lambda s: s.create_image_edit(png(3, 1700), "x"), timeout_s=30)


def _close_while_calling(call: Any, started: threading.Event, settings: dict[str, Any]) -> None:
    """Close a service while another thread waits for a call, which must fail."""
    errors: list[Exception] = []

    def work() -> None:
        try:
            call(service)
        except Exception as error:
            errors.append(error)

    with imgkit.ImageService(**settings) as service:
        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(5)
    thread.join(5)
    assert [type(error) for error in errors] == [UNKNOWN], errors


async def _cancel_while_calling(call: Any, started: threading.Event, settings: dict[str, Any]) -> None:
    """Cancel a task while it waits for a call."""
    async with imgkit.AsyncImageService(**settings) as service:
        task = asyncio.create_task(call(service))
        while not started.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
