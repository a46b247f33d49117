"""Ids, headers, terminals and folders: texts of servers and changes of plugins stay within bounds."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import imgkit
from imgkit import files
from imgkit.cli.run import run
from imgkit.default_plugins.caching import CachePlugin
from imgkit.default_plugins.keys import ShortKeyWarning
from imgkit.errors import PluginWarning
from imgkit.redact import escape_control
from imgkit.testing import canary
from imgkit.wire.headers import REQUEST_ID_LIMIT
from imgkit.wire.messages import Head, HttpRequest
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"
ODD = "a\x1b]0;x\x07b\u202ec\x9b"


@pytest.mark.parametrize("name", ["x-request-id", "apim-request-id"])
def test_request_ids_are_one_short_line(name: str) -> None:
    """The id of a request has no control characters and at most 128 characters."""
    request_id = Head(200, {name: "req\x1b[2J\t" + "x." * 30_000}).request_id
    assert request_id is not None
    assert len(request_id) == REQUEST_ID_LIMIT
    assert request_id.isprintable()
    assert Head(200, {name: "req_1"}).request_id == "req_1"


def test_long_request_ids_are_cut_everywhere(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Meta, sidecar and errors have the short id."""
    odd = "r" * 5000
    with WireServer(reply(200, answer(), x_request_id=odd)) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox", save_to=tmp_path),
            http_backend,
            base_url=server.base_url,
        )
    assert len(response.meta.request_id) <= REQUEST_ID_LIMIT
    assert odd not in response[0].path.with_name(response[0].path.name + ".json").read_text()
    with WireServer(reply(502, b"<p>", x_request_id=odd)) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            flavor.run(lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url)
    assert odd not in f"{caught.value}{vars(caught.value)}"


CHANGES: list[tuple[str, str]] = [("host", "evil"), ("transfer-encoding", "chunked"), ("x", "a\r\nb: c")]


@pytest.mark.parametrize(("name", "value"), CHANGES)
@pytest.mark.parametrize("hook", ["before_send", "authenticate", "on_event", "prepare"])
def test_no_hook_changes_headers_in_place(
    flavor: Any, http_backend: str, hook: str, name: str, value: str
) -> None:
    """A hook that changes headers in place has no effect, or is refused like a returned change."""

    class Odd:
        @imgkit.hookimpl
        def imgkit_before_send(self, request: Any) -> None:
            if hook == "before_send":
                request.headers[name] = value

        @imgkit.hookimpl
        def imgkit_authenticate(self, request: Any) -> None:
            if hook == "authenticate":
                request.headers[name] = value

        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if hook == "on_event" and hasattr(event, "request"):
                event.request.headers[name] = value

        @imgkit.hookimpl
        def imgkit_prepare(self, request: Any) -> None:
            if hook == "prepare":
                request.extra_headers[name] = value

    def work(service: Any) -> Any:
        return service.create_image("a fox", extra_headers={"x-plain": "1"})

    with WireServer(reply(200, answer())) as server:
        options: dict[str, Any] = {"base_url": server.base_url, "plugins": [Odd()]}
        if hook == "on_event":
            with pytest.warns(PluginWarning):
                flavor.run(work, http_backend, **options)
        else:
            with pytest.raises((imgkit.PluginError, imgkit.InvalidRequestError)):
                flavor.run(work, http_backend, **options)
    assert server.posts == (hook == "on_event")
    assert all(value not in line.headers.get(name, "") for line in server.lines)


def test_headers_are_a_copy() -> None:
    """A request keeps its headers when the mapping that it was made from changes."""
    headers = {"a": "1"}
    request = HttpRequest("GET", "https://h.example", MappingProxyType(headers))
    headers["a"] = "2"
    assert request.headers == {"a": "1"}


