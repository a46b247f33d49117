"""A crash of the machine takes no reply that the spool has promised to keep."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.spool import Spool
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from tests.support.pictures import encoded, noise
from tests.support.power_loss import SURVIVORS, PowerLoss, watch
from tests.support.wire_server import Script, WireServer, head, reply

PICTURE, BIG = noise(1), noise(2) + b"\0" * 70_000
KEY = "sk-test-CANARY-1234567890abcdef"


def build_body(*pictures: bytes) -> bytes:
    """Return the body of a reply."""
    return json.dumps({"data": [{"b64_json": encoded(one)} for one in pictures]}).encode()


def send_cut_reply(line: Any) -> None:
    """Send a whole picture, then hang up within the next."""
    body = build_body(PICTURE, BIG)
    line.send(head(200, {"content-length": str(len(body)), "x-request-id": "req_1"}) + body[:-2000])


@contextmanager
def watch_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, **call: Any
) -> Iterator[PowerLoss]:
    """Record the moments of a call whose state and images are in one folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with WireServer(script) as server, imgkit.ImageService(
        "requests", base_url=server.base_url, api_key=KEY, state_folder=disk / "home", retry=False
    ) as service, watch(disk, monkeypatch) as loss:  # fmt: skip
        with suppress(imgkit.OutcomeUnknownError):
            service.create_image("a fox", **call)
        yield loss


def recover_images(folder: Path) -> list[bytes]:
    """Return the images in the spool of a state folder, after a look for records to drop."""
    spool = open_spool(folder, max_bytes=1, max_age_s=-1.0)
    parts = sorted(folder.rglob("*.part"))
    assert spool.prune() == []
    assert sorted(folder.rglob("*.part")) == parts
    return [image.data for record in spool.list_replies() for image in recover(record).images]


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_kept_reply_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: Any) -> None:
    """Keeps a cut reply once its error reaches the caller, and loses no flushed image before."""
    with watch_call(tmp_path, monkeypatch, send_cut_reply) as loss:
        pass
    assert any(moment.action == "fsync" for moment in loss.moments)
    for number, moment in enumerate(loss.moments):
        folder = loss.rebuild(moment, survivors, tmp_path / str(number)) / "home"
        has_part = PICTURE in [path.read_bytes() for path in folder.rglob("*.part")]
        assert (PICTURE in recover_images(folder)) == has_part, (number, moment.action)
    last = open_spool(folder).list_replies()
    assert [(record.facts["request_id"], record.facts["prompt"]) for record in last] == [("req_1", "a fox")]
    assert PICTURE in recover_images(folder)


def send_small_cut_reply(line: Any) -> None:
    """Send a small picture, then hang up."""
    body = build_body(PICTURE)
    line.send(head(200, {"content-length": str(len(body) + 9)}) + body)


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_small_kept_reply_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: Any) -> None:
    """Flushes a reply that is too small for a flush at its end once its error reaches the caller."""
    with watch_call(tmp_path, monkeypatch, send_small_cut_reply) as loss:
        pass
    folder = loss.rebuild(loss.moments[-1], survivors, tmp_path / "after") / "home"
    assert recover_images(folder) == [PICTURE]


@pytest.mark.parametrize("survivors", SURVIVORS)
@pytest.mark.parametrize("picture", [PICTURE, BIG], ids=["small", "big"])
def test_saved_image_or_spooled_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: Any, picture: bytes
) -> None:
    """From the first removal in the spool on, the saved image is on disk."""
    saved = tmp_path / "disk" / "fox.png"
    with watch_call(tmp_path, monkeypatch, reply(200, build_body(picture)), save_to=saved) as loss:
        pass
    actions = [moment.action for moment in loss.moments]
    last_flush = len(actions) - actions[::-1].index("fsync") - 1
    assert "unlink" in actions[last_flush:]
    assert "rmdir" in actions[last_flush:]
    for number in range(last_flush, len(actions)):
        disk = loss.rebuild(loss.moments[number], survivors, tmp_path / str(number))
        assert (disk / "fox.png").read_bytes() == picture


