"""The spool: a paid reply is on disk until its images reach the caller."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.spool import Spool
from imgkit.billing.spool_record import SpooledReply
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import SpoolPlugin, open_spool
from imgkit.files import write_all
from imgkit.images.saving import SavePlan
from imgkit.providers.openai import OpenAIProvider
from tests.support.pictures import encoded, picture
from tests.support.processes import run_in_fork
from tests.support.wire_server import WireServer, drop, head, reply

KEY = "sk-test-CANARY-1234567890abcdef"
FIRST, SECOND = (picture("PNG", (200, 150), color, "RGB") + b"\0" * 3000 for color in ("red", "blue"))
BIG = {
    "created": 1,
    "data": [{"b64_json": encoded(FIRST), "revised_prompt": "a red fox"}, {"b64_json": encoded(SECOND)}],
}


def create(
    flavor: Any, server: WireServer, backend: str, home: Path, *, call: Any = None, **options: Any
) -> Any:
    """Create an image with a state folder."""
    settings = {"base_url": server.base_url, "api_key": KEY, "state_folder": home, "timeout_s": 5, **options}
    return flavor.run(lambda service: service.create_image("a fox", **call or {}), backend, **settings)


def list_records(home: Path) -> list[SpooledReply]:
    """Return the spool's records."""
    return open_spool(home).list_replies()


def list_files(home: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in home.rglob("*") if path.is_file()]


def test_a_delivered_reply_leaves_no_files(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """A reply is on disk in private files while it arrives, and deleted after delivery."""
    seen: list[list[Path]] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Succeeded":
                seen.append(list_files(tmp_path))
                assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in seen[-1])
                assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in seen[-1])

    with WireServer(reply(200, BIG)) as server:
        response = create(flavor, server, http_backend, tmp_path)
        create(flavor, server, http_backend, tmp_path, call={"save_to": tmp_path / "out/"})
    assert [image.data for image in response] == [FIRST, SECOND]
    assert response.warnings == ()
    assert not [path for path in list_files(tmp_path) if "spool" in path.parts]
    assert list_records(tmp_path) == []


def test_a_reply_is_on_disk_before_it_is_decoded(tmp_path: Path) -> None:
    """Writes the parts of a reply before the provider decodes it."""
    written: list[dict[str, bytes]] = []

    class LookingProvider(OpenAIProvider):
        def decode(self, *args: Any) -> Any:
            parts = [path for path in list_files(tmp_path) if path.suffix == ".part"]
            written.append({path.name: path.read_bytes() for path in parts})
            return super().decode(*args)

    with WireServer(reply(200, BIG)) as server, imgkit.ImageService(
        "requests", provider=LookingProvider(), base_url=server.base_url, api_key=KEY, state_folder=tmp_path
    ) as service:  # fmt: skip
        service.create_image("a fox")
    (parts,) = written
    assert parts["0.part"] == FIRST
    assert parts["1.part"] == SECOND
    assert json.loads(parts["reply.json.part"])["data"][1] == {"b64_json": "imgkit-part-1"}


