"""The contract of a backend: `imgkit.wire.messages.Backend` or `imgkit.wire.messages.AsyncBackend`."""

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
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, Script, WireServer, drip, drop, hang, head, raw, reply, reset
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions

_HEAD = {"content-type": "application/json", "x-request-id": "req_1", "connection": "close"}
_CHUNKED = {**_HEAD, "transfer-encoding": "chunked"}

UNKNOWN, API, UNREADABLE = imgkit.OutcomeUnknownError, imgkit.ApiError, imgkit.UnreadableReplyError

FAULTS: dict[str, tuple[Script, type[Exception] | tuple[type[Exception], ...]]] = {
    "closed after the request": (drop, UNKNOWN),
    "reset after the request": (reset, UNKNOWN),
    "half a status line": (raw(b"HTTP/1.1 20"), UNKNOWN),
    # Some libraries take half a head for a whole one: then nothing can be read. Both may have been billed.
    "half a head": (raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl"), (UNKNOWN, UNREADABLE)),
    "garbage": (raw(b"HELLO\r\n\r\n"), UNKNOWN),
    "half a body": (raw(head(200, {**_HEAD, "content-length": "100"}) + b'{"data'), UNKNOWN),
    "half a chunk": (raw(head(200, _CHUNKED) + b'20\r\n{"data'), UNKNOWN),
    "no last chunk": (raw(head(200, _CHUNKED) + b"2\r\n{}\r\n"), UNKNOWN),
    "cut without a length": (raw(head(200, _HEAD) + b'{"data"'), UNREADABLE),
    "empty body": (reply(200, b""), UNREADABLE),
    "gateway page": (reply(504, b"<html>Gateway</html>", content_type="text/html"), UNKNOWN),
    "key echoed": (
        reply(401, {"error": {"message": f"wrong: {canary.KEY}", "code": "invalid_api_key"}}),
        API,
    ),
    "failure of the API": (reply(500, {"error": {"message": "x", "code": "server_error"}}), API),
    "redirect": (reply(307, b"", location="https://elsewhere.invalid/v1"), API),
}
SLOW: dict[str, Script] = {
    "silence": hang,
    "the head drips": drip(head(200, {**_HEAD, "x-slow": "x" * 4000})),
    "the body drips": drip(b" " * 4000, head(200, {**_HEAD, "content-length": "4000"})),
}


class BackendContract:
    """What every backend does, under the blocking service and under the asynchronous one.

    Attributes:
        capabilities: what the backend can do beyond that; tests of others are skipped by their names:

            - "unsent": failures to connect are told apart from everything that follows,
            - "connect timeout": ``transfer.connect_timeout_s()`` bounds connecting,
            - "reuse": ``BackendOptions.reuse_connections`` keeps connections open,
            - "proxy": ``BackendOptions.proxy`` is used,
            - "early refusal": an answer that comes during an upload is read.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture(params=["sync", "async"])
    def flavor(self, request: pytest.FixtureRequest) -> str:
        """The colour of the service."""
        return str(request.param)

    def backend(self, options: BackendOptions) -> Backend | AsyncBackend:
        """Return a new backend."""
        raise NotImplementedError("a contract is told what to test")

    def needs(self, capability: str) -> None:
        """Skip a test whose capability is not declared."""
        if capability not in self.capabilities:
            pytest.skip(f"capability not declared: {capability}")

    def run(
        self,
        flavor: str,
        base_url: str,
        *calls: Callable[[Any], Any],
        options: BackendOptions | None = None,
        **settings: Any,
    ) -> list[Any]:
        """Make calls one after the other with one service; return what they return."""
        given = {
            "backend": self.backend(options or BackendOptions()), "base_url": base_url,
            "api_key": canary.KEY, "timeout_s": 10, "retry": False, **settings,
        }  # fmt: skip
        if flavor == "sync":
            with imgkit.ImageService(**given) as service:
                return [call(service) for call in calls]

        async def main() -> list[Any]:
            async with imgkit.AsyncImageService(**given) as service:
                return [await call(service) for call in calls]

        return asyncio.run(main())

    def create(self, flavor: str, server: WireServer, prompt: str = "a fox", **settings: Any) -> Any:
        """Make one call."""
        (made,) = self.run(flavor, server.base_url, lambda service: service.create_image(prompt), **settings)
        return made

    def test_a_call(self, flavor: str, caplog: pytest.LogCaptureFixture) -> None:
        """A request goes out as it is, and nothing is added that changes its meaning."""
        caplog.set_level(logging.DEBUG)
        with WireServer(reply(200, answer(png(1)))) as server:
            made = self.create(flavor, server)
        (line,) = server.lines
        assert line.request_line == "POST /v1/images/generations HTTP/1.1"
        assert line.body == b'{"prompt":"a fox"}'
        assert line.headers["authorization"] == f"Bearer {canary.KEY}"
        assert line.headers["content-type"] == "application/json"
        assert line.headers["content-length"] == str(len(line.body))
        assert line.headers["accept-encoding"] == "identity"
        assert line.headers["host"] == f"127.0.0.1:{server.port}"
        assert "transfer-encoding" not in line.headers
        assert made[0].data == png(1)
        assert made.meta.request_id == "req_test"
        assert canary.found_in(made, repr(made.meta), records=caplog.records) == []

    def test_headers_are_by_lower_case_name(self, flavor: str) -> None:
        """However the server writes them."""
        body = json.dumps(answer()).encode()
        whole = head(200, {"X-Request-ID": "req_9", "Content-Length": str(len(body))}) + body
        with WireServer(raw(whole)) as server:
            assert self.create(flavor, server).meta.request_id == "req_9"

    @pytest.mark.parametrize("fault", FAULTS)
    def test_faults(self, flavor: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
        """Each is the right class of error after exactly one POST, and shows no key."""
        caplog.set_level(logging.DEBUG)
        script, expected = FAULTS[fault]
        with WireServer(script) as server:
            with pytest.raises(imgkit.ImgkitError) as caught:
                self.create(flavor, server)
            assert isinstance(caught.value, expected), f"{type(caught.value).__name__}: {caught.value}"
            assert (server.posts, server.accepted) == (1, 1)
            server.assert_consumed()
        assert canary.found_in(caught.value, records=caplog.records) == []

    @pytest.mark.parametrize("slow", SLOW)
    def test_the_deadline(self, flavor: str, slow: str) -> None:
        """The total deadline ends a call at any stage, however slowly something still comes."""
        began = time.monotonic()
        with WireServer(SLOW[slow]) as server:
            with pytest.raises(UNKNOWN):
                self.create(flavor, server, timeout_s=0.3)
            assert time.monotonic() - began < 4
            assert server.posts == 1

    def test_the_read_timeout(self, flavor: str) -> None:
        """Silence ends a call long before its deadline."""
        began = time.monotonic()
        with WireServer(hang) as server, pytest.raises(UNKNOWN):
            self.create(flavor, server, read_timeout_s=0.2)
        assert time.monotonic() - began < 4

    def test_nobody_listens(self, flavor: str) -> None:
        """Nothing was sent, and that is known."""
        self.needs("unsent")
        with WireServer(drop) as server:
            pass
        with pytest.raises(imgkit.NotSentError):
            self.create(flavor, server)

    def test_a_name_that_does_not_exist(self, flavor: str) -> None:
        """Nothing was sent, and that is known."""
        self.needs("unsent")
        with pytest.raises(imgkit.NotSentError):
            self.run(flavor, "https://nowhere.invalid/v1", lambda service: service.create_image("a fox"))

    def test_no_redirects(self, flavor: str) -> None:
        """A paid request and its key follow none."""
        with WireServer(reply(200, answer())) as other:
            moved = reply(308, b"", location=f"{other.base_url}/images/generations")
            with WireServer(moved) as server, pytest.raises(imgkit.RedirectRefusedError):
                self.create(flavor, server)
            assert other.accepted == 0

    def test_no_cookies(self, flavor: str) -> None:
        """What a server wants to be remembered is forgotten."""
        with WireServer(reply(200, answer(), set_cookie="a=b; Path=/")) as server:
            call = lambda service: service.create_image("a fox")  # noqa: E731
            self.run(flavor, server.base_url, call, call)
            assert ["cookie" in line.headers for line in server.lines] == [False, False]

    def test_the_environment(self, flavor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its proxies, passwords and certificates change nothing."""
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

    def test_megabytes(self, flavor: str) -> None:
        """Large pictures go out with a known length, and come back byte for byte."""
        big = png(2, 1100)
        with WireServer(reply(200, answer(big))) as server:
            (made,) = self.run(
                flavor, server.base_url, lambda service: service.create_image_edit(big, "a hat"), timeout_s=30
            )
        (line,) = server.lines
        assert int(line.headers["content-length"]) == len(line.body)
        assert "transfer-encoding" not in line.headers
        assert big in line.body
        assert made[0].data == big

    def test_what_arrives_is_read(self, flavor: str) -> None:
        """A part of a reply is handed on when it comes, not when there is more of it."""
        body = json.dumps(answer()).encode()
        seen = threading.Event()

        class Sees:
            @imgkit.hookimpl
            def imgkit_on_event(self, event: Any) -> None:
                if getattr(event, "received_bytes", 0) >= 1:
                    seen.set()

        def script(line: Line) -> None:
            line.send(head(200, {**_HEAD, "content-length": str(len(body))}) + body[:10])
            assert seen.wait(5)
            line.send(body[10:])

        with WireServer(script) as server:
            assert self.create(flavor, server, plugins=[Sees()])[0].data == png()

    def test_many_at_once(self, flavor: str) -> None:
        """Calls at once do not mix."""

        def script(line: Line) -> None:
            number = int(json.loads(line.body)["prompt"])
            reply(200, answer(png(number)))(line)

        with WireServer(script) as server:
            given = {"backend": self.backend(BackendOptions()), "base_url": server.base_url, "retry": False}
            if flavor == "sync":
                made: dict[int, bytes] = {}
                with imgkit.ImageService(**cast(Any, given)) as service:
                    threads = [
                        threading.Thread(
                            target=lambda n=n: made.update({n: service.create_image(str(n))[0].data})
                        )
                        for n in range(16)
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join(30)
                assert made == {n: png(n) for n in range(16)}
                return

            async def main() -> list[bytes]:
                async with imgkit.AsyncImageService(**cast(Any, given)) as service:
                    calls = [service.create_image(str(n)) for n in range(16)]
                    return [one[0].data for one in await asyncio.gather(*calls)]

            assert asyncio.run(main()) == [png(n) for n in range(16)]

    def test_cancelling(self) -> None:
        """A cancelled task hangs up at once."""
        left = threading.Event()

        def script(line: Line) -> None:
            line.until_client_leaves()
            left.set()

        async def main(server: WireServer) -> None:
            backend = self.backend(BackendOptions())
            async with imgkit.AsyncImageService(backend, base_url=server.base_url, retry=False) as service:
                task = asyncio.create_task(service.create_image("a fox"))
                while not server.lines:
                    await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while not left.is_set():
                    await asyncio.sleep(0.005)

        with WireServer(script) as server:
            asyncio.run(asyncio.wait_for(main(server), 10))

    def test_connections(self, flavor: str) -> None:
        """Each request has a connection of its own, unless they are to be reused."""

        def keep(line: Line) -> None:
            body = json.dumps(answer()).encode()
            while True:
                line.send(head(200, {"content-length": str(len(body))}) + body)
                if not line.read_request():
                    return

        call = lambda service: service.create_image("a fox")  # noqa: E731
        with WireServer(keep) as server:
            self.run(flavor, server.base_url, call, call)
            assert server.accepted == 2
        if "reuse" in self.capabilities:
            with WireServer(keep) as server:
                self.run(flavor, server.base_url, call, call, options=BackendOptions(reuse_connections=True))
                assert server.accepted == 1

    def test_a_proxy(self, flavor: str) -> None:
        """One that is given gets the request, in absolute form."""
        self.needs("proxy")
        with WireServer(reply(200, answer())) as proxy:
            options = BackendOptions(proxy=proxy.origin)
            self.run(flavor, "http://127.0.0.1:1/v1", lambda s: s.create_image("a fox"), options=options)
        assert proxy.lines[0].request_line == "POST http://127.0.0.1:1/v1/images/generations HTTP/1.1"

    def test_an_early_refusal(self, flavor: str) -> None:
        """An answer in the midst of an upload counts, and the rest of the upload does not."""
        self.needs("early refusal")

        def refuse(line: Line) -> None:
            line.connection.recv(1000)
            reply(401, {"error": {"message": "no", "code": "invalid_api_key"}})(line)
            line.until_client_leaves()

        with WireServer(refuse, read_first=False) as server, pytest.raises(imgkit.AuthenticationError):
            self.run(flavor, server.base_url, lambda s: s.create_image_edit(png(3, 1700), "x"), timeout_s=30)

    def test_closing_twice(self, flavor: str) -> None:
        """Closing is idempotent, also of a backend that was never used."""
        backend = self.backend(BackendOptions())
        for _ in range(2):
            if hasattr(backend, "aclose"):
                asyncio.run(backend.aclose())
            else:
                backend.close()

    def test_unknown_options(self) -> None:
        """Options that it does not know are refused, and named."""
        with pytest.raises(imgkit.ConfigurationError, match="no_such_option"):
            self.backend(BackendOptions(client_options={"no_such_option": 1}))
