"""The spool: a reply that was paid for is on disk until its pictures are where they belong."""

from __future__ import annotations

import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.spool import Spool, SpooledReply
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import SpoolPlugin, open_spool
from tests.support.pictures import encoded, picture
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
    settings = {"base_url": server.base_url, "api_key": KEY, "state_folder": home, "timeout_s": 5, **options}
    return flavor.run(lambda service: service.create_image("a fox", **call or {}), backend, **settings)


def left(home: Path) -> list[SpooledReply]:
    return open_spool(home).list_replies()


def files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def test_nothing_is_left_of_a_delivered_reply(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """While a reply arrives it is on disk, private; afterwards nothing is."""
    seen: list[list[Path]] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Succeeded":
                seen.append(files(tmp_path))
                assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in seen[-1])
                assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in seen[-1])

    with WireServer(reply(200, BIG)) as server:
        found = create(flavor, server, http_backend, tmp_path)
        create(flavor, server, http_backend, tmp_path, call={"save_to": tmp_path / "out/"})
    assert [image.data for image in found] == [FIRST, SECOND]
    assert found.warnings == ()
    assert not [path for path in files(tmp_path) if "spool" in path.parts]
    assert left(tmp_path) == []


def test_a_reply_is_on_disk_before_it_is_read(tmp_path: Path) -> None:
    """Parts are written as they arrive, synced, and there when the provider begins to read."""
    written: list[dict[str, bytes]] = []

    class Looks(imgkit_provider()):  # type: ignore[misc]  # a class made at run time
        def decode(self, *args: Any) -> Any:
            parts = [path for path in files(tmp_path) if path.suffix == ".part"]
            written.append({path.name: path.read_bytes() for path in parts})
            return super().decode(*args)

    with WireServer(reply(200, BIG)) as server, imgkit.ImageService(
        "requests", provider=Looks(), base_url=server.base_url, api_key=KEY, state_folder=tmp_path
    ) as service:  # fmt: skip
        service.create_image("a fox")
    (parts,) = written
    assert parts["0.part"] == FIRST
    assert parts["1.part"] == SECOND
    assert json.loads(parts["reply.json.part"])["data"][1] == {"b64_json": "imgkit-part-1"}


def imgkit_provider() -> Any:
    from imgkit.providers.openai import OpenAIProvider

    return OpenAIProvider


