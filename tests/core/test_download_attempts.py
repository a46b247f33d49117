"""Attempts of a free download: four tries with pauses, complete images, and the words of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from imgkit.backends import Head
from imgkit.core import download
from imgkit.core.operations import OperationFlows
from imgkit.core.store_errors import read_reason
from imgkit.images.image import Image
from imgkit.images.sources import UrlSource
from imgkit.runtime.flow import EffectFailed, Finished, ReadChunk, SendRequest, Sleep, advance
from tests.support.pictures import picture
from tests.support.wire_server import Script, WireServer, drop, head, raw, reply, reset

URL = "/fox.png?sig=CANARY%2Fsecret&se=2999-01-01T00:00:00Z"
PNG_REPLY = reply(200, picture(), content_type="image/png")
CHUNKED = {"transfer-encoding": "chunked", "connection": "close"}


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat downloads without waiting."""
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0, 0.0))


def fetch(flavor: Any, backend: str, server: WireServer, **options: Any) -> bytes:
    """Create an image at a URL and download it, under either service."""

    async def later(service: Any) -> bytes:
        return bytes((await service.download((await service.create_image("a fox"))[0])).data)

    def work(service: Any) -> Any:
        if isinstance(service, imgkit.ImageService):
            return service.download(service.create_image("a fox")[0]).data
        return later(service)

    data: bytes = flavor.run(work, backend=backend, base_url=server.base_url, **options)
    return data


def reply_with_url(url: str = URL) -> Script:
    """Return a script that replies with one image URL."""
    return reply(200, {"created": 1, "data": [{"url": url}]})


def cut(data: bytes) -> Script:
    """Return a script that sends the beginning of an image without announcing a length."""
    return raw(head(200, {"content-type": "image/png", "connection": "close"}) + data)


PASSING: dict[str, Script] = {
    "overloaded": reply(503, b"<Error><Code>SlowDown</Code></Error>"),
    "rate limited": reply(429, b""),
    "internal error": reply(500, b""),
    "dropped": drop,
    "reset": reset,
    "garbage": raw(b"HELLO\r\n\r\n"),
    "cut before its length": raw(head(200, {"content-length": "5000"}) + picture()),
    "cut within a chunk": raw(head(200, CHUNKED) + b"4000\r\n" + picture()),
    "cut without a length": cut(picture()[:-20]),
    "empty": cut(b""),
}


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_repeated(flavor: Any, http_backend: str, fault: str) -> None:
    """Downloads the image at the fourth attempt, and pays for it once."""
    with WireServer(reply_with_url(), *[PASSING[fault]] * 3, PNG_REPLY) as server:
        assert fetch(flavor, http_backend, server) == picture()
    assert (server.posts, server.accepted) == (1, 5)


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("fault", PASSING)
def test_a_lasting_fault_ends_after_four_attempts(flavor: Any, http_backend: str, fault: str) -> None:
    """Raises a DownloadError without the signature after four attempts."""
    with WireServer(reply_with_url(), PASSING[fault]) as server:
        with pytest.raises(imgkit.DownloadError, match="tried 4 times") as caught:
            fetch(flavor, http_backend, server)
    assert (server.posts, server.accepted) == (1, 5)
    assert "CANARY" not in str(caught.value)
    assert "billed" not in str(caught.value)
    assert "retries" not in str(caught.value)


