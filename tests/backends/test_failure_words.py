"""Failed connections: the same words on every backend, and a remedy for each cause."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import imgkit
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.testing.wire_server import CA_FILE, drop, hang, raw, reset, server_tls
from imgkit.wire.failures import Route, explain_failure
from imgkit.wire.messages import BackendOptions
from tests.support.wire_server import WireServer

UNSENT = "Could not connect. Nothing was sent, so nothing was billed. "
UNKNOWN = "The outcome is unknown. "


def find_dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        return int(dead.getsockname()[1])


class Case(NamedTuple):
    """A failure and its words.

    Attributes:
        server: returns a server, None if nothing listens.
        reason: the cause; ``HOST`` stands for host and port of the server.
        hint: the remedy, "" if the outcome is unknown.
        scheme: scheme of base_url.
        options: arguments of the service.
    """

    server: Callable[[], WireServer] | None
    reason: str
    hint: str = ""
    scheme: str = "http"
    options: dict[str, Any] = {}


CLOSED = "HOST closed the connection before its reply was complete."
INVALID = "The reply of HOST is not valid HTTP."
OK = "HTTP/1.1 200 OK\r\n"
CASES: dict[str, Case] = {
    "refused": Case(None, "Nothing listens at HOST.", "Is the server running? Check base_url."),
    "refused with TLS": Case(
        None, "Nothing listens at HOST.", "Is the server running? Check base_url.", "https"
    ),
    "plain text at a TLS port": Case(
        lambda: WireServer(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_first=False),
        "TLS with HOST failed: it does not speak TLS.",
        "Check base_url: http:// in place of https://, or another port?",
        "https",
    ),
    "hung up on the handshake": Case(
        lambda: WireServer(drop, read_first=False),
        "HOST closed the connection at once.",
        "Check base_url: its scheme, host and port.",
        "https",
    ),
    "unknown authority": Case(
        lambda: WireServer(drop, tls=True),
        "The certificate of HOST is not trusted: unable to get local issuer certificate.",
        "If you trust its authority, pass ca=… with the authority's certificate.",
        "https",
    ),
    "another name": Case(
        lambda: WireServer(drop, tls=server_tls("elsewhere")),
        "The certificate of HOST is not trusted: IP address mismatch, certificate is not valid for "
        "'127.0.0.1'.",
        "Check base_url: the certificate belongs to another name.",
        "https",
        {"ca": CA_FILE},
    ),
    "no handshake": Case(
        lambda: WireServer(hang, read_first=False),
        "HOST accepted no connection within 0.05 s.",
        "Check base_url and your network connection.",
        "https",
        {"connect_timeout_s": 0.05},
    ),
    "closed": Case(lambda: WireServer(drop), CLOSED),
    "reset": Case(lambda: WireServer(reset), CLOSED),
    "cut": Case(lambda: WireServer(raw(f"{OK}Content-Length: 54\r\n\r\n{{".encode())), CLOSED),
    "cut chunk": Case(
        lambda: WireServer(raw(f"{OK}Transfer-Encoding: chunked\r\n\r\n14\r\n{{".encode())), CLOSED
    ),
    "no HTTP": Case(lambda: WireServer(raw(b"HELLO\r\n\r\n")), INVALID),
    "silent": Case(lambda: WireServer(hang), "HOST was silent for 0.05 s.", options={"read_timeout_s": 0.05}),
    "deadline": Case(
        lambda: WireServer(hang), "No complete reply arrived within 0.1 s.", options={"timeout_s": 0.1}
    ),
}  # fmt: skip


def fail(flavor: Any, backend: Any, base_url: str, **options: Any) -> Any:
    """Return the error of one call."""
    with pytest.raises(imgkit.TransportError) as caught:
        flavor.run(
            lambda images: images.create_image("a fox"),
            backend,
            base_url=base_url,
            **{"api_key": "sk-example-1234", "retry": False, "timeout_s": 10, **options},
        )
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_the_same_words_on_every_backend(flavor: Any, name: str) -> None:
    """Says problem, cause and remedy in the same words with requests, aiohttp and http.client."""
    case = CASES[name]
    connection = {key: value for key, value in case.options.items() if key == "ca"}
    for backend in ("requests", "aiohttp", PlainHttpBackend(BackendOptions(**connection))):
        options = case.options if isinstance(backend, str) else {**case.options, "ca": None}
        server = case.server() if case.server is not None else None
        port = find_dead_port() if server is None else server.port
        try:
            error = fail(flavor, backend, f"{case.scheme}://127.0.0.1:{port}/v1", **options)
        finally:
            if server is not None:
                server.close()
        reason = case.reason.replace("HOST", f"127.0.0.1:{port}")
        assert error.reason == reason
        if case.hint:
            assert str(error) == f"{UNSENT}{reason} {case.hint}"
            assert error.problem == f"{UNSENT}{reason}"
        else:
            assert str(error).startswith(f"{UNKNOWN}{reason} The API may have received the request")
        assert pickle.loads(pickle.dumps(error)).reason == reason


PROXIES: list[tuple[bytes, str, str]] = [
    (b"", "Nothing listens at the proxy PROXY.", "Is the proxy running? Check its address."),
    (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "The proxy PROXY refuses to connect to api.example:443: 407 Proxy Authentication Required.",
        "Put name and password into the URL of the proxy: http://NAME:PASSWORD@HOST:PORT.",
    ),
    (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "The proxy PROXY refuses to connect to api.example:443: 403 Forbidden.",
        "Ask its owner, or use another proxy.",
    ),
]


@pytest.mark.parametrize(("answer", "reason", "hint"), PROXIES)
def test_proxies_that_refuse(flavor: Any, http_backend: str, answer: bytes, reason: str, hint: str) -> None:
    """Names the proxy as the cause, without its password."""
    with WireServer(raw(answer) if answer else drop) as server:
        port = server.port if answer else find_dead_port()
        proxy = f"http://ann:CANARY-password@127.0.0.1:{port}"
        error = fail(flavor, http_backend, "https://api.example/v1", proxy=proxy)
    assert str(error) == f"{UNSENT}{reason.replace('PROXY', f'127.0.0.1:{port}')} {hint}"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "The host name api.example is unknown."),
        (
            socket.gaierror(socket.EAI_AGAIN, "x"),
            "The name server gives no answer about the host api.example.",
        ),
        (UnicodeError("x"), "The host name api.example is not valid."),
        (OSError(101, "x"), "No network leads to api.example:443."),
        (RuntimeError("odd."), "RuntimeError: odd."),
    ],
)
def test_further_causes(cause: Exception, reason: str) -> None:
    """Explains failures that a test cannot cause, also within other exceptions."""
    route = Route("https://api.example/v1?sig=CANARY")
    assert explain_failure(cause, route, unsent=True).reason == reason
    wrapped = ValueError("wrapped", cause)
    if not isinstance(cause, RuntimeError):
        assert explain_failure(wrapped, route, unsent=True).reason == reason


@pytest.mark.parametrize("backend", ["requests", "aiohttp", PlainHttpBackend(BackendOptions())])
def test_an_unknown_host(flavor: Any, backend: Any) -> None:
    """Names the unknown host, and base_url."""
    error = fail(flavor, backend, "https://nowhere.invalid/v1")
    assert "nowhere.invalid" in str(error)
    assert "base_url" in str(error)
