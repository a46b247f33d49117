"""Images move to side files from any place in a body, and every file is written atomically."""

from __future__ import annotations

import base64
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import vcr

import imgkit
from imgkit.cassettes.matching import parse_fields
from imgkit.cassettes.reader import read_exchanges
from imgkit.cassettes.scrubbing import scrub_body, scrub_reply
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import build_interaction, dump_cassette, write_cassette
from imgkit.testing import vcr_config
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.processes import TIMEOUT_S, start_process

BIG = png(1, 700)
BASE64 = base64.b64encode(BIG)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 600 + b"</svg>"
EVENTS = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"'
    + BASE64
    + b'","partial_image_index":0}\n\ndata: {"type":"image_generation.completed","b64_json": "'
    + base64.b64encode(png(2, 64))
    + b'"}\n\ndata: [DONE]\n\n'
)
BODIES = {
    "events": (EVENTS, "text/event-stream; charset=utf-8", 2),
    "edit as JSON": (
        b'{"images":[{"image_url":"data:image/png;base64,' + BASE64 + b'"}],"prompt":"a hat"}',
        "application/json",
        1,
    ),
    "data URL in a reply": (
        b'{"data":[{"url": "data:image/svg+xml;base64,' + base64.b64encode(SVG) + b'"}]}',
        "application/json",
        1,
    ),
    "another key": (b'{"predictions":[{"bytesBase64Encoded":"' + BASE64 + b'"}]}', "application/json", 1),
    "base64 of anything": (
        b'{"x":"' + base64.b64encode(bytes(range(256)) * 4) + b'"}',
        "application/json",
        1,
    ),
    "twice": (b'["' + BASE64 + b'","' + BASE64 + b'"]', "application/json", 1),
    "base64 in other words": (b'["' + BASE64 + b'!"]', "application/json", 0),
    "its own words": (
        b'["imgkit-file:%s.png", "imgkit-file::", "%s"]' % (b"0" * 64, BASE64),
        "application/json",
        1,
    ),
    "only its own words": (b"imgkit-file:%s.png" % (b"0" * 64), "text/plain", 0),
}


@pytest.mark.parametrize("name", BODIES)
def test_restores_bodies_byte_for_byte(name: str, tmp_path: Path) -> None:
    """Moves images to files and restores the body from disk."""
    body, content_type, count = BODIES[name]
    files = SideFiles(tmp_path / "c.yaml")
    text = files.extract_images(body, content_type)
    files.save()
    assert len(list(tmp_path.glob("c.yaml.files/*"))) == count
    assert SideFiles(tmp_path / "c.yaml").restore_images(text, content_type) == body
    if count:
        assert len(text) < 700


@pytest.mark.parametrize("name", ["events", "data URL in a reply", "another key"])
def test_records_and_replays_replies(name: str, tmp_path: Path) -> None:
    """Replays a recorded reply with vcrpy, and reads it without vcrpy."""
    import requests

    body, content_type, _ = BODIES[name]
    path = tmp_path / "c.yaml"
    bodies = []
    with WireServer(reply(200, body, content_type=content_type)) as server:
        url = f"{server.base_url}/images/generations"
        for mode in ("once", "none"):
            with vcr.use_cassette(str(path), record_mode=mode, **vcr_config()):
                bodies.append(requests.post(url, data=BODIES["edit as JSON"][0], timeout=5).content)
        assert server.posts == 1
    assert bodies == [body, body]
    (exchange,) = read_exchanges(path)
    assert (exchange.reply, exchange.body) == (body, BODIES["edit as JSON"][0])
    assert path.stat().st_size < 5000


def test_scrubs_account_ids() -> None:
    """Scrubs account ids in bodies and headers; a second run changes nothing."""
    message = {
        "error": {"message": "organization org-Ab12Cd34Ef56 project proj_0123456789abcdef, req_0011223344aa"}
    }
    body = json.dumps(message).encode()
    headers = {
        "openai-organization": "org-Ab12Cd34Ef56",
        "x-request-id": "req_0011223344aa",
        "Location": "https://h/x?sig=SECRET",
        "content-length": str(len(body)),
        "content-type": "application/json",
    }
    recorded_headers, scrubbed = scrub_reply(headers, body)
    assert json.loads(scrubbed)["error"]["message"] == (
        "organization org-scrubbed project proj_scrubbed, req_scrubbed"
    )
    assert recorded_headers["content-length"] == str(len(scrubbed))
    assert "SECRET" not in str(recorded_headers)
    assert "org-" not in str(recorded_headers)
    assert scrub_reply(recorded_headers, scrubbed) == (recorded_headers, scrubbed)
    form = b'--B\r\nContent-Disposition: form-data; name="user"\r\n\r\norg-Ab12Cd34Ef56\r\n--B--\r\n'
    assert b"org-scrubbed" in scrub_body(form, "multipart/form-data; boundary=B")