@pytest.mark.usefixtures("_no_pauses")
def test_saving_repeats_downloads(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """Saves the image of a call although its first download fails."""
    with WireServer(reply_with_url(), reply(503, b""), PNG_REPLY) as server:
        made = flavor.run(
            lambda service: service.create_image("a fox", save_to=tmp_path),
            backend=http_backend,
            base_url=server.base_url,
        )
    assert made[0].path.read_bytes() == picture()
    assert server.posts == 1


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_cut_image_is_an_error(http_backend: str, format: str) -> None:
    """Refuses the beginning of an image, and keeps its bytes in the error."""
    part = picture(format, (64, 64))[:-9]
    with WireServer(reply_with_url(), cut(part)) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            made = service.create_image("a fox")
            with pytest.raises(imgkit.DownloadError, match="cut off") as caught:
                made[0].data  # noqa: B018 - the property itself is what raises
    assert caught.value.body == part
    assert server.accepted == 5


REFUSALS = [401, 403, 404, 410, 400, 418]


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_not_repeated(http_backend: str, status: int) -> None:
    """Asks once for a link that the store refuses."""
    with WireServer(reply_with_url(), reply(status, b"no")) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            with pytest.raises(imgkit.DownloadError):
                service.download(service.create_image("a fox")[0])
    assert server.accepted == 2


def start(timeout_s: float | None = None, url: str = "https://cdn.example" + URL) -> Any:
    """Return the flow of a download, to be stepped by hand."""
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1") as service:
        flow = OperationFlows(service._core).download(
            Image(url=url, source=UrlSource(url, None)), timeout_s=timeout_s
        )
    assert isinstance(advance(flow, None), SendRequest)
    return flow


def answer(flow: Any, status: int, **headers: str) -> object:
    """Answer the request of a flow with an empty reply; return its next effect."""
    lines = {name.replace("_", "-"): text for name, text in headers.items()}
    assert advance(flow, Head(status, lines)) == ReadChunk()
    return advance(flow, b"")


def test_pauses_between_attempts() -> None:
    """Waits 0.5, 1 and 2 s, or half as long, between the attempts."""
    flow = start()
    for longest_s in (0.5, 1.0, 2.0):
        effect = answer(flow, 503)
        assert isinstance(effect, Sleep)
        assert longest_s / 2 <= effect.wait_s <= longest_s
        assert isinstance(advance(flow, None), SendRequest)
    with pytest.raises(imgkit.DownloadError, match="tried 4 times"):
        answer(flow, 503)


@pytest.mark.parametrize("status", [429, 503])
def test_pauses_as_the_server_asks(status: int) -> None:
    """Waits as long as Retry-After asks, and then downloads the image."""
    flow = start()
    assert answer(flow, status, retry_after="7") == Sleep(7.0)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, Head(200, {})) == ReadChunk()
    assert advance(flow, picture()) == ReadChunk()
    end = advance(flow, b"")
    assert isinstance(end, Finished)
    assert end.value.data == picture()


@pytest.mark.parametrize(("timeout_s", "retry_after"), [(None, "121"), (5.0, "6"), (0.2, "")])
def test_pauses_end_within_the_deadline(timeout_s: float | None, retry_after: str) -> None:
    """Starts no pause over two minutes, and none that the deadline would cut short."""
    flow = start(timeout_s)
    with pytest.raises(imgkit.DownloadError) as caught:
        answer(flow, 503, retry_after=retry_after)
    assert ("asks to wait" in str(caught.value)) == bool(retry_after)


def test_an_unknown_host_is_not_repeated() -> None:
    """Ends at a failure that no further attempt can mend."""
    flow = start()
    with pytest.raises(imgkit.DownloadError, match="no such name"):
        advance(flow, EffectFailed(imgkit.NotSentError("no such name", permanent=True)))


AZURE = (
    b"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate "
    b"the request.\nRequestId:1111\nTime:2026-01-11T07:40:07Z</Message><AuthenticationErrorDetail>%s"
    b"</AuthenticationErrorDetail></Error>"
)
S3 = "<Error><Code>{}</Code><Message>{}</Message><StringToSign>CANARY/secret</StringToSign></Error>"
WORDS: list[tuple[int, bytes, type[Exception], str]] = [
    (
        400,
        S3.format("ExpiredRequest", "Request has expired").encode(),
        imgkit.LinkExpiredError,
        "Request has",
    ),
    (403, S3.format("AccessDenied", "Request has expired").encode(), imgkit.LinkExpiredError, "AccessDenied"),
    (
        403,
        S3.format("AccessDenied", "Access Denied").encode(),
        imgkit.DownloadError,
        "AccessDenied: Access D",
    ),
    (403, S3.format("SignatureDoesNotMatch", "No match.").encode(), imgkit.DownloadError, "No match"),
    (404, S3.format("NoSuchKey", "No such key.").encode(), imgkit.LinkExpiredError, "NoSuchKey: No such key"),
    (403, AZURE % b"Signature not valid in the specified time frame", imgkit.LinkExpiredError, "time frame"),
    (
        403,
        AZURE % b"Signature did not match. String to sign used was CANARY",
        imgkit.DownloadError,
        "not match",
    ),
    (403, b'{"error": {"code": "link_expired", "message": "Too old."}}', imgkit.LinkExpiredError, "Too old"),
    (403, b'{"error": {"code": "forbidden", "message": "No."}}', imgkit.DownloadError, "forbidden: No"),
    (403, b'{"reason": "hotlinking"}', imgkit.DownloadError, "hotlinking"),
    (
        403,
        b"<html><title>Forbidden</title><p>Ask CANARY/secret</p></html>",
        imgkit.DownloadError,
        "Forbidden",
    ),
    (403, b"", imgkit.LinkExpiredError, "gives no reason"),
    (404, picture(), imgkit.LinkExpiredError, "not served"),
]


