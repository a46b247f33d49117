"""The project's own cassettes of a real HTTP server replay on everything that sends HTTP."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from vcr.errors import CannotOverwriteExistingCassetteException

import imgkit
from imgkit.cli.run import run
from imgkit.default_plugins.retry import NoWaitRetry
from imgkit.testing import cassette
from imgkit.testing.cassettes import scrub_request
from tests.record_cassettes import BASE_URL, CASSETTES, COMMAND, FOLDER, base, record
from tests.support.api_server import ROOT, running
from tests.support.pictures import answer, picture
from tests.support.processes import run_process
from tests.support.wire_server import WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"
SETTINGS = {"base_url": BASE_URL, "api_key": KEY, "allow_insecure": True}
PRIVATE = r"(?i)\bsk-(?!scrubbed)|authorization|CANARY|cookie|org-(?!scrubbed)|proj_(?!scrubbed)|127\.0\.0\.1"
FAILED = {401: "AuthenticationError", 400: "ModerationBlockedError"}


def replay(path: Path, **more: Any) -> Any:
    """Put a cassette on; what is not on it is refused."""
    return cassette(path, record_mode="none", **more)


def in_turn(service: Any, calls: Any) -> Any:
    """Run the calls one after another; a coroutine if the service is asynchronous."""
    if isinstance(service, imgkit.ImageService):
        found = []
        for call in calls:
            try:
                found.append(call(service))
            except imgkit.ApiError as error:
                found.append(error)
        return found

    async def main() -> list[Any]:
        found = []
        for call in calls:
            try:
                made = call(service)
                found.append(await made if inspect.isawaitable(made) else made)
            except imgkit.ApiError as error:
                found.append(error)
        return found

    return main()


def at_once(service: Any, calls: Any) -> Any:
    """Run the calls at the same time; a coroutine if the service is asynchronous."""
    if isinstance(service, imgkit.ImageService):
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(lambda call: call(service), calls))

    async def main() -> list[Any]:
        return await asyncio.gather(*(call(service) for call in calls))

    return main()


@cache
def interactions(path: Path) -> list[dict[str, Any]]:
    """Return what a cassette holds, read by nothing but a safe YAML parser."""
    loaded = yaml.safe_load(path.read_text("ascii"))
    assert loaded["version"] == 1
    return list(loaded["interactions"])


def picture_at(name: str, words: str) -> bytes:
    """Return the picture that a cassette names, as it is in the file beside it."""
    return Path(FOLDER, f"{name}.yaml.files", words.removeprefix("imgkit-file:")).read_bytes()


def recorded(name: str) -> list[Any]:
    """Return what each call of a cassette comes to: pictures, or how it failed."""
    found: list[Any] = []
    fetched = {}
    for one in interactions(FOLDER / f"{name}.yaml"):
        status, body = one["response"]["status"]["code"], one["response"]["body"]["string"]
        if one["request"]["method"] == "GET":
            fetched[one["request"]["uri"]] = picture_at(name, body)
        elif status == 200:
            found.append([entry.get("url") or entry["b64_json"] for entry in json.loads(body)["data"]])
        elif status in FAILED:
            found.append((FAILED[status], status, json.loads(body)["error"]["code"]))
    return [
        one if isinstance(one, tuple) else [fetched.get(key) or picture_at(name, key) for key in one]
        for one in found
    ]


def outcomes(made: Any) -> list[Any]:
    """Return the same of what calls have returned and raised."""
    return [
        (type(one).__name__, one.status, one.code)
        if isinstance(one, imgkit.ApiError)
        else [image.data for image in one]
        for one in made
    ]


def as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing look up a name or connect, not even where somebody swallows the exception."""
    tried: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        tried.append(args)
        raise AssertionError(f"a test that must stay offline reached for {args!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads get into each other's way as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cassettes recorded just now."""
    folder = tmp_path_factory.mktemp("fresh")
    record(folder, api_key=KEY, organization="org-CANARY01", project="proj_CANARY01")
    return folder


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CASSETTES)
def test_replay(flavor: Any, http_backend: str, name: str) -> None:
    """Recorded through one backend, a cassette gives its own bytes on each backend under each service."""
    path = FOLDER / f"{name}.yaml"
    with replay(path) as tape:
        got = flavor.run(
            lambda service: in_turn(service, CASSETTES[name]), http_backend, retry=NoWaitRetry(), **SETTINGS
        )
        assert tape.all_played
        assert tape.play_count == len(interactions(path))
    assert outcomes(got) == recorded(name)
    replies = [one for one in got if isinstance(one, imgkit.ImagesResponse)]
    assert {(one.meta.status, one.meta.backend) for one in replies} <= {(200, http_backend)}
    tries = 2 if name == "refused_for_now" else 1
    assert [len(one.meta.attempts) for one in replies] == [tries] * len(replies)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CASSETTES)
