"""The borders of a server: hosts, pages and callers that it does not answer, and unknown addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgkit.errors import ConfigurationError
from imgkit.server import silent_clients
from imgkit.server.borders import Borders
from imgkit.server.envelopes import Rejection
from imgkit.server.settings import ServerSettings
from tests.support.pictures import answer
from tests.support.served import (
    GENERATIONS,
    SETTINGS,
    exchange,
    find_error,
    find_status,
    request_bytes,
    send,
    serve_before,
    serve_offline,
)
from tests.support.wire_server import reply

FOX = b'{"prompt": "a red fox", "size": "64x64"}'
TOKEN = "callers-token-0123"


def test_answers_only_its_own_hosts(tmp_path: Path) -> None:
    """Refuses each host that a page of a stranger could reach it under, with 421 and no body read."""
    with serve_offline(tmp_path, SETTINGS._replace(hosts=("images.example",))) as server:
        port = server.address.rpartition(":")[2]
        good = (
            f"127.0.0.1:{port}",
            f"LOCALHOST:{port}",
            f"[::1]:{port}",
            "images.example",
            "images.example:9",
        )
        bad = (
            *("evil.example", f"evil.example:{port}", f"localhost.:{port}", "127.0.0.1", "127.0.0.1:1"),
            *(f"127.1:{port}", f"0.0.0.0:{port}", f"localhost:{port}@evil", f"localhost:0{port}", "", ":"),
            *(f"127.0.0.1:{port}, evil", "\xff\xfe"),
        )
        for host in good:
            assert find_status(exchange(server, request_bytes("GET", "/status", host=host))) == 200, host
        for host in bad:
            got = exchange(server, request_bytes("POST", GENERATIONS, body=FOX, host=host))
            assert (find_status(got), find_error(got)["code"]) == (421, "invalid_host"), host
            assert b"x-should-retry: false" in got
        for target, status in ((f"http://localhost:{port}/status", 200), ("http://evil.example/status", 421)):
            assert find_status(exchange(server, request_bytes("GET", target))) == status
        assert find_status(exchange(server, request_bytes("GET", "/status", "Host: evil.example"))) == 400
        assert find_status(exchange(server, b"GET /status HTTP/1.1\r\n\r\n")) == 400
        assert find_status(exchange(server, b"GET /status HTTP/1.0\r\n\r\n")) == 421
        assert send(server, "/status").json["requests"] == []


def test_answers_no_pages_of_strangers(tmp_path: Path) -> None:
    """Refuses a request that a page makes a browser send, unless its origin is allowed or its own."""
    settings = SETTINGS._replace(origins=("http://good.example",))
    with serve_offline(tmp_path, settings) as server:
        own = f"Origin: {server.address}"
        tries: list[tuple[tuple[str, ...], int]] = [
            ((own,), 200),
            (("Origin: http://good.example",), 200),
            (("Sec-Fetch-Site: same-origin",), 200),
            (("Sec-Fetch-Site: none",), 200),
            (("Origin: null",), 403),
            (("Origin: http://evil.example",), 403),
            (("Origin: http://good.example.evil.example",), 403),
            (("Origin:",), 403),
            ((own, "Origin: http://evil.example"), 403),
            (("Sec-Fetch-Site: cross-site",), 403),
            (("Sec-Fetch-Site: same-site",), 403),
        ]
        for headers, status in tries:
            got = exchange(server, request_bytes("POST", GENERATIONS, *headers, body=FOX))
            assert find_status(got) == status, (headers, got[:300])
            assert (b"access-control-allow-origin: http://good.example" in got) == (
                "good.example" in headers[0][-12:]
            )
        assert send(server, "/status").json["counts"]["done"] == 4


def test_lets_pages_of_an_allowed_origin_read_all_replies(tmp_path: Path) -> None:
    """Answers a preflight without a token, and lets the page read errors and the advice not to repeat."""
    settings = SETTINGS._replace(origins=("http://good.example",), token=TOKEN)
    with serve_offline(tmp_path, settings) as server:
        origin = "Origin: http://good.example"
        ask = "Access-Control-Request-Headers: authorization, x-stainless-lang"
        got = exchange(server, request_bytes("OPTIONS", GENERATIONS, origin, ask))
        assert find_status(got) == 204
        assert b"access-control-allow-headers: authorization, x-stainless-lang" in got
        assert (
            find_status(exchange(server, request_bytes("OPTIONS", GENERATIONS, "Origin: http://evil"))) == 403
        )
        plain = exchange(server, request_bytes("OPTIONS", GENERATIONS))
        assert b"access-control" not in plain
        right = f"Authorization: Bearer {TOKEN}"
        for headers, status in (((), 401), ((right, "Content-Type: text/plain"), 415), ((right,), 400)):
            got = exchange(server, request_bytes("POST", GENERATIONS, origin, *headers, body=b"{}"))
            assert find_status(got) == status
            assert b"access-control-allow-origin: http://good.example" in got
            assert (
                b"x-should-retry" in got.partition(b"access-control-expose-headers:")[2].partition(b"\r")[0]
            )


def test_answers_only_callers_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses a wrong token before it reads the body; page, health and preflights need none."""
    monkeypatch.setattr(silent_clients, "LINGER_S", 0.02)
    with serve_before(tmp_path, settings=SETTINGS._replace(token=TOKEN)) as (server, api):
        right = f"Authorization: Bearer {TOKEN}"
        wrong: list[tuple[str, ...]] = [
            (),
            ("Authorization: Bearer",),
            (f"Authorization: {TOKEN}",),
            (f"Authorization: Basic {TOKEN}",),
            (f"Authorization: Bearer {TOKEN}x",),
            (f"Authorization: Bearer {TOKEN[:-1]}",),
            ("Authorization: Bearer \xff\xfe",),
            ("Authorization: Bearer " + "a" * 8000,),
            (right, "Authorization: Bearer x"),
            ("Authorization: Bearer x", right),
            (f"Api-Key: {TOKEN}",),
        ]
        for headers in wrong:
            # The body never comes: the server must not wait for it.
            got = exchange(server, request_bytes("POST", GENERATIONS, *headers, "Content-Length: 40"))
            assert (find_status(got), find_error(got)["code"]) == (401, "invalid_api_key"), headers
        for path in ("/status", "/v1/models", "/v1/models/x", "/nope", "/%73tatus", "//"):
            assert find_status(exchange(server, request_bytes("GET", path))) == 401, path
        assert find_status(exchange(server, request_bytes("POST", "/estimate", body=FOX))) == 401
        for path in ("/", "/healthz"):
            assert find_status(exchange(server, request_bytes("GET", path))) == 200
        assert (
            find_status(exchange(server, request_bytes("GET", "/status", f"Authorization: bearer  {TOKEN}")))
            == 200
        )
        assert api.posts == 0


