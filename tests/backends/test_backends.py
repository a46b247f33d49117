"""Both HTTP backends under both services, against a real server that misbehaves on purpose."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

import imgkit
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import Script, WireServer, drip, drop, hang, head, raw, reply, reset

KEY = "sk-test-CANARY-1234567890abcdef"
OK = reply(200, answer())
JSON_HEAD = {"content-type": "application/json", "x-request-id": "req_1", "connection": "close"}


def create(flavor: Any, server: WireServer, backend: str, **options: Any) -> Any:
    settings = {"backend": backend, "base_url": server.base_url, "api_key": KEY, **options}
    return flavor.run(lambda service: service.create_image("a fox"), **settings)


def test_small_call(flavor: Any, http_backend: str) -> None:
    """A call goes out as canonical JSON with the key, and its picture comes back."""
    with WireServer(OK) as server:
        got = create(flavor, server, http_backend)
    (line,) = server.lines
    assert line.request_line == "POST /v1/images/generations HTTP/1.1"
    assert line.body == b'{"prompt":"a fox"}'
    assert line.headers["authorization"] == f"Bearer {KEY}"
    assert line.headers["accept-encoding"] == "identity"
    assert line.headers["content-type"] == "application/json"
    assert line.headers["connection"] == "close"
    assert "cookie" not in line.headers
    assert got[0].data == picture()
    assert got.meta.request_id == "req_test"
    assert got.meta.backend == http_backend
    assert KEY not in repr(got)


def test_a_small_request_is_one_packet(flavor: Any, http_backend: str) -> None:
    """Head and body leave together; a server need not wake up for half a request."""
    seen: list[bytes] = []

    def read_once(line: Any) -> None:
        seen.append(line.connection.recv(65536))
        OK(line)

    with WireServer(read_once, read_first=False) as server:
        create(flavor, server, http_backend)
    assert len(seen) == 1
    assert seen[0].startswith(b"POST /v1/images/generations HTTP/1.1\r\n")
    assert seen[0].endswith(b'\r\n\r\n{"prompt":"a fox"}')


def test_same_bytes_everywhere(flavor: Any, http_backend: str) -> None:
    """An edit is the same bytes on every backend and service: here against bytes written down."""
    with WireServer(OK) as server:
        settings = {"backend": http_backend, "base_url": server.base_url}
        flavor.run(lambda service: service.create_image_edit(picture(), "blue", n=2), **settings)
    body = server.lines[0].body
    boundary = server.lines[0].headers["content-type"].partition("boundary=")[2]
    assert len(boundary) == 64
    assert (
        body
        == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nblue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n'
            f"Content-Type: image/png\r\n\r\n"
        ).encode()
        + picture()
        + f"\r\n--{boundary}--\r\n".encode()
    )


def test_large_upload_and_reply(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Megabytes go out block by block with a known length, and come back untouched."""
    big = picture("PNG", (8, 8))[:-12] + b"\0\x30\0\0junk" + b"j" * 0x300000 + b"\0\0\0\0" + picture()[-12:]
    path = tmp_path / "big.png"
    path.write_bytes(big)
    with WireServer(reply(200, {"data": [{"b64_json": encoded(big)}]})) as server:
        settings = {"backend": http_backend, "base_url": server.base_url}
        got = flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)
    line = server.lines[0]
    assert int(line.headers["content-length"]) == len(line.body)
    assert "transfer-encoding" not in line.headers
    assert big in line.body
    assert got[0].data == big


