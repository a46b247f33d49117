"""Pictures beside cassettes, wherever they were in a body; and files that are whole whatever happens."""

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

import imgkit
from imgkit.cassettes.meaning import fields_of
from imgkit.cassettes.reader import read
from imgkit.cassettes.scrubbing import scrub_body, scrub_reply
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import commit, dump, entry
from imgkit.testing import cassette
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.processes import start_process

BIG = png(1, 700)
TEXT = base64.b64encode(BIG)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 600 + b"</svg>"
EVENTS = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"'
    + TEXT
    + b'","partial_image_index":0}\n\ndata: {"type":"image_generation.completed","b64_json": "'
    + base64.b64encode(png(2, 64))
    + b'"}\n\ndata: [DONE]\n\n'
)
BODIES = {
    "events": (EVENTS, "text/event-stream; charset=utf-8", 2),
    "edit as JSON": (
        b'{"images":[{"image_url":"data:image/png;base64,' + TEXT + b'"}],"prompt":"a hat"}',
        "application/json",
        1,
    ),
    "data URL in a reply": (
        b'{"data":[{"url": "data:image/svg+xml;base64,' + base64.b64encode(SVG) + b'"}]}',
        "application/json",
        1,
    ),
    "another key": (b'{"predictions":[{"bytesBase64Encoded":"' + TEXT + b'"}]}', "application/json", 1),
    "base64 of anything": (
        b'{"x":"' + base64.b64encode(bytes(range(256)) * 4) + b'"}',
        "application/json",
        1,
    ),
    "twice": (b'["' + TEXT + b'","' + TEXT + b'"]', "application/json", 1),
    "base64 in other words": (b'["' + TEXT + b'!"]', "application/json", 0),
    "its own words": (
        b'["imgkit-file:%s.png", "imgkit-file::", "%s"]' % (b"0" * 64, TEXT),
        "application/json",
        1,
    ),
    "only its own words": (b"imgkit-file:%s.png" % (b"0" * 64), "text/plain", 0),
}


@pytest.mark.parametrize("name", BODIES)
def test_byte_for_byte(name: str, tmp_path: Path) -> None:
    """Pictures go, and come back from the disk as they were."""
    body, kind, count = BODIES[name]
    files = SideFiles(tmp_path / "c.yaml")
    put = files.put_away(body, kind)
    files.save()
    assert len(list(tmp_path.glob("c.yaml.files/*"))) == count
    assert SideFiles(tmp_path / "c.yaml").put_back(put, kind) == body
    if count:
        assert len(put) < 700


@pytest.mark.parametrize("name", ["events", "data URL in a reply", "another key"])
def test_replies_on_a_cassette(name: str, tmp_path: Path) -> None:
    """Recorded and replayed by vcrpy, and read without it."""
    import requests

    body, kind, _ = BODIES[name]
    path = tmp_path / "c.yaml"
    got = []
    with WireServer(reply(200, body, content_type=kind)) as server:
        url = f"{server.base_url}/images/generations"
        for mode in ("once", "none"):
            with cassette(path, record_mode=mode):
                got.append(requests.post(url, data=BODIES["edit as JSON"][0], timeout=5).content)
        assert server.posts == 1
    assert got == [body, body]
    (one,) = read(path)
    assert (one.reply, one.body) == (body, BODIES["edit as JSON"][0])
    assert path.stat().st_size < 5000


def test_ids_of_accounts() -> None:
    """In bodies and headers, of requests and replies; twice comes to the same."""
    said = {
        "error": {"message": "organization org-Ab12Cd34Ef56 project proj_0123456789abcdef, req_0011223344aa"}
    }
    body = json.dumps(said).encode()
    headers = {
        "openai-organization": "org-Ab12Cd34Ef56",
        "x-request-id": "req_0011223344aa",
        "Location": "https://h/x?sig=SECRET",
        "content-length": str(len(body)),
        "content-type": "application/json",
    }
    kept, scrubbed = scrub_reply(headers, body)
    assert json.loads(scrubbed)["error"]["message"] == (
        "organization org-scrubbed project proj_scrubbed, req_scrubbed"
    )
    assert kept["content-length"] == str(len(scrubbed))
    assert "SECRET" not in str(kept)
    assert "org-" not in str(kept)
    assert scrub_reply(kept, scrubbed) == (kept, scrubbed)
    form = b'--B\r\nContent-Disposition: form-data; name="user"\r\n\r\norg-Ab12Cd34Ef56\r\n--B--\r\n'
    assert b"org-scrubbed" in scrub_body(form, "multipart/form-data; boundary=B")