def test_a_cut_reply_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """The error names the record with the data of a cut reply."""
    body = json.dumps(BIG).encode()
    cut = body[: len(body) - len(encoded(SECOND)) // 2]
    headers = {"content-length": str(len(body)), "x-request-id": "req_cut"}
    with WireServer(lambda line: line.send(head(200, headers) + cut)) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            create(flavor, server, http_backend, tmp_path)
        assert server.posts == 1
    (record,) = list_records(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert (record.state, record.facts["request_id"], record.facts["prompt"]) == (
        "kept",
        "req_cut",
        "a fox",
    )
    assert "broke" in record.why
    recovered = recover(record)
    assert recovered.images[0].data == FIRST
    assert SECOND.startswith(recovered.images[1].data)
    assert len(recovered.images[1].data) > 500
    assert not recovered.whole
    assert not any(KEY.encode() in path.read_bytes() for path in list_files(tmp_path))


def test_an_unreadable_reply_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """The error names the record of an unreadable reply."""
    broken = json.dumps(
        {"data": [{"b64_json": encoded(FIRST)[:2000] + "!" + encoded(FIRST)[2000:]}]}
    ).encode()
    with WireServer(reply(200, broken)) as server, pytest.raises(imgkit.UnreadableReplyError) as caught:
        create(flavor, server, http_backend, tmp_path)
    (record,) = list_records(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert caught.value.body == broken
    assert FIRST.startswith(record.pictures()[0])
    assert record.undecoded() == b"!" + encoded(FIRST)[2000:].encode()
    assert not recover(record).whole


def test_a_reply_without_images_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Keeps a reply without images."""
    with WireServer(reply(200, {"data": []})) as server, pytest.raises(imgkit.EmptyResultError) as caught:
        create(flavor, server, http_backend, tmp_path)
    (record,) = list_records(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert json.loads(record.text()) == {"data": []}


@pytest.mark.parametrize("status", [400, 429, 500])
def test_unbilled_replies_are_not_kept(flavor: Any, http_backend: str, tmp_path: Path, status: int) -> None:
    """Keeps no reply that costs nothing."""
    with WireServer(reply(status, {"error": {"message": "no", "code": "x"}})) as server:
        with pytest.raises(imgkit.ApiError):
            create(flavor, server, http_backend, tmp_path)
    with WireServer(reply(200, {"error": {"message": "no"}})) as server, pytest.raises(imgkit.ApiError):
        create(flavor, server, http_backend, tmp_path)
    with WireServer(drop) as server, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        create(flavor, server, http_backend, tmp_path)
    assert caught.value.spool_path is None
    assert list_files(tmp_path) == []


def test_unsaved_images_are_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Keeps paid images that cannot be saved, as on a full disk."""

    class FullDisk(SavePlan):
        def write(self, image: Any, count: int) -> Path:
            raise imgkit.SaveError("the disk is full", images=(image,))

    plan = FullDisk(tmp_path, "x", True)
    with WireServer(reply(200, BIG)) as server, pytest.raises(imgkit.SaveError) as caught:
        create(flavor, server, http_backend, tmp_path, call={"save_to": plan})
    (record,) = list_records(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    recovered = recover(record)
    assert [image.data for image in recovered.images] == [FIRST, SECOND]
    assert recovered.images[0].revised_prompt == "a red fox"
    assert recovered.images[0].about["recovered"] is True
    assert recovered.whole


@pytest.mark.parametrize("missing_bytes", [200, 0])
def test_ctrl_c_keeps_the_received_data(tmp_path: Path, missing_bytes: int) -> None:
    """Keeps the received data when Ctrl-C ends a call mid-reply, or just before its end is read."""
    body = json.dumps(BIG).encode()
    sent = body[: len(body) - missing_bytes]

    def script(line: Any) -> None:
        line.send(head(200, {"content-length": str(len(body))}) + sent)
        line.until_client_leaves()

    class Impatient:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if getattr(event, "received_bytes", 0) == len(sent):
                raise KeyboardInterrupt

    with WireServer(script) as server, imgkit.ImageService(
        "requests", base_url=server.base_url, api_key=KEY, state_folder=tmp_path, plugins=[Impatient()]
    ) as service, pytest.raises(KeyboardInterrupt):  # fmt: skip
        service.create_image("a fox")
    (record,) = list_records(tmp_path)
    assert record.state == "kept"
    assert record.why == "the call was cancelled"
    assert record.pictures()[0] == FIRST
    assert missing_bytes or record.pictures()[1] == SECOND


def test_no_files_without_a_state_folder(
    flavor: Any, http_backend: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Writes nothing without a state folder; IMGKIT_HOME sets one."""
    broken = reply(200, {"data": []})
    with WireServer(broken) as server, pytest.raises(imgkit.EmptyResultError):
        create(flavor, server, http_backend, tmp_path, state_folder=None)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    flavor.run(lambda service: service.create_image("a fox", size="64x64"))
    assert list_files(tmp_path) == []
    with WireServer(broken) as server, pytest.raises(imgkit.EmptyResultError):
        create(flavor, server, http_backend, tmp_path, state_folder=None)
    assert len(list_records(tmp_path / "home")) == 1


def test_an_unwritable_state_folder(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Warns of an unwritable state folder and delivers the images."""
    (tmp_path / "file").write_text("")
    with WireServer(reply(200, BIG)) as server:
        response = create(flavor, server, http_backend, tmp_path / "file")
    assert [image.data for image in response] == [FIRST, SECOND]
    assert any("state folder" in warning for warning in response.warnings)
    with WireServer(reply(200, {"data": []})) as server, pytest.raises(imgkit.EmptyResultError) as caught:
        create(flavor, server, http_backend, tmp_path / "file")
    assert caught.value.spool_path is None
    assert any("state folder" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("folder", ["", "\0", 3, "~nobody-of-this-name/x"])
def test_bad_state_folders(folder: Any) -> None:
    """Refuses a state folder that is no path."""
    with pytest.raises(imgkit.ConfigurationError, match="state_folder"):
        imgkit.ImageService(state_folder=folder)


def test_a_given_spool_plugin_replaces_the_default(tmp_path: Path) -> None:
    """Uses a given spool plugin in place of the default."""
    with imgkit.ImageService(state_folder=tmp_path, plugins=[SpoolPlugin(max_bytes=5)]) as service:
        assert len([name for name in service.plugins if "SpoolPlugin" in name]) == 1


def add_record(spool: Spool, name: str, size: int, *, age_s: float = 0.0, why: str = "x") -> None:
    """Add a kept record of this size and age."""
    spooled = spool.new(name, {"started_at": time.time() - age_s})
    spooled.write("0", b"x" * size)
    spooled.keep(why)


def test_only_recovered_records_are_dropped(tmp_path: Path) -> None:
    """Drops recovered records that are too old or too much; any other stays, whatever the clock says."""
    spool = Spool(tmp_path / "spool", max_bytes=1000, max_age_s=3600)
    for name in ("1-seen", "2-new", "3-seen"):
        add_record(spool, name, 10, age_s=0.0 if name == "3-seen" else 40 * 24 * 3600.0)
    running = spool.new("4-running", {})
    for record in spool.list_replies():
        if record.id.endswith("seen"):
            spool.mark(record, [])
    assert [record.id.partition("-")[2] for record in spool.prune()] == ["1-seen"]
    running.write("0", b"x" * 990)
    assert [record.id.partition("-")[2] for record in spool.prune()] == ["3-seen"]
    assert [record.state for record in spool.list_replies()] == ["kept", "running"]
    assert not spool.drop(spool.list_replies()[1])
    running.remove()


def test_a_recovered_record_makes_room_at_the_limit(tmp_path: Path) -> None:
    """A spool of exactly its largest size is full, and drops a recovered record."""
    spool = Spool(tmp_path / "spool", max_bytes=10)
    add_record(spool, "1", 10)
    assert spool.is_full()
    spool.mark(spool.list_replies()[0], [])
    assert not spool.is_full()
    assert spool.list_replies() == []


def test_a_failed_removal_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that cannot be removed is not taken for a running record, even while the error is alive."""
    spool = Spool(tmp_path / "spool")
    spool.new("1", {}).write("0", b"x")
    (record,) = spool.list_replies()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse_write)
        with pytest.raises(OSError, match="No space left") as caught:
            spool.drop(record)
    assert spool.drop(record)
    assert isinstance(caught.value, OSError)


def refuse_write(*args: Any, **options: Any) -> Any:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_record_with_foreign_files_is_removed(tmp_path: Path) -> None:
    """Removes folders and links that others have put into a record, but no file behind a link."""
    spool = Spool(tmp_path / "spool")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for name in ("delivered", "dropped"):
        record = spool.new(name, {})
        record.write("0", b"x")
        (record.folder / "folder").mkdir()
        (record.folder / "folder" / "file").write_text("theirs")
        (record.folder / "link").symlink_to(tmp_path / "mine")
        if name == "delivered":
            record.remove()
        else:
            record.keep("x")
            assert spool.drop(spool.list_replies()[0])
        assert not record.folder.exists()
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_a_kept_record_flushes_no_removed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes each file of a kept record, and not the file whose place new facts have taken."""
    links: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: links.append(os.fstat(descriptor).st_nlink))
    add_record(Spool(tmp_path / "spool"), "1", 10)
    assert len(links) > 2
    assert 0 not in links


@pytest.mark.parametrize(("full_at", "warning"), [(1, "not kept on disk"), (2, "Only a part of the reply")])
def test_a_full_disk_costs_a_warning(
    flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: int, warning: str
) -> None:
    """Warns of a reply that the disk rejects, delivers its images and leaves no running record."""
    writes = itertools.count(1)

    def write_some(descriptor: int, data: bytes) -> None:
        (write_all if next(writes) < full_at else refuse_write)(descriptor, data)

    monkeypatch.setattr("imgkit.billing.spool_record.write_all", write_some)
    with WireServer(reply(200, BIG)) as server:
        response = create(flavor, server, "requests", tmp_path)
    assert [image.data for image in response] == [FIRST, SECOND]
    (problem,) = response.warnings
    assert warning in problem
    assert "No space left" in problem
    assert [record.state for record in list_records(tmp_path)] in ([], ["orphaned"])


def test_a_full_spool_refuses_calls(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """A call is refused before anything is sent, until `imgkit recover` has made room."""
    limit = SpoolPlugin(max_bytes=2000)
    for number in range(3):
        add_record(open_spool(tmp_path), str(number), 700, age_s=number * 1e9)
    with WireServer(reply(200, BIG)) as server:
        with pytest.raises(imgkit.ConfigurationError, match="`imgkit recover`") as caught:
            create(flavor, server, http_backend, tmp_path, plugins=[limit])
        assert server.posts == 0
        assert "Nothing was sent" in str(caught.value)
        assert len(list_records(tmp_path)) == 3
        open_spool(tmp_path).drop(list_records(tmp_path)[0])
        create(flavor, server, http_backend, tmp_path, plugins=[limit])
        assert server.posts == 1
    assert len(list_records(tmp_path)) == 2


def test_kept_records_count_at_once(tmp_path: Path) -> None:
    """A record that another process keeps fills the spool of this process."""
    here, there = (Spool(tmp_path / "spool", max_bytes=1000) for _ in range(2))
    assert not here.is_full()
    add_record(there, "1", 600)
    assert not here.is_full()
    add_record(there, "2", 600)
    assert here.is_full()
    for record in there.list_replies():
        there.drop(record)
    assert not here.is_full()
    for damage in (b"", b"x", b"\0" * 20):
        add_record(there, "3", 2000)
        (tmp_path / "spool" / ".size").write_bytes(damage)
        assert here.is_full()
        there.drop(there.list_replies()[0])


def test_calls_do_not_walk_over_kept_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call looks into no kept record, also as the first call of a process."""
    for number in range(20):
        add_record(Spool(tmp_path / "spool"), str(number), 10)
    assert not Spool(tmp_path / "spool").is_full()

    def refuse(path: Any) -> Any:
        raise AssertionError("a call must not list the spool")

    monkeypatch.setattr(os, "scandir", refuse)
    spool = Spool(tmp_path / "spool")
    for number in range(3):
        assert not spool.is_full()
        record = spool.new(f"new-{number}", {})
        record.write("reply", b"{}")
        record.complete()
        record.remove()


def test_concurrent_records(tmp_path: Path) -> None:
    """Threads begin, keep and remove records at once without an error."""

    def work(worker: int) -> None:
        for number in range(30):
            record = Spool(tmp_path / "spool").new(f"{worker}-{number}", {})
            record.write("reply", b"x")
            record.keep("a reason") if number % 3 == 0 else record.remove()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(Spool(tmp_path / "spool").list_replies()) == 60


def test_a_fork_leaves_the_record_to_its_parent(tmp_path: Path) -> None:
    """A forked child leaves its parent's record running."""
    spool = Spool(tmp_path / "spool")
    spooled = spool.new("1", {})
    assert run_in_fork(lambda: True) == 0
    assert spool.list_replies()[0].state == "running"
    spooled.keep("x")
    assert spool.list_replies()[0].state == "kept"


def test_a_dropped_record_is_orphaned(tmp_path: Path) -> None:
    """A record without references is recoverable and holds no descriptor."""
    spool = Spool(tmp_path / "spool")
    before = len(os.listdir("/dev/fd"))
    spooled = spool.new("1", {})
    spooled.write("reply", b"{")
    assert spool.list_replies()[0].state == "running"
    del spooled
    assert spool.list_replies()[0].state == "orphaned"
    assert len(os.listdir("/dev/fd")) == before


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """Leaves foreign files, links and broken records alone."""
    spool = Spool(tmp_path / "spool")
    add_record(spool, "1", 10)
    (spool.folder / "file").write_text("")
    (spool.folder / "empty").mkdir()
    (spool.folder / "broken").mkdir()
    (spool.folder / "broken" / "call.json").write_text("{")
    (spool.folder / "link").symlink_to(tmp_path)
    assert len(spool.list_replies()) == 1
    spool.prune()
    assert sorted(path.name.partition("-")[0] for path in spool.folder.iterdir())[:5] == [
        ".size", spool.list_replies()[0].id.partition("-")[0], "broken", "empty", "file"
    ]  # fmt: skip


def test_kept_records_leave_no_open_files(tmp_path: Path) -> None:
    """A process may keep any number of replies."""
    spool = Spool(tmp_path)
    descriptors = []
    for number in range(5):
        record = spool.new(f"{number}", {})
        record.write("reply", b"{}")
        record.write("0", b"x")
        record.keep("a test")
        descriptors.append(len(os.listdir("/dev/fd")))
    assert len(set(descriptors)) == 1
