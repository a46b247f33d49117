"""Both HTTP backends under both services, against a real server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
import warnings
from typing import Any

import pytest

import imgkit
from imgkit.backends import aiohttp as aiohttp_backend
from imgkit.backends import connections as requests_connections
from imgkit.backends import plain_http
from imgkit.backends.aiohttp import AiohttpBackend, _abandoned_connectors
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.plugins import Retrying
from imgkit.testing.wire_server import CA_FILE
from imgkit.wire.messages import BackendOptions, BytesBody, HttpRequest
from imgkit.wire.transfer import DriverTransfer, Transfer
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import Line, Script, WireServer, drip, drop, hang, head, raw, reply, reset

KEY = "sk-test-CANARY-1234567890abcdef"
OK = reply(200, answer())
JSON_HEAD = {"content-type": "application/json", "x-request-id": "req_1", "connection": "close"}


def create_image(flavor: Any, server: WireServer, backend: str, **options: Any) -> Any:
    """Create an image over HTTP."""
    settings = {"backend": backend, "base_url": server.base_url, "api_key": KEY, **options}
    return flavor.run(lambda service: service.create_image("a fox"), **settings)


def test_call_sends_canonical_json(flavor: Any, http_backend: str) -> None:
    """Sends canonical JSON with the key, and returns the image of the response."""
    with WireServer(OK) as server:
        images = create_image(flavor, server, http_backend)
    (line,) = server.lines
    assert line.request_line == "POST /v1/images/generations HTTP/1.1"
    assert line.body == b'{"prompt":"a fox"}'
    assert line.headers["authorization"] == f"Bearer {KEY}"
    assert line.headers["accept-encoding"] == "identity"
    assert line.headers["content-type"] == "application/json"
    assert line.headers["connection"] == "close"
    assert "cookie" not in line.headers
    assert images[0].data == picture()
    assert images.meta.request_id == "req_test"
    assert images.meta.backend == http_backend
    assert KEY not in repr(images)


def test_small_request_is_a_single_packet(flavor: Any, http_backend: str) -> None:
    """Sends head and body together, so a server never wakes up for half a request."""
    packets: list[bytes] = []

    def respond_after_first_packet(line: Any) -> None:
        packets.append(line.connection.recv(65536))
        OK(line)

    with WireServer(respond_after_first_packet, read_first=False) as server:
        create_image(flavor, server, http_backend)
    assert len(packets) == 1
    assert packets[0].startswith(b"POST /v1/images/generations HTTP/1.1\r\n")
    assert packets[0].endswith(b'\r\n\r\n{"prompt":"a fox"}')


def test_equal_bytes_on_every_backend(flavor: Any, http_backend: str) -> None:
    """Sends an edit as the same bytes on every backend and service."""
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


def test_large_upload_and_response(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Sends megabytes block by block with a known length, and returns megabytes unchanged."""
    big = picture("PNG", (8, 8))[:-12] + b"\0\x30\0\0junk" + b"j" * 0x300000 + b"\0\0\0\0" + picture()[-12:]
    path = tmp_path / "big.png"
    path.write_bytes(big)
    with WireServer(reply(200, {"data": [{"b64_json": encoded(big)}]})) as server:
        settings = {"backend": http_backend, "base_url": server.base_url}
        images = flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)
    line = server.lines[0]
    assert int(line.headers["content-length"]) == len(line.body)
    assert "transfer-encoding" not in line.headers
    assert big in line.body
    assert images[0].data == big


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
    "invalid gzip": (
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
def test_faults(flavor: Any, http_backend: str, fault: str) -> None:
    """Maps each fault to its error class on both backends, after exactly one POST, without the key."""
    script, expected = FAULTS[fault]
    with WireServer(script) as server, pytest.raises(expected) as caught:
        create_image(flavor, server, http_backend)
    assert type(caught.value) is expected
    assert server.posts == 1
    assert server.accepted == 1
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error!r}{error}{error.args!r}{vars(error)!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


SLOW: dict[str, Script] = {
    "silence": hang,
    "head drips": drip(head(200, {**JSON_HEAD, "x-slow": "x" * 4000})),
    "body drips": drip(b" " * 4000, head(200, {**JSON_HEAD, "content-length": "4000"})),
    "endless 100s": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, every_s=0.001),
}


@pytest.mark.parametrize("slow", SLOW)
def test_deadline_bounds_the_call(flavor: Any, http_backend: str, slow: str) -> None:
    """Ends a call at the total deadline at every stage; the outcome is unknown."""
    began = time.monotonic()
    with WireServer(SLOW[slow]) as server, pytest.raises(imgkit.OutcomeUnknownError, match=r"within 0\.3 s"):
        create_image(flavor, server, http_backend, timeout_s=0.3)
    assert 0.25 < time.monotonic() - began < 3
    assert server.posts == 1


