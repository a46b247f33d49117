"""The contract of a backend (`imgkit.backends.Backend` or `imgkit.backends.AsyncBackend`)."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

import imgkit
from imgkit.testing import canary
from imgkit.testing.samples import answer, png, poll_after_send
from imgkit.testing.wire_faults import FAULTS, HEADERS, SLOW, UNKNOWN
from imgkit.testing.wire_server import Line, WireServer, drop, hang, head, raw, reply
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions, HttpRequest


class BackendContract:
    """The tests that every backend must pass, under `ImageService` and under `AsyncImageService`.

    Override `backend` and declare the optional capabilities::

        class TestMyBackend(BackendContract):
            capabilities = frozenset({"unsent", "connect timeout"})

            def backend(self, options):
                return MyBackend(options)

    Attributes:
        capabilities: Optional capabilities of the backend. The contract skips the tests of the others:

            - "unsent": Distinguishes a failed connection from every later failure.
            - "connect timeout": Limits connecting by ``transfer.connect_timeout_s()``.
            - "reuse": Keeps connections open if ``BackendOptions.reuse_connections`` is True.
            - "proxy": Uses ``BackendOptions.proxy``.
            - "early refusal": Reads a reply that arrives during the upload.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture(params=["sync", "async"])
    def flavor(self, request: pytest.FixtureRequest) -> str:
        """The service: "sync" or "async"."""
        return str(request.param)

    def backend(self, options: BackendOptions) -> Backend | AsyncBackend:
        """Return a new backend."""
        raise NotImplementedError("Override backend() to return the backend under test.")

    def require(self, capability: str) -> None:
        """Skip the test unless the backend declares the capability."""
        if capability not in self.capabilities:
            pytest.skip(f"The backend does not declare the capability {capability!r}.")

    def run(
        self,
        flavor: str,
        base_url: str,
        *calls: Callable[[Any], Any],
        options: BackendOptions | None = None,
        **settings: Any,
    ) -> list[Any]:
        """Make calls in turn with a new service; return their results.

        Args:
            flavor: "sync" or "async".
            base_url: Base URL of the service.
            calls: Functions of the service, such as ``lambda service: service.create_image("a fox")``.
            options: Options of the backend; the defaults if None.
            settings: Further arguments of the service.
        """
        arguments = {
            "backend": settings.pop("backend", None) or self.backend(options or BackendOptions()),
            "base_url": base_url, "api_key": canary.KEY, "timeout_s": 10, "retry": False, **settings,
        }  # fmt: skip
        if flavor == "sync":
            with imgkit.ImageService(**arguments) as service:
                return [call(service) for call in calls]

        async def main() -> list[Any]:
            async with imgkit.AsyncImageService(**arguments) as service:
                return [await call(service) for call in calls]

        return asyncio.run(main())

    def create(self, flavor: str, server: WireServer, prompt: str = "a fox", **settings: Any) -> Any:
        """Make a single call against the server; return its response."""
        (result,) = self.run(
            flavor, server.base_url, lambda service: service.create_image(prompt), **settings
        )
        return result

    def test_sends_request_as_is(self, flavor: str, caplog: pytest.LogCaptureFixture) -> None:
        """Sends the request as it is and adds nothing that changes its meaning."""
        caplog.set_level(logging.DEBUG)
        with WireServer(reply(200, answer(png(1)))) as server:
            result = self.create(flavor, server)
        (line,) = server.lines
        assert line.request_line == "POST /v1/images/generations HTTP/1.1"
        assert line.body == b'{"prompt":"a fox"}'
        assert line.headers["authorization"] == f"Bearer {canary.KEY}"
        assert line.headers["content-type"] == "application/json"
        assert line.headers["content-length"] == str(len(line.body))
        assert line.headers["accept-encoding"] == "identity"
        assert line.headers["host"] == f"127.0.0.1:{server.port}"
        assert "transfer-encoding" not in line.headers
        assert result[0].data == png(1)
        assert result.meta.request_id == "req_test"
        assert canary.find_secret(result, repr(result.meta), records=caplog.records) == []

    def test_lower_cases_response_headers(self, flavor: str) -> None:
        """Returns response headers by lower-case name."""
        body = json.dumps(answer()).encode()
        response = head(200, {"X-Request-ID": "req_9", "Content-Length": str(len(body))}) + body
        with WireServer(raw(response)) as server:
            assert self.create(flavor, server).meta.request_id == "req_9"

    @pytest.mark.parametrize("fault", FAULTS)
    def test_maps_faults_to_errors(self, flavor: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
        """Maps a fault to its error class after exactly one POST, and hides the key."""
        caplog.set_level(logging.DEBUG)
        script, expected = FAULTS[fault]
        with WireServer(script) as server:
            with pytest.raises(imgkit.ImgkitError) as caught:
                self.create(flavor, server)
            assert isinstance(caught.value, expected), f"{type(caught.value).__name__}: {caught.value}"
            assert (server.posts, server.accepted) == (1, 1)
            server.assert_consumed()
        assert canary.find_secret(caught.value, records=caplog.records) == []

    @pytest.mark.parametrize("slow", SLOW)
    def test_total_deadline(self, flavor: str, slow: str) -> None:
        """Ends a slow call at its total deadline, at any stage."""
        began = time.monotonic()
        with WireServer(SLOW[slow]) as server:
            with pytest.raises(UNKNOWN):
                self.create(flavor, server, timeout_s=0.3)
            assert time.monotonic() - began < 4
            assert server.posts == 1

    def test_read_timeout(self, flavor: str) -> None:
        """Ends a silent call at its read timeout, before its deadline."""
        began = time.monotonic()
        with WireServer(hang) as server, pytest.raises(UNKNOWN):
            self.create(flavor, server, read_timeout_s=0.2)
        assert time.monotonic() - began < 4

    def test_refused_connection_raises_not_sent_error(self, flavor: str) -> None:
        """Reports a refused connection as not sent."""
        self.require("unsent")
        with WireServer(drop) as server:
            pass
        with pytest.raises(imgkit.NotSentError):
            self.create(flavor, server)

    def test_unknown_host_raises_not_sent_error(self, flavor: str) -> None:
        """Reports an unknown host as not sent."""
        self.require("unsent")
        with pytest.raises(imgkit.NotSentError):
            self.run(flavor, "https://nowhere.invalid/v1", lambda service: service.create_image("a fox"))

    def test_stays_sent(self, flavor: str) -> None:
        """Never reports a request as unsent after it was sent, even if a second connection fails."""
        self.require("unsent")
        with WireServer(drop) as gone:
            pass
        poll = HttpRequest("GET", f"{gone.base_url}/jobs/1", {})
        polling = poll_after_send(self.backend(BackendOptions()), poll)
        with WireServer(reply(202, b"")) as server:
            with pytest.raises(UNKNOWN):
                self.create(flavor, server, backend=polling, retry=True)
            assert server.posts == 1

    def test_follows_no_redirect(self, flavor: str) -> None:
        """Follows no redirect with a paid request and its key."""
        with WireServer(reply(200, answer())) as other:
            redirect = reply(308, b"", location=f"{other.base_url}/images/generations")
            with WireServer(redirect) as server, pytest.raises(imgkit.RedirectRefusedError):
                self.create(flavor, server)
            assert other.accepted == 0

    def test_sends_urls_byte_for_byte(self, flavor: str, tmp_path: Path) -> None:
        """Sends path and query of every URL byte for byte: signed URLs are valid in one spelling only."""
        path, query = "/a%3Ab/%2fx//c/../d/./%7e%41", "?sig=%2b+%2F/..//x&y=%c3%bc~"

        def echo(line: Line) -> None:
            if line.request_line.startswith("POST"):
                reply(200, {"created": 1, "data": [{"url": path + query}]})(line)
            elif len(server.lines) == 2:
                reply(302, b"", location=f"/to{path}{query}")(line)
            else:
                reply(200, png(1), content_type="image/png")(line)

        with WireServer(echo) as server:
            call = lambda service: service.create_image("a fox", save_to=tmp_path)  # noqa: E731
            self.run(flavor, server.origin + path, call)
        assert [line.request_line.split(" ")[1] for line in server.lines] == [
            f"{path}/images/generations",
            f"{path}{query}",
            f"/to{path}{query}",
        ]

    def test_stores_no_cookies(self, flavor: str) -> None:
        """Returns no cookie to the server."""
        with WireServer(reply(200, answer(), set_cookie="a=b; Path=/")) as server:
            call = lambda service: service.create_image("a fox")  # noqa: E731
            self.run(flavor, server.base_url, call, call)
            assert ["cookie" in line.headers for line in server.lines] == [False, False]

    def test_ignores_the_environment(
        self, flavor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Ignores proxies, passwords and certificates of the environment."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login u password p\n")
        netrc.chmod(0o600)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name, value in (("NETRC", str(netrc)), ("SSL_CERT_FILE", "/nonexistent"), ("NO_PROXY", "")):
            monkeypatch.setenv(name, value)
        with WireServer(reply(200, answer())) as server:
            self.create(flavor, server)
        assert server.lines[0].headers["authorization"] == f"Bearer {canary.KEY}"

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
        assert int(line.headers["content-length"]) == len(line.body)
        assert "transfer-encoding" not in line.headers
        assert image in line.body
        assert result[0].data == image

    def test_yields_each_chunk_at_once(self, flavor: str) -> None:
        """Returns a chunk when it arrives, without waiting for more data."""
        body = json.dumps(answer()).encode()
        received = threading.Event()

        class WatchesEvents:
            @imgkit.hookimpl
            def imgkit_on_event(self, event: Any) -> None:
                if getattr(event, "received_bytes", 0) >= 1:
                    received.set()

        def script(line: Line) -> None:
            line.send(head(200, {**HEADERS, "content-length": str(len(body))}) + body[:10])
            assert received.wait(5)
            line.send(body[10:])

        with WireServer(script) as server:
            assert self.create(flavor, server, plugins=[WatchesEvents()])[0].data == png()

    def test_concurrent_calls(self, flavor: str) -> None:
        """Keeps sixteen concurrent calls apart."""

        def script(line: Line) -> None:
            seed = int(json.loads(line.body)["prompt"])
            reply(200, answer(png(seed)))(line)

        with WireServer(script) as server:
            arguments = {
                "backend": self.backend(BackendOptions()),
                "base_url": server.base_url,
                "retry": False,
            }
            if flavor == "sync":
                result: dict[int, bytes] = {}
                with imgkit.ImageService(**cast(Any, arguments)) as service:
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
                async with imgkit.AsyncImageService(**cast(Any, arguments)) as service:
                    calls = [service.create_image(str(n)) for n in range(16)]
                    return [response[0].data for response in await asyncio.gather(*calls)]

            assert asyncio.run(main()) == [png(n) for n in range(16)]

    def test_cancelled_task_disconnects(self) -> None:
        """Disconnects at once when its task is cancelled."""
        disconnected = threading.Event()

        def script(line: Line) -> None:
            line.until_client_leaves()
            disconnected.set()

        async def main(server: WireServer) -> None:
            backend = self.backend(BackendOptions())
            async with imgkit.AsyncImageService(backend, base_url=server.base_url, retry=False) as service:
                task = asyncio.create_task(service.create_image("a fox"))
                while not server.lines:
                    await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while not disconnected.is_set():
                    await asyncio.sleep(0.005)

        with WireServer(script) as server:
            asyncio.run(asyncio.wait_for(main(server), 10))

    def test_connection_reuse(self, flavor: str) -> None:
        """Opens a connection per request unless connections are reused."""

        def serve_repeatedly(line: Line) -> None:
            body = json.dumps(answer()).encode()
            while True:
                line.send(head(200, {"content-length": str(len(body))}) + body)
                if not line.read_request():
                    return

        call = lambda service: service.create_image("a fox")  # noqa: E731
        with WireServer(serve_repeatedly) as server:
            self.run(flavor, server.base_url, call, call)
            assert server.accepted == 2
        if "reuse" in self.capabilities:
            with WireServer(serve_repeatedly) as server:
                self.run(flavor, server.base_url, call, call, options=BackendOptions(reuse_connections=True))
                assert server.accepted == 1

    def test_uses_proxy(self, flavor: str) -> None:
        """Sends the request to a given proxy, in absolute form."""
        self.require("proxy")
        with WireServer(reply(200, answer())) as proxy:
            options = BackendOptions(proxy=proxy.origin)
            self.run(flavor, "http://127.0.0.1:1/v1", lambda s: s.create_image("a fox"), options=options)
        assert proxy.lines[0].request_line == "POST http://127.0.0.1:1/v1/images/generations HTTP/1.1"

    def test_reads_early_refusal(self, flavor: str) -> None:
        """Reads a refusal that arrives during the upload, and stops the upload."""
        self.require("early refusal")

        def refuse(line: Line) -> None:
            line.connection.recv(1000)
            reply(401, {"error": {"message": "no", "code": "invalid_api_key"}})(line)
            line.until_client_leaves()

        with WireServer(refuse, read_first=False) as server, pytest.raises(imgkit.AuthenticationError):
            self.run(flavor, server.base_url, lambda s: s.create_image_edit(png(3, 1700), "x"), timeout_s=30)

    def test_close_is_idempotent(self, flavor: str) -> None:
        """Closes twice without an error, also if it was never used."""
        backend = self.backend(BackendOptions())
        for _ in range(2):
            if hasattr(backend, "aclose"):
                asyncio.run(backend.aclose())
            else:
                backend.close()

    def test_rejects_unknown_options(self) -> None:
        """Rejects an unknown option by name."""
        with pytest.raises(imgkit.ConfigurationError, match="no_such_option"):
            self.backend(BackendOptions(client_options={"no_such_option": 1}))
