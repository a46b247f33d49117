"""Keys from files and keyrings, custom headers, and the servers that receive credentials."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import BearerAuth, HeaderAuth, TokenAuth
from imgkit.default_plugins.keys import LARGEST_FILE, FileKey, KeyFileWarning, KeyringKey
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.plugins.tokens import Token
from imgkit.redact import Secret
from imgkit.wire.messages import HttpRequest
from tests.support.auth import BROKEN, KEY, REQUEST, UNTYPED, call, header
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, reply


def key_file(folder: Path, content: str | bytes = KEY, mode: int = 0o600) -> Path:
    """Return a file with this content."""
    path = folder / "api.key"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [KEY, f"{KEY}\n", f" {KEY}\r\n\n", f"Bearer {KEY}\n", b"\xef\xbb\xbf" + KEY.encode()]
)
def test_key_file_forms(content: Any, tmp_path: Path) -> None:
    """Removes line ends, blanks and a byte order mark around the key."""
    path = key_file(tmp_path, content)
    for auth in (BearerAuth(file=path), BearerAuth(file=str(path)), BearerAuth(FileKey(path))):
        assert header(auth) == f"Bearer {KEY}"


def test_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads a changed file again, and does not read an unchanged file."""
    path = key_file(tmp_path, "first")
    auth = BearerAuth(file=path)
    assert header(auth) == "Bearer first"
    path.write_text("other")  # of the same length
    os.utime(path, ns=(1, 1))
    assert header(auth) == "Bearer other"
    replaced = tmp_path / "new"
    replaced.write_text("third")
    replaced.chmod(0o600)
    replaced.rename(path)
    assert header(auth) == "Bearer third"
    monkeypatch.setattr("builtins.open", None)
    assert header(auth) == "Bearer third"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expands ~ to the home folder."""
    key_file(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert header(BearerAuth(file="~/api.key")) == f"Bearer {KEY}"


NO_KEYS: list[tuple[bytes, str]] = [
    (b"", "Empty key from {}."),
    (b" \n", "Empty key from {}."),
    (f"{KEY}\n{KEY}\n".encode(), "Invalid key from {}. It has a character"),
    (f"OPENAI_API_KEY = {KEY}".encode(), "Invalid key from {}. It has a character"),
    (KEY.encode("utf-16"), "No key in {}. It must be a text"),
    (KEY.encode() + b"A" * LARGEST_FILE, "No key in {}. It must be a text"),
]


@pytest.mark.parametrize(("content", "why"), NO_KEYS)
def test_invalid_key_files(content: bytes, why: str, tmp_path: Path) -> None:
    """Names the path of an invalid key file, and shows its content in no frame."""
    path = key_file(tmp_path, content)
    auth = BearerAuth(file=path)
    with pytest.raises(ConfigurationError) as caught:
        header(auth)
    assert str(caught.value).startswith(why.format(f"the key file {str(path)!r}"))
    assert "CANARY" not in format_frames(caught.value)


def test_unreadable_key_files(tmp_path: Path) -> None:
    """Reports missing files as missing keys, and names folders, pipes and invalid paths."""
    with pytest.raises(MissingKeyError, match="Cannot find the key file .* Write the key to it"):
        header(BearerAuth(file=tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigurationError, match="give a regular file"):
            header(BearerAuth(file=odd))
    with pytest.raises(ConfigurationError, match="Cannot read the key file .* \\(Not a directory\\)"):
        header(BearerAuth(file=key_file(tmp_path) / "below"))
    for wrong in ("", "a\0b", 5, b"path"):
        with pytest.raises(ConfigurationError, match="needs a path"):
            FileKey(wrong)  # type: ignore[arg-type]


def test_a_key_in_place_of_a_path_is_not_shown(tmp_path: Path) -> None:
    """Shows a key that was passed as a path in neither error nor repr."""
    with pytest.raises(MissingKeyError) as caught:
        header(BearerAuth(file=KEY))
    assert "CANARY" not in f"{caught.value} {FileKey(KEY)!r}"


def test_world_readable_key_file(tmp_path: Path) -> None:
    """Uses a world-readable file, and warns its owner once."""
    auth = BearerAuth(file=key_file(tmp_path, mode=0o644))
    with pytest.warns(KeyFileWarning, match="chmod 600 on it") as warned:
        assert header(auth) == f"Bearer {KEY}"
    assert "CANARY" not in str(warned[0].message)
    os.utime(tmp_path / "api.key", ns=(1, 1))
    assert header(auth) == f"Bearer {KEY}"  # and warnings are errors here
    assert header(BearerAuth(file=key_file(tmp_path, mode=0o640))) == f"Bearer {KEY}"


def test_key_and_file(tmp_path: Path) -> None:
    """Rejects a key together with a file."""
    for given in (KEY, lambda: KEY):
        with pytest.raises(ConfigurationError, match="not both") as caught:
            BearerAuth(given, file=key_file(tmp_path))
        assert "CANARY" not in str(caught.value)


class Keyring:
    """The used part of the package keyring."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, user: str) -> Any:
        self.asked.append((service, user))
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def test_keyring_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the keyring with the first request, and keeps the key."""
    ring = Keyring(KEY)
    monkeypatch.setitem(sys.modules, "keyring", ring)
    auth = BearerAuth(KeyringKey("imgkit", "me"))
    assert ring.asked == []
    assert [header(auth), header(auth)] == [f"Bearer {KEY}"] * 2
    assert ring.asked == [("imgkit", "me")]


KEYRINGS: list[tuple[Any, type[Exception], str]] = [
    (None, MissingKeyError, "Store it with 'python -m keyring set imgkit me'"),
    (RuntimeError(f"locked {KEY}"), ConfigurationError, r"Cannot read .* \(RuntimeError: locked …\)"),
    (KEY.encode(), ConfigurationError, "a bytes. Give the key as text"),
    (f"{KEY}\n", ConfigurationError, "has a character"),
]


@pytest.mark.parametrize(("found", "kind", "why"), KEYRINGS)
def test_keyring_without_a_key(found: Any, kind: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports a locked keyring and missing or invalid entries, and reads again next time."""
    monkeypatch.setitem(sys.modules, "keyring", Keyring(found, KEY))
    auth = BearerAuth(KeyringKey("imgkit", "me"))
    with pytest.raises(kind, match=why) as caught:
        header(auth)
    assert "the key of 'me' for 'imgkit' in the keyring" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert header(auth) == f"Bearer {KEY}"