def test_pictures_are_not_scrubbed() -> None:
    """Not even one that holds the words of a key by chance."""
    picture = png(1) + b"sk-abcdefghijklmnop"
    assert scrub_body(picture, "image/png") == picture
    form = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + picture + b"\r\n--B--\r\n"
    assert scrub_body(form, "multipart/form-data; boundary=B") == form


def test_what_bodies_say() -> None:
    """The order of members and the boundary of a form are nobody's business; what is said is."""
    assert fields_of("application/json", b'{"a":1,"b":"x"}') == fields_of("", b'{ "b": "x", "a": 1 }')
    form = b'--AAA\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--AAA--\r\n'
    one = fields_of("multipart/form-data; boundary=AAA", form)
    two = fields_of("multipart/form-data; boundary=BBB", form.replace(b"AAA", b"BBB"))
    assert one == two == {"a": "1"}
    assert fields_of("", b"[1]") != fields_of("", b"[2]")


def test_another_order_of_members_is_the_same_request(tmp_path: Path) -> None:
    """Cassettes recorded by other clients are matched by what their bodies say, with vcrpy too."""
    import requests

    with WireServer(reply(200, answer())) as server:
        url = f"{server.base_url}/images/generations"
        for mode, body in (("once", b'{"prompt":"a","n":1}'), ("none", b'{"n": 1, "prompt": "a"}')):
            with cassette(tmp_path / "c.yaml", record_mode=mode):
                kind = {"content-type": "application/json"}
                assert requests.post(url, data=body, headers=kind, timeout=5).status_code == 200
        assert server.posts == 1


def exchanged(files: SideFiles, body: bytes) -> Any:
    return entry(
        files,
        method="POST",
        url="http://h/v1/images/generations",
        headers={},
        body=b"{}",
        status=200,
        reply_headers={"content-type": "image/png"},
        reply=body,
    )


def test_what_was_refused_keeps_its_pictures(tmp_path: Path) -> None:
    """The next cassette that is written does not drop them: they were paid for."""
    path = tmp_path / "c.yaml"
    files = SideFiles(path)
    key = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"
    with pytest.raises(imgkit.ConfigurationError, match="looks like a key"):
        commit(path, dump([exchanged(files, BIG), exchanged(files, key.encode())]), files)
    files = SideFiles(path)
    commit(path, dump([exchanged(files, png(9, 64))]), files)
    kept = {one.read_bytes() for one in (tmp_path / "c.yaml.files").iterdir()}
    assert kept == {BIG, png(9, 64)}


WRITE = """
import sys
from pathlib import Path
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import commit, dump
from imgkit.testing.samples import png
from tests.testing.test_side_files import exchanged

path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    files = SideFiles(path)
    commit(path, dump([exchanged(files, png(number % 2, 60 + one)) for one in range(5)]), files)
"""


def test_killed_in_the_midst_of_writing(tmp_path: Path) -> None:
    """Whenever it comes, there is one whole cassette or the other, with all its pictures."""
    path = tmp_path / "c.yaml"
    files = SideFiles(path)
    commit(path, dump([exchanged(files, png(0, 60 + one)) for one in range(5)]), files)
    chance = random.Random(1)
    whole = [[png(number, 60 + one) for one in range(5)] for number in (0, 1)]
    for _ in range(4):
        command = [sys.executable, "-c", WRITE, str(path)]
        with start_process(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.005 + chance.random() * 0.04)
            writer.send_signal(signal.SIGKILL)
        assert [one.reply for one in read(path)] in whole
