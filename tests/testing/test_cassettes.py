"""The repository's cassettes, recorded from a real HTTP server, replay on every HTTP backend."""

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
from imgkit.testing.vcr_cassettes import scrub_request
from tests.record_cassettes import BASE_URL, CASSETTES, COMMAND, FOLDER, make_base_image, record
from tests.support.api_server import ROOT, running
from tests.support.pictures import answer, picture
from tests.support.processes import run_process
from tests.support.wire_server import WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"
SETTINGS = {"base_url": BASE_URL, "api_key": KEY, "allow_insecure": True}
PRIVATE = r"(?i)\bsk-(?!scrubbed)|authorization|CANARY|cookie|org-(?!scrubbed)|proj_(?!scrubbed)|127\.0\.0\.1"
FAILED = {401: "AuthenticationError", 400: "ModerationBlockedError"}


def replay(path: Path, **more: Any) -> Any:
    """Replay a cassette; unrecorded requests are errors."""
    return cassette(path, record_mode="none", **more)


def run_in_turn(service: Any, calls: Any) -> Any:
    """Make the calls in turn; return a coroutine if the service is async."""
    if isinstance(service, imgkit.ImageService):
        results = []
        for call in calls:
            try:
                results.append(call(service))
            except imgkit.ApiError as error:
                results.append(error)
        return results

    async def main() -> list[Any]:
        results = []
        for call in calls:
            try:
                result = call(service)
                results.append(await result if inspect.isawaitable(result) else result)
            except imgkit.ApiError as error:
                results.append(error)
        return results

    return main()


def run_concurrently(service: Any, calls: Any) -> Any:
    """Make the calls concurrently; return a coroutine if the service is async."""
    if isinstance(service, imgkit.ImageService):
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(lambda call: call(service), calls))

    async def main() -> list[Any]:
        return await asyncio.gather(*(call(service) for call in calls))

    return main()


