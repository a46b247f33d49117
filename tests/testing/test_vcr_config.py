"""Cassettes record with any backend and replay on any other, without secrets, with images beside them."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import vcr
import yaml

import imgkit
from imgkit.cassettes.api_keys import find_key
from imgkit.cassettes.scrubbing import scrub_text, scrub_url
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import dump_cassette
from imgkit.cli.run import run
from imgkit.testing import canary, cassette, vcr_config
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, reply

BIG = png(1, 700)


def send_private_data(line: Line) -> None:
    """Reply with all kinds of data that a cassette must not hold."""
    private = {
        "set_cookie": "session=SECRET",
        "openai_organization": "org-SECRET",
        "cf_ray": "SECRET-RAY",
    }
    if line.request_line.startswith("GET"):
        reply(200, png(5, 64), content_type="image/png", **private)(line)
    elif b"url" in line.body:
        link = f"http://{line.headers['host']}/img.png?sig=SECRET-SIGNATURE&se=2026"
        reply(200, {"data": [{"url": link}]}, **private)(line)
    elif b"wrong" in line.body:
        reply(401, {"error": {"message": f"no: {canary.KEY}", "code": "invalid_api_key"}}, **private)(line)
    else:
        reply(200, answer(BIG if b"big" in line.body else png(len(line.body) % 50)), **private)(line)


CALLS = {
    "create": lambda service: service.create_image("a fox"),
    "big": lambda service: service.create_image("a big fox"),
    "edit": lambda service: service.create_image_edit([png(2, 64), png(3, 64)], "a hat"),
    "big edit": lambda service: service.create_image_edit(png(4, 1300), "a hat"),
    "url": lambda service: service.create_image("a fox", response_format="url"),
    "wrong": lambda service: service.create_image("wrong"),
}


def make_call(service: imgkit.ImageService, name: str) -> Any:
    """Return the images of a call, or the class and code of its error."""
    try:
        return [image.data for image in CALLS[name](service)]
    except imgkit.ApiError as error:
        return type(error), error.code


def play(path: Path, backend: str, base_url: str, names: Any, mode: str, **options: Any) -> list[Any]:
    """Make calls with a sync service on a cassette."""
    with (
        cassette(path, record_mode=mode),
        imgkit.ImageService(
            backend, base_url=base_url, api_key=canary.KEY, retry=False, **options
        ) as service,
    ):
        return [make_call(service, name) for name in names]


@pytest.mark.parametrize("recorder", ["requests", "aiohttp"])
@pytest.mark.parametrize("player", ["requests", "aiohttp"])
def test_replays_on_every_backend(recorder: str, player: str, tmp_path: Path) -> None:
    """Replays on either backend in another order, without the server and without the key."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        base_url = server.base_url
        recorded = dict(zip(CALLS, play(path, recorder, base_url, CALLS, "all"), strict=True))
    names = list(reversed(CALLS))
    assert play(path, player, base_url, names, "none") == [recorded[name] for name in names]


def test_records_no_secret(tmp_path: Path) -> None:
    """Writes no secret to the cassette or its image files."""
    with WireServer(send_private_data) as server:
        play(tmp_path / "c.yaml", "requests", server.base_url, CALLS, "all", organization="org-SECRET")
    assert canary.find_secret(folders=[tmp_path]) == []
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path


def test_writes_images_beside_cassette(tmp_path: Path) -> None:
    """Writes each image once to a file, and keeps 5 KB of text per reply."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        play(path, "requests", server.base_url, ["big", "edit", "edit", "big"], "all")
    assert path.stat().st_size < 4 * 5000
    loaded = yaml.safe_load(path.read_text())
    assert len(loaded["interactions"]) == 4
    assert "!!binary" not in path.read_text()
    assert "!!python" not in path.read_text()
    files = sorted((tmp_path / "c.yaml.files").iterdir())
    assert {path.read_bytes() for path in files} >= {BIG, png(2, 64), png(3, 64)}
    assert len(files) == len({path.read_bytes() for path in files}) == 3


def test_concurrent_calls_get_their_own_replies(tmp_path: Path) -> None:
    """Gives concurrent calls their own replies, in another order than recorded."""
    path = tmp_path / "c.yaml"
    prompts = ["x" * n for n in range(1, 12)]

    async def create_all(base_url: str, mode: str, order: list[str]) -> dict[str, bytes]:
        with cassette(path, record_mode=mode):
            async with imgkit.AsyncImageService("aiohttp", base_url=base_url, retry=False) as service:
                replies = await asyncio.gather(*(service.create_image(prompt) for prompt in order))
        return {prompt: response[0].data for prompt, response in zip(order, replies, strict=True)}

    with WireServer(send_private_data) as server:
        base_url = server.base_url
        recorded = asyncio.run(create_all(base_url, "all", prompts))
    assert asyncio.run(create_all(base_url, "none", prompts[::-1])) == recorded


def test_suspected_key_prevents_writing(tmp_path: Path) -> None:
    """Writes a private copy in place of the cassette if the text may hold a key."""
    path = tmp_path / "c.yaml"
    token = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"
    with WireServer(reply(200, {**answer(), "note": token})) as server:
        with pytest.raises(imgkit.ConfigurationError, match="looks like a key") as caught:
            play(path, "requests", server.base_url, ["create"], "all")
    assert token not in str(caught.value)
    assert not path.exists()
    refused = tmp_path / "c.yaml.refused"
    assert stat.S_IMODE(refused.stat().st_mode) == 0o600
    assert token in refused.read_text()


def test_refused_cassette_restores_http_libraries(tmp_path: Path) -> None:
    """Restores the HTTP libraries before it raises the error."""
    import http.client

    original = http.client.HTTPConnection
    token = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"
    with WireServer(reply(200, {**answer(), "note": token})) as server:
        with pytest.raises(imgkit.ConfigurationError, match="looks like a key") as caught:
            play(tmp_path / "c.yaml", "requests", server.base_url, ["create"], "all")
        assert http.client.HTTPConnection is original
    assert caught.value is not None


def test_settings_work_with_plain_vcrpy(tmp_path: Path) -> None:
    """Works as keyword arguments of `vcr.use_cassette`."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        base_url = server.base_url
        for mode in ("once", "none"):
            with (
                vcr.use_cassette(str(path), record_mode=mode, **vcr_config(allow_playback_repeats=True)),
                imgkit.ImageService("requests", base_url=base_url, api_key=canary.KEY) as service,
            ):
                service.create_image("a big fox")
        assert server.posts == 1
    assert canary.find_secret(folders=[tmp_path]) == []


