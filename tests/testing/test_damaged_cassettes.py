"""A damaged cassette is an error of imgkit that says what is wrong, and nothing is sent."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import vcr
import yaml
from vcr.errors import CannotOverwriteExistingCassetteException

import imgkit
from imgkit.cassettes.damage import find_damage
from imgkit.cassettes.reader import MAX_CASSETTE_BYTES
from imgkit.cli.run import run as imgkit_command
from imgkit.testing import WireServer, answer, cassette, png, reply, vcr_config
from tests.support.wire_backends import fail_when_touched

MODES = ("none", "once", "new_episodes", "all")
SOUND = {
    "request": {
        "method": "POST",
        "uri": "http://h/v1/images/generations",
        "body": '{"prompt":"a fox"}',
        "headers": {"content-type": ["application/json"]},
    },
    "response": {
        "status": {"code": 200, "message": "OK"},
        "headers": {"content-type": ["application/json"]},
        "body": {"string": '{"data":[{"url":"http://h/1.png"}]}'},
    },
}


def change(place: str, value: Any) -> bytes:
    """Return the text of a cassette whose second interaction has another value at a place."""
    entry: Any = copy.deepcopy(SOUND)
    target = entry
    *names, last = place.split(".")
    for name in names:
        target = target[name]
    target[last] = value
    return yaml.safe_dump({"interactions": [SOUND, entry], "version": 1}).encode()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("not-fetched"))


def make_huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2 * 1024**3)


FILES: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "empty": (b"", "It is empty"),
    "blank": (b" \n\n", "It is empty"),
    "comment": (b"# nothing\n", "It is missing, not a mapping"),
    "binary": (png(1, 64), "It is not UTF-8 text"),
    "Latin-1": (b"interactions: []\n# \xe9t\xe9", "It is not UTF-8 text"),
    "UTF-16": ("interactions: []".encode("utf-16"), "It is not UTF-8 text"),
    "no YAML": (b"interactions: [", "It cannot be parsed"),
    "tabs": (b"interactions:\n\t- 1", "It cannot be parsed"),
    "Python object": (b"!!python/object/apply:os.getcwd []", "It cannot be parsed"),
    "bad date": (b"interactions: [2026-99-99]", "It cannot be parsed"),
    "deep": (b"[" * 100_000, "It cannot be parsed"),
    "list": (b"- request: 1\n", "It is of the type list, not a mapping"),
    "text": (b"version https://git-lfs.github.com/spec/v1", "It is text, not a mapping"),
    "no interactions": (b"version: 1\n", "interactions is missing, not a list"),
    "number": (b"interactions: 3\n", "interactions is of the type int, not a list"),
    "metadata": (b"interactions: []\nmetadata: [1]\n", "metadata is of the type list, not a mapping"),
    "entry": (b"interactions: [3]\n", "Interaction 1: it is of the type int"),
    "request": (change("request", None), "Interaction 2: request is missing, not a mapping"),
    "response": (change("response", [1]), "response is of the type list, not a mapping"),
    "method": (change("request.method", 7), "request.method is of the type int, not text"),
    "uri": (change("request.uri", None), "request.uri is missing, not text"),
    "no URL": (change("request.uri", "images"), "request.uri is no URL"),
    "bad host": (change("request.uri", "http://[::1"), "request.uri is no URL"),
    "bad port": (change("request.uri", "http://h:99999/"), "request.uri is no URL"),
    "request body": (change("request.body", {"prompt": 1}), "request.body is of the type dict, not text"),
    "request headers": (change("request.headers", ["a"]), "request.headers is of the type list"),
    "header": (change("request.headers", {"a": {"b": 1}}), "request.headers holds more than names and text"),
    "empty header": (change("response.headers", {"a": []}), "response.headers holds more than"),
    "null header": (change("response.headers", {"a": None}), "response.headers holds more than"),
    "numbered header": (change("response.headers", {1: "a"}), "response.headers holds more than"),
    "headers": (change("response.headers", ["a"]), "response.headers is of the type list, not a mapping"),
    "no status": (change("response.status", None), "response.status.code is no number"),
    "null status": (change("response.status.code", None), "code is no number from 100 to 599"),
    "text as status": (change("response.status.code", "200"), "response.status.code is no number"),
    "infinite status": (change("response.status.code", float("inf")), "response.status.code is no number"),
    "large status": (change("response.status.code", 10**30), "response.status.code is no number"),
    "true": (change("response.status.code", True), "response.status.code is no number"),
    "body": (change("response.body", "text"), "response.body is text, not a mapping"),
    "body list": (change("response.body.string", [1]), "response.body.string is of the type list"),
    "surrogate": (b'interactions:\n- request: {method: "\\ud800"}\n', "Interaction 1|cannot be parsed"),
    "FIFO": (make_fifo, "It cannot be read: not a regular file"),
    "folder": (Path.mkdir, "It cannot be read: is a folder"),
    "link loop": (make_loop, "It cannot be read: Too many levels"),
    "dangling link": (make_dangling_link, "It cannot be read: No such file"),
    "2 GiB": (make_huge, "It cannot be read: 2147483648 bytes, more than"),
}  # fmt: skip


def read_status(path: Path) -> tuple[int, int, int, int]:
    """Return values that change when a file is replaced or written."""
    status = os.lstat(path)
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


@pytest.fixture
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A damaged cassette, and the problem to expect."""
    content, problem = FILES[request.param]
    path = tmp_path / "c.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return path, problem


