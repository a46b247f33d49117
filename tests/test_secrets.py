"""Keys and the places around them: constructors, sources, hooks, backends, links, dry runs, cassettes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import imgkit
from imgkit.core import download
from imgkit.default_plugins.auth import BearerAuth, HeaderAuth, TokenAuth
from imgkit.testing import canary
from imgkit.wire.messages import HttpRequest
from tests.conftest import ServiceRunner
from tests.support.leaks import SHAPES, HookAuth, Sinks, iterate_frames
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import Line, Script, WireServer, head, reply

KEY = SHAPES["no shape"](77)
SIGNATURE = "S1gnature-CANARY-0123456789"


def assert_hidden(error: BaseException, key: str = KEY) -> None:
    """Fail if an error, its causes or the variables of imgkit's frames show a key."""
    assert canary.find_secret(error, secret=key) == []
    frames = list(iterate_frames(error))
    assert frames
    assert [place for place, text in frames if key in text] == []
    assert not any("repr() failed" in text for _, text in frames)


def make_options(key: str) -> Mapping[str, dict[str, Any]]:
    """Return arguments with a key that make the constructor fail."""
    return {
        "late": {"api_key": key, "retry": 5},
        "last": {"api_key": key, "plugins": ["nope"], "proxy": f"http://u:{key}@p.example"},
        "typo": {"api_keys": key},
        "bytes": {"api_key": key.encode()},
        "scheme": {"api_key": key, "base_url": f"ftp://u:{key}@h.example"},
        "userinfo": {"base_url": f"https://u:{key}@h.example/v1"},
        "port": {"base_url": f"https://u:{key}/x@h.example/v1"},
        "url as bytes": {"base_url": f"https://u:{key}@h.example/v1".encode()},
        "proxy": {"proxy": f"socks5://u:{key}@p.example", "api_key": key},
        "proxy host": {"proxy": f"http://u:{key}@[::1", "api_key": key},
        "proxy port": {"proxy": f"http://u:{key[5:]}:{key[5:]}", "api_key": key},
        "options": {"client_options": {"token": key}},
        "unencrypted": {"api_key": key, "base_url": "http://lan.example/v1"},
        "timeout": {"api_key": key, "timeout_s": -1},
        "line break": {"api_key": f"{key}\n{key}"},
    }


@pytest.mark.parametrize("name", make_options(""))
@pytest.mark.parametrize("service", [imgkit.ImageService, imgkit.AsyncImageService])
def test_a_constructor_that_fails_shows_no_key(service: Any, name: str, http_backend: str) -> None:
    """Neither the message nor the variables of any frame show the key, and every variable has a repr."""
    with pytest.raises(imgkit.ConfigurationError) as caught:
        service(http_backend, **make_options(KEY)[name])
    assert_hidden(caught.value)


@pytest.mark.parametrize(
    "make",
    [BearerAuth, lambda key: HeaderAuth("x-acme", key), TokenAuth, lambda key: BearerAuth(key + b"\n")],
)
def test_a_plugin_that_fails_shows_no_key(make: Callable[[Any], object]) -> None:
    """A key of a wrong type is in no message and in no variable of imgkit's frames."""
    with pytest.raises(imgkit.ConfigurationError) as caught:
        make(KEY.encode())
    assert_hidden(caught.value)


def test_an_incomplete_service_has_a_repr() -> None:
    """The repr of a service without its constructor works."""
    assert repr(imgkit.ImageService.__new__(imgkit.ImageService)) == "ImageService(incomplete)"


class BadSource:
    """A source whose tokens cannot be sent."""

    def token(self) -> Any:
        return imgkit.plugins.Token(f"{KEY}\n")


class BadHeader:
    """A plugin that signs with a header that cannot be sent."""

    @imgkit.hookimpl
    def imgkit_authenticate(self, request: Any) -> Any:
        return request.with_headers({**request.headers, "x-acme": f"{KEY}\r\nx"})