def test_missing_or_changed_image_is_an_error(tmp_path: Path) -> None:
    """Raises an error if an image is missing or has changed."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        base_url = server.base_url
        play(path, "requests", base_url, ["big"], "all")
    (image,) = (tmp_path / "c.yaml.files").iterdir()
    image.write_bytes(BIG[:-1])
    with pytest.raises(imgkit.ConfigurationError, match="differs from the recorded image"):
        play(path, "requests", base_url, ["big"], "none")
    image.unlink()
    with pytest.raises(imgkit.ConfigurationError, match="Restore it or record again"):
        play(path, "requests", base_url, ["big"], "none")


def test_new_recording_deletes_old_images(tmp_path: Path) -> None:
    """Deletes the images of the old recording."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        play(path, "requests", server.base_url, ["big"], "all")
        path.unlink()
        play(path, "requests", server.base_url, ["wrong"], "all")
    assert not (tmp_path / "c.yaml.files").exists()


@pytest.mark.parametrize(
    ("url", "all_parameters", "removed", "contained"),
    [
        ("https://h/x?sig=SECRET&n=1", True, "SECRET", "n=scrubbed-"),
        ("https://h/x?api-key=SECRET&api-version=1", False, "SECRET", "api-version=1"),
        ("https://h/x", True, "?", "https://h/x"),
        ("https://h/x?a=&b=%20", False, "SECRET", "a=&b=%20"),
        ("https://h/x?SECRET", True, "SECRET", "https://h/x?scrubbed-"),
        ("https://me:SECRET@h/x?a=1", False, "SECRET", "https://h/x?a=1"),
        ("https://h/x?a=1#SECRET", False, "SECRET", "https://h/x?a=1"),
    ],
)
def test_scrub_url(url: str, all_parameters: bool, removed: str, contained: str) -> None:
    """Scrubs URLs the same way once or twice; different secrets stay different."""
    once = scrub_url(url, all_parameters=all_parameters)
    assert removed not in once
    assert contained in once
    assert scrub_url(once, all_parameters=all_parameters) == once
    assert scrub_url("https://h/x?sig=A", all_parameters=True) != scrub_url(
        "https://h/x?sig=B", all_parameters=True
    )


def test_scrub_text() -> None:
    """Finds URLs in each JSON spelling, and keeps text without secrets."""
    link = "https://h/x?sig=SECRET&n=1"
    for text in (
        json.dumps({"url": link}),
        json.dumps({"url": link}).replace("/", "\\/").replace("&", "\\u0026"),
    ):
        scrubbed = scrub_text(text.encode())
        assert json.loads(scrubbed) == {"url": scrub_url(link, all_parameters=True)}
        assert scrub_text(scrubbed) == scrubbed
    plain = b'{"prompt": "how? https://h/x", "b64_json": "' + base64.b64encode(BIG) + b'"}'
    assert scrub_text(plain) == plain
    assert scrub_text(b"key sk-abcdefghijkl.") == b"key sk-scrubbed."
    assert find_key(b"Authorization: Bearer abcdefghijklmnopqrst") == "Bearer…"
    assert find_key(plain) is None


