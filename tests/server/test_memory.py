"""The memory of a server: many edits at once, and replies that nobody reads yet."""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imgkit.errors import UnreadableReplyError
from imgkit.server.frames import encode_frame
from imgkit.server.late_reservations import LateReplies
from imgkit.server.reply_memory import ReplyMemory, ReplyPartFile, ReplyPartFiles, is_in_memory, read_block
from imgkit.wire.messages import Head
from tests.server.test_repeats import wait_until
from tests.support.pictures import encoded, noise
from tests.support.processes import start_process
from tests.support.served import EDITS, form
from tests.support.wire_server import WireServer, reply

EDITS_AT_ONCE = 40
MAX_RISE_KIB = 110 * 1024


def read_kib(pid: int, name: str) -> int:
    """Return a figure of a process's memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_edits_at_once_stay_out_of_memory(tmp_path: Path) -> None:
    """Takes 40 edits of 1.5 MB at once, whose clients read late, in less memory than the images have."""
    body, kind = form(prompt="a hat", image=noise(3, 720))
    answered = reply(200, {"created": 1, "data": [{"b64_json": encoded(noise(4, 720))}]})
    with WireServer(*[answered] * (EDITS_AT_ONCE + 1)) as api:
        command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", "--backend", "aiohttp"]
        ready = tmp_path / "ready"
        command += ["--base-url", api.base_url, "--model", "gpt-image-2", "--ready-file", str(ready)]
        child = start_process(
            command,
            env={
                **os.environ,
                "IMGKIT_HOME": str(tmp_path),
                "OPENAI_API_KEY": "sk-upstream-0123456789abcdef",
            },
        )
        wait_until(ready.exists)
        parts = urlsplit(ready.read_text().strip())

        def connect() -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            connection.request("POST", EDITS, body, {"content-type": kind})
            return connection

        def read(connection: http.client.HTTPConnection) -> int:
            length = len(json.loads(connection.getresponse().read())["data"][0]["b64_json"])
            connection.close()
            return length

        first = read(connect())
        idle = read_kib(child.pid, "VmRSS")
        with ThreadPoolExecutor(EDITS_AT_ONCE) as threads:
            sent = list(threads.map(lambda _: connect(), range(EDITS_AT_ONCE)))
        assert {read(connection) for connection in sent} == {first}
        rise = read_kib(child.pid, "VmHWM") - idle
        child.terminate()
        child.communicate(timeout=20)
    assert rise < MAX_RISE_KIB


def test_images_go_to_the_disk_once_the_memory_is_full(tmp_path: Path) -> None:
    """Keeps images in memory while there is room, and gives the room back."""
    memory = ReplyMemory(max_bytes=400_000)
    files = ReplyPartFiles(tmp_path, memory, digests=False)
    first, second = files.new_file(), files.new_file()
    first.add(b"a" * 300_000)
    assert not files.should_flush
    assert memory.is_scarce
    second.add(b"b" * 300_000)
    assert files.should_flush
    files.write()
    assert memory.used == 0
    assert [len(path.read_bytes()) for path in tmp_path.iterdir()] == [300_000, 300_000]
    third = files.new_file()
    third.add(b"c" * 10)
    source = third.source()
    assert source is not None
    assert is_in_memory(source)
    assert [bytes(read_block(source, 8, position)) for position in (0, 8, 10)] == [b"c" * 8, b"c" * 2, b""]
    del third, source
    assert memory.used == 0


def test_a_slow_reader_keeps_no_image_in_memory(tmp_path: Path) -> None:
    """Lets an image go to the disk in the midst of its reply, and sends the rest from there."""
    data = noise(5, 900)[:2_000_000]
    file = ReplyPartFiles(tmp_path, ReplyMemory(), digests=False).new_file()
    assert isinstance(file, ReplyPartFile)
    tracemalloc.start()
    try:
        for position in range(0, len(data), 250_000):
            file.add(b"".join([data[position : position + 250_000]]))
        blocks = encode_frame((b"<", file, b">"))
        received = next(blocks)
        file.move_to(tmp_path / "fox.png")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2 * len(received)
    received += b"".join(blocks)
    assert received == b"<" + base64.b64encode(data) + b">"


def test_a_file_that_has_become_shorter_ends_its_reply(tmp_path: Path) -> None:
    """Raises in place of a reply that is shorter than its length, for whose rest a client would wait."""
    path = tmp_path / "fox.png"
    file = ReplyPartFiles(tmp_path, ReplyMemory(), digests=False).new_file()
    assert isinstance(file, ReplyPartFile)
    file.add(bytes(1_000_000))
    file.move_to(path)
    os.truncate(path, 500_000)
    with pytest.raises(UnreadableReplyError, match="has become shorter"):
        list(encode_frame((file,)))


def test_sends_the_small_pieces_of_a_slow_network_together(tmp_path: Path) -> None:
    """Encodes an image that came in many pieces in few blocks."""
    file = ReplyPartFiles(tmp_path, ReplyMemory(), digests=False).new_file()
    for number in range(200):
        file.add(bytes([number]) * (1000 + number % 3))
    blocks = list(encode_frame((file,)))
    assert len(blocks) <= 2
    assert base64.b64decode(b"".join(blocks)) == file.read()


def test_each_server_has_its_own_late_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists a reply that the spools should have by now for its server only, until its call ends."""
    monkeypatch.setattr("imgkit.server.late_reservations.LATE_S", 0.0)
    own, other = LateReplies(), LateReplies()
    reservations = own.new_reservations()
    reservations.begin(Head(200, {}))
    assert own.list_overdue() == [reservations]
    assert other.list_overdue() == []
    reservations.settle(None)
    assert own.list_overdue() == []