def test_standard_output_has_no_control_characters(
    capsysbinary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models, dry runs, lists and reports escape control and direction-changing characters."""
    facts = tmp_path / "facts.toml"
    toml = ODD.encode("unicode_escape").decode().replace("\\x", "\\u00")
    facts.write_text(f'[[model]]\nid = "m{toml}"\nas_of = 2026-11-01\nsource = "{toml}"\n', "utf-8")
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "state"))
    with WireServer(reply(200, {"data": [], "note": 1})) as server:
        with pytest.raises(imgkit.EmptyResultError):
            with imgkit.ImageService(
                "requests", base_url=server.base_url, state_folder=tmp_path / "state", model=f"m{ODD}"
            ) as service:
                service.create_image(f"a fox {ODD}")
    run(["models", "--models", str(facts)])
    run(["recover", "--list"])
    run(["doctor", "--model", f"m{ODD}"])
    run(["create", f"a fox {ODD}", "--dry-run", "--user", ODD])
    out, err = capsysbinary.readouterr()
    for character in ODD.strip("abc]0;x"):
        if not character.isprintable():
            assert character.encode() not in out + err, ascii(character)


def test_escapes_show_the_character() -> None:
    """Control characters become escapes; line breaks and tabs stay."""
    assert escape_control("a\tb\n\x1b\u202e\x9b") == "a\tb\n\\x1b\\u202e\\x9b"


ME, ROOT, OTHER = 1000, 0, 1001
OWNERS = {
    "own": (ME, (0o700, ME), (0o755, ME), True),
    "own in root's": (ME, (0o755, ME), (0o1777, ROOT), True),
    "own in a group's": (ME, (0o700, ME), (0o775, ME), True),
    "not there yet": (ME, None, (0o775, ME), True),
    "neither there": (ME, None, None, True),
    "open to a group": (ME, (0o770, ME), (0o700, ME), False),
    "open to all": (ME, (0o707, ME), (0o700, ME), False),
    "another's": (ME, (0o700, OTHER), (0o755, ROOT), False),
    "root's": (ME, (0o755, ROOT), (0o755, ROOT), False),
    "own in another's": (ME, (0o700, ME), (0o755, OTHER), False),
    "not there yet in another's": (ME, None, (0o755, OTHER), False),
    "root, own": (ROOT, (0o700, ROOT), (0o777, ROOT), True),
    "root, own in a volume": (ROOT, (0o700, ROOT), (0o755, OTHER), True),
    "root, a volume": (ROOT, (0o755, OTHER), (0o755, ROOT), True),
    "root, not there yet in a volume": (ROOT, None, (0o755, OTHER), True),
    "root, an open volume": (ROOT, (0o777, OTHER), (0o755, ROOT), False),
    "root, another's in an open folder": (ROOT, (0o755, OTHER), (0o1777, ROOT), False),
    "root, own in another's open folder": (ROOT, (0o700, ROOT), (0o777, OTHER), False),
}


@pytest.mark.parametrize("name", OWNERS)
def test_a_private_folder_is_written_by_nobody_else(name: str) -> None:
    """Owner and mode of a folder and of its parent decide; root may use the closed volume of another user."""
    user, *places, expected = OWNERS[name]
    folder, parent = (place and os.stat_result((place[0], 0, 0, 0, place[1], *[0] * 5)) for place in places)
    assert files._is_private(folder, parent, user) is expected


def test_the_mode_of_a_folder_counts(tmp_path: Path) -> None:
    """A folder that all can write to is not private on POSIX; elsewhere modes do not count."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o700)
    assert files.is_private(folder)
    folder.chmod(0o777)
    assert files.is_private(folder) == (os.name != "posix")
    assert files.is_private(tmp_path / "missing" / "folder")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """A set of folders that other users can write to."""
    folders: set[Path] = set()
    for user in ("imgkit.default_plugins.spool", "imgkit.cache.folder"):
        monkeypatch.setattr(f"{user}.is_private", lambda folder: folder not in folders)
    return folders


def test_a_spool_that_others_can_write_to_is_refused(
    flavor: Any, http_backend: str, tmp_path: Path, strangers: set[Path]
) -> None:
    """The service and the command refuse the spool, also if it changes later, and nothing is sent."""
    spool = tmp_path / "spool"
    strangers.add(spool)
    with WireServer(reply(200, answer())) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "state_folder": tmp_path}
        with pytest.raises(imgkit.ConfigurationError, match="unsafe as a spool"):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
        assert run(["recover", "--list", "--state-folder", str(tmp_path)]) == 2
        strangers.clear()

        def work(service: Any) -> Any:
            strangers.add(spool)
            return service.create_image("a fox")

        with pytest.raises(imgkit.ConfigurationError, match="unsafe as a spool"):
            flavor.run(work, http_backend, **settings)
    assert server.posts == 0


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path, strangers: set[Path]) -> None:
    """The service refuses the cache."""
    strangers.add(tmp_path)
    with pytest.raises(imgkit.ConfigurationError, match="unsafe as a cache"):
        imgkit.ImageService(plugins=[CachePlugin(folder=tmp_path)])


def test_short_keys_warn(http_backend: str) -> None:
    """A key that is too short to be removed from texts warns."""
    with pytest.warns(ShortKeyWarning, match="fewer than 4"):
        imgkit.ImageService(http_backend, api_key="abc").close()


def test_the_command_prints_no_key(capfdbinary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output and standard error of the command have no key, with JSON, logs and tracebacks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("IMGKIT_LOG", "debug")
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "state"))
    refused = reply(401, {"error": {"message": KEY, "code": KEY}}, x_request_id=KEY)
    painted = reply(200, {**answer(), "note": KEY, "size": KEY}, x_request_id=KEY)
    listed = reply(200, {"data": [{"id": f"model {KEY}"}]}, x_request_id=KEY)
    extra = ["--extra-body", f'{{"api_key": "{KEY}"}}', "--extra-header", f"x-token: {KEY}"]
    with WireServer(refused, painted, painted, refused, listed) as server:
        for more in (["--debug"], [], ["--json"], ["--stream"], ["--dry-run"]):
            run(["create", "a fox", "--backend", "requests", "--base-url", server.base_url, *extra, *more])
        run(["doctor", "--live", "--backend", "requests", "--base-url", server.base_url])
    run(["recover", "--list", "--json"])
    out, err = capfdbinary.readouterr()
    assert canary.find_secret(out, err, folders=[tmp_path], secret=KEY) == []
    assert server.accepted == 5


def test_a_cached_reply_has_no_key(http_backend: str, tmp_path: Path) -> None:
    """The entry of a reply that repeats the key has no key, in any file."""
    body = {**answer(), "note": KEY, "deep": {"list": [KEY]}}
    with WireServer(reply(200, body, x_request_id=KEY)) as server:
        with imgkit.ImageService(
            http_backend, base_url=server.base_url, api_key=KEY, plugins=["cache"], state_folder=tmp_path
        ) as service:
            first = service.create_image("a fox")
            again = service.create_image("a fox")
    assert (first[0].data, again[0].data, server.posts) == (picture(), picture(), 1)
    assert canary.find_secret(first, again, folders=[tmp_path], secret=KEY) == []