def test_keyring_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to install the missing package."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'imgkit-service\[keyring\]'"):
        header(BearerAuth(KeyringKey("imgkit", "me")))
    wrong_names: tuple[tuple[Any, Any], ...] = (("", "me"), ("imgkit", None))
    for names in wrong_names:
        with pytest.raises(ConfigurationError, match="service and user"):
            KeyringKey(*names)


def test_sources_are_pickled_as_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles a source as the place of its key, without the key."""
    monkeypatch.setitem(sys.modules, "keyring", Keyring(KEY))
    for source in (FileKey(key_file(tmp_path)), KeyringKey("imgkit", "me")):
        assert source.read() == Secret(KEY)
        data = pickle.dumps(source)
        assert b"CANARY" not in data
        assert repr(pickle.loads(data)) == repr(source)
        assert "CANARY" not in f"{source} {vars(source)}"


def test_header_auth() -> None:
    """Sends the key in the custom header, without Authorization."""
    for key in (KEY, lambda: KEY):
        signed = HeaderAuth("Api-Key", key).imgkit_authenticate(REQUEST, call("compatible"))
        assert isinstance(signed, HttpRequest)
        assert signed.headers == {**REQUEST.headers, "api-key": KEY}
    assert HeaderAuth("api-key", KEY).imgkit_authenticate(REQUEST, call("offline")) is None
    own = HttpRequest("POST", REQUEST.url, {"api-key": "mine"})
    assert HeaderAuth("api-key", KEY).imgkit_authenticate(own, call()) is own


@pytest.mark.parametrize(
    "name", ["content-length", "Host", "cookie", "accept", "a b", "", "a:", "é", "a\r\nb", 5, None]
)
def test_invalid_key_headers(name: Any) -> None:
    """Rejects framing headers and invalid header names."""
    with pytest.raises(ConfigurationError, match="cannot carry a key"):
        HeaderAuth(name, KEY)


@pytest.mark.parametrize("key", BROKEN)
def test_no_frame_shows_an_invalid_key(key: str) -> None:
    """Shows an invalid key in no local variable of a traceback."""
    makers: list[Any] = [
        partial(HeaderAuth, "api-key", key),
        partial(BearerAuth, key),
        partial(BearerAuth(lambda: key).imgkit_authenticate, REQUEST, call()),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert "CANARY" not in format_frames(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HeaderAuth("a b", KEY),
        lambda: TokenAuth(None),  # type: ignore[arg-type]
        lambda: FileKey(""),
        lambda: KeyringKey("", ""),
        lambda: BearerAuth(KEY, file="x"),
    ],
)
def test_incomplete_objects_have_a_repr(make: Any) -> None:
    """Has a repr for plugins and sources whose constructor failed."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert "self" in format_frames(caught.value)
    assert "CANARY" not in format_frames(caught.value)


@pytest.mark.parametrize("key", [*UNTYPED, None])
def test_header_auth_takes_keys_only(key: Any) -> None:
    """Rejects anything but text, a callable or a source."""
    with pytest.raises(ConfigurationError, match="Give text, a callable") as caught:
        HeaderAuth("api-key", key)
    assert "CANARY" not in str(caught.value)


FOREIGN = [
    "https://evil.example/v1",
    "http://api.example.com/v1",
    "https://api.example.com:8443/v1",
    "https://api.example.com.evil.example/",
    "https://api.example.com@evil.example/",
]


def test_keys_stay_at_their_origin() -> None:
    """Sends no key over plain http to another machine, or to another origin."""
    for auth in (BearerAuth(KEY), HeaderAuth("api-key", KEY), TokenAuth(Tokens())):
        plain = HttpRequest("POST", "http://lan.example/v1/images")
        lan = copy.copy(call())
        object.__setattr__(lan, "base_url", "http://lan.example/v1")
        with pytest.raises(ConfigurationError, match="unencrypted"):
            auth.imgkit_authenticate(plain, lan)
        for url in FOREIGN:
            with pytest.raises(ConfigurationError, match="gets no credentials"):
                auth.imgkit_authenticate(HttpRequest("POST", url), call())


