"""The part of a backend's contract about proxies."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from imgkit.testing import canary
from imgkit.testing.backend_harness import BackendHarness, call_once
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import CA_FILE, WireServer, drop, reply, tunnel
from imgkit.wire.messages import BackendOptions

OK = reply(200, answer())
PASSWORD = "p:ss/CANARY-word"
CREDENTIALS = "us%40er:p%3Ass%2FCANARY-word"
"""A name and the password, quoted as they stand in the URL of a proxy."""

BASIC = "Basic " + base64.b64encode(f"us@er:{PASSWORD}".encode()).decode()


class BackendProxyTests(BackendHarness):
    """The tests of the capabilities "proxy" and "https proxy"."""

    def test_uses_proxy(self, flavor: str) -> None:
        """Sends a request to a given proxy in absolute form, byte for byte."""
        self.require("proxy")
        path = "/a%3Ab/%2fx//c/../d/./%7e%41"
        with WireServer(OK) as proxy:
            self.run(
                flavor, f"http://127.0.0.1:1{path}", call_once, options=BackendOptions(proxy=proxy.origin)
            )
        (line,) = proxy.lines
        assert line.request_line == f"POST http://127.0.0.1:1{path}/images/generations HTTP/1.1"
        assert line.headers["host"] == "127.0.0.1:1"
        assert line.body == b'{"prompt":"a fox"}'

    def test_tunnels_through_proxy(self, flavor: str) -> None:
        """Tunnels TLS through a proxy, which sees the host, but neither key nor path."""
        self.require("proxy", "ca")
        with WireServer(tunnel) as proxy, WireServer(OK, tls=True) as server:
            self.create(flavor, server, options=BackendOptions(proxy=proxy.origin, ca=CA_FILE))
        assert proxy.lines[0].request_line.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.")
        assert canary.find_secret(proxy.lines[0].head) == [], "The proxy sees the key."
        assert server.lines[0].request_line == "POST /v1/images/generations HTTP/1.1"
        assert server.lines[0].headers["authorization"] == f"Bearer {canary.KEY}"

    def test_verifies_server_behind_proxy(self, flavor: str) -> None:
        """Refuses the certificate of an unknown authority behind a proxy, too."""
        self.require("proxy")
        with WireServer(tunnel) as proxy, WireServer(OK, tls=True) as server:
            self.fail(flavor, server.base_url, options=BackendOptions(proxy=proxy.origin))
            assert (proxy.accepted, server.posts) == (1, 0)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_sends_proxy_password_to_proxy_alone(self, flavor: str, scheme: str) -> None:
        """Sends the unquoted name and password of the proxy's URL to the proxy, and to nobody else."""
        self.require("proxy", "ca")
        is_https = scheme == "https"
        with WireServer(tunnel if is_https else OK) as proxy, WireServer(OK, tls=is_https) as server:
            url = proxy.origin.replace("//", f"//{CREDENTIALS}@")
            self.create(flavor, server, options=BackendOptions(proxy=url, ca=CA_FILE))
        sent = proxy.lines[0].headers.get("proxy-authorization")
        assert sent == BASIC, f"Proxy-Authorization is {sent!r}, not {BASIC!r}: unquote name and password."
        for line in server.lines:
            assert "proxy-authorization" not in line.headers, "The server sees the password of the proxy."
            assert canary.find_secret(line.head, secret=PASSWORD) == []
        assert len(server.lines) == is_https

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_never_bypasses_proxy(self, flavor: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fails without its proxy, though the server is up and ``NO_PROXY`` names it."""
        self.require("proxy")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        with WireServer(OK, tls=scheme == "https") as server:
            with WireServer(drop) as proxy:
                pass  # its port differs from that of the server, and is closed now
            url = proxy.origin.replace("//", f"//{CREDENTIALS}@")
            error = self.fail(flavor, server.base_url, options=BackendOptions(proxy=url))
            assert server.accepted == 0, "The backend connects without its proxy."
        assert canary.find_secret(error, secret=PASSWORD) == [], "The error contains the password."

    def test_reports_refusing_proxy(self, flavor: str) -> None:
        """Reports a proxy that refuses the tunnel as not sent, and shows no password."""
        self.require("proxy")
        with WireServer(reply(407, b"")) as proxy, WireServer(OK, tls=True) as server:
            url = proxy.origin.replace("//", f"//{CREDENTIALS}@")
            error = self.fail(flavor, server.base_url, options=BackendOptions(proxy=url))
            assert (proxy.accepted, server.accepted) == (1, 0)
        assert canary.find_secret(error, secret=PASSWORD) == [], "The error contains the password."

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_uses_https_proxy(self, flavor: str, scheme: str) -> None:
        """Reaches a proxy over TLS, and verifies it with the given authority."""
        self.require("https proxy", "ca")
        is_https = scheme == "https"
        proxy_script: Any = tunnel if is_https else OK
        with WireServer(proxy_script, tls=True) as proxy, WireServer(OK, tls=is_https) as server:
            url = proxy.origin.replace("//", f"//{CREDENTIALS}@")
            self.create(flavor, server, options=BackendOptions(proxy=url, ca=CA_FILE))
        assert proxy.lines[0].headers.get("proxy-authorization") == BASIC
        assert len(server.lines) == is_https

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_verifies_https_proxy(self, flavor: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sends nothing to a proxy of an unknown authority, even if a variable trusts it."""
        self.require("https proxy")
        monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
        with WireServer(OK, tls=True) as proxy:
            options = BackendOptions(proxy=proxy.origin)
            self.fail(flavor, f"{scheme}://127.0.0.1:1/v1", options=options)
            assert proxy.lines == [], "The backend trusts the certificate of the proxy."
