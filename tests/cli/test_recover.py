"""`imgkit recover`: pictures out of what a crash, a cut connection or a full disk left behind."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from imgkit.cli.run import run
from imgkit.default_plugins.spool import open_spool
from tests.cli.support import CANARY, clear, command, environment, imgkit
from tests.support.pictures import encoded, noise
from tests.support.processes import start_process
from tests.support.wire_server import Line, WireServer, head, reply

PICTURES = [noise(1), noise(2)]
BODY = json.dumps({"data": [{"b64_json": encoded(one)} for one in PICTURES]}).encode()


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def create(server: WireServer, *more: str) -> list[str]:
    return ["create", "a fox", "--backend=requests", f"--base-url={server.base_url}", "--no-retry", *more]


def real(tmp_path: Path) -> dict[str, str]:
    return environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY)


def records(tmp_path: Path) -> list[Any]:
    return open_spool(tmp_path / "home").list_replies()


def until(done: Any) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def test_a_killed_process_loses_nothing(tmp_path: Path, capsys: Any) -> None:
    """Killed in the middle of the second picture: the first one is there, byte for byte."""

    def script(line: Line) -> None:
        line.send(head(200, {"content-length": str(len(BODY)), "x-request-id": "req_k"}) + BODY[:-1500])
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(command(*create(server)), cwd=tmp_path, env=real(tmp_path))
        part = "home/spool/*/1.part"
        until(lambda: any(path.stat().st_size > 1000 for path in tmp_path.glob(part)))
        assert run(["recover"]) == 0
        assert "nothing is kept" in capsys.readouterr().err
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    (record,) = records(tmp_path)
    assert record.state == "orphaned"

    assert run(["recover", "--list"]) == 0
    line = capsys.readouterr().out
    assert record.id in line
    assert "'a fox'" in line
    assert "process ended" in line

    assert run(["recover", "-o", "out/"]) == 9
    out, told = capsys.readouterr()
    paths = [Path(name) for name in out.split()]
    assert [path.suffix for path in paths] == [".png", ".png"]
    assert paths[0].read_bytes() == PICTURES[0]
    assert PICTURES[1].startswith(paths[1].read_bytes())
    assert "cut off" in told
    assert "stays" in told
    story = json.loads(Path(f"{paths[0]}.json").read_text())
    assert (story["prompt"], story["request_id"], story["recovered"]) == ("a fox", "req_k", True)
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert run(["recover", "-o", "out/"]) == 9
    assert capsys.readouterr().out == ""
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert run(["recover", "--list"]) == 0
    assert "recovered as far as it goes" in capsys.readouterr().out

    assert run(["recover", "--drop", record.id]) == 0
    assert records(tmp_path) == []


def test_what_cannot_be_saved_is_recovered(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The folder is gone when the pictures come: they are kept, named, and recovered whole."""
    out = tmp_path / "out"
    out.mkdir()

    def script(line: Line) -> None:
        out.rmdir()
        out.write_text("in the way")
        reply(200, BODY)(line)

    with WireServer(script) as server:
        done = imgkit(*create(server, "-o", "out/"), cwd=tmp_path, env=real(tmp_path))
    assert done.returncode == 9
    (record,) = records(tmp_path)
    assert str(record.folder) in done.stderr.decode()
    assert "imgkit recover" in done.stderr.decode()
    assert run(["recover", "--json", "-o", "again/"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["records"]
    assert [Path(path).read_bytes() for path in told["images"]] == PICTURES
    assert told["stays"] is None
    assert records(tmp_path) == []


def test_an_unreadable_reply_stays(tmp_path: Path, capsys: Any) -> None:
    with WireServer(reply(200, b'{"data": "what"}')) as server:
        assert run(create(server)) == 7
    assert "imgkit recover" in capsys.readouterr().err
    (record,) = records(tmp_path)
    assert run(["recover"]) == 9
    assert str(record.folder) in capsys.readouterr().err
    assert record.text() == b'{"data": "what"}'


def test_urls_are_kept_in_private_files(tmp_path: Path, capsys: Any) -> None:
    """The URL of a picture that could not be fetched can be a permission to read: it is not shown."""
    link = "https://results.invalid/x.png?sig=SECRET"
    with WireServer(reply(200, {"data": [{"url": link}]})) as server:
        assert run(create(server)) == 9
    capsys.readouterr()
    assert run(["recover", "-o", "out/"]) == 0
    told = capsys.readouterr().err
    assert "SECRET" not in told
    (kept,) = (tmp_path / "out").glob("*.url.txt")
    assert kept.read_text() == f"{link}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert records(tmp_path) == []


def test_unknown_records(capsys: Any) -> None:
    assert run(["recover", "--drop", "nothing"]) == 2
    assert "recover --list" in capsys.readouterr().err
    assert run(["recover", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "records": []}


def test_a_state_folder_that_cannot_be_used(tmp_path: Path, capsys: Any) -> None:
    """The picture comes all the same, and the command says what it could not do."""
    (tmp_path / "home").write_text("")
    with WireServer(reply(200, BODY)) as server:
        assert run(create(server, "-o", "x.png")) == 0
        assert "state_folder" in capsys.readouterr().err
    with WireServer(reply(200, b'{"data": "what"}')) as server:
        assert run(create(server, "-o", "y.png")) == 7
    assert len(list(tmp_path.glob("imgkit-unsaved-*"))) == 1
    assert run(["recover"]) == 2
    assert "--state-folder" in capsys.readouterr().err
