"""Downloads of images from result URLs: allowed addresses, headers and failures."""

from __future__ import annotations

import asyncio
import pickle
import socket
import ssl
from typing import Any

import pytest
import trustme

import imgkit
from imgkit.backends import Head
from imgkit.core.operations import OperationFlows
from imgkit.images.image import Image
from imgkit.images.sources import UrlSource
from imgkit.runtime.flow import Finished, ReadChunk, SendRequest, advance
from imgkit.testing.wire_server import CA_FILE
from tests.support.pictures import picture
from tests.support.wire_server import Script, WireServer, drip, head, reply

KEY = "sk-test-CANARY-1234567890abcdef"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat downloads without waiting; `test_pauses_between_attempts` reads the real pauses."""
    monkeypatch.setattr("imgkit.core.download.PAUSES_S", (0.0, 0.0, 0.0))


def reply_with_url(url: str) -> Script:
    """Return a script that replies with one image URL."""
    return reply(200, {"created": 1, "data": [{"url": url}]})


def reply_with_png(data: bytes = b"") -> Script:
    """Return a script that replies with a PNG."""
    return reply(200, data or picture(), content_type="image/png")


def create_and_download(flavor: Any, backend: str, server: WireServer, **options: Any) -> bytes:
    """Create one image and download it, with either service."""

    async def later(service: Any) -> bytes:
        made = await service.create_image("a fox", timeout_s=20)
        return bytes((await service.download(made[0])).data)

    def work(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            return service.create_image("a fox", timeout_s=20)[0].data
        return later(service)

    settings = {"backend": backend, "base_url": server.base_url, "api_key": KEY, **options}
    data: bytes = flavor.run(work, **settings)
    return data


def test_downloads_from_the_same_origin(flavor: Any, http_backend: str) -> None:
    """Downloads absolute and relative URLs of the API's own origin, without the key."""
    for url in ("/files/1.png", "{origin}/files/1.png"):
        server = WireServer(lambda line: None)
        server._scripts = [reply_with_url(url.format(origin=server.origin)), reply_with_png()]
        with server:
            assert create_and_download(flavor, http_backend, server) == picture()
        get = server.lines[1]
        assert get.request_line == "GET /files/1.png HTTP/1.1"
        assert KEY not in get.head.decode()
        assert "authorization" not in get.headers
        assert "cookie" not in get.headers


BLOCKED = [
    "http://10.0.0.1:1/x.png",
    "http://127.1:{port}/x.png",
    "gopher://127.0.0.1:70/_",
    "javascript:1",
    "file:///etc/passwd",
    "http://127.0.0.1:99999/",
    "https://ok.example/\r\nHost: evil",
    "https://127.0.0.1:{port}/x.png",
    "https://localhost:{port}/x.png",
    "https://localhost.:{port}/x.png",
    "https://127.1:{port}/x.png",
    "https://2130706433:{port}/x.png",
    "https://0x7f000001:{port}/x.png",
    "https://0177.0.0.1:{port}/x.png",
    "https://[::ffff:127.0.0.1]:{port}/x.png",
    "https://[64:ff9b::7f00:1]:{port}/x.png",
    "https://0.0.0.0:{port}/x.png",
    "https://127.0.0.1:{port}\\@example.com/x",
    "https://user:pw@127.0.0.1:{port}/x.png",
]


@pytest.mark.parametrize("url", BLOCKED)
def test_private_addresses_are_blocked(flavor: Any, http_backend: str, url: str) -> None:
    """Refuses a result URL into the caller's own network before it sends a byte."""
    with WireServer(reply_with_png(), read_first=False) as inside:
        with (
            WireServer(reply_with_url(url.format(port=inside.port))) as server,
            pytest.raises(imgkit.DownloadError) as caught,
        ):
            create_and_download(flavor, http_backend, server)
        assert inside.accepted == 0
    assert "user:pw" not in str(caught.value)


def test_every_redirect_is_checked(flavor: Any, http_backend: str) -> None:
    """Follows three redirects of the same origin; refuses a fourth, or a redirect into the own network."""
    with WireServer(reply_with_png(), read_first=False) as inside:
        jump = reply(302, b"", location=f"https://127.0.0.1:{inside.port}/secret")
        with (
            WireServer(reply_with_url("/a.png"), jump) as server,
            pytest.raises(imgkit.DownloadBlockedError),
        ):
            create_and_download(flavor, http_backend, server)
        assert inside.accepted == 0
    hop = reply(302, b"", location="/next.png")
    with WireServer(reply_with_url("/a.png"), hop, hop, hop, reply_with_png()) as server:
        assert create_and_download(flavor, http_backend, server) == picture()
    with (
        WireServer(reply_with_url("/a.png"), hop) as server,
        pytest.raises(imgkit.DownloadError, match="redirects more than 3 times"),
    ):
        create_and_download(flavor, http_backend, server)
    assert len(server.lines) == 5