def test_read_timeout(flavor: Any, http_backend: str) -> None:
    """Ends a call after a silence of `read_timeout_s`, long before the deadline."""
    began = time.monotonic()
    with WireServer(hang) as server, pytest.raises(imgkit.OutcomeUnknownError):
        create_image(flavor, server, http_backend, read_timeout_s=0.2)
    assert time.monotonic() - began < 3


def test_stalled_upload(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Ends a call at the deadline when the server does not read the upload."""
    path = tmp_path / "big.png"
    path.write_bytes(picture()[:-12] + b"\x02\0\0\0junk" + b"j" * 0x2000000 + b"\0\0\0\0" + picture()[-12:])

    def never_read(line: Line) -> None:
        line.closing.wait(20)

    with WireServer(never_read, read_first=False) as server:
        settings = {"backend": http_backend, "base_url": server.base_url, "timeout_s": 0.5}
        began = time.monotonic()
        with pytest.raises(imgkit.OutcomeUnknownError):
            flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)
        assert time.monotonic() - began < 3


def test_refused_connection_is_not_sent(flavor: Any, http_backend: str) -> None:
    """Raises NotSentError when no server listens."""
    with WireServer(OK) as server:
        pass
    with pytest.raises(imgkit.NotSentError, match="nothing was billed"):
        create_image(flavor, server, http_backend)


def test_unknown_host_is_not_sent(flavor: Any, http_backend: str) -> None:
    """Raises NotSentError when the host name does not resolve."""
    settings = {"backend": http_backend, "base_url": "https://nowhere.invalid/v1", "api_key": KEY}
    with pytest.raises(imgkit.NotSentError):
        flavor.run(lambda service: service.create_image("a fox"), **settings)


@pytest.mark.parametrize(
    ("code", "is_permanent"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)], ids=["unknown", "down"]
)
def test_unknown_host_is_permanent(
    flavor: Any, http_backend: str, code: int, is_permanent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tells an unknown host name, which no retry helps, from a name server that is down."""

    def look_up(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(code, "no address")

    pauses: list[float] = []

    class Pauses:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, Retrying):
                pauses.append(event.wait_s)

    retry = imgkit.RetryPlugin(chance=lambda: 0.0)
    monkeypatch.setattr("imgkit.default_plugins.retry.BACKOFF_S", 0.001)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(imgkit.NotSentError) as caught:
        flavor.run(
            lambda service: service.create_image("a fox"),
            http_backend, base_url="http://nowhere.example/v1", retry=retry, plugins=[Pauses()],
        )  # fmt: skip
    assert caught.value.permanent is is_permanent
    assert len(pauses) == (0 if is_permanent else 3)


def test_connect_timeout_is_not_sent(flavor: Any, http_backend: str) -> None:
    """Raises NotSentError when the host accepts no connection within the connect timeout."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        queue = [socket.socket() for _ in range(4)]
        # Fill the backlog: the next connection gets no response.
        for pending in queue:
            pending.setblocking(False)
            pending.connect_ex(("127.0.0.1", port))
        settings = {
            "backend": http_backend,
            "base_url": f"http://127.0.0.1:{port}/v1",
            "connect_timeout_s": 0.3,
        }
        with pytest.raises(imgkit.NotSentError):
            flavor.run(lambda service: service.create_image("a fox"), **settings)
        for pending in queue:
            pending.close()


def test_response_size_limit(flavor: Any, http_backend: str) -> None:
    """Stops reading a response beyond `max_reply_bytes`, with and without an announced length."""
    for headers in ({"content-length": "1000000"}, {}):
        script = drip(b"", head(200, {**JSON_HEAD, **headers}) + b" " * 300_000)
        with (
            WireServer(script) as server,
            pytest.raises(imgkit.UnreadableReplyError, match="over 100000 bytes"),
        ):
            create_image(flavor, server, http_backend, max_reply_bytes=100_000)


def test_connections_are_reused_only_on_request(
    flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opens a connection per paid request, unless `reuse_connections` is set and one was just used."""

    def serve_until_closed(line: Any) -> None:
        while True:
            line.send(head(200, {"content-length": str(len(BODY))}) + BODY)
            if not line.read_request():
                return

    async def create_two(service: Any) -> None:
        await service.create_image("a")
        await service.create_image("b")

    def create_two_in_either(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            service.create_image("a")
            return service.create_image("b")
        return create_two(service)

    BODY = json.dumps(answer()).encode()
    for reuse, idle_s, connections in ((False, 60.0, 2), (True, 60.0, 1), (True, 0.0, 2)):
        for module in (aiohttp_backend, requests_connections, plain_http):
            monkeypatch.setattr(module, "REUSE_S", idle_s)
        with WireServer(serve_until_closed) as server:
            flavor.run(
                create_two_in_either, backend=http_backend, base_url=server.base_url, reuse_connections=reuse
            )
        assert server.accepted == connections


def test_environment_is_not_trusted(flavor: Any, http_backend: str, monkeypatch: Any, tmp_path: Any) -> None:
    """Ignores proxies and netrc of the environment, unless `use_env_proxy` is set."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with WireServer(OK) as server:
        create_image(flavor, server, http_backend)
    assert server.lines[0].headers["authorization"] == f"Bearer {KEY}"
    with WireServer(OK) as server, pytest.raises(imgkit.TransportError):
        create_image(flavor, server, http_backend, use_env_proxy=True)


def test_explicit_proxy(flavor: Any, http_backend: str) -> None:
    """Sends the request in absolute form to a given proxy."""
    with WireServer(OK) as proxy:
        settings = {"backend": http_backend, "base_url": "http://127.0.0.1:1/v1", "proxy": proxy.origin}
        flavor.run(lambda service: service.create_image("a fox"), **settings)
    assert proxy.lines[0].request_line == "POST http://127.0.0.1:1/v1/images/generations HTTP/1.1"


def test_early_error_during_upload(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Returns the server's error when it arrives before the end of the upload."""
    path = tmp_path / "big.png"
    path.write_bytes(picture()[:-12] + b"\0\x80\0\0junk" + b"j" * 0x800000 + b"\0\0\0\0" + picture()[-12:])

    def reject_early(line: Any) -> None:
        line.connection.recv(1000)
        reply(401, {"error": {"message": "no", "code": "invalid_api_key"}})(line)
        line.until_client_leaves()

    with WireServer(reject_early, read_first=False) as server, pytest.raises(imgkit.AuthenticationError):
        settings = {"backend": http_backend, "base_url": server.base_url}
        flavor.run(lambda service: service.create_image_edit(path, "blue"), **settings)


def test_connections_are_kept_alive(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the system probe a silent connection, so that a lost peer does not go unseen."""
    seen: list[int] = []
    watch = Transfer.watch_socket

    def look(transfer: Transfer, sock: Any) -> None:
        seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        watch(transfer, sock)

    monkeypatch.setattr(Transfer, "watch_socket", look)
    with WireServer(OK) as server:
        create_image(flavor, server, http_backend)
    assert seen
    assert all(seen)


class KeptConnection:
    """A server script that replies on a connection until the client hangs up."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def __call__(self, line: Any) -> None:
        body = json.dumps(answer()).encode()
        while True:
            line.send(head(200, {"content-length": str(len(body))}) + body)
            if not line.read_request():
                self.left.set()
                return


async def send_request(backend: AiohttpBackend, url: str) -> None:
    """Send a request with the backend itself and read its reply."""
    transfer = DriverTransfer(5, 5, 5)
    reply = await backend.open(HttpRequest("POST", url, {}, BytesBody(b"{}")), transfer)
    while await reply.read():
        pass
    reply.close()
    transfer.release()


@pytest.mark.parametrize("kind", [AiohttpBackend, PlainHttpBackend, RequestsBackend])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_request_that_must_not_leave_closes_its_connection(kind: Any, reuse: bool) -> None:
    """Hangs up at once, and leaves nothing open, if nobody can write down that a request leaves."""
    has_left = threading.Event()

    def wait_for_end(line: Line) -> None:
        line.until_client_leaves()
        has_left.set()

    def refuse() -> None:
        raise imgkit.NotSentError("The disk is full.")

    async def main(url: str) -> None:
        backend = kind(BackendOptions(reuse_connections=reuse))
        transfer = DriverTransfer(5, 5, 5)
        transfer.begin(url, direct=False)
        transfer.note_leaving = refuse
        request = HttpRequest("POST", url, {}, BytesBody(b"{}"))
        with pytest.raises(imgkit.NotSentError):
            if kind is AiohttpBackend:
                await backend.open(request, transfer)
            else:
                backend.open(request, transfer)
        transfer.release()  # it holds the socket, too
        assert await asyncio.to_thread(has_left.wait, 5)
        await backend.aclose() if kind is AiohttpBackend else backend.close()

    with WireServer(wait_for_end, read_first=False) as server, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asyncio.run(main(server.base_url))
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_closed_idle_connection_is_not_used(tls: bool) -> None:
    """Opens a connection if the server has closed the idle one, also before the event loop has seen it."""
    may_leave, has_left = threading.Semaphore(0), threading.Semaphore(0)

    def leave_later(line: Any) -> None:
        body = json.dumps(answer()).encode()
        line.send(head(200, {"content-length": str(len(body))}) + body)
        may_leave.acquire()
        line.connection.shutdown(socket.SHUT_WR)
        has_left.release()
        line.until_client_leaves()

    async def main(server: WireServer) -> None:
        backend = AiohttpBackend(BackendOptions(reuse_connections=True, ca=CA_FILE))
        for number in range(3):
            await send_request(backend, f"{server.base_url}/images/generations")
            assert server.posts == number + 1
            may_leave.release()
            assert has_left.acquire(timeout=1)  # while the loop is busy here
        await backend.aclose()

    with WireServer(leave_later, tls=tls) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize(
    ("shared", "limit"),
    [(aiohttp_backend.ALL_RECEIVE_BYTES, 512 * 1024), (600_000, 300_000), (9, 128 * 1024)],
)
def test_open_replies_share_memory(monkeypatch: pytest.MonkeyPatch, shared: int, limit: int) -> None:
    """A few replies take much from the system at once, and hundreds take little each."""
    monkeypatch.setattr(aiohttp_backend, "ALL_RECEIVE_BYTES", shared)

    async def main(url: str) -> None:
        backend = AiohttpBackend(BackendOptions())
        request = HttpRequest("POST", url, {}, BytesBody(b"{}"))
        transfers = [DriverTransfer(5, 5, 5) for _ in range(2)]
        replies: list[Any] = [await backend.open(request, transfer) for transfer in transfers]
        transports = [each._response.connection.transport for each in replies]
        for each in replies:
            assert await each.read()
        assert [transport.max_size for transport in transports] == [limit, limit]
        for each in replies:
            each.close()
        assert not backend._replies
        for transfer in transfers:
            transfer.release()
        await backend.aclose()

    with WireServer(reply(200, b"x" * 2_000_000)) as server:
        asyncio.run(main(f"{server.base_url}/images/generations"))


def test_requests_that_wait_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the requests whose replies have not begun: they may all begin at once."""
    monkeypatch.setattr(aiohttp_backend, "ALL_RECEIVE_BYTES", 600_000)
    limit_receiving, sizes = aiohttp_backend._limit_receiving, []

    def note_size(connection: Any, size: int) -> None:
        sizes.append(size)
        limit_receiving(connection, size)

    async def main(url: str) -> None:
        backend = AiohttpBackend(BackendOptions())
        await asyncio.gather(send_request(backend, url), send_request(backend, url))
        await send_request(backend, url)
        await backend.aclose()

    monkeypatch.setattr(aiohttp_backend, "_limit_receiving", note_size)
    with WireServer(*[reply(200, b"")] * 3) as server:
        asyncio.run(main(f"{server.base_url}/images/generations"))
    assert min(sizes) == 300_000
    assert sizes[-1] == 512 * 1024


async def close_abandoned_connectors() -> None:
    """Close the connectors that aiohttp must not close by itself: this process goes on."""
    while _abandoned_connectors:
        connector: Any = _abandoned_connectors.pop()
        await connector.close()
    await asyncio.sleep(0.01)


def test_a_dropped_backend_hangs_up() -> None:
    """Ends the idle connections of an aiohttp backend that nobody has closed."""
    script = KeptConnection()

    async def main(url: str) -> bool:
        backend = AiohttpBackend(BackendOptions(reuse_connections=True))
        await send_request(backend, url)
        del backend
        gc.collect()
        is_left = script.left.wait(1)
        await close_abandoned_connectors()
        return is_left

    with WireServer(script) as server:
        assert asyncio.run(main(f"{server.base_url}/images/generations"))


def test_a_forked_session_is_silent() -> None:
    """A forked child drops the sessions of its parent without a word of aiohttp."""

    async def main(url: str) -> None:
        backend = AiohttpBackend(BackendOptions())
        await send_request(backend, url)
        with warnings.catch_warnings(record=True) as problems:
            warnings.simplefilter("always")
            backend.after_fork()
            gc.collect()
        assert problems == []
        await close_abandoned_connectors()

    with WireServer(OK) as server:
        asyncio.run(main(f"{server.base_url}/images/generations"))