@pytest.mark.parametrize(("status", "body", "kind", "said"), WORDS)
def test_words_of_a_store(
    http_backend: str, status: int, body: bytes, kind: type[Exception], said: str
) -> None:
    """Quotes the store's code and message without secrets, and calls expired only an expired link."""
    with WireServer(reply_with_url(), reply(status, body)) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            with pytest.raises(imgkit.DownloadError) as caught:
                service.download(service.create_image("a fox")[0])
    assert type(caught.value) is kind
    assert said in str(caught.value)
    proves_expiry = b"xpired" in body or b"time frame" in body
    assert ("has expired (" in str(caught.value)) == proves_expiry
    assert "about an hour" not in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "se=2026-01-10T19:12:35Z&sig=abc",
        "X-Amz-Date=20260110T181235Z&X-Amz-Expires=3600&X-Amz-Signature=abc",
        "X-Goog-Date=20260110T181235Z&X-Goog-Expires=3600",
        "Expires=1768072355&Signature=abc",
    ],
)
def test_the_url_proves_its_expiry(query: str) -> None:
    """Calls a refused link expired if its own query says so."""
    flow = start(url=f"https://cdn.example/fox.png?{query}")
    with pytest.raises(imgkit.LinkExpiredError, match="valid until 2026-01-10 19:12:35 UTC"):
        answer(flow, 403)


@pytest.mark.parametrize(
    "query", ["Expires=" + "9" * 30, "se=soon", "X-Amz-Date=1&X-Amz-Expires=2", "", "&=&"]
)
def test_an_odd_query_proves_nothing(query: str) -> None:
    """Guesses no expiry from a query that names no time in the past."""
    flow = start(url=f"https://cdn.example/fox.png?{query}")
    with pytest.raises(imgkit.LinkExpiredError, match="gives no reason"):
        answer(flow, 403)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"<Code>", b"[" * 5000, b"{}", b"<Error></Error>", b"null"])
def test_odd_error_bodies(body: bytes) -> None:
    """Reads any bytes as a reason."""
    assert isinstance(read_reason(body), str)


def test_a_page_in_place_of_an_image(http_backend: str) -> None:
    """Quotes a 200 page without its markup and without the signature."""
    page = b"<html><body>Log in: /fox.png?sig=CANARY/secret</body></html>"
    with WireServer(reply_with_url(), reply(200, page)) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            with pytest.raises(imgkit.DownloadError, match="a web page: Log in: ") as caught:
                service.download(service.create_image("a fox")[0])
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("spell", [bytes, lambda text: text.replace(b"/", b"_").replace(b"+", b"-")])
def test_base64_in_the_url(flavor: Any, format: str, spell: Callable[[bytes], bytes]) -> None:
    """Takes base64 in the URL member for the image itself, and fetches nothing."""
    import base64

    image = picture(format, (64, 64))
    text = spell(base64.b64encode(image)).decode()
    with WireServer(reply(200, {"data": [{"url": text}]})) as server:
        made = flavor.run(
            lambda service: service.create_image("a fox"), backend="requests", base_url=server.base_url
        )
    assert (made[0].url, made[0].data, server.accepted) == (None, image, 1)
    assert json.dumps(text)