BAD_REPLIES: dict[str, tuple[Script, type[Exception]]] = {
    "expired": (reply(403, b""), imgkit.LinkExpiredError),
    "gone": (reply(404, b""), imgkit.LinkExpiredError),
    "server error": (reply(500, b""), imgkit.DownloadError),
    "a login page": (reply(200, b"<html>log in</html>", content_type="text/html"), imgkit.DownloadError),
    "announced too large": (
        lambda line: line.send(head(200, {"content-length": "9" * 14}) + b"abc"), imgkit.DownloadError),
    "really too large": (
        lambda line: line.send(head(200, {"connection": "close"}) + picture() + b"x" * 200_000),
        imgkit.DownloadError),
    "cut": (lambda line: line.send(head(200, {"content-length": "5000"}) + picture()), imgkit.DownloadError),
    "drips": (drip(b"x" * 4000, head(200, {"content-length": "4000"})), imgkit.DownloadError),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_bad_downloads(flavor: Any, http_backend: str, case: str) -> None:
    """Raises a DownloadError that names the URL for expired links, pages, and endless or slow files."""
    script, expected = BAD_REPLIES[case]
    timeout_s = 0.1 if case == "drips" else 20
    with WireServer(reply_with_url("/a.png?sig=CANARY"), script) as server, pytest.raises(expected) as caught:
        create_and_download(flavor, http_backend, server, max_download_bytes=100_000, timeout_s=timeout_s)
    assert "/a.png" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_offline_urls(flavor: Any) -> None:
    """Downloads the offline backend's URLs like those of a server."""

    async def later(service: Any) -> bytes:
        made = await service.create_image("a fox", response_format="url", size="256x256")
        with pytest.raises(imgkit.NotDownloadedError, match="await service.download"):
            made[0].data  # noqa: B018 - the property itself is what raises
        return bytes((await service.download(made[0])).data)

    def work(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            made = service.create_image("a fox", response_format="url", size="256x256")
            assert made[0].url is not None
            return made[0].data
        return later(service)

    assert flavor.run(work).startswith(b"\x89PNG")


def test_downloads_after_close_and_pickle() -> None:
    """An image at a URL needs its service to download; a downloaded image survives without it."""
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", response_format="url", size="256x256", n=2)
        data = made[0].data
        pickled = pickle.loads(pickle.dumps(made))
        with pytest.raises(imgkit.NotDownloadedError, match=r"service\.download"):
            pickled[1].data  # noqa: B018
    assert made[0].data == pickled[0].data == data
    with pytest.raises(imgkit.NotDownloadedError, match="closed"):
        made[1].data  # noqa: B018


def test_save_to_downloads(flavor: Any, tmp_path: Any) -> None:
    """Downloads and writes the images at URLs within the call if save_to is given."""
    work = lambda service: service.create_image(  # noqa: E731
        "a fox", response_format="url", size="256x256", n=2, save_to=tmp_path
    )
    made = flavor.run(work)
    assert [image.path.name for image in made] == ["a-fox-1.png", "a-fox-2.png"]
    assert all(image.path.read_bytes() == image.data for image in made)


def test_tls_trusts_the_given_ca(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Trusts a certificate through ca= only, and sends nothing to an unknown server."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    from tests.support.pictures import answer

    with WireServer(reply(200, answer()), tls=context) as server:
        settings = {"backend": http_backend, "base_url": server.base_url, "api_key": KEY}
        made = flavor.run(lambda service: service.create_image("a fox"), ca=bundle, **settings)
        assert made[0].data == picture()
        with pytest.raises(imgkit.NotSentError):
            flavor.run(lambda service: service.create_image("a fox"), **settings)
    assert server.posts == 1


def test_stalled_tls_handshake(flavor: Any, http_backend: str) -> None:
    """Reports a stalled TLS handshake as not sent."""
    silent = lambda line: line.until_client_leaves()  # noqa: E731
    with WireServer(silent, read_first=False) as server, pytest.raises(imgkit.NotSentError):
        flavor.run(
            lambda service: service.create_image("a fox"),
            backend=http_backend,
            base_url=server.base_url.replace("http:", "https:"),
            connect_timeout_s=0.1,
        )


def test_a_proxy_limits_downloads_to_the_own_origin(flavor: Any, http_backend: str) -> None:
    """Downloads from the API's only from the API behind a proxy, which hides the peer's address."""
    with WireServer(reply_with_url("https://elsewhere.example/x.png")) as proxy:
        settings = {"backend": http_backend, "base_url": "http://127.0.0.1:1/v1", "proxy": proxy.origin}

        async def later(service: Any) -> Any:
            made = await service.create_image("a fox")
            return await service.download(made[0])

        def work(service: Any) -> Any:
            if isinstance(service, imgkit.ImageService):
                return service.create_image("a fox")[0].data
            return later(service)

        with pytest.raises(imgkit.DownloadBlockedError, match="only from the API"):
            flavor.run(work, **settings)
    assert len(proxy.lines) == 1


def resolve_cdn_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the name cdn.example lead to this machine."""
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name == "cdn.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_the_resolved_address_decides(monkeypatch: Any, flavor: Any, http_backend: str) -> None:
    """Checks the address that a host name resolves to, not the name."""
    resolve_cdn_to_this_machine(monkeypatch)
    with (
        WireServer(reply_with_url("https://cdn.example/x.png")) as server,
        pytest.raises(imgkit.DownloadBlockedError, match="public internet"),
    ):
        create_and_download(flavor, http_backend, server)


def test_a_public_address_is_dialed(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks the address of a peer, and dials it if it is public."""
    checked = set()

    def check(address: str) -> bool:
        checked.add(address)
        return True

    for module in ("aiohttp", "dialing"):
        monkeypatch.setattr(f"imgkit.backends.{module}.is_public", check)
    resolve_cdn_to_this_machine(monkeypatch)
    with WireServer(lambda line: reply_with_url(url)(line), tls=True) as server:
        url = f"https://cdn.example:{server.port}/x.png"
        base_url = f"https://127.0.0.1:{server.port}/v1"
        with pytest.raises(imgkit.DownloadError, match="could not be fetched"):
            create_and_download(flavor, http_backend, server, base_url=base_url, ca=CA_FILE)
    assert checked == {"127.0.0.1"}
    assert server.accepted == 2


def test_an_input_at_a_url_is_downloaded(flavor: Any) -> None:
    """Downloads an image at a URL before it sends it as an input."""

    async def later(service: Any) -> Any:
        made = await service.create_image("a fox", response_format="url", size="256x256")
        return await asyncio.wait_for(service.create_image_variation(made[0]), 20)

    def work(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            made = service.create_image("a fox", response_format="url", size="256x256")
            return service.create_image_variation(made[0])
        return later(service)

    assert flavor.run(work)[0].width == 256


PATH = "/a%3Ab/%2fx//c/../d/./%7e%41;p=1"
QUERIES = ["?sig=%2b+%2F/..//x&y=%c3%bc~!*(),;", "?", "?a?b", ""]


@pytest.mark.parametrize("query", QUERIES)
def test_urls_are_sent_byte_for_byte(flavor: Any, http_backend: str, query: str) -> None:
    """Sends API requests, result URLs and redirect targets in the spelling that was signed."""
    path = PATH + query
    jump = reply(302, b"", location=f"/to{path}")
    server = WireServer(lambda line: None)
    server._scripts = []
    for url in (f"{server.origin}{path}", path):
        server._scripts += [reply_with_url(url), jump, reply_with_png()]
    with server:
        for _ in range(2):
            data = create_and_download(flavor, http_backend, server, base_url=server.origin + PATH)
            assert data == picture()
    lines = [line.request_line for line in server.lines]
    post = f"POST {PATH}/images/generations HTTP/1.1"
    assert lines == [post, f"GET {path} HTTP/1.1", f"GET /to{path} HTTP/1.1"] * 2


def test_a_proxy_gets_urls_byte_for_byte(flavor: Any, http_backend: str) -> None:
    """Sends the whole URL to a proxy in its own spelling."""
    base_url = f"http://127.0.0.1:1{PATH}"
    with WireServer(reply_with_url("/x//%2f?a=%2b"), reply_with_png()) as proxy:
        create_and_download(flavor, http_backend, proxy, base_url=base_url, proxy=proxy.origin)
    lines = [line.request_line for line in proxy.lines]
    assert lines == [
        f"POST {base_url}/images/generations HTTP/1.1",
        "GET http://127.0.0.1:1/x//%2f?a=%2b HTTP/1.1",
    ]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "LOCALHOST"])
def test_names_of_this_machine_are_one_place(flavor: Any, http_backend: str, host: str) -> None:
    """Downloads from any port of this machine if the API is on it, under another name too."""
    with WireServer(reply_with_png()) as store:
        with WireServer(reply_with_url(f"http://{host}:{store.port}/1.png")) as server:
            base_url = f"http://localhost:{server.port}/v1"
            assert create_and_download(flavor, http_backend, server, base_url=base_url) == picture()
    assert store.accepted == 1


def start_download(url: str, base_url: str = "https://api.example:8443/v1", **options: Any) -> Any:
    """Return the flow of a download, to be stepped by hand."""
    with imgkit.ImageService("requests", base_url=base_url, **options) as service:
        return OperationFlows(service._core).download(Image(url=url, source=UrlSource(url, None)))


def test_a_public_server_does_not_redirect_to_this_machine() -> None:
    """Follows no redirect from the public internet to another server on this machine."""
    flow = start_download("https://cdn.example/1.png", "http://127.0.0.1:8000/v1")
    assert isinstance(advance(flow, None), SendRequest)
    with pytest.raises(imgkit.DownloadBlockedError):
        advance(flow, Head(302, {"location": "http://127.0.0.1:9000/secret"}))


def test_an_image_of_exactly_the_largest_size() -> None:
    """Reads an image whose length is the limit, and none that is longer by a byte."""
    image, url = picture(), "https://cdn.example/1.png"
    for limit in (len(image), len(image) - 1):
        for headers in ({"content-length": str(len(image))}, {}):
            flow = start_download(url, max_download_bytes=limit)
            assert isinstance(advance(flow, None), SendRequest)
            if limit == len(image):
                for news in (Head(200, headers), image):
                    assert isinstance(advance(flow, news), ReadChunk)
                assert isinstance(advance(flow, b""), Finished)
                continue
            with pytest.raises(imgkit.DownloadError, match="exceeds"):
                advance(flow, Head(200, headers))
                advance(flow, image)


PORTS: list[tuple[str, list[str], bool | None]] = [
    ("https://cdn.example/1.png", [], True),
    ("https://cdn.example:443/1.png", [], True),
    ("https://cdn.example:8443/1.png", [], True),
    ("https://cdn.example:22/1.png", [], None),
    ("https://cdn.example:22/1.png", ["https://cdn.example:22"], False),
    ("https://cdn.example:22/1.png", ["https://CDN.example:22/"], False),
    ("http://10.0.0.5:9000/1.png", ["http://10.0.0.5:9000"], False),
    ("http://10.0.0.5:9001/1.png", ["http://10.0.0.5:9000"], None),
    ("https://10.0.0.5:9000/1.png", ["http://10.0.0.5:9000"], None),
    ("http://localhost:9000/1.png", [], None),
    ("http://[::1]:9000/1.png", ["http://[::1]:9000"], False),
    ("http://u@10.0.0.5:9000/1.png", ["http://10.0.0.5:9000"], None),
]


@pytest.mark.parametrize(("url", "origins", "public_only"), PORTS)
def test_allowed_places(url: str, origins: list[str], public_only: bool | None) -> None:
    """Fetches https from port 443 and the API's own, and from `download_origins` without a check."""
    flow = start_download(url, download_origins=origins)
    if public_only is None:
        with pytest.raises(imgkit.DownloadBlockedError, match="download_origins"):
            advance(flow, None)
    else:
        effect = advance(flow, None)
        assert isinstance(effect, SendRequest)
        assert effect.request.public_peer_only is public_only


@pytest.mark.parametrize(
    "origins",
    ["http://h", 5, [5], ["h:9000"], ["http://h/path"], ["http://u:CANARY@h"], ["http://h:0"], ["http://h:x"],
     ["http://h?a=CANARY"], ["ftp://h"], [""], ["http://"], ["*"], [b"http://h"]],
)  # fmt: skip
def test_wrong_download_origins(origins: Any) -> None:
    """Refuses anything but a list of origins, and names the argument and an example."""
    with pytest.raises(imgkit.ConfigurationError, match=r"download_origins .*localhost:9000") as caught:
        imgkit.ImageService(download_origins=origins)
    assert "CANARY" not in str(caught.value)


def test_an_origin_behind_another_name(flavor: Any, http_backend: str, monkeypatch: Any) -> None:
    """Downloads from a trusted origin whose address is private."""
    import socket

    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name == "minio.internal" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with WireServer(reply_with_png()) as store:
        place = f"http://minio.internal:{store.port}"
        with WireServer(reply_with_url(f"{place}/1.png?sig=CANARY")) as server:
            with pytest.raises(imgkit.DownloadBlockedError) as caught:
                create_and_download(flavor, http_backend, server)
            assert "CANARY" not in str(caught.value)
            assert caught.value.origin == place
            assert f'download_origins=["{place}"]' in str(caught.value)
            assert create_and_download(flavor, http_backend, server, download_origins=[place]) == picture()
    assert store.accepted == 1
