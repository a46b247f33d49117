"""A recording sends each request once, and loses no reply: neither to a failure nor to another process."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.cassettes.reader import read_exchanges
from imgkit.cli.run import run as imgkit_command
from imgkit.locks import FileLock
from imgkit.testing import WireServer, answer, cassette, png, reply, tape_persister
from imgkit.testing.wire_server import Line, Script, drop, head
from tests.conftest import ServiceRunner
from tests.support.api_server import ROOT
from tests.support.processes import run_in_fork, start_process
from tests.support.wire_backends import Backends

BACKENDS = ("requests", "aiohttp", "httpx-based", "pycurl-based", "stdlib-based")


def read_prompts(path: Path) -> list[str]:
    """Return the prompts on a cassette."""
    return sorted(json.loads(exchange.body)["prompt"] for exchange in read_exchanges(path))


def create(path: Path, base_url: str, *prompts: str, mode: str = "new_episodes") -> None:
    """Create an image for each prompt, with a cassette."""
    with cassette(path, record_mode=mode), imgkit.ImageService("requests", base_url=base_url) as images:
        for prompt in prompts:
            assert images.create_image(prompt)[0].width in (8, 24)


def cut(line: Line) -> None:
    """Send half of a reply and close the connection."""
    line.send(head(200, {"content-type": "application/json", "content-length": "900"}) + b'{"data": [')


FAILURES: dict[str, tuple[Script, type[Exception]]] = {
    "cut": (cut, imgkit.OutcomeUnknownError),
    "drop": (drop, imgkit.OutcomeUnknownError),
    "page": (reply(200, b"<html>", content_type="text/html"), imgkit.UnreadableReplyError),
    "gateway": (reply(502, b"<html>", content_type="text/html"), imgkit.OutcomeUnknownError),
}


@pytest.mark.parametrize("mode", ["once", "new_episodes", "all"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("failure", FAILURES)
def test_failed_request_is_sent_once(
    failure: str, backend: str, mode: str, flavor: ServiceRunner, tmp_path: Path
) -> None:
    """Sends a request once that may be billed, keeps the earlier reply, and never replays half a reply."""
    script, kind = FAILURES[failure]
    settings: dict[str, Any] = {"plugins": [Backends()], "retry": True}
    with WireServer(reply(200, answer()), script) as server:
        settings["base_url"] = server.base_url
        with cassette(tmp_path / "c.yaml", record_mode=mode):
            flavor.run(lambda service: service.create_image("a hen"), backend, **settings)
            with pytest.raises(kind):
                flavor.run(lambda service: service.create_image("a fox"), backend, **settings)
        assert server.posts == 2
    assert read_prompts(tmp_path / "c.yaml") in (["a hen"], ["a fox", "a hen"])
    assert all(exchange.reply != b'{"data": [' for exchange in read_exchanges(tmp_path / "c.yaml"))


def test_failure_ends_the_context_and_keeps_the_reply(tmp_path: Path) -> None:
    """Keeps the replies of a test that fails, and leaves them out if the caller asks for that."""
    with WireServer(reply(200, answer())) as server:
        for keeps in (True, False):
            path = tmp_path / f"{keeps}.yaml"
            with pytest.raises(KeyError), cassette(path, record_on_exception=keeps):
                with imgkit.ImageService("requests", base_url=server.base_url) as images:
                    images.create_image("a fox")
                raise KeyError
            assert path.exists() == keeps


RECORDER = """
import sys, time
from pathlib import Path
from tests.testing.test_recording import create

path, base_url, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
create(path, base_url, *(f"{name} {number}" for number in range(12)), "both")
"""


def test_parallel_processes_lose_nothing(tmp_path: Path) -> None:
    """Keeps the recordings of two processes that record the same cassette at the same time."""
    path = tmp_path / "c.yaml"

    def script(line: Line) -> None:
        seed = sum(line.body)
        reply(200, answer(png(seed, 24)))(line)

    with WireServer(script) as server:
        arguments = [str(path), server.base_url]
        children = [
            start_process(
                [sys.executable, "-W", "error", "-c", RECORDER, *arguments, name],
                cwd=ROOT, stdin=-1, stdout=-1, text=True,
            )
            for name in ("fox", "hen")
        ]  # fmt: skip
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.wait(30) for child in children] == [0, 0]
        assert server.posts == 26
    expected = [f"{name} {number}" for name in ("fox", "hen") for number in range(12)]
    assert read_prompts(path) == sorted([*expected, "both", "both"])
    assert imgkit_command(["cassette", "check", str(path)]) == 0
    assert [entry.name for entry in tmp_path.iterdir() if "lock" in entry.name] == []


@pytest.mark.parametrize("mode", ["once", "new_episodes", "all"])
def test_open_cassettes_of_one_process_lose_nothing(mode: str, tmp_path: Path) -> None:
    """Keeps the recordings of two contexts that are open at the same time."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, answer())) as server:
        with (
            cassette(path, record_mode=mode),
            imgkit.ImageService("requests", base_url=server.base_url) as outer,
        ):
            outer.create_image("a hen")
            with cassette(path, record_mode="new_episodes"):
                outer.create_image("a fox")
            outer.create_image("a cat")
        assert server.posts == 3
    assert read_prompts(path) == ["a cat", "a fox", "a hen"]


def test_forked_child_records(tmp_path: Path) -> None:
    """Keeps the recordings of a forked child and of its parent."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, answer())) as server:

        def ask(prompt: str) -> bool:
            with imgkit.ImageService("requests", base_url=server.base_url) as images:
                return images.create_image(prompt)[0].width == 8

        with cassette(path):
            ask("a hen")
            assert run_in_fork(lambda: ask("a fox")) == 0
            ask("a cat")
    assert read_prompts(path) == ["a cat", "a fox", "a hen"]


def test_rewrite_keeps_what_another_process_adds(tmp_path: Path) -> None:
    """Drops unused old recordings, and not those that another process adds meanwhile."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, answer())) as server:
        create(path, server.base_url, "an old hen")
        with cassette(path, record_mode="all", drop_unused_requests=True):
            with imgkit.ImageService("requests", base_url=server.base_url) as images:
                images.create_image("a fox")
                thread = threading.Thread(target=create, args=(path, server.base_url, "a cat"))
                thread.start()
                thread.join()
                images.create_image("an elk")
    assert read_prompts(path) == ["a cat", "a fox", "an elk"]


@pytest.mark.parametrize("damage", ["not YAML", "held lock"])
def test_unsaved_recording_is_copied(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a copy elsewhere if another process leaves a damaged file or holds the lock."""
    path, lock = tmp_path / "c.yaml", None
    monkeypatch.setattr(tape_persister, "LOCK_WAIT_S", 0.02)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with WireServer(reply(200, answer(png(1, 24)))) as server:
        with pytest.raises(imgkit.SaveError, match="A copy is in") as caught:
            with cassette(path), imgkit.ImageService("requests", base_url=server.base_url) as images:
                if damage == "held lock":
                    lock = FileLock.acquire(tmp_path / ".c.yaml.lock")
                else:
                    path.write_text("interactions: [")
                images.create_image("a fox")
                images.create_image("a hen")
    if lock is not None:
        lock.release()
    else:
        assert path.read_text() == "interactions: ["
    copy = Path(str(caught.value).partition("A copy is in '")[2].partition("'")[0], "c.yaml")
    assert read_prompts(copy) == ["a fox", "a hen"]