@cache
def load_entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a cassette, read with a safe YAML loader only."""
    loaded = yaml.safe_load(path.read_text("ascii"))
    assert loaded["version"] == 1
    return list(loaded["interactions"])


def read_image(name: str, words: str) -> bytes:
    """Return the image that a placeholder in the cassette refers to."""
    return Path(FOLDER, f"{name}.yaml.files", words.removeprefix("imgkit-file:")).read_bytes()


def list_expected_outcomes(name: str) -> list[Any]:
    """Return the images or the error of each call of a cassette."""
    results: list[Any] = []
    downloads = {}
    for entry in load_entries(FOLDER / f"{name}.yaml"):
        status, body = entry["response"]["status"]["code"], entry["response"]["body"]["string"]
        if entry["request"]["method"] == "GET":
            downloads[entry["request"]["uri"]] = read_image(name, body)
        elif status == 200:
            results.append([entry.get("url") or entry["b64_json"] for entry in json.loads(body)["data"]])
        elif status in FAILED:
            results.append((FAILED[status], status, json.loads(body)["error"]["code"]))
    return [
        entry if isinstance(entry, tuple) else [downloads.get(key) or read_image(name, key) for key in entry]
        for entry in results
    ]


def list_outcomes(result: Any) -> list[Any]:
    """Return the images or the error of each result, in the same form."""
    return [
        (type(entry).__name__, entry.status, entry.code)
        if isinstance(entry, imgkit.ApiError)
        else [image.data for image in entry]
        for entry in result
    ]


def as_bytes(body: Any) -> bytes:
    """Return a recorded body as bytes."""
    return body.encode() if isinstance(body, str) else body


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if anything resolves a name or connects, even if the exception is swallowed."""
    tried: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        tried.append(args)
        raise AssertionError(f"A test that must stay offline connected to {args!r}.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Make threads switch as often as possible."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(scope="module")
def new_cassettes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cassettes recorded in this run."""
    folder = tmp_path_factory.mktemp("new_cassettes")
    record(folder, api_key=KEY, organization="org-CANARY01", project="proj_CANARY01")
    return folder


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CASSETTES)
def test_replays_on_every_backend(flavor: Any, http_backend: str, name: str) -> None:
    """Replays a cassette byte for byte on each backend under each service."""
    path = FOLDER / f"{name}.yaml"
    with replay(path) as tape:
        results = flavor.run(
            lambda service: run_in_turn(service, CASSETTES[name]),
            http_backend,
            retry=NoWaitRetry(),
            **SETTINGS,
        )
        assert tape.all_played
        assert tape.play_count == len(load_entries(path))
    assert list_outcomes(results) == list_expected_outcomes(name)
    responses = [entry for entry in results if isinstance(entry, imgkit.ImagesResponse)]
    assert {(entry.meta.status, entry.meta.backend) for entry in responses} <= {(200, http_backend)}
    attempts = 2 if name == "refused_for_now" else 1
    assert [len(entry.meta.attempts) for entry in responses] == [attempts] * len(responses)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", CASSETTES)
def test_replays_on_offline_backend(flavor: Any, name: str) -> None:
    """Replays the same cassette on the offline backend, without vcrpy."""
    options = {"fixtures": FOLDER / f"{name}.yaml", "retry": True}
    results = flavor.run(lambda service: run_in_turn(service, CASSETTES[name]), "offline", **options)
    assert list_outcomes(results) == list_expected_outcomes(name)


@pytest.mark.usefixtures("offline")
def test_replays_for_https_url(flavor: Any, http_backend: str) -> None:
    """Replays a cassette in place of an https server."""

    def plain(request: Any) -> Any:
        request.uri = request.uri.replace("https:", "http:", 1)
        return scrub_request(request)

    settings = {"base_url": BASE_URL.replace("http:", "https:"), "api_key": KEY}
    path = FOLDER / "create_image_edit.yaml"
    with replay(path, before_record_request=plain) as tape:
        results = flavor.run(
            lambda service: run_in_turn(service, CASSETTES[path.stem]), http_backend, **settings
        )
        assert tape.all_played
    assert list_outcomes(results) == list_expected_outcomes(path.stem)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["create_image", "create_image_edit"])
def test_replays_in_another_order(flavor: Any, http_backend: str, name: str) -> None:
    """Gives each call its own reply when the calls run in reverse order."""
    with replay(FOLDER / f"{name}.yaml"):
        results = flavor.run(
            lambda service: run_in_turn(service, CASSETTES[name][::-1]), http_backend, **SETTINGS
        )
    assert list_outcomes(results) == list_expected_outcomes(name)[::-1]


@pytest.mark.usefixtures("offline")
def test_replays_concurrent_calls(flavor: Any, http_backend: str, eager_threads: None) -> None:
    """Gives each concurrent call its own reply."""
    calls = [*CASSETTES["create_image"][::-1] * 5]
    with replay(FOLDER / "create_image.yaml", allow_playback_repeats=True) as tape:
        results = flavor.run(lambda service: run_concurrently(service, calls), http_backend, **SETTINGS)
        assert tape.play_count == len(calls)
    assert list_outcomes(results) == list_expected_outcomes("create_image")[::-1] * 5


MISSES: dict[str, Any] = {
    "another prompt": lambda service: service.create_image(
        "a red fox", model="offline-painter", size="256x256"),
    "another image": lambda service: service.create_image_variation(
        picture(), model="offline-painter", size="256x256", n=2),
    "one image too few": lambda service: service.create_image_edit(
        make_base_image(), "two in one", model="offline-painter", size="256x256"),
}  # fmt: skip


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("miss", MISSES)
@pytest.mark.parametrize("name", CASSETTES)
def test_miss_raises_vcrpy_error(flavor: Any, http_backend: str, name: str, miss: str) -> None:
    """Raises vcrpy's own exception for an unrecorded request, and replays the others."""
    path = FOLDER / f"{name}.yaml"
    with replay(path) as tape:
        with pytest.raises(CannotOverwriteExistingCassetteException) as caught:
            flavor.run(lambda service: run_in_turn(service, [MISSES[miss]]), http_backend, **SETTINGS)
        assert type(caught.value) is CannotOverwriteExistingCassetteException
        assert caught.value.cassette is tape
        assert caught.value.failed_request.uri.startswith(BASE_URL)
        assert tape.play_count == 0
        results = flavor.run(
            lambda service: run_in_turn(service, CASSETTES[name][:1]),
            http_backend,
            retry=NoWaitRetry(),
            **SETTINGS,
        )
    assert list_outcomes(results) == list_expected_outcomes(name)[:1]


@pytest.mark.usefixtures("offline")
def test_replays_each_recording_once(flavor: Any, http_backend: str) -> None:
    """Replays a recording once, so a request sent twice by mistake is noticed."""
    call = CASSETTES["create_image_variation"][0]
    with (
        replay(FOLDER / "create_image_variation.yaml"),
        pytest.raises(CannotOverwriteExistingCassetteException),
    ):
        flavor.run(lambda service: run_in_turn(service, [call, call]), http_backend, **SETTINGS)


@pytest.mark.parametrize("reuse", [False, True], ids=["single use", "reused connections"])
def test_intercepts_existing_service(flavor: Any, http_backend: str, reuse: bool) -> None:
    """Intercepts a service in use while the cassette is open, and only then."""
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
        results = flavor.run(lambda service: run_in_turn(service, steps), http_backend, **settings)
    before, posts_before, _, *inside, posts_inside, _, after, posts_after = results
    assert (posts_before, posts_inside, posts_after) == (1, 1, 2)
    assert list_outcomes([before, after]) == [[picture()], [picture()]]
    assert list_outcomes(inside) == list_expected_outcomes("create_image")


IMPORT_INSIDE = """
import sys, imgkit, vcr
from imgkit.testing import vcr_config
from tests.support.processes import run_process
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, raw, reply
from tests.record_cassettes import BASE_URL, CASSETTES, FOLDER

backend = sys.argv[1]
calls = CASSETTES["create_image"]
assert f"imgkit.backends.{backend}" not in sys.modules
with vcr.use_cassette(str(FOLDER / "create_image.yaml"), record_mode="none", **vcr_config()) as tape:
    with imgkit.ImageService(backend, base_url=BASE_URL) as service:
        assert len(calls[0](service)[0].data) > 1000
        assert tape.play_count == 1
assert f"imgkit.backends.{backend}" in sys.modules
half = raw(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n")
with WireServer(reply(200, answer()), half) as server:
    with imgkit.ImageService(backend, base_url=server.base_url) as service:
        assert calls[0](service)[0].data == picture()
        try:
            calls[0](service)
        except imgkit.OutcomeUnknownError:
            print("half a head is detected")
    assert server.posts == 2
with imgkit.ImageService(backend, base_url=server.base_url) as service:
    try:
        calls[0](service)
    except imgkit.NotSentError:
        print("a refused connection is not sent")
"""


def test_backend_imported_inside_cassette_works_later(http_backend: str) -> None:
    """Keeps nothing of vcrpy in a backend that is first imported inside a cassette of vcrpy."""
    command = [sys.executable, "-W", "error", "-c", IMPORT_INSIDE, http_backend]
    completed = run_process(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (completed.stderr, completed.returncode) == ("", 0)
    assert completed.stdout.splitlines() == ["half a head is detected", "a refused connection is not sent"]


def test_new_recording_has_same_requests(new_cassettes: Path) -> None:
    """Sends the same bytes and headers as the requests on the repository's cassettes."""
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}.yaml{files}" for name in CASSETTES for files in ("", ".files")
    }
    for name in CASSETTES:
        here, again = (
            [entry["request"] for entry in load_entries(folder / f"{name}.yaml")]
            for folder in (FOLDER, new_cassettes)
        )
        assert len(here) >= len(CASSETTES[name])
        assert [as_bytes(entry["body"]) for entry in here] == [as_bytes(entry["body"]) for entry in again]
        assert [{**entry, "body": ""} for entry in here] == [{**entry, "body": ""} for entry in again]
        assert {entry["uri"].partition("/v1/")[0] + "/v1" for entry in here} == {BASE_URL}