class BadSigner:
    """A plugin that fails with the header of a caller in its message."""

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any) -> Any:
        raise ValueError(f"I dislike {request.headers['x-token']}")


class BadPreparer:
    """A plugin that fails with a member of a caller in its message."""

    @imgkit.hookimpl
    def imgkit_prepare(self, request: Any) -> Any:
        raise KeyError(request.extra_body["api_key"])


UNSENT: dict[str, dict[str, Any]] = {
    "callable": {"api_key": lambda: f"{KEY}\n"},
    "bytes": {"api_key": lambda: KEY.encode()},
    "token": {"plugins": [TokenAuth(BadSource())]},
    "header": {"plugins": [BadHeader()]},
    "signer": {"plugins": [BadSigner()]},
    "preparer": {"plugins": [BadPreparer()]},
}


@pytest.mark.parametrize("name", UNSENT)
def test_a_call_that_fails_before_sending_shows_no_key(
    flavor: ServiceRunner, http_backend: str, name: str
) -> None:
    """A key that cannot be sent, or that a hook quotes, is in no message and in no variable."""
    options: dict[str, Any] = {"extra_headers": {"x-token": KEY}, "extra_body": {"api_key": KEY}}
    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.ConfigurationError) as caught:
            flavor.run(
                lambda service: service.create_image("a fox", **options),
                http_backend,
                base_url=server.base_url,
                **UNSENT[name],
            )
    assert server.accepted == 0
    assert_hidden(caught.value)


