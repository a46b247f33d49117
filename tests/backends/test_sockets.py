"""The helpers for authors of backends: TLS contexts and the password of a proxy."""

from __future__ import annotations

import asyncio
import base64
import gc
import shutil
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.backends import proxy_authorization, tls_context
from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing.backend_tls import CA_HASH
from imgkit.testing.wire_server import CA_FILE
from imgkit.wire.messages import BackendOptions, HttpRequest
from imgkit.wire.transfer import DriverTransfer


def test_a_file_is_the_only_authority() -> None:
    """A context of a PEM file verifies certificates and names, and trusts this file alone."""
    context = tls_context(CA_FILE)
    (authority,) = context.get_ca_certs()
    assert authority["subject"] == ((("commonName", "imgkit test authority"),),)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls_context(str(CA_FILE)) is context


def test_a_context_is_returned_unchanged() -> None:
    """A caller's context may do without verification; that is the caller's choice."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname = False
    own.verify_mode = ssl.CERT_NONE
    assert tls_context(own) is own
    assert own.verify_mode == ssl.CERT_NONE


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable adds an authority, and none makes a file of TLS secrets."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    for context in (tls_context(None), tls_context(shutil.copy(CA_FILE, tmp_path / "ca.pem"))):
        assert not context.keylog_filename
    assert b"imgkit test authority" not in b"".join(tls_context(None).get_ca_certs(binary_form=True))
    assert tls_context(None).get_ca_certs()


def test_a_folder_needs_hashed_names(tmp_path: Path) -> None:
    """OpenSSL ignores other names in a folder, so that each connection would fail."""
    shutil.copy(CA_FILE, tmp_path / "ca.pem")
    with pytest.raises(imgkit.ConfigurationError, match="a folder prepared by openssl rehash"):
        tls_context(tmp_path)
    shutil.copy(CA_FILE, tmp_path / f"{CA_HASH}.0")
    assert tls_context(tmp_path).verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "login"),
    [
        (None, None),
        ("http://proxy.example:3128", None),
        ("http://ann:p%40ss@proxy.example", "ann:p@ss"),
        ("http://ann@proxy.example", "ann:"),
        ("http://:tok%C3%A9n@proxy.example", ":tokén"),
    ],
)
def test_the_password_of_a_proxy(url: str | None, login: str | None) -> None:
    """Unquotes name and password, and encodes them in UTF-8."""
    header = proxy_authorization(url).get("proxy-authorization")
    assert (header and base64.b64decode(header.removeprefix("Basic ")).decode()) == login


@pytest.mark.parametrize("cause", [TimeoutError("aborted"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("kind", [RequestsBackend, PlainHttpBackend, AiohttpBackend])
def test_closes_the_socket_of_an_interrupted_connect(
    kind: Any, cause: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closes the socket that it has just opened if the call is aborted or interrupted meanwhile."""
    backend = kind(BackendOptions())
    transfer = DriverTransfer(5, 5, 5)

    def interrupt(sock: socket.socket) -> None:
        raise cause

    monkeypatch.setattr(transfer, "watch_socket", interrupt)
    request = HttpRequest("GET", "http://127.0.0.1:9/")

    async def open_and_close() -> None:
        try:
            await backend.open(request, transfer)
        finally:
            await backend.aclose()

    with warnings.catch_warnings(record=True) as problems:
        warnings.simplefilter("always")
        with pytest.raises((KeyboardInterrupt, *kind.wire_errors)):
            asyncio.run(open_and_close()) if kind is AiohttpBackend else backend.open(request, transfer)
        cause.__traceback__ = None
        gc.collect()
    assert problems == []