def test_does_not_scrub_images() -> None:
    """Keeps an image whose bytes happen to contain a key-like text."""
    picture = png(1) + b"sk-abcdefghijklmnop"
    assert scrub_body(picture, "image/png") == picture
    form = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + picture + b"\r\n--B--\r\n"
    assert scrub_body(form, "multipart/form-data; boundary=B") == form


def test_fields_ignore_order_and_boundary() -> None:
    """Parses equal fields from reordered members and from other form boundaries."""
    assert parse_fields("application/json", b'{"a":1,"b":"x"}') == parse_fields("", b'{ "b": "x", "a": 1 }')
    form = b'--AAA\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--AAA--\r\n'
    first = parse_fields("multipart/form-data; boundary=AAA", form)
    second = parse_fields("multipart/form-data; boundary=BBB", form.replace(b"AAA", b"BBB"))
    assert first == second == {"a": "1"}
    assert parse_fields("", b"[1]") != parse_fields("", b"[2]")


def test_matches_requests_with_reordered_members(tmp_path: Path) -> None:
    """Matches a vcrpy request whose JSON members have another order."""
    import requests

    with WireServer(reply(200, answer())) as server:
        url = f"{server.base_url}/images/generations"
        for mode, body in (("once", b'{"prompt":"a","n":1}'), ("none", b'{"n": 1, "prompt": "a"}')):
            with vcr.use_cassette(str(tmp_path / "c.yaml"), record_mode=mode, **vcr_config()):
                headers = {"content-type": "application/json"}
                assert requests.post(url, data=body, headers=headers, timeout=5).status_code == 200
        assert server.posts == 1


def build_exchange(files: SideFiles, body: bytes) -> Any:
    """Build a cassette entry whose reply has this body."""
    return build_interaction(
        files,
        method="POST",
        url="http://h/v1/images/generations",
        headers={},
        body=b"{}",
        status=200,
        reply_headers={"content-type": "image/png"},
        reply=body,
    )


def test_refused_cassette_keeps_its_images(tmp_path: Path) -> None:
    """Keeps the images of a refused cassette when the next cassette is written."""
    path = tmp_path / "c.yaml"
    files = SideFiles(path)
    key = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"
    with pytest.raises(imgkit.ConfigurationError, match="looks like a key"):
        write_cassette(
            path, dump_cassette([build_exchange(files, BIG), build_exchange(files, key.encode())]), files
        )
    files = SideFiles(path)
    write_cassette(path, dump_cassette([build_exchange(files, png(9, 64))]), files)
    images = {path.read_bytes() for path in (tmp_path / "c.yaml.files").iterdir()}
    assert images == {BIG, png(9, 64)}


WRITER = """
import sys
from pathlib import Path
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import dump_cassette, write_cassette
from imgkit.testing.samples import png
from tests.testing.test_side_files import build_exchange

path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    files = SideFiles(path)
    entries = [build_exchange(files, png(number % 2, 60 + size)) for size in range(5)]
    write_cassette(path, dump_cassette(entries), files)
"""


def test_killed_writer_leaves_whole_cassette(tmp_path: Path) -> None:
    """Leaves a whole cassette with all its images when the writer is killed."""
    path = tmp_path / "c.yaml"
    files = SideFiles(path)
    write_cassette(
        path, dump_cassette([build_exchange(files, png(0, 60 + size)) for size in range(5)]), files
    )
    random_delay = random.Random(1)
    possible = [[png(number, 60 + size) for size in range(5)] for number in (0, 1)]
    for _ in range(4):
        writer = start_process(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.005 + random_delay.random() * 0.04)
        writer.send_signal(signal.SIGKILL)
        writer.wait(TIMEOUT_S)
        assert [exchange.reply for exchange in read_exchanges(path)] in possible