BAD_REQUESTS: dict[str, dict[str, Any]] = {
    "header": {"extra_headers": {"x-token": f"{KEY}\n"}},
    "header name": {"extra_headers": {"host": KEY}},
    "header bytes": {"extra_headers": {"x-token": KEY.encode()}},
    "member": {"extra_body": {"api_key": {KEY.encode()}}},
    "nested member": {"extra_body": {"auth": {"user": KEY, "more": object()}}},
    "beside": {"extra_body": {"api_key": KEY}, "size": "huge!"},
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_wrong_argument_shows_no_key(flavor: ServiceRunner, name: str) -> None:
    """The error about a wrong argument shows no secret beside it or in it."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        flavor.run(lambda service: service.create_image("a fox", **BAD_REQUESTS[name]))
    assert_hidden(caught.value)


@pytest.mark.parametrize("way", ["argument", "header", "plugin"])
@pytest.mark.parametrize("field", ["prompt", "user"])
def test_a_text_with_the_key_is_refused(flavor: ServiceRunner, way: str, field: str, tmp_path: Path) -> None:
    """A prompt that repeats the key is refused before it is sent: sidecar and file name would show it."""
    texts = {"prompt": f"a fox {KEY}"} if field == "prompt" else {"prompt": "a fox", "user": KEY}
    ways: dict[str, dict[str, Any]] = {
        "argument": {"api_key": KEY},
        "header": {"api_key": "unused"},
        "plugin": {"plugins": [HeaderAuth("x-key", KEY)]},
    }
    more = {"extra_headers": {"x-api-key": KEY}} if way == "header" else {}
    with WireServer(reply(200, answer())) as server, pytest.raises(imgkit.InvalidRequestError) as caught:
        flavor.run(
            lambda service: service.create_image(**texts, **more, save_to=tmp_path / "out"),
            "requests",
            base_url=server.base_url,
            **ways[way],
        )
    assert list(caught.value.fields) == [field]
    assert KEY not in str(caught.value)
    assert server.accepted == 0
    assert not any(tmp_path.rglob("*"))


def test_no_sidecar_shows_a_key_in_an_unusual_member(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A sidecar shows ``extra_body`` without the key, whatever the name of its member."""
    body = {"note": f"for {KEY}", "more": [{"deep": KEY}]}
    with WireServer(reply(200, answer())) as server:
        flavor.run(
            lambda service: service.create_image("a fox", extra_body=body, save_to=tmp_path / "fox"),
            "requests",
            base_url=server.base_url,
            api_key=KEY,
        )
        assert json.loads(server.lines[0].body)["note"] == f"for {KEY}"
    sidecar = json.loads((tmp_path / "fox.png.json").read_text())
    assert sidecar["parameters"]["extra_body"] == {"note": "for …", "more": [{"deep": "…"}]}


def test_a_short_key_may_be_a_word(flavor: ServiceRunner) -> None:
    """A short key, as for a server on this machine, may stand in a prompt."""
    with WireServer(reply(200, answer())) as server:
        assert flavor.run(
            lambda service: service.create_image("a test of a fox"),
            "requests",
            base_url=server.base_url,
            api_key="test",
        )


def fail_by_bug(*args: object, **options: object) -> None:
    """Fail as a library with a bug does."""
    raise KeyError("bug")


def test_no_frame_of_a_backend_shows_a_key(
    flavor: ServiceRunner, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug inside an HTTP library leaves through imgkit's frames, whose variables show no key."""
    if http_backend == "requests":
        monkeypatch.setattr("requests.adapters.HTTPAdapter.send", fail_by_bug)
    else:
        monkeypatch.setattr("aiohttp.ClientSession.request", fail_by_bug)
    options: dict[str, Any] = {"extra_headers": {"x-token": KEY}, "extra_body": {"api_key": KEY}}
    with pytest.raises(KeyError) as caught:
        flavor.run(
            lambda service: service.create_image("a fox", **options),
            http_backend,
            base_url="http://127.0.0.1:9/v1",
            plugins=[HookAuth(KEY)],
        )
    assert_hidden(caught.value)


@pytest.mark.parametrize("place", ["base_url", "proxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_failed_connection_shows_no_key(
    flavor: ServiceRunner, http_backend: str, caplog: pytest.LogCaptureFixture, place: str, scheme: str
) -> None:
    """A server or a proxy that hangs up, or that speaks no TLS, brings no key into an error or a log."""
    caplog.set_level(logging.DEBUG)
    password = KEY.replace("/", "-")
    with WireServer(lambda line: line.send(b"HTTP/1.1 407 No\r\n\r\n"), read_first=False) as server:
        settings: dict[str, Any] = {"base_url": f"{scheme}://127.0.0.1:{server.port}/v1"}
        if place == "proxy":
            proxy = f"http://user:{password}@127.0.0.1:{server.port}"
            settings = {"base_url": f"{scheme}://api.example/v1", "proxy": proxy, "allow_insecure": True}
        with pytest.raises(imgkit.ImgkitError) as caught:
            flavor.run(lambda service: service.create_image("a fox"), http_backend, api_key=KEY, **settings)
    for key in (KEY, password):
        assert_hidden(caught.value, key)
        assert canary.find_secret(records=caplog.records, secret=key) == []


def test_requests_and_their_headers_have_a_safe_repr() -> None:
    """No repr of a request or of its headers shows a value that may be a key."""
    request = HttpRequest("GET", f"https://h.example/{KEY}?{KEY}", MappingProxyType({"x-acme": KEY}))
    shown = f"{request!r}{request.headers!r}{request.wire_headers()!r}"
    assert KEY not in shown
    assert "h.example" in shown
    assert "x-acme" in shown


def test_a_broken_head_is_not_logged(http_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """HTTP libraries log no line of a head that they cannot read."""
    caplog.set_level(logging.DEBUG)
    lines = f"HTTP/1.1 200 OK\r\nx-a: 1\r\n{KEY}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    with WireServer(lambda line: line.send(lines)) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url, api_key=KEY, retry=False) as service:
            with pytest.raises(imgkit.ImgkitError):
                service.create_image("a fox")
    assert caplog.records
    assert canary.find_secret(records=caplog.records, secret=KEY) == []


@pytest.mark.parametrize("place", ["b64_json", "output", "url"])
def test_images_survive_short_keys(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, place: str
) -> None:
    """A short key that occurs in the base64 of an image changes no byte of the image."""
    data = noise(32)
    text = encoded(data)
    key = text[400:404]
    image = f"data:image/png;base64,{text}" if place == "url" else text
    images = {"output": [image]} if place == "output" else {"data": [{place: image}]}
    with WireServer(reply(200, {**images, "note": key})) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox"),
            http_backend,
            base_url=server.base_url,
            api_key=key,
            state_folder=tmp_path,
        )
    assert response[0].data == data
    assert response.extra["note"] == "…"


def test_the_bytes_of_an_error_keep_images_whole(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short key changes no byte of the image in the body of an error, in base64 or not."""
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0, 0.0))
    data = noise(33)
    key = encoded(data)[400:404]
    whole = json.dumps({"data": [{"b64_json": encoded(data)}], "note": key}).encode()
    cut = head(200, {"content-length": str(len(whole) + 9)}) + whole
    with WireServer(lambda line: line.send(cut)) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            flavor.run(
                lambda service: service.create_image("a fox"),
                http_backend,
                base_url=server.base_url,
                api_key=key,
            )
    assert caught.value.body == whole.replace(f'"{key}"'.encode(), '"…"'.encode())
    binary = data[:-20]
    key = next(
        text
        for at in range(len(binary))
        if (text := binary[at : at + 4].decode("latin-1")).isalnum() and text.isascii()
    )

    def script(line: Line) -> None:
        is_post = line.request_line.startswith("POST")
        reply(200, {"data": [{"url": "/x.png"}]} if is_post else binary)(line)

    with WireServer(script) as server:
        with pytest.raises(imgkit.SaveError) as failed:
            flavor.run(
                lambda service: service.create_image("a fox", save_to=tmp_path / "fox.png"),
                http_backend,
                base_url=server.base_url,
                api_key=key,
            )
    assert getattr(failed.value.__cause__, "body", None) == binary


def by_url(query: str, status: int = 200, body: bytes = b"") -> Script:
    """Return a script that answers with a result URL, and serves the image or another reply."""

    def script(line: Line) -> None:
        if line.request_line.startswith("POST"):
            link = f"http://{line.headers['host']}/out/fox.png?{query}"
            reply(200, {"data": [{"url": link}]})(line)
        else:
            reply(status, body or picture())(line)

    return script


def test_a_link_with_the_key_still_works(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """An image at a URL with the key is fetched from there, while the visible URL has no key."""
    key = SHAPES["shape"](7)
    with WireServer(by_url(f"k={key}")) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox", save_to=tmp_path),
            http_backend,
            base_url=server.base_url,
            api_key=key,
        )
    assert response[0].data == picture()
    assert key not in response[0].url
    assert key in server.lines[1].request_line


@pytest.mark.parametrize(
    ("status", "body"), [(200, b""), (403, SIGNATURE.encode()), (200, SIGNATURE.encode())]
)
def test_the_signature_of_a_link_stays_in_the_link(
    flavor: ServiceRunner,
    http_backend: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
) -> None:
    """The signature in the URL of an image is in no message, log, span, event, sidecar, cassette or cache."""
    caplog.set_level(logging.DEBUG)
    sinks = Sinks(tmp_path / "sinks")
    values: list[object] = []
    with WireServer(by_url(f"sig={SIGNATURE}", status, body)) as server, sinks.catch_warnings():
        try:
            flavor.run(
                lambda service: service.create_image("a fox", save_to=sinks.folder / "out"),
                http_backend,
                base_url=server.base_url,
                plugins=sinks.make_plugins(keeps=True),
            )
        except imgkit.SaveError as error:
            # The images still have their links.
            error.images, error.response = (), None
            values = [error]
    assert bool(values) == bool(body)
    assert sinks.find([SIGNATURE], caplog.records, *values) == []
    assert (tmp_path / "sinks" / "tape" / "calls.yaml").exists()