@pytest.mark.parametrize(
    "before", ["", "\n", "\t", "é", "\u2026", "\U0001f98a", "\\", "_", "'", "key=", "/", "\x85", "\u2028"]
)
@pytest.mark.parametrize(
    "key",
    ["sk-proj-SECRET0123456789", "xai-SECRET0123456789abcdefgh", "AIza" + "SECRETs" * 5, "org-SECRET0123"],
)
def test_finds_key_after_any_character(before: str, key: str) -> None:
    """Finds and scrubs a key after any character, however JSON or YAML escapes it."""
    for ascii_only in (True, False):
        text = json.dumps({"note": f"{before}{key}"}, ensure_ascii=ascii_only).encode()
        scrubbed = scrub_text(text)
        assert b"SECRET" not in scrubbed
        assert scrub_text(scrubbed) == scrubbed
        assert before in json.loads(scrubbed)["note"]
        if not key.startswith("org-"):
            assert find_key(text) is not None
            assert find_key(dump_cassette([{"body": text.decode()}])) is not None
            assert find_key(dump_cassette([{"body": f"{before}{key}"}])) is not None
        assert find_key(dump_cassette([{"body": scrubbed.decode()}])) is None


def test_keeps_words_that_contain_a_key_prefix() -> None:
    """Keeps words that only contain the prefix of a key."""
    for text in (
        b"a task-management-board2024 on a desk-organizer-drawer",
        b"cyborg-anniversary",
        b"whisk-and-bowl12",
    ):
        assert scrub_text(text) == text
        assert find_key(text) is None


ODD = {
    "x-goog-api-key": "SECRET1", "Ocp-Apim-Subscription-Key": "SECRET2", "helicone-auth": "Bearer SECRET3",
    "X-Ms-Client-Request-Id": "SECRET4", "x-project": "SECRET5", "X-Access-Token": "SECRET6",
    "x-from": "https://h/x?sig=SECRET7", "x-note": "sk-SECRET01234567",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream"])
def test_scrubs_unknown_headers_and_content_types(kind: str, tmp_path: Path) -> None:
    """Scrubs headers of any name and text of any type, and keeps token counts."""
    path = tmp_path / "c.yaml"
    request_headers = {**ODD, "content-type": kind}
    reply_headers = {**ODD, "x-ratelimit-remaining-tokens": "41"}
    with WireServer(reply(200, b"note=sk-SECRET01234567", content_type=kind, **reply_headers)) as server:
        with vcr.use_cassette(str(path), **vcr_config()):
            requests.post(
                f"{server.base_url}/x", data=b"key=sk-SECRET01234567", headers=request_headers, timeout=5
            )
        with vcr.use_cassette(str(path), record_mode="none", **vcr_config()):
            replayed = requests.post(
                f"{server.base_url}/x", data=b"key=sk-SECRET01234567", headers=request_headers, timeout=5
            )
    assert replayed.content == b"note=sk-scrubbed"
    assert replayed.headers["x-ratelimit-remaining-tokens"] == "41"
    assert replayed.headers["X-Ms-Client-Request-Id"] == "req_scrubbed"
    assert "SECRET" not in path.read_text()
    assert run(["cassette", "check", str(path)]) == 0


@pytest.mark.parametrize("recorder", ["vcrpy", "plugin"])
def test_scrubs_key_that_the_server_repeats(recorder: str, http_backend: str, tmp_path: Path) -> None:
    """Scrubs the key that was sent, although it has no known prefix."""
    path = tmp_path / "c.yaml"
    key = "0123456789abcdef" * 2
    error = {"error": {"message": f"wrong key {key}, see 0123456789abcdef", "code": "invalid_api_key"}}
    plugins = [imgkit.RecorderPlugin(path)] if recorder == "plugin" else []
    with WireServer(reply(401, error)) as server, ExitStack() as stack:
        if recorder == "vcrpy":
            stack.enter_context(cassette(path))
        service = imgkit.ImageService(http_backend, base_url=server.base_url, api_key=key, plugins=plugins)
        with service, pytest.raises(imgkit.AuthenticationError):
            service.create_image("a fox")
    assert key not in path.read_text()
    with imgkit.ImageService(fixtures=path) as service:
        with pytest.raises(imgkit.AuthenticationError, match="wrong key scrubbed, see 0123456789abcdef"):
            service.create_image("a fox")


def test_restores_bodies_byte_for_byte(tmp_path: Path) -> None:
    """Restores bodies that mislabel an image, or that contain a placeholder."""
    form = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + png(1, 64) + b"\r\n--B--\r\n"
    tricky = [
        (form, "multipart/form-data; boundary=B"),
        (form, "application/octet-stream"),
        (png(6, 64), "image/png"),
        (b'{"b64_json": "' + b"A" * 1001 + b'"}', "application/json"),
        (b'data: {"b64_json":"' + base64.b64encode(png(7, 64)) + b'"}\n\n', "text/event-stream"),
        (b'{"prompt": "imgkit-file:' + b"0" * 64 + b'.png"}', "application/json"),
        (b"", ""),
    ]
    files = SideFiles(tmp_path / "c.yaml")
    for body, kind in tricky:
        assert files.restore_images(files.extract_images(body, kind), kind) == body
