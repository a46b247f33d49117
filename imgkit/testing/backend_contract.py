"""The contract of a backend (`imgkit.backends.Backend` or `imgkit.backends.AsyncBackend`)."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

import imgkit
from imgkit.testing import canary
from imgkit.testing.backend_connections import BackendConnectionTests
from imgkit.testing.backend_proxies import BackendProxyTests
from imgkit.testing.backend_tls import BackendTlsTests
from imgkit.testing.samples import answer, png, poll_after_send
from imgkit.testing.wire_faults import FAULTS, UNKNOWN
from imgkit.testing.wire_server import Line, WireServer, drop, head, raw, reply
from imgkit.wire.messages import BackendOptions, BytesBody, HttpRequest


class BackendContract(BackendTlsTests, BackendProxyTests, BackendConnectionTests):
    """The tests that every backend must pass, under `ImageService` and under `AsyncImageService`.

    Override `backend`::

        class TestMyBackend(BackendContract):
            def backend(self, options):
                return MyBackend(options)

    The class of the backend declares its ``capabilities``, such as ``frozenset({"ca", "unsent"})``. The
    contract skips the tests of the others. `imgkit.backends.CAPABILITIES` explains each.
    """

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
        places = canary.find_secret(result, repr(result.meta), records=caplog.records)
        assert places == [], f"The key is in {', '.join(places)}."

    @pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
    def test_sends_every_method(self, method: Literal["PUT", "GET", "DELETE"]) -> None:
        """Sends the method of a request as it is, once, and a body only with POST and PUT."""
        body = BytesBody(b"pixels", "image/png")
        with WireServer(reply(200, b"{}"), drop) as server:
            request = HttpRequest(method, f"{server.origin}/uploads/1", {}, body)
            assert self.send(request) == b"{}"
            with pytest.raises(self.backend(BackendOptions()).wire_errors):
                self.send(request)
            assert server.accepted == 2, f"Two {method} are sent {server.accepted} times."
        for line in server.lines:
            assert line.request_line == f"{method} /uploads/1 HTTP/1.1"
            sent = line.headers.get("content-length", "0"), line.headers.get("content-type"), line.body
            expected = ("6", "image/png", b"pixels") if method == "PUT" else ("0", None, b"")
            assert sent == expected, f"The body of {method} is {sent}."
            assert "transfer-encoding" not in line.headers

    def test_lower_cases_response_headers(self, flavor: str) -> None:
        """Returns response headers by lower-case name."""
        body = json.dumps(answer()).encode()
        response = head(200, {"X-Request-ID": "req_9", "Content-Length": str(len(body))}) + body
        with WireServer(raw(response)) as server:
            request_id = self.create(flavor, server).meta.request_id
        assert request_id == "req_9", "Header names must be in lower case."

    @pytest.mark.parametrize("fault", FAULTS)
    def test_maps_faults_to_errors(self, flavor: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
        """Maps a fault to its error class after exactly one POST, and hides the key."""
        caplog.set_level(logging.DEBUG)
        script, expected = FAULTS[fault]
        with WireServer(script) as server:
            with pytest.raises(imgkit.ImgkitError) as caught:
                self.create(flavor, server)
            assert isinstance(caught.value, expected), f"{type(caught.value).__name__}: {caught.value}"
            assert (server.posts, server.accepted) == (1, 1), f"One call sends {server.posts} requests."
            server.assert_consumed()
        assert canary.find_secret(caught.value, records=caplog.records) == []

    def test_refused_connection_raises_not_sent_error(self, flavor: str) -> None:
        """Reports a refused connection as not sent."""
        self.require("unsent")
        with WireServer(drop) as server:
            pass
        self.fail(flavor, server.base_url)

    def test_unknown_host_raises_not_sent_error(self, flavor: str) -> None:
        """Reports an unknown host as not sent."""
        self.require("unsent")
        self.fail(flavor, "https://nowhere.invalid/v1")

    def test_stays_sent(self, flavor: str) -> None:
        """Never reports a request as unsent after it was sent, even if a second connection fails."""
        self.require("unsent")
        with WireServer(drop) as gone:
            pass
        poll = HttpRequest("GET", f"{gone.base_url}/jobs/1", {})
        polling = poll_after_send(self.backend(BackendOptions()), poll)
        with WireServer(reply(202, b"")) as server:
            with pytest.raises(imgkit.TransportError) as caught:
                self.create(flavor, server, backend=polling, retry=True)
            assert server.posts == 1, f"One call sends {server.posts} requests."
            assert isinstance(caught.value, UNKNOWN), "A request that was sent is reported as not sent."

    def test_follows_no_redirect(self, flavor: str) -> None:
        """Follows no redirect with a paid request and its key."""
        with WireServer(reply(200, answer())) as other:
            redirect = reply(308, b"", location=f"{other.base_url}/images/generations")
            with WireServer(redirect) as server, suppress(imgkit.RedirectRefusedError):
                self.create(flavor, server)
            assert other.accepted == 0, "The backend follows a redirect with the key."

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
            self.run(flavor, server.origin + path, lambda s: s.create_image("a fox", save_to=tmp_path))
        assert [line.request_line.split(" ")[1] for line in server.lines] == [
            f"{path}/images/generations",
            f"{path}{query}",
            f"/to{path}{query}",
        ]

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_decodes_content(self, flavor: str, encoding: str) -> None:
        """Decodes a reply that the server compresses, though the request asks for no encoding."""
        body = json.dumps(answer(png(1))).encode()
        encoded = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
        with WireServer(reply(200, encoded, content_encoding=encoding)) as server:
            assert self.create(flavor, server)[0].data == png(1)

    @pytest.mark.parametrize("size", [0.5, 0.99])
    def test_refuses_cut_encoding(self, flavor: str, size: float) -> None:
        """Never returns a part of a compressed reply as the whole."""
        encoded = gzip.compress(json.dumps(answer(png(1, 64))).encode())
        cut = reply(200, encoded[: int(size * len(encoded))], content_encoding="gzip")
        with WireServer(cut) as server, pytest.raises((UNKNOWN, imgkit.UnreadableReplyError)):
            self.create(flavor, server)

    def test_refuses_private_peers(self) -> None:
        """Connects to no server of this machine if the request asks for a public peer."""
        if not getattr(type(self.backend(BackendOptions())), "checks_peer", False):
            pytest.skip("The backend does not check its peers.")
        with WireServer(reply(200, b"")) as server:
            for host in ("127.0.0.1", "localhost"):
                request = HttpRequest("GET", f"http://{host}:{server.port}/", {}, public_peer_only=True)
                with pytest.raises(imgkit.DownloadBlockedError):
                    self.send(request)
            assert server.accepted == 0

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