FAULTS: dict[str, tuple[Script, type[Exception]]] = {
    "closed after the request": (drop, imgkit.OutcomeUnknownError),
    "reset after the request": (reset, imgkit.OutcomeUnknownError),
    "half a status line": (raw(b"HTTP/1.1 20"), imgkit.OutcomeUnknownError),
    "half a head": (raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl"), imgkit.OutcomeUnknownError),
    "head without its end": (raw(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n"), imgkit.OutcomeUnknownError),
    "garbage": (raw(b"HELLO\r\n\r\n"), imgkit.OutcomeUnknownError),
    "short body": (
        raw(head(200, {**JSON_HEAD, "content-length": "100"}) + b'{"data'), imgkit.OutcomeUnknownError),
    "cut chunk": (
        raw(head(200, {**JSON_HEAD, "transfer-encoding": "chunked"}) + b'20\r\n{"data'),
        imgkit.OutcomeUnknownError),
    "no last chunk": (
        raw(head(200, {**JSON_HEAD, "transfer-encoding": "chunked"}) + b'2\r\n{}\r\n'),
        imgkit.OutcomeUnknownError),
    "gzip that is none": (
        reply(200, answer(), content_encoding="gzip"), imgkit.OutcomeUnknownError),
    "cut without a length": (raw(head(200, JSON_HEAD) + b'{"data"'), imgkit.UnreadableReplyError),
    "empty body": (reply(200, b""), imgkit.UnreadableReplyError),
    "gateway page": (
        reply(504, b"<html>Gateway</html>", content_type="text/html"), imgkit.OutcomeUnknownError),
    "401": (reply(401, {"error": {"message": f"Incorrect: {KEY}", "code": "invalid_api_key"}}),
            imgkit.AuthenticationError),
    "500 of the API": (reply(500, {"error": {"message": "x", "code": "server_error"}}), imgkit.ServerError),
    "redirect": (reply(307, b"", location="https://evil.example/v1"), imgkit.RedirectRefusedError),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(flavor: Any, http_backend: str, fault: str) -> None:
    """Each fault gives its own class of error on both backends, exactly one POST, and shows no key."""
    script, expected = FAULTS[fault]
    with WireServer(script) as server, pytest.raises(expected) as caught:
        create(flavor, server, http_backend)
    assert type(caught.value) is expected
    assert server.posts == 1
    assert server.accepted == 1
    trace: BaseException | None = caught.value
    while trace is not None:
        assert KEY not in f"{trace!r}{trace}{trace.args!r}{vars(trace)!r}"
        trace = trace.__cause__ or (None if trace.__suppress_context__ else trace.__context__)


SLOW: dict[str, Script] = {
    "silence": hang,
    "head drips": drip(head(200, {**JSON_HEAD, "x-slow": "x" * 4000})),
    "body drips": drip(b" " * 4000, head(200, {**JSON_HEAD, "content-length": "4000"})),
    "endless 100s": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, every_s=0.001),
}


@pytest.mark.parametrize("slow", SLOW)
def test_deadline_bounds_the_call(flavor: Any, http_backend: str, slow: str) -> None:
    """No drip of bytes outlives the total deadline, at any stage; the outcome is unknown."""
    began = time.monotonic()
    with WireServer(SLOW[slow]) as server, pytest.raises(imgkit.OutcomeUnknownError, match=r"within 0\.3 s"):
        create(flavor, server, http_backend, timeout_s=0.3)
    assert 0.25 < time.monotonic() - began < 3
    assert server.posts == 1


def test_read_gap(flavor: Any, http_backend: str) -> None:
    """Silence longer than the read timeout ends a call long before its deadline."""
    began = time.monotonic()
    with WireServer(hang) as server, pytest.raises(imgkit.OutcomeUnknownError):
        create(flavor, server, http_backend, read_timeout_s=0.2)
    assert time.monotonic() - began < 3


def test_stalled_upload(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """A server that does not read the upload does not outlive the deadline either."""
    path = tmp_path / "big.png"
    path.write_bytes(picture()[:-12] + b"\x02\0\0\0junk" + b"j" * 0x2000000 + b"\0\0\0\0" + picture()[-12:])
    with WireServer(lambda line: line.closing.wait(20) and None, read_first=False) as server:
        settings = {"backend": http_backend, "base_url": server.base_url, "timeout_s": 0.5}
        began = time.monotonic()
        with pytest.raises(imgkit.OutcomeUnknownError):
            flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)
        assert time.monotonic() - began < 3


def test_refused_connection_is_not_sent(flavor: Any, http_backend: str) -> None:
    """Nobody listening means that nothing was sent."""
    with WireServer(OK) as server:
        pass
    with pytest.raises(imgkit.NotSentError, match="nothing was billed"):
        create(flavor, server, http_backend)


def test_unknown_host_is_not_sent(flavor: Any, http_backend: str) -> None:
    """A name that does not resolve means that nothing was sent."""
    settings = {"backend": http_backend, "base_url": "https://nowhere.invalid/v1", "api_key": KEY}
    with pytest.raises(imgkit.NotSentError):
        flavor.run(lambda service: service.create_image("a fox"), **settings)


def test_connect_timeout_is_not_sent(flavor: Any, http_backend: str) -> None:
    """A host that takes no connections is not sent anything within the connect timeout."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        queue = [socket.socket() for _ in range(4)]
        for one in queue:  # fill the backlog, so that the next connection gets no answer
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        settings = {
            "backend": http_backend,
            "base_url": f"http://127.0.0.1:{port}/v1",
            "connect_timeout_s": 0.3,
        }
        with pytest.raises(imgkit.NotSentError):
            flavor.run(lambda service: service.create_image("a fox"), **settings)
        for one in queue:
            one.close()


def test_reply_cap(flavor: Any, http_backend: str) -> None:
    """A reply beyond the limit is not read on, with and without an announced length."""
    for headers in ({"content-length": "1000000"}, {}):
        script = drip(b"", head(200, {**JSON_HEAD, **headers}) + b" " * 300_000)
        with (
            WireServer(script) as server,
            pytest.raises(imgkit.UnreadableReplyError, match="over 100000 bytes"),
        ):
            create(flavor, server, http_backend, max_reply_bytes=100_000)


def test_connections_are_reused_only_on_request(flavor: Any, http_backend: str) -> None:
    """Each paid request has its own connection, unless the user asks for reuse."""

    def keep(line: Any) -> None:
        while True:
            line.send(head(200, {"content-length": str(len(BODY))}) + BODY)
            if not line.read_request():
                return

    async def two(service: Any) -> None:
        await service.create_image("a")
        await service.create_image("b")

    def two_sync(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            service.create_image("a")
            return service.create_image("b")
        return two(service)

    BODY = json.dumps(answer()).encode()
    for reuse, connections in ((False, 2), (True, 1)):
        with WireServer(keep) as server:
            flavor.run(two_sync, backend=http_backend, base_url=server.base_url, reuse_connections=reuse)
        assert server.accepted == connections


def test_environment_is_not_trusted(flavor: Any, http_backend: str, monkeypatch: Any, tmp_path: Any) -> None:
    """Proxies and netrc of the environment change nothing unless the user opts in."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with WireServer(OK) as server:
        create(flavor, server, http_backend)
    assert server.lines[0].headers["authorization"] == f"Bearer {KEY}"
    with WireServer(OK) as server, pytest.raises(imgkit.TransportError):
        create(flavor, server, http_backend, use_env_proxy=True)


def test_explicit_proxy(flavor: Any, http_backend: str) -> None:
    """A proxy that is given gets the request, in absolute form."""
    with WireServer(OK) as proxy:
        settings = {"backend": http_backend, "base_url": "http://127.0.0.1:1/v1", "proxy": proxy.origin}
        flavor.run(lambda service: service.create_image("a fox"), **settings)
    assert proxy.lines[0].request_line == "POST http://127.0.0.1:1/v1/images/generations HTTP/1.1"


def test_early_refusal_during_upload(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """A refusal that comes before the upload is through counts as a refusal, not as unknown."""
    path = tmp_path / "big.png"
    path.write_bytes(picture()[:-12] + b"\0\x80\0\0junk" + b"j" * 0x800000 + b"\0\0\0\0" + picture()[-12:])

    def refuse(line: Any) -> None:
        line.connection.recv(1000)
        reply(401, {"error": {"message": "no", "code": "invalid_api_key"}})(line)
        line.until_client_leaves()

    with WireServer(refuse, read_first=False) as server, pytest.raises(imgkit.AuthenticationError):
        settings = {"backend": http_backend, "base_url": server.base_url}
        flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)