def test_cassettes_hold_no_secret_and_no_python_object(new_cassettes: Path) -> None:
    """Writes no key, organization, project or Python object to a cassette."""
    for path in (*FOLDER.glob("*.yaml"), *new_cassettes.glob("*.yaml")):
        text = path.read_text("ascii")
        assert "!!" not in text
        assert not re.search(PRIVATE, text), path
        for entry in load_entries(path):
            for body in (entry["request"]["body"], entry["response"]["body"]["string"]):
                assert not re.search(rb"(?i)CANARY|\bsk-(test|not)", as_bytes(body)), path
    assert "organization org-scrubbed" in (new_cassettes / "refused.yaml").read_text()
    assert run(["cassette", "check", str(FOLDER), str(new_cassettes)]) == 0


def test_header_names_origin_of_cassette(new_cassettes: Path) -> None:
    """Names the server, the versions and the command in each cassette's header."""
    for path in (*FOLDER.glob("*.yaml"), *new_cassettes.glob("*.yaml")):
        comment = re.match(r"(# ?.*\n)+", path.read_text("ascii"))
        assert comment is not None
        assert f"Record it again: {COMMAND}\n" in comment[0]
        assert "Server: python -m tests.support.api_server" in comment[0]
        assert re.search(r"imgkit \S+, vcrpy \d\S+, requests \d\S+, pillow \d\S+, Python \d\S+\n", comment[0])
        assert path.stat().st_size < 6_000


def test_api_server_process() -> None:
    """Keeps connections, closes them on request, and exits when its input closes."""
    with running() as base_url:
        parts = urlsplit(base_url)
        assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/v1")
        connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=5)
        for headers, closed in (({}, False), ({"Connection": "close"}, True)):
            named = {"Content-Type": "application/json", **headers}
            connection.request("POST", "/v1/images/generations", b"{}", named)
            response = connection.getresponse()
            problem = json.loads(response.read())["error"]
            assert (response.status, problem["param"]) == (400, "prompt")
            assert response.will_close is closed
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", parts.port or 0), timeout=5)