def test_tells_the_api_nothing_about_the_caller_and_the_caller_no_key(tmp_path: Path) -> None:
    """Sends no header of a caller to the API; no reply has the key of the API or the token."""
    error = {"error": {"message": "Incorrect key sk-upstream-0123456789abcdef.", "code": "invalid_api_key"}}
    scripts = (reply(200, answer()), reply(401, error))
    with serve_before(tmp_path, *scripts, settings=SETTINGS._replace(token=TOKEN)) as (server, api):
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "cookie": "EVIL=1",
            "x_api_key": "EVIL",
            "openai_organization": "EVIL",
            "idempotency_key": "EVIL",
            "user_agent": "EVIL",
        }
        body = {
            "prompt": "a fox",
            "headers": {"x": "EVIL"},
            "api_key": "k",
            "base_url": "http://evil.example",
        }
        replies = [send(server, GENERATIONS, body, **headers) for _ in scripts]
        replies.append(send(server, "/status", **headers))
        assert [got.status for got in replies] == [200, 401, 200]
        for line in api.lines:
            assert line.headers["authorization"] == "Bearer sk-upstream-0123456789abcdef"
            assert "EVIL" not in repr(line.headers)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in (*(repr(got) for got in replies), repr(kept)):
        assert "sk-upstream" not in text
        assert TOKEN not in text