def format_frames(error: BaseException) -> str:
    """Return the local variables of a traceback, without the frames of the tests."""
    summary = traceback.TracebackException.from_exception(error, capture_locals=True)
    own = [frame for frame in summary.stack if f"{os.sep}tests{os.sep}" not in frame.filename]
    assert own
    chain = [error, error.__cause__, error.__context__]
    return f"{chain} {[(frame.name, frame.locals) for frame in own]}"


class Tokens:
    def token(self) -> Token:
        return Token(KEY)


def bearer(folder: Path) -> BearerAuth:
    return BearerAuth(KEY)


def from_file(folder: Path) -> BearerAuth:
    return BearerAuth(file=key_file(folder))


def from_callable(folder: Path) -> BearerAuth:
    return BearerAuth(partial(str, KEY))


def from_keyring(folder: Path) -> BearerAuth:
    return BearerAuth(KeyringKey("imgkit", "me"))


def in_header(folder: Path) -> HeaderAuth:
    return HeaderAuth("api-key", KEY)


def in_header_from_file(folder: Path) -> HeaderAuth:
    return HeaderAuth("x-api-key", file=key_file(folder))


def fetched(folder: Path) -> TokenAuth:
    return TokenAuth(Tokens())


MAKERS: list[Callable[[Path], Any]] = [
    bearer, from_file, from_callable, from_keyring, in_header, in_header_from_file, fetched,
]  # fmt: skip


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def auth(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return each plugin that authenticates."""
    monkeypatch.setitem(sys.modules, "keyring", Keyring(KEY))
    return request.param(tmp_path)


def test_each_plugin_signs(flavor: Any, http_backend: str, auth: Any) -> None:
    """Sends the key of each plugin in one header, with both services and backends."""
    with WireServer(reply(200, answer())) as server:
        settings = {"base_url": server.base_url, "plugins": [auth]}
        flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
        (line,) = server.lines
        carrying = [value for value in line.headers.values() if KEY in value]
        assert carrying in ([KEY], [f"Bearer {KEY}"])
        assert KEY not in line.request_line + line.body.decode()


def test_no_key_across_a_redirect(flavor: Any, http_backend: str, auth: Any) -> None:
    """Rejects a redirect to another server, which receives nothing."""
    with WireServer(reply(200, answer())) as other:
        with WireServer(reply(307, b"", location=f"{other.base_url}/images/generations")) as server:
            settings = {"base_url": server.base_url, "plugins": [auth]}
            with pytest.raises(imgkit.RedirectRefusedError) as caught:
                flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
            assert server.posts == 1
        assert other.accepted == 0
    assert "CANARY" not in str(caught.value)


def test_no_key_to_a_result_url(http_backend: str, auth: Any) -> None:
    """Downloads an image from the API's own origin without credentials."""
    scripts = reply(200, {"data": [{"url": "/p.png"}]}), reply(200, picture(), content_type="image/png")
    with WireServer(*scripts) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url, plugins=[auth]) as service:
            assert service.create_image("a fox")[0].data == picture()
        post, get = server.lines
        assert KEY.encode() in post.head
        assert get.request_line == "GET /p.png HTTP/1.1"
        assert KEY.encode() not in get.head


def test_an_echoed_key(auth: Any) -> None:
    """Removes a key that the server repeats from every error."""
    with WireServer(reply(401, {"error": {"message": f"bad key {KEY}", "code": KEY}})) as server:
        with imgkit.ImageService("requests", base_url=server.base_url, plugins=[auth]) as service:
            with pytest.raises(imgkit.AuthenticationError) as caught:
                service.create_image("a fox")
    assert "CANARY" not in f"{caught.value!r} {caught.value} {vars(caught.value)}"


def test_canary(flavor: Any, http_backend: str, auth: Any, caplog: Any) -> None:
    """Shows the key in no repr, attribute, pickle, JSON, log or frame of a failed call."""
    caplog.set_level(logging.DEBUG)
    with WireServer(reply(401, {"error": {"message": "bad key"}})) as server:
        settings = {"base_url": server.base_url, "plugins": [auth]}
        with pytest.raises(imgkit.AuthenticationError) as caught:
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
        assert KEY.encode() in server.lines[0].head
    shown = f"{caught.value!r} {vars(caught.value)} {auth!r} {auth} {vars(auth)} {caplog.text}"
    assert "CANARY" not in shown + format_frames(caught.value) + repr([vars(one) for one in caplog.records])
    for leak in (pickle.dumps, copy.deepcopy, json.dumps):
        try:
            leaked = leak(auth)
        except (TypeError, pickle.PicklingError) as error:
            leaked = str(error)
        assert "CANARY" not in repr(leaked)
        assert not isinstance(leaked, str) or "pickled" in leaked or "JSON" in leaked