@pytest.mark.parametrize("damaged", FILES, indirect=True)
def test_damage_is_an_error_in_every_mode(damaged: tuple[Path, str]) -> None:
    """Refuses the file in every mode, before anything is sent, and leaves it as it is."""
    path, problem = damaged
    before = read_status(path)
    with WireServer(fail_when_touched) as server:
        for mode in MODES:
            with pytest.raises(imgkit.ConfigurationError, match=problem) as caught:
                with cassette(path, record_mode=mode):
                    imgkit.ImageService("requests", base_url=server.base_url).create_image("a fox")
            assert "delete it and record again" in str(caught.value)
            assert "c.yaml' is not a cassette" in str(caught.value)
        with pytest.raises(imgkit.ConfigurationError, match=problem):
            with vcr.use_cassette(str(path), record_mode="once", **vcr_config()):
                imgkit.ImageService("requests", base_url=server.base_url).create_image("a fox")
        assert server.accepted == 0
    assert read_status(path) == before


@pytest.mark.parametrize(
    "damaged", [name for name in FILES if name not in ("folder", "link loop", "dangling link")], indirect=True
)
def test_damage_is_an_error_elsewhere(damaged: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Refuses the file as a fixture, for the recorder, and in each command."""
    path, problem = damaged
    with pytest.raises(imgkit.ConfigurationError, match=problem):
        imgkit.ImageService(fixtures=path)
    with imgkit.ImageService(plugins=[imgkit.RecorderPlugin(path)]) as service:
        response = service.create_image("a fox", size="16x16")
    assert any("is not a cassette" in warning for warning in response.warnings)
    for command in (["check"], ["ls"], ["show", "-o", "-"], ["shrink"]):
        assert imgkit_command(["cassette", *command, str(path)]) in (1, 2)
        output = capsys.readouterr().err
        assert "is not a cassette" in output or "cannot be read" in output or "Python object" in output
        assert "bug" not in output


def test_message_quotes_no_secret(tmp_path: Path) -> None:
    """Names the place of the damage without the text at it."""
    (tmp_path / "c.yaml").write_bytes(change("request.uri", "sk-SECRET0123456789"))
    with pytest.raises(imgkit.ConfigurationError, match="request.uri is no URL") as caught:
        imgkit.ImageService(fixtures=tmp_path / "c.yaml")
    assert "SECRET" not in str(caught.value)


def test_sound_entries_pass() -> None:
    """Accepts what other recorders write: bytes, numbers as header values, and missing parts."""
    for place, value in [
        ("request.body", b"\xff"), ("request.body", None), ("request.headers", None), ("response.body", None),
        ("response.headers", {"content-length": 7, "age": [1], "x": b"y"}), ("response.body.string", None),
    ]:  # fmt: skip
        content = yaml.safe_load(change(place, value))
        assert find_damage(content) is None


def test_numbers_as_header_values_replay(tmp_path: Path) -> None:
    """Replays a cassette whose header values YAML reads as numbers and dates, also with vcrpy."""
    path = tmp_path / "c.yaml"
    entry: Any = copy.deepcopy(SOUND)
    headers = {"x-number": 7, "date": [yaml.safe_load("2026-11-28")], "content-type": "application/json"}
    entry["response"]["headers"] = headers
    entry["response"]["body"]["string"] = '{"data":[{"b64_json":"aGVu"}]}'
    path.write_text(yaml.safe_dump({"interactions": [entry, entry]}))
    for context in (cassette(path, record_mode="none"), vcr.use_cassette(str(path), **vcr_config())):
        with context, imgkit.ImageService("requests", base_url="http://h/v1") as service:
            assert service.create_image("a fox")[0].data == b"hen"


IMAGE_FILES: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_bytes(png(2, 64)),
    "FIFO": make_fifo,
    "folder": Path.mkdir,
    "link loop": make_loop,
    "missing": lambda path: None,
    "no folder": lambda path: path.parent.rmdir(),
    "2 GiB": make_huge,
}


@pytest.mark.parametrize("damage", IMAGE_FILES)
def test_damaged_image_file_is_an_error(damage: str, tmp_path: Path) -> None:
    """Refuses a cassette whose image file is missing or something else, and sends nothing."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, answer(png(1, 64)))) as server:
        with cassette(path), imgkit.ImageService("requests", base_url=server.base_url) as service:
            service.create_image("a fox")
    (image,) = (tmp_path / "c.yaml.files").iterdir()
    image.unlink()
    IMAGE_FILES[damage](image)
    with WireServer(fail_when_touched) as server:
        for mode in MODES:
            with pytest.raises(imgkit.ConfigurationError, match="Restore it or record again"):
                with cassette(path, record_mode=mode):
                    imgkit.ImageService("requests", base_url=server.base_url).create_image("a fox")
        with pytest.raises(imgkit.ConfigurationError, match="Restore it or record again"):
            imgkit.ImageService(fixtures=path)
        assert server.accepted == 0


ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1.5, float("nan"), "", "x", "\x00", "é", b"\xff", [], {}, [[]], {"a": {}},
    "imgkit-file:", '"imgkit-file:' + "0" * 64 + '.png"', "multipart/form-data; boundary=", "data: {}",
    "[" * 2000, "http://", "%", "?=",
)  # fmt: skip