def test_big_reply_is_flushed_before_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply of a real image's size survives a crash while it is decoded, saved or shown."""
    seen: list[int] = []
    disk = tmp_path / "disk"
    disk.mkdir()

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Progress":
                seen.append(len(loss.moments))

    with WireServer(reply(200, build_body(BIG))) as server, imgkit.ImageService(
        "requests", base_url=server.base_url, api_key=KEY, state_folder=disk, plugins=[Spy()]
    ) as service, watch(disk, monkeypatch) as loss:  # fmt: skip
        service.create_image("a fox")
    flushed = [number for number, moment in enumerate(loss.moments) if moment.action == "fsync"]
    assert flushed[-1] > seen[-1]
    for survivors in SURVIVORS:
        after = loss.rebuild(loss.moments[flushed[-1]], survivors, tmp_path / survivors)
        assert recover_images(after) == [BIG]


def test_slow_reply_is_flushed_while_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that arrived a second before the rest survives a crash."""
    now = time.monotonic()
    disk = tmp_path / "disk"
    disk.mkdir()
    with watch(disk, monkeypatch) as loss:
        monkeypatch.setattr(time, "monotonic", lambda: now)
        record = Spool(disk / "spool").new("1", {})
        record.write("0", PICTURE)
        now += 1.5
        record.write("1", b"x")
    assert PICTURE in recover_images(loss.rebuild(loss.moments[-1], "flushed", tmp_path / "after"))


def spoil(folder: Path, damage: str) -> None:
    """Damage the facts of a record."""
    call = folder / "call.json"
    match damage:
        case "empty":
            call.write_bytes(b"")
        case "missing":
            call.unlink()
        case "cut":
            call.write_bytes(call.read_bytes()[:40])
        case "zeroed":
            call.write_bytes(bytes(call.stat().st_size))
        case "hidden":
            call.write_bytes(b"")
            folder.rename(folder.with_name(".0123456789abcdef"))


@pytest.mark.parametrize("damage", ["empty", "missing", "cut", "zeroed", "hidden"])
@pytest.mark.parametrize("has_part", [True, False], ids=["part", "text"])
def test_unknown_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, has_part: bool
) -> None:
    """Lists a reply whose facts are lost as an unknown request, and recovers its image."""
    from imgkit.cli.run import run

    record = open_spool(tmp_path).new("1", {"provider": "openai", "status": 200, "operation": "create_image"})
    if has_part:
        record.write("0", PICTURE)
        record.write("reply", b'{"data": [{"b64_json": "imgkit-part-0"}]}')
    else:
        record.write("reply", build_body(PICTURE))
    record.keep("the call was cancelled")
    spoil(record.folder, damage)
    spool = open_spool(tmp_path, max_age_s=-1.0, max_bytes=1)
    assert spool.prune() == []
    (found,) = spool.list_replies()
    assert (found.state, found.is_known, found.why) == ("orphaned", False, "its facts are lost")
    assert run(["recover", "--list", "--state-folder", str(tmp_path)]) == 0
    assert "unknown request" in capsys.readouterr().out
    assert run(["recover", "--state-folder", str(tmp_path), "-o", f"{tmp_path}/out/"]) == 0
    (path,) = (tmp_path / "out").glob("*.png")
    assert path.read_bytes() == PICTURE
    assert spool.list_replies() == []


def test_lost_text_leaves_the_image(tmp_path: Path) -> None:
    """Recovers an image whose reply text is lost, and keeps the record."""
    record = open_spool(tmp_path).new("1", {})
    record.write("0", PICTURE)
    record.keep("x")
    (record.folder / "call.json").unlink()
    (found,) = open_spool(tmp_path).list_replies()
    recovered = recover(found)
    assert [image.data for image in recovered.images] == [PICTURE]
    assert not recovered.whole