def test_replay_without_vcrpy(flavor: Any, name: str) -> None:
    """The offline backend gives the same, from the same file."""
    options = {"fixtures": FOLDER / f"{name}.yaml", "retry": True}
    got = flavor.run(lambda service: in_turn(service, CASSETTES[name]), "offline", **options)
    assert outcomes(got) == recorded(name)


@pytest.mark.usefixtures("offline")
def test_replay_over_https(flavor: Any, http_backend: str) -> None:
    """A cassette stands in for an https server too."""

    def plain(request: Any) -> Any:
        request.uri = request.uri.replace("https:", "http:", 1)
        return scrub_request(request)

    settings = {"base_url": BASE_URL.replace("http:", "https:"), "api_key": KEY}
    path = FOLDER / "create_image_edit.yaml"
    with replay(path, before_record_request=plain) as tape:
        got = flavor.run(lambda service: in_turn(service, CASSETTES[path.stem]), http_backend, **settings)
        assert tape.all_played
    assert outcomes(got) == recorded(path.stem)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["create_image", "create_image_edit"])
def test_another_order(flavor: Any, http_backend: str, name: str) -> None:
    """Calls in another order than the recorded one each get the answer to their own request."""
    with replay(FOLDER / f"{name}.yaml"):
        got = flavor.run(lambda service: in_turn(service, CASSETTES[name][::-1]), http_backend, **SETTINGS)
    assert outcomes(got) == recorded(name)[::-1]


@pytest.mark.usefixtures("offline")
def test_at_once(flavor: Any, http_backend: str, eager_threads: None) -> None:
    """Calls at the same time all come from the cassette, and each gets its own answer."""
    calls = [*CASSETTES["create_image"][::-1] * 5]
    with replay(FOLDER / "create_image.yaml", allow_playback_repeats=True) as tape:
        got = flavor.run(lambda service: at_once(service, calls), http_backend, **SETTINGS)
        assert tape.play_count == len(calls)
    assert outcomes(got) == recorded("create_image")[::-1] * 5


MISSES: dict[str, Any] = {
    "another prompt": lambda service: service.create_image(
        "a red fox", model="offline-painter", size="256x256"),
    "another picture": lambda service: service.create_image_variation(
        picture(), model="offline-painter", size="256x256", n=2),
    "one picture too few": lambda service: service.create_image_edit(
        base(), "two in one", model="offline-painter", size="256x256"),
}  # fmt: skip


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("miss", MISSES)
@pytest.mark.parametrize("name", CASSETTES)
def test_miss(flavor: Any, http_backend: str, name: str, miss: str) -> None:
    """A request that is not on the cassette gives vcrpy's own exception, unwrapped, and harms no other."""
    path = FOLDER / f"{name}.yaml"
    with replay(path) as tape:
        with pytest.raises(CannotOverwriteExistingCassetteException) as caught:
            flavor.run(lambda service: in_turn(service, [MISSES[miss]]), http_backend, **SETTINGS)
        assert type(caught.value) is CannotOverwriteExistingCassetteException
        assert caught.value.cassette is tape
        assert caught.value.failed_request.uri.startswith(BASE_URL)
        assert tape.play_count == 0
        got = flavor.run(
            lambda service: in_turn(service, CASSETTES[name][:1]),
            http_backend,
            retry=NoWaitRetry(),
            **SETTINGS,
        )
    assert outcomes(got) == recorded(name)[:1]


@pytest.mark.usefixtures("offline")
def test_second_identical_call_is_a_miss(flavor: Any, http_backend: str) -> None:
    """Each recorded answer is given once, so a request that goes out twice by mistake is noticed."""
    call = CASSETTES["create_image_variation"][0]
    with (
        replay(FOLDER / "create_image_variation.yaml"),
        pytest.raises(CannotOverwriteExistingCassetteException),
    ):
        flavor.run(lambda service: in_turn(service, [call, call]), http_backend, **SETTINGS)


@pytest.mark.parametrize("reuse", [False, True], ids=["single use", "reused connections"])
def test_service_older_than_the_cassette(flavor: Any, http_backend: str, reuse: bool) -> None:
    """A service that is in use already is intercepted within a cassette, and real before and after."""
    calls = CASSETTES["create_image"]
    with WireServer(reply(200, answer())) as server, ExitStack() as stack:
        path = FOLDER / "create_image.yaml"

        def posts(service: Any) -> int:
            return server.posts

        def insert(service: Any) -> None:
            stack.enter_context(replay(path, before_record_request=moved))

        def moved(request: Any) -> Any:
            request.uri = request.uri.replace(server.base_url, BASE_URL)
            return scrub_request(request)

        def eject(service: Any) -> None:
            stack.close()

        steps = [calls[0], posts, insert, *calls, posts, eject, calls[0], posts]
        settings = {"base_url": server.base_url, "api_key": KEY, "reuse_connections": reuse}
        got = flavor.run(lambda service: in_turn(service, steps), http_backend, **settings)
    before, one, _, *inside, still_one, _, after, two = got
    assert (one, still_one, two) == (1, 1, 2)
    assert outcomes([before, after]) == [[picture()], [picture()]]
    assert outcomes(inside) == recorded("create_image")