def list_places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container below a node with each of its keys."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from list_places(node[key])


def damage_structure(chance: random.Random, content: Any) -> bytes:
    """Return the text of a cassette with up to three odd values."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(list(list_places(content)))
        if chance.random() < 0.2:
            del container[key]
            break
        container[key] = copy.deepcopy(chance.choice(ODD_VALUES))
    return yaml.safe_dump(content).encode()


def damage_bytes(chance: random.Random, text: bytes) -> bytes:
    """Return the text of a cassette with bytes changed, removed, repeated or cut off."""
    data = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 1, 1, 8, 200)))
        data[start:end] = chance.choice(
            (
                b"",
                data[start:end] * 2,
                chance.randbytes(1),
                bytes([chance.randrange(32, 127)]),
                b"\n",
                b"- ",
                b"&a ",
            )
        )
        if chance.random() < 0.1:
            del data[start:]
    return bytes(data)


def test_no_damage_escapes(tmp_path: Path) -> None:
    """Replays a cassette with random damage, or raises an error of imgkit or of vcrpy for a miss."""
    path, chance = tmp_path / "c.yaml", random.Random(8)
    settings: dict[str, Any] = {"base_url": "http://h/v1", "retry": False}
    with WireServer(reply(200, answer(png(1, 24)))) as server:
        with cassette(path), imgkit.ImageService("requests", base_url=server.base_url) as service:
            service.create_image("a fox")
            service.create_image_edit(png(2, 24), "a hat")
    text = path.read_bytes().replace(server.base_url.encode(), b"http://h/v1")
    content = yaml.safe_load(text)
    outcomes = {"image": 0, "error": 0, "miss": 0}
    for number in range(150):
        path.write_bytes(damage_structure(chance, content) if number % 2 else damage_bytes(chance, text))
        try:
            with cassette(path, record_mode="none"), imgkit.ImageService("requests", **settings) as service:
                service.create_image("a fox")
                service.create_image_edit(png(2, 24), "a hat")
            outcomes["image"] += 1
        except imgkit.ImgkitError:
            outcomes["error"] += 1
        except CannotOverwriteExistingCassetteException:
            outcomes["miss"] += 1
        try:
            with imgkit.ImageService(fixtures=path, retry=False) as service:
                service.create_image("a fox")
        except imgkit.ImgkitError:
            pass
        if number % 10 == 0:
            assert imgkit_command(["cassette", "check", str(path)]) in (0, 1)
    assert min(outcomes.values()) > 3, outcomes
    assert path.stat().st_size < MAX_CASSETTE_BYTES
