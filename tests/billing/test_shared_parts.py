"""The bytes of an image for a file are written once: the spool links to its part file."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.spool_record import SpooledReply
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from imgkit.images.saving import SavePlan
from imgkit.testing.samples import answer, png
from tests.conftest import ServiceRunner
from tests.support.event_streams import completed, partial, streamed
from tests.support.power_loss import SURVIVORS, watch
from tests.support.wire_server import WireServer, head, reply

KEY = "sk-test-CANARY-1234567890abcdef"
BIG, OTHER = png(1, 400), png(2, 400)
"""480 kB of noise each."""


def create(flavor: ServiceRunner, backend: str, server: WireServer, home: Path, **more: Any) -> Any:
    """Create an image with a state folder and a target folder beside it."""
    settings = {"base_url": server.base_url, "api_key": KEY, "state_folder": home / "state", "timeout_s": 5}
    plugins = more.pop("plugins", [])
    call = {"save_to": home / "out" / "fox.png", **more}
    (home / "out").mkdir(exist_ok=True)
    return flavor.run(
        lambda service: service.create_image("a fox", **call), backend, **settings, plugins=plugins
    )


def list_records(home: Path) -> list[SpooledReply]:
    """Return the spool's records."""
    return open_spool(home / "state").list_replies()


class Looker:
    """Looks at the spool and at the target after each chunk.

    Attributes:
        parts: the parts of images that it saw in the spool.
        shared: those that had a second name in the target.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.parts: set[str] = set()
        self.shared: set[str] = set()

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        """Look once more."""
        if type(event).__name__ == "Progress":
            files = {path.stat().st_ino for path in self._home.glob("out/.imgkit-*")}
            parts = list(self._home.glob("state/spool/*/[0-9].part"))
            self.parts |= {path.name for path in parts}
            self.shared |= {path.name for path in parts if path.stat().st_ino in files}


def test_bytes_are_written_once(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Large images have one file with two names while they arrive, and one name when they are saved."""
    looker = Looker(tmp_path)
    with WireServer(reply(200, answer(BIG, OTHER))) as server:
        plan = tmp_path / "out" / "{index}.png"
        got = create(flavor, http_backend, server, tmp_path, save_to=plan, plugins=[looker])
    assert [image.path.read_bytes() for image in got] == [BIG, OTHER]
    assert looker.shared == looker.parts == {"0.part", "1.part"}
    assert [image.path.stat().st_nlink for image in got] == [1, 1]
    assert got.warnings == ()
    assert list_records(tmp_path) == []


@pytest.mark.parametrize("fails", [True, False])
def test_streams_share_too(tmp_path: Path, fails: bool) -> None:
    """Images of a stream have one file with two names; an error leaves them in the spool."""
    looker = Looker(tmp_path)
    failure = b'data: {"type": "error", "error": {"message": "no", "code": "x"}}\n\n'
    pieces = [partial(0, OTHER), failure if fails else completed(BIG)]
    settings: dict[str, Any] = {"api_key": KEY, "state_folder": tmp_path / "state", "plugins": [looker]}
    with (
        WireServer(streamed(*pieces)) as server,
        imgkit.ImageService("requests", base_url=server.base_url, **settings) as service,
        service.stream_image("a fox", partial_images=1, save_to=f"{tmp_path}/out/") as events,
    ):
        with pytest.raises(imgkit.ApiError) if fails else nullcontext():
            assert list(events)
    assert "0.part" in looker.shared
    records = list_records(tmp_path)
    assert [record.pictures() for record in records] == ([{0: OTHER}] if fails else [])
    if not fails:
        assert events.response[0].data == BIG
        assert [path.stat().st_nlink for path in tmp_path.glob("out/*.png")] == [1]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The spool writes the bytes itself if the target is on another disk, or has no links."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    looker = Looker(tmp_path)
    with WireServer(reply(200, answer(BIG))) as server:
        got = create(ServiceRunner("sync"), "requests", server, tmp_path, plugins=[looker])
    assert got[0].path.read_bytes() == BIG
    assert (looker.parts, looker.shared) == ({"0.part"}, set())
    assert list_records(tmp_path) == []


@pytest.mark.parametrize("full_at", [1, 2, 4])
def test_full_target(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """The spool goes on with a file that the target's full disk has cut; the caller has the image."""
    from imgkit.files import write_all

    writes = iter(range(1, 1000))

    def write_some(descriptor: int, data: bytes) -> None:
        if next(writes) < full_at:
            write_all(descriptor, data)
        else:
            write_all(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    class FullDisk(SavePlan):
        def write(self, image: Any, count: int) -> Path:
            raise imgkit.SaveError("The disk is full.", images=(image,))

    monkeypatch.setattr("imgkit.images.part_files.write_all", write_some)
    plan = FullDisk(tmp_path / "out", "x", True)
    with WireServer(reply(200, answer(BIG))) as server, pytest.raises(imgkit.SaveError) as caught:
        create(flavor, "requests", server, tmp_path, save_to=plan)
    (record,) = list_records(tmp_path)
    assert record.pictures() == {0: BIG}
    assert recover(record).whole
    assert caught.value.images[0].data == BIG


def test_part_file_deleted_by_others(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """An image whose part file another process deletes is saved from its open file."""

    class Thief:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Progress":
                for path in tmp_path.glob("out/.imgkit-*"):
                    path.unlink()

    with WireServer(reply(200, answer(BIG))) as server:
        got = create(flavor, http_backend, server, tmp_path, plugins=[Thief()])
    assert got[0].path.read_bytes() == BIG
    assert list_records(tmp_path) == []


def test_cut_reply_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """A reply that breaks off keeps its part in the spool after the part file is gone."""
    body = json.dumps(answer(BIG, OTHER)).encode()
    cut = body[: len(body) * 3 // 4]
    headers = {"content-length": str(len(body))}
    with WireServer(lambda line: line.send(head(200, headers) + cut)) as server:
        with pytest.raises(imgkit.OutcomeUnknownError):
            create(flavor, http_backend, server, tmp_path)
    (record,) = list_records(tmp_path)
    first, second = record.pictures().values()
    assert first == BIG
    assert OTHER.startswith(second)
    assert len(second) > 100_000
    assert list((tmp_path / "out").iterdir()) == []
    assert record.size_bytes >= len(first) + len(second)


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: Any) -> None:
    """From the end of the reply on, a crash leaves the image in the spool, at its place, or in both."""
    ends: list[int] = []

    class Clock:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Progress":
                ends.append(len(loss.moments))

    disk = tmp_path / "disk"
    disk.mkdir()
    with watch(disk, monkeypatch) as loss, WireServer(reply(200, answer(BIG))) as server:
        create(ServiceRunner("sync"), "requests", server, disk, plugins=[Clock()])
    flushes = [number for number, each in enumerate(loss.moments) if each.action == "fsync"]
    complete = [number for number in flushes if number > ends[-1]][4]
    for number in range(complete, len(loss.moments)):
        after = loss.rebuild(loss.moments[number], survivors, tmp_path / str(number))
        saved = after / "out" / "fox.png"
        kept = [image.data for each in list_records(after) for image in recover(each).images]
        assert kept == [BIG] or saved.read_bytes() == BIG, (number, loss.moments[number].action)