def test_a_cut_reply_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """What arrived before the connection broke is in the record that the error names."""
    body = json.dumps(BIG).encode()
    cut = body[: len(body) - len(encoded(SECOND)) // 2]
    headers = {"content-length": str(len(body)), "x-request-id": "req_cut"}
    with WireServer(lambda line: line.send(head(200, headers) + cut)) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            create(flavor, server, http_backend, tmp_path)
        assert server.posts == 1
    (record,) = left(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert (record.state, record.facts["request_id"], record.facts["prompt"]) == ("kept", "req_cut", "a fox")
    assert "broke" in record.why
    found = recover(record)
    assert found.images[0].data == FIRST
    assert SECOND.startswith(found.images[1].data)
    assert len(found.images[1].data) > 500
    assert not found.whole
    assert not any(KEY.encode() in path.read_bytes() for path in files(tmp_path))


def test_an_unreadable_reply_is_kept_and_named(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    broken = json.dumps(
        {"data": [{"b64_json": encoded(FIRST)[:2000] + "!" + encoded(FIRST)[2000:]}]}
    ).encode()
    with WireServer(reply(200, broken)) as server, pytest.raises(imgkit.UnreadableReplyError) as caught:
        create(flavor, server, http_backend, tmp_path)
    (record,) = left(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert caught.value.body == broken
    assert FIRST.startswith(record.pictures()[0])
    assert record.undecoded() == b"!" + encoded(FIRST)[2000:].encode()
    assert not recover(record).whole


def test_a_reply_without_pictures_is_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    with WireServer(reply(200, {"data": []})) as server, pytest.raises(imgkit.EmptyResultError) as caught:
        create(flavor, server, http_backend, tmp_path)
    (record,) = left(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    assert json.loads(record.text()) == {"data": []}


@pytest.mark.parametrize("status", [400, 429, 500])
def test_what_costs_nothing_is_not_kept(flavor: Any, http_backend: str, tmp_path: Path, status: int) -> None:
    with WireServer(reply(status, {"error": {"message": "no", "code": "x"}})) as server:
        with pytest.raises(imgkit.ApiError):
            create(flavor, server, http_backend, tmp_path)
    with WireServer(reply(200, {"error": {"message": "no"}})) as server, pytest.raises(imgkit.ApiError):
        create(flavor, server, http_backend, tmp_path)
    with WireServer(drop) as server, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        create(flavor, server, http_backend, tmp_path)
    assert caught.value.spool_path is None
    assert files(tmp_path) == []


def test_pictures_that_cannot_be_saved_are_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """The disk is full, or the folder gone, just after the money was spent."""

    class Full(imgkit_plan()):  # type: ignore[misc]  # a class made at run time
        def write(self, image: Any, count: int) -> Path:
            raise imgkit.SaveError("the disk is full", images=(image,))

    plan = Full(tmp_path, "x", True)
    with WireServer(reply(200, BIG)) as server, pytest.raises(imgkit.SaveError) as caught:
        create(flavor, server, http_backend, tmp_path, call={"save_to": plan})
    (record,) = left(tmp_path)
    assert caught.value.spool_path == str(record.folder)
    found = recover(record)
    assert [image.data for image in found.images] == [FIRST, SECOND]
    assert found.images[0].revised_prompt == "a red fox"
    assert found.images[0].about["recovered"] is True
    assert found.whole


def imgkit_plan() -> Any:
    from imgkit.images.saving import SavePlan

    return SavePlan


def test_breaking_off_keeps_what_came(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a reply."""
    body = json.dumps(BIG).encode()

    def script(line: Any) -> None:
        line.send(head(200, {"content-length": str(len(body))}) + body[:-200])
        line.until_client_leaves()

    class Impatient:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if getattr(event, "received_bytes", 0) > len(body) - 300:
                raise KeyboardInterrupt

    with WireServer(script) as server, imgkit.ImageService(
        "requests", base_url=server.base_url, api_key=KEY, state_folder=tmp_path, plugins=[Impatient()]
    ) as service, pytest.raises(KeyboardInterrupt):  # fmt: skip
        service.create_image("a fox")
    (record,) = left(tmp_path)
    assert record.state == "kept"
    assert record.why == "the call was cancelled"
    assert record.pictures()[0] == FIRST


def test_no_state_folder_no_files(flavor: Any, http_backend: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Without a state folder nothing is written; IMGKIT_HOME is one; offline pictures cost nothing."""
    broken = reply(200, {"data": []})
    with WireServer(broken) as server, pytest.raises(imgkit.EmptyResultError):
        create(flavor, server, http_backend, tmp_path, state_folder=None)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    flavor.run(lambda service: service.create_image("a fox", size="64x64"))
    assert files(tmp_path) == []
    with WireServer(broken) as server, pytest.raises(imgkit.EmptyResultError):
        create(flavor, server, http_backend, tmp_path, state_folder=None)
    assert len(left(tmp_path / "home")) == 1


def test_a_state_folder_that_cannot_be_written(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """It is said, and costs no picture."""
    (tmp_path / "file").write_text("")
    with WireServer(reply(200, BIG)) as server:
        found = create(flavor, server, http_backend, tmp_path / "file")
    assert [image.data for image in found] == [FIRST, SECOND]
    assert any("state_folder" in warning for warning in found.warnings)
    with WireServer(reply(200, {"data": []})) as server, pytest.raises(imgkit.EmptyResultError) as caught:
        create(flavor, server, http_backend, tmp_path / "file")
    assert caught.value.spool_path is None
    assert any("state_folder" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("given", ["", "\0", 3, "~nobody-of-this-name/x"])
def test_a_state_folder_is_a_path(given: Any) -> None:
    with pytest.raises(imgkit.ConfigurationError, match="state_folder"):
        imgkit.ImageService(state_folder=given)


def test_a_plugin_that_is_given_stays_the_only_one(tmp_path: Path) -> None:
    with imgkit.ImageService(state_folder=tmp_path, plugins=[SpoolPlugin(max_bytes=5)]) as service:
        assert len([name for name in service.plugins if "SpoolPlugin" in name]) == 1


def record(spool: Spool, name: str, size: int, *, age_s: float = 0.0, why: str = "x") -> None:
    one = spool.new(name, {"started_at": time.time() - age_s})
    one.write("0", b"x" * size)
    one.keep(why)


def test_limits(tmp_path: Path) -> None:
    """The oldest go first, the newest stays whatever its size, and nothing goes that is being written."""
    spool = Spool(tmp_path / "spool", max_bytes=1000, max_age_s=3600)
    record(spool, "1-old", 10, age_s=7200)
    record(spool, "2-big", 700)
    assert [one.id.partition("-")[2] for one in spool.list_replies()] == ["2-big"]
    running = spool.new("3-running", {})
    running.write("0", b"x" * 900)
    record(spool, "4-huge", 5000)
    names = [one.id.partition("-")[2] for one in spool.list_replies()]
    assert names == ["3-running", "4-huge"]
    assert [one.state for one in spool.list_replies()] == ["running", "kept"]
    assert not spool.drop(spool.list_replies()[0])
    running.remove()
    assert [path.name.partition("-")[2] for path in spool.folder.iterdir()] == ["4-huge"]


def test_many_begin_and_end_at_once(tmp_path: Path) -> None:
    """A record that gets its name, or goes, while another one is begun is no trouble for that one."""

    def work(worker: int) -> None:
        for number in range(30):
            record = Spool(tmp_path / "spool").new(f"{worker}-{number}", {})
            record.write("reply", b"x")
            record.keep("a reason") if number % 3 == 0 else record.remove()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(Spool(tmp_path / "spool").list_replies()) == 60


def test_a_fork_leaves_the_record_to_its_parent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    one = spool.new("1", {})
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert spool.list_replies()[0].state == "running"
    one.keep("x")
    assert spool.list_replies()[0].state == "kept"


def test_a_record_that_is_dropped(tmp_path: Path) -> None:
    """Ctrl-C may come before anybody could keep it: it is there to recover, and holds no descriptor."""
    spool = Spool(tmp_path / "spool")
    before = len(os.listdir("/dev/fd"))
    one = spool.new("1", {})
    one.write("reply", b"{")
    assert spool.list_replies()[0].state == "running"
    del one
    assert spool.list_replies()[0].state == "orphaned"
    assert len(os.listdir("/dev/fd")) == before


def test_strange_things_in_the_folder(tmp_path: Path) -> None:
    """Files of others, links and broken records are left alone."""
    spool = Spool(tmp_path / "spool")
    record(spool, "1", 10)
    (spool.folder / "file").write_text("")
    (spool.folder / "empty").mkdir()
    (spool.folder / "broken").mkdir()
    (spool.folder / "broken" / "call.json").write_text("{")
    (spool.folder / "link").symlink_to(tmp_path)
    assert len(spool.list_replies()) == 1
    spool.prune()
    assert len(list(spool.folder.iterdir())) == 5