IMPORT_INSIDE = """
import sys, imgkit
from imgkit.testing import cassette
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, raw, reply
from tests.record_cassettes import BASE_URL, CASSETTES, FOLDER

backend = sys.argv[1]
asks = CASSETTES["create_image"]
assert f"imgkit.backends.{backend}" not in sys.modules
with cassette(FOLDER / "create_image.yaml", record_mode="none") as tape:
    with imgkit.ImageService(backend, base_url=BASE_URL) as service:
        assert len(asks[0](service)[0].data) > 1000
        assert tape.play_count == 1
assert f"imgkit.backends.{backend}" in sys.modules
half = raw(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n")
with WireServer(reply(200, answer()), half) as server:
    with imgkit.ImageService(backend, base_url=server.base_url) as service:
        assert asks[0](service)[0].data == picture()
        try:
            asks[0](service)
        except imgkit.OutcomeUnknownError:
            print("half a head is noticed")
    assert server.posts == 2
with imgkit.ImageService(backend, base_url=server.base_url) as service:
    try:
        asks[0](service)
    except imgkit.NotSentError:
        print("a refused connection is known as not sent")
"""


def test_first_import_inside_a_cassette(http_backend: str) -> None:
    """A backend imported while a cassette is active keeps nothing of vcrpy's: its own guards work later."""
    command = [sys.executable, "-W", "error", "-c", IMPORT_INSIDE, http_backend]
    done = run_process(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["half a head is noticed", "a refused connection is known as not sent"]


def test_recording_again_gives_the_same_requests(fresh: Path) -> None:
    """The code sends, byte for byte and header for header, what is on the cassettes of the repository."""
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}.yaml{files}" for name in CASSETTES for files in ("", ".files")
    }
    for name in CASSETTES:
        here, again = (
            [one["request"] for one in interactions(folder / f"{name}.yaml")] for folder in (FOLDER, fresh)
        )
        assert len(here) >= len(CASSETTES[name])
        assert [as_bytes(one["body"]) for one in here] == [as_bytes(one["body"]) for one in again]
        assert [{**one, "body": ""} for one in here] == [{**one, "body": ""} for one in again]
        assert {one["uri"].partition("/v1/")[0] + "/v1" for one in here} == {BASE_URL}


def test_no_secret_and_no_python_object(fresh: Path) -> None:
    """A key, organization or project given while recording is in no cassette, nor is any object of Python."""
    for path in (*FOLDER.glob("*.yaml"), *fresh.glob("*.yaml")):
        text = path.read_text("ascii")
        assert "!!" not in text
        assert not re.search(PRIVATE, text), path
        for one in interactions(path):
            for body in (one["request"]["body"], one["response"]["body"]["string"]):
                assert not re.search(rb"(?i)CANARY|\bsk-(test|not)", as_bytes(body)), path
    assert "organization org-scrubbed" in (fresh / "refused.yaml").read_text()
    assert run(["cassette", "check", str(FOLDER), str(fresh)]) == 0


def test_header_tells_where_a_cassette_is_from(fresh: Path) -> None:
    """Each cassette begins with its server, the versions it was made with and the command to remake it."""
    for path in (*FOLDER.glob("*.yaml"), *fresh.glob("*.yaml")):
        comment = re.match(r"(# ?.*\n)+", path.read_text("ascii"))
        assert comment is not None
        assert f"Record it again: {COMMAND}\n" in comment[0]
        assert "Server: python -m tests.support.api_server" in comment[0]
        assert re.search(r"imgkit \S+, vcrpy \d\S+, requests \d\S+, pillow \d\S+, Python \d\S+\n", comment[0])
        assert path.stat().st_size < 6_000


def test_api_server() -> None:
    """The server is a process that keeps connections, closes them when asked, and ends with its input."""
    with running() as base_url:
        parts = urlsplit(base_url)
        assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/v1")
        line = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=5)
        for headers, closed in (({}, False), ({"Connection": "close"}, True)):
            named = {"Content-Type": "application/json", **headers}
            line.request("POST", "/v1/images/generations", b"{}", named)
            answered = line.getresponse()
            problem = json.loads(answered.read())["error"]
            assert (answered.status, problem["param"]) == (400, "prompt")
            assert answered.will_close is closed
        line.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", parts.port or 0), timeout=5)
