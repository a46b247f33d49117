"""Promises that break easily at their edges: money, secrets, deadlines, closing."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import pickle
import ssl
import threading
import time
import traceback
import typing
import warnings
from decimal import Decimal
from typing import Any

import pytest

import imgkit
from imgkit import errors
from imgkit.errors import ImgkitError, PluginWarning
from imgkit.wire.messages import BackendOptions
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import WireServer, drip, hang, head, raw, reply

KEY = "sk-test-CANARY-1234567890abcdef"
OK = reply(200, answer())


def create(flavor: Any, *args: Any, **options: Any) -> Any:
    """Create an image with either service."""
    return flavor.run(lambda service: service.create_image("a fox"), *args, **options)


@pytest.mark.parametrize("interim", [100, 102, 103, 199])
def test_interim_responses_are_skipped(flavor: Any, http_backend: str, interim: int) -> None:
    """Skips early hints and other 1xx responses."""

    def script(line: Any) -> None:
        line.send(f"HTTP/1.1 {interim} Early\r\nlink: </x>\r\n\r\n".encode() * 3)
        OK(line)

    with WireServer(script) as server:
        assert create(flavor, http_backend, base_url=server.base_url)[0].data == picture()
    assert server.posts == 1


class SlowFile:
    """A file whose reads take `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._blocks = [picture(), b""]

    def read(self, size: int = -1) -> bytes:
        threading.Event().wait(self._wait_s)
        return self._blocks.pop(0)


def test_nothing_is_sent_after_the_deadline(flavor: Any, http_backend: str) -> None:
    """Sends nothing if opening the inputs takes until the deadline, and says so."""
    with WireServer(OK) as server, pytest.raises(imgkit.NotSentError):
        flavor.run(
            lambda service: service.create_image_edit(SlowFile(0.05), "blue"),
            http_backend,
            base_url=server.base_url,
            timeout_s=0.04,
        )
    assert server.accepted == 0


@pytest.mark.parametrize("backend", ["requests", "aiohttp", "offline"])
def test_closing_ends_running_calls(backend: str) -> None:
    """Closing the asynchronous service ends its running calls soon, with an imgkit error."""

    async def main(base_url: str | None) -> list[Any]:
        latency: dict[str, Any] = {"client_options": {"latency_s": 20}}
        options = latency if base_url is None else {"base_url": base_url}
        service = imgkit.AsyncImageService(backend, **options)
        calls = [asyncio.create_task(service.create_image(f"{number}")) for number in range(3)]
        await asyncio.sleep(0.05)
        while base_url is not None and len(server.lines) < 3:
            await asyncio.sleep(0.01)
        await service.close()
        return await asyncio.gather(*calls, return_exceptions=True)

    began = time.monotonic()
    with WireServer(hang) as server:
        ends = asyncio.run(main(None if backend == "offline" else server.base_url))
    assert [type(end) for end in ends] == [imgkit.OutcomeUnknownError] * 3
    assert time.monotonic() - began < 5


def test_closing_in_another_thread(http_backend: str) -> None:
    """Closing the blocking service ends a call of another thread long before its deadline."""
    ends: list[BaseException] = []

    def work(service: imgkit.ImageService) -> None:
        try:
            service.create_image("a fox")
        except BaseException as error:
            ends.append(error)

    with WireServer(drip(b" " * 4000, head(200, {"content-length": "4000"}))) as server:
        service = imgkit.ImageService(http_backend, base_url=server.base_url)
        thread = threading.Thread(target=work, args=(service,))
        thread.start()
        while not server.lines:
            time.sleep(0.01)
        service.close()
        thread.join(5)
    assert not thread.is_alive()
    assert [type(end) for end in ends] == [imgkit.OutcomeUnknownError]


def test_a_queued_call_ends_unsent() -> None:
    """A call that waits for a thread ends at its deadline and never reaches the server."""

    async def main(base_url: str) -> list[Any]:
        async with imgkit.AsyncImageService("requests", base_url=base_url, max_in_flight=1) as service:
            first = asyncio.create_task(service.create_image("first"))
            while not server.lines:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            second = await asyncio.gather(
                service.create_image("second", timeout_s=0.05), return_exceptions=True
            )
            assert time.monotonic() - began < 5
            await service.close()
            return [*second, *await asyncio.gather(first, return_exceptions=True)]

    with WireServer(hang) as server:
        ends = asyncio.run(main(server.base_url))
    assert all(isinstance(end, imgkit.TransportError) for end in ends)
    assert [line.body for line in server.lines] == [b'{"prompt":"first"}']


def test_impossible_host_names(flavor: Any, http_backend: str, tmp_path: Any) -> None:
    """A result URL with an impossible host costs its own image only."""
    entries = [{"b64_json": encoded()}, {"url": "https://a..b/x.png"}, {"b64_json": encoded()}]
    with WireServer(reply(200, {"data": entries})) as server, pytest.raises(imgkit.SaveError) as caught:
        flavor.run(
            lambda service: service.create_image("a fox", save_to=tmp_path),
            http_backend,
            base_url=server.base_url,
        )
    response: Any = caught.value.response
    assert [image.path is None for image in response] == [False, True, False]
    for name in ("a..b", "x" * 64):
        with pytest.raises(imgkit.ConfigurationError):
            imgkit.ImageService(http_backend, base_url=f"http://{name}/v1")


@pytest.mark.parametrize("error", [SystemExit(3), ZeroDivisionError("oops")])
def test_no_observer_costs_an_image(flavor: Any, error: BaseException) -> None:
    """An observer that raises or exits costs one warning, also where warnings are errors."""

    class Bad:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            raise error

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = flavor.run(lambda service: service.create_image("a fox", size="64x64"), plugins=[Bad()])
    assert len(made) == 1
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        flavor.run(lambda service: service.create_image("a fox", size="64x64"), plugins=[Bad()])
    assert len([warning for warning in seen if warning.category is PluginWarning]) == 1


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s", "read_timeout_s"])
def test_long_durations_are_refused(name: str) -> None:
    """Refuses durations of more than a week, which would overflow some clock."""
    options: dict[str, Any] = {name: 1e10}
    with pytest.raises(imgkit.ConfigurationError, match=name):
        imgkit.ImageService(**options)
    with imgkit.ImageService() as service, pytest.raises(imgkit.ConfigurationError):
        service.create_image("a fox", timeout_s=1e10)


def test_proxy_password_stays_secret(flavor: Any, http_backend: str) -> None:
    """Reports a refusing proxy without its password."""
    with WireServer(raw(b"HTTP/1.1 407 Proxy Auth\r\ncontent-length: 0\r\n\r\n")) as server:
        proxy = server.origin.replace("//", "//user:CANARYPW@")
        with pytest.raises(imgkit.NotSentError) as caught:
            create(flavor, http_backend, base_url="https://api.example/v1", proxy=proxy, api_key=KEY)
    assert "CANARYPW" not in "".join(traceback.format_exception(caught.value))
    assert "CANARYPW" not in repr(BackendOptions(proxy=proxy, client_options={"token": "CANARYPW"}))


def test_an_echoed_key_stays_secret(flavor: Any, http_backend: str) -> None:
    """A key that the server echoes in every field appears in no attribute or message."""
    error = {"message": KEY, "code": KEY, "type": KEY, "param": KEY}
    with WireServer(reply(429, {"error": error}, x_request_id=KEY)) as server:
        with pytest.raises(imgkit.RateLimitError) as caught:
            create(flavor, http_backend, base_url=server.base_url, api_key=KEY)
    assert KEY not in f"{caught.value!r}{vars(caught.value)}"


def test_no_frame_of_a_failure_shows_the_key(flavor: Any, http_backend: str) -> None:
    """A traceback with local variables shows no key in the frames below the services."""
    with WireServer(reply(429, {"error": {"message": "slow down"}})) as server:
        with pytest.raises(imgkit.RateLimitError) as caught:
            create(flavor, http_backend, base_url=server.base_url, api_key=KEY)
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    # The frames of this test hold the key; the frames below the service must not.
    assert KEY not in text.partition("service.py")[2]


def test_requests_show_no_headers() -> None:
    """The repr of a request shows no extra headers."""
    request = imgkit.CreateImageRequest(prompt="x", extra_headers={"x-vault": "CANARY"})
    assert "CANARY" not in repr(request)


def test_a_key_found_later_is_not_sent_unencrypted(monkeypatch: Any) -> None:
    """Refuses plain http also for a key that enters the environment later."""
    with imgkit.ImageService("requests", base_url="http://lan.example/v1") as service:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with pytest.raises(imgkit.ConfigurationError, match="unencrypted"):
            service.create_image("a fox")


def test_signed_urls_stay_out_of_logs(http_backend: str, caplog: Any) -> None:
    """No log line of an HTTP library holds the query of a result URL."""
    caplog.set_level(logging.DEBUG)
    picture_reply = reply(200, picture(), content_type="image/png", bad_header="x")
    with WireServer(reply(200, {"data": [{"url": "/p.png?sig=CANARYSIG"}]}), picture_reply) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            assert service.create_image("a fox")[0].data == picture()
    assert "CANARYSIG" not in caplog.text


def test_a_deadline_within_the_handshake_is_unsent(flavor: Any, http_backend: str) -> None:
    """A deadline within the TLS handshake proves that nothing was sent, on both backends."""
    with WireServer(lambda line: line.until_client_leaves(), read_first=False) as server:
        with pytest.raises(imgkit.NotSentError):
            create(flavor, http_backend, base_url=server.base_url.replace("http:", "https:"), timeout_s=0.1)


def test_bad_proxies_in_the_environment(monkeypatch: Any) -> None:
    """Refuses an unusable proxy at once, and names its variable."""
    for value in ("socks5://127.0.0.1:1", "http://", "nonsense"):
        monkeypatch.setenv("HTTPS_PROXY", value)
        with pytest.raises(imgkit.ConfigurationError, match="HTTPS_PROXY"):
            imgkit.ImageService("requests", use_env_proxy=True)


def list_error_classes(kind: type[Any] = ImgkitError) -> list[type[Any]]:
    """Return an error class and all its subclasses."""
    return [kind, *(cls for child in kind.__subclasses__() for cls in list_error_classes(child))]


@pytest.mark.parametrize("kind", sorted(set(list_error_classes()), key=str))
def test_errors_survive_pickling(kind: type[Any]) -> None:
    """Every error survives pickling and copying with its text and attributes."""
    made: ImgkitError
    if issubclass(kind, errors.ApiError):
        made = kind("m", status=429, code="c", request_id="r")
    elif issubclass(kind, errors.PluginError):
        made = kind("m", plugin="p", hook="h")
    elif issubclass(kind, errors.BudgetExceededError):
        made = kind("m", **dict.fromkeys(("limit", "spent", "reserved", "wanted"), Decimal("0.1")))
    elif issubclass(kind, errors.InvalidRequestError):
        made = kind({"n": "is wrong"})
    else:
        made = kind("m")
    for again in (pickle.loads(pickle.dumps(made)), copy.copy(made)):
        assert type(again) is kind
        assert str(again) == str(made)
        assert vars(again) == vars(made)


ODD_HEADERS: list[Any] = [
    None, 5, {1: "a"}, {"": "x"}, {"a:b": "c"}, {"transfer-encoding": "chunked"}, {"host": "evil"},
    {"X-Upper": "x"}, {"x": "sk-CANARY–key"}, {"x": None},
]  # fmt: skip


@pytest.mark.parametrize("headers", ODD_HEADERS)
def test_headers_of_plugins_are_checked(headers: Any) -> None:
    """Refuses headers that cannot be sent or that frame the message, and names the plugin."""

    class Odd:
        @imgkit.hookimpl
        def imgkit_before_send(self, request: Any) -> Any:
            return dataclasses.replace(request, headers=headers)

    with imgkit.ImageService(plugins=[Odd()]) as service, pytest.raises(imgkit.PluginError) as caught:
        service.create_image("a fox")
    assert "Odd" in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"plugins": 5}, {"plugins": "x"}, {"plugins": ["x"]}, {"client_options": 5}]
)
def test_arguments_of_wrong_types(options: dict[str, Any]) -> None:
    """Arguments of wrong types raise a ConfigurationError."""
    with pytest.raises(imgkit.ConfigurationError):
        imgkit.ImageService(**options)


def test_unknown_client_options(http_backend: str) -> None:
    """Refuses client options that the backend does not know."""
    with pytest.raises(imgkit.ConfigurationError, match="foo"):
        imgkit.ImageService(http_backend, client_options={"foo": 1})


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_callers_context_is_left_alone(flavor: Any, http_backend: str) -> None:
    """Uses a given ssl.SSLContext without changing it."""
    import trustme

    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server_side)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with WireServer(OK, tls=server_side) as server:
        assert len(create(flavor, http_backend, base_url=server.base_url, ca=context)) == 1
    assert context.verify_mode == ssl.CERT_NONE


def test_images_are_equal_to_themselves_only() -> None:
    """Images compare by identity and are hashable."""
    first, second = imgkit.Image.from_bytes(b"a"), imgkit.Image.from_bytes(b"b")
    assert first != second
    assert len({first, second, first}) == 2


def test_a_cut_reply_is_kept(flavor: Any, http_backend: str) -> None:
    """The error holds the received part of a reply that is cut or too large."""
    with WireServer(raw(head(200, {"content-length": "100"}) + b'{"data": [')) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as cut:
            create(flavor, http_backend, base_url=server.base_url)
    # aiohttp may notice the cut before it returns the body.
    assert b'{"data": ['.startswith(cut.value.body)
    assert cut.value.body or http_backend == "aiohttp"
    with WireServer(reply(200, b"x" * 5000)) as server, pytest.raises(imgkit.UnreadableReplyError) as large:
        create(flavor, http_backend, base_url=server.base_url, max_reply_bytes=1000)
    assert len(large.value.body) > 1000


@pytest.mark.parametrize("name", ["create_image", "create_image_edit", "create_image_variation", "download"])
@pytest.mark.parametrize("service", [imgkit.ImageService, imgkit.AsyncImageService])
def test_type_hints_resolve(service: Any, name: str) -> None:
    """Tools that read annotations can resolve every name in them."""
    hints = typing.get_type_hints(getattr(service, name))
    assert hints["return"] in (imgkit.ImagesResponse, imgkit.Image)