def test_lets_no_model_lead_to_another_address(tmp_path: Path) -> None:
    """Refuses names of models that some provider would put into the path of its address, or into a log."""
    with serve_before(tmp_path) as (server, api):
        for model in (
            "../../v1/account",
            "a/../b",
            "..",
            "./a",
            "a\\..\\b",
            "a\r\nX: y",
            "a\x1b[31m",
            "a" * 301,
        ):
            got = send(server, GENERATIONS, {"prompt": "a fox", "model": model})
            assert (got.status, got.error["param"]) == (400, "model"), model
        assert api.posts == 0


def test_answers_unknown_addresses_in_the_envelope(tmp_path: Path) -> None:
    """Answers with the envelope and the advice not to repeat; nothing is painted."""
    tries = [
        ("GET", GENERATIONS, 405, "method_not_allowed"),
        ("PUT", GENERATIONS, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("TRACE", "/", 405, "method_not_allowed"),
        ("CONNECT", "example.org:443", 404, "unknown_url"),
        ("POST", f"{GENERATIONS}/", 404, "unknown_url"),
        ("POST", "//v1/images/generations", 404, "unknown_url"),
        ("POST", "/v1//images/generations", 404, "unknown_url"),
        ("POST", "/images/generations", 404, "unknown_url"),
        ("POST", "/v1/images/generations%00", 404, "unknown_url"),
        ("POST", "/v1/images/x/../generations", 404, "unknown_url"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "model_not_found"),
        ("GET", "/files/..%2flock", 404, "expired_url"),
        ("GET", "*", 400, "invalid_http"),
        ("BREW", "/", 400, "invalid_http"),
        ("GET", "/" + "a" * 9000, 400, "invalid_http"),
    ]
    with serve_offline(tmp_path) as server:
        for method, target, status, code in tries:
            got = exchange(server, request_bytes(method, target, body=FOX))
            assert (find_status(got), find_error(got)["code"]) == (status, code), (method, target)
            assert b"x-should-retry: false" in got
        assert find_status(exchange(server, request_bytes("HEAD", GENERATIONS))) == 405
        assert send(server, "/status").json["requests"] == []


def test_answers_other_protocols_in_the_envelope(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers HTTP/2, TLS and noise with 400, and writes nothing to standard error."""
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
    with serve_offline(tmp_path) as server:
        for data in (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            hello,
            b"SSH-2.0-x\r\n",
            b"\0\0\0\n\n",
            b"GET / HTTP/3\r\n\r\n",
        ):
            got = exchange(server, data)
            assert (find_status(got), find_error(got)["code"]) == (400, "invalid_http"), data
            assert b"x-should-retry: false" in got
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "settings",
    [
        ServerSettings(host="0.0.0.0"),
        ServerSettings(host="::"),
        ServerSettings(host="192.168.1.5"),
        ServerSettings(host="example.org"),
        ServerSettings(token=""),
        ServerSettings(token="two words"),
        ServerSettings(token="tökén"),
        ServerSettings(origins=("http://a.example/",)),
        ServerSettings(origins=("null",)),
        ServerSettings(origins=("*",)),
        ServerSettings(hosts=("http://a.example",)),
        ServerSettings(hosts=("a.example:80",)),
        ServerSettings(hosts=("*",)),
    ],
)
def test_refuses_settings_that_open_the_borders(settings: ServerSettings) -> None:
    """Refuses an address of other machines without a token, and names and origins of a wrong form."""
    with pytest.raises(ConfigurationError):
        settings.check()


def test_answers_any_number_as_host_when_it_listens_everywhere() -> None:
    """Answers the numbers of a machine, which no name of a stranger's page can be."""
    borders = Borders(ServerSettings(host="0.0.0.0", token="x"), 8100)
    borders.check_host(["10.1.2.3:8100"])
    for host in ("rebound.example:8100", "10.1.2.3", "10.1.2.3:80", "0x0a010203:8100"):
        with pytest.raises(Rejection):
            borders.check_host([host])
