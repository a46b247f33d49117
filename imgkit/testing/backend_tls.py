"""The part of a backend's contract about TLS and the environment."""

from __future__ import annotations

import shutil
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.testing import canary
from imgkit.testing.backend_harness import MAX_DELAY_S, BackendHarness, call_once
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import CA_FILE, WireServer, hang, reply, server_tls
from imgkit.wire.capabilities import CAPABILITIES
from imgkit.wire.messages import BackendOptions

CA_HASH = "a6bd0e79"
"""Hash of the authority's name: OpenSSL looks for this file name in a folder of certificates."""

OK = reply(200, answer())


class BackendTlsTests(BackendHarness):
    """The tests about certificates, and about variables and files of the environment."""

    @pytest.mark.parametrize("form", ["file", "folder", "context"])
    def test_trusts_ca(self, flavor: str, form: str, tmp_path: Path) -> None:
        """Trusts a given authority: a PEM file, a folder of certificates, or an `ssl.SSLContext`."""
        self.require("ca")
        ca: Any = str(CA_FILE) if form == "file" else tmp_path
        if form == "folder":
            shutil.copy(CA_FILE, tmp_path / f"{CA_HASH}.0")
        elif form == "context":
            ca = ssl.create_default_context(cafile=CA_FILE)
        with WireServer(OK, tls=True) as server:
            self.create(flavor, server, options=BackendOptions(ca=ca))
            assert server.posts == 1

    def test_refuses_unknown_authority(self, flavor: str) -> None:
        """Sends nothing to a server whose certificate no trusted authority has signed. That is permanent."""
        with WireServer(OK, tls=True) as server:
            error = self.fail(flavor, server.base_url)
            assert server.posts == 0
        assert getattr(error, "permanent", True), "A retry cannot help, but the error is not permanent."

    def test_trusts_ca_alone(self, flavor: str) -> None:
        """Trusts the authorities of a given context alone: an empty context trusts nobody."""
        self.require("ca")
        empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with WireServer(OK, tls=True) as server:
            self.fail(flavor, server.base_url, options=BackendOptions(ca=empty))
            assert server.posts == 0

    def test_refuses_certificate_of_another_host(self, flavor: str) -> None:
        """Sends nothing to a server whose certificate names another host. That is permanent."""
        self.require("ca")
        with WireServer(OK, tls=server_tls("elsewhere")) as server:
            error = self.fail(flavor, server.base_url, options=BackendOptions(ca=CA_FILE))
            assert server.posts == 0
        assert getattr(error, "permanent", True), "A retry cannot help, but the error is not permanent."

    def test_uses_context_as_it_is(self, flavor: str) -> None:
        """Accepts a certificate for another name if the caller's context does not check names."""
        self.require("ca")
        context = ssl.create_default_context(cafile=CA_FILE)
        context.check_hostname = False
        with WireServer(OK, tls=server_tls("elsewhere")) as server:
            self.create(flavor, server, options=BackendOptions(ca=context))

    def test_limits_tls_handshake(self, flavor: str) -> None:
        """Counts the TLS handshake as a part of connecting."""
        self.require("connect timeout")
        began = time.monotonic()
        with WireServer(hang, read_first=False) as server:
            self.fail(flavor, server.base_url.replace("http:", "https:"), connect_timeout_s=0.2)
        assert time.monotonic() - began < MAX_DELAY_S, "The handshake is not limited by the connect timeout."

    def test_ignores_certificates_of_environment(
        self, flavor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Trusts no authority of a variable, needs none, and writes no TLS secrets to a file."""
        shutil.copy(CA_FILE, tmp_path / f"{CA_HASH}.0")
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(CA_FILE))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
        with WireServer(OK, tls=True) as server:
            self.fail(flavor, server.base_url)
            assert server.posts == 0
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, "/nonexistent")
        if self.can("ca"):
            with WireServer(OK, tls=True) as server:
                self.create(flavor, server, options=BackendOptions(ca=CA_FILE))
        assert not (tmp_path / "secrets").exists(), "The backend writes TLS secrets to SSLKEYLOGFILE."

    def test_ignores_proxy_of_environment(self, flavor: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connects directly whatever proxy the environment names: imgkit reads those variables itself."""
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
            monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        with WireServer(OK) as server:
            try:
                self.create(flavor, server)
            except imgkit.TransportError as error:
                raise AssertionError("The backend uses a proxy that nobody gave it.") from error

    @pytest.mark.parametrize("key", [canary.KEY, None], ids=["key", "no key"])
    def test_ignores_netrc(
        self, flavor: str, key: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Sends the key of the request, or none, but never a password of a netrc file."""
        for name in (".netrc", "_netrc", "netrc"):
            (tmp_path / name).write_text("machine 127.0.0.1 login u password p\ndefault login u password p\n")
            (tmp_path / name).chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with WireServer(OK) as server:
            self.create(flavor, server, api_key=key)
        expected = None if key is None else f"Bearer {key}"
        sent = server.lines[0].headers.get("authorization")
        assert sent == expected, f"Authorization is {sent!r}, not {expected!r}. Do not read netrc files."

    def test_stores_no_cookies(self, flavor: str) -> None:
        """Returns no cookie to the server."""
        with WireServer(reply(200, answer(), set_cookie="a=b; Path=/")) as server:
            self.run(flavor, server.base_url, call_once, call_once)
            assert not any("cookie" in line.headers for line in server.lines), "Store no cookies."

    def test_declares_known_capabilities(self) -> None:
        """Declares capabilities that imgkit knows: a set of names, no single text."""
        unknown = self.declared_capabilities() - CAPABILITIES.keys()
        assert not unknown, f"imgkit.backends.CAPABILITIES does not have {sorted(unknown)}."
