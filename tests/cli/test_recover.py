"""The command `imgkit recover`."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from imgkit.cli.run import run
from imgkit.default_plugins.spool import open_spool
from tests.cli.support import CANARY, build_command, build_environment, clear_environment, run_imgkit
from tests.support.pictures import encoded, noise
from tests.support.processes import start_process
from tests.support.wire_server import Line, WireServer, head, reply

PICTURES = [noise(1), noise(2)]
BODY = json.dumps({"data": [{"b64_json": encoded(one)} for one in PICTURES]}).encode()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def build_create_command(server: WireServer, *more: str) -> list[str]:
    """Return the arguments of a creation at a server."""
    return ["create", "a fox", "--backend=requests", f"--base-url={server.base_url}", "--no-retry", *more]


def build_process_environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a real process."""
    return build_environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY)


def list_records(tmp_path: Path) -> list[Any]:
    """Return the replies in the spool."""
    return open_spool(tmp_path / "home").list_replies()


def wait_until(done: Any) -> None:
    """Wait until a condition is true, 20 s at most."""
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def test_killed_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recovers the first image, and the part of the second one that had arrived."""

    def script(line: Line) -> None:
        line.send(head(200, {"content-length": str(len(BODY)), "x-request-id": "req_k"}) + BODY[:-1500])
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(
            build_command(*build_create_command(server)),
            cwd=tmp_path,
            env=build_process_environment(tmp_path),
        )
        part = "home/spool/*/1.part"
        wait_until(lambda: any(path.stat().st_size > 1000 for path in tmp_path.glob(part)))
        assert run(["recover"]) == 0
        assert "There are no replies to recover." in capsys.readouterr().err
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    (record,) = list_records(tmp_path)
    assert record.state == "orphaned"

    assert run(["recover", "--list"]) == 0
    line = capsys.readouterr().out
    assert record.id in line
    assert "'a fox'" in line
    assert "process ended" in line

    assert run(["recover", "-o", "out/"]) == 9
    out, output = capsys.readouterr()
    paths = [Path(name) for name in out.split()]
    assert [path.suffix for path in paths] == [".png", ".png"]
    assert paths[0].read_bytes() == PICTURES[0]
    assert PICTURES[1].startswith(paths[1].read_bytes())
    assert "the reply was cut off" in output
    assert "stays" in output
    sidecar = json.loads(Path(f"{paths[0]}.json").read_text())
    assert (sidecar["prompt"], sidecar["request_id"], sidecar["recovered"]) == ("a fox", "req_k", True)
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert run(["recover", "-o", "out/"]) == 9
    assert capsys.readouterr().out == ""
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert run(["recover", "--list"]) == 0
    assert "recovered as far as possible" in capsys.readouterr().out

    assert run(["recover", "--drop", record.id]) == 0
    assert list_records(tmp_path) == []


def test_vanished_output_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovers complete images after their folder has vanished."""
    out = tmp_path / "out"
    out.mkdir()

    def script(line: Line) -> None:
        out.rmdir()
        out.write_text("in the way")
        reply(200, BODY)(line)

    with WireServer(script) as server:
        done = run_imgkit(
            *build_create_command(server, "-o", "out/"), cwd=tmp_path, env=build_process_environment(tmp_path)
        )
    assert done.returncode == 9
    (record,) = list_records(tmp_path)
    assert str(record.folder) in done.stderr.decode()
    assert "imgkit recover" in done.stderr.decode()
    assert run(["recover", "--json", "-o", "again/"]) == 0
    (output,) = json.loads(capsys.readouterr().out)["records"]
    assert [Path(path).read_bytes() for path in output["images"]] == PICTURES
    assert output["stays"] is None
    assert list_records(tmp_path) == []


def test_unreadable_reply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keeps a reply without images in the spool."""
    with WireServer(reply(200, b'{"data": "what"}')) as server:
        assert run(build_create_command(server)) == 7
    assert "imgkit recover" in capsys.readouterr().err
    (record,) = list_records(tmp_path)
    assert run(["recover"]) == 9
    assert str(record.folder) in capsys.readouterr().err
    assert record.text() == b'{"data": "what"}'


def test_missing_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exits with 9 and a warning if fewer images arrive than were requested."""
    with WireServer(reply(200, BODY)) as server:
        assert run(build_create_command(server, "--n", "3", "-o", "out/")) == 9
    output = capsys.readouterr()
    assert f"warning: 3 images were requested, {len(PICTURES)} arrived." in output.err
    assert len(output.out.split()) == len(PICTURES)
    assert list_records(tmp_path) == []


def test_an_accepted_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names the job of a server that sends no image, without advice that cannot work."""
    with WireServer(reply(202, {"task_id": "t-9"})) as server:
        assert run(build_create_command(server)) == 6
    output = capsys.readouterr().err
    assert "id t-9" in output
    assert "Do not send the request again." in output
    assert "restores" not in output


def test_urls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes a URL that cannot be fetched to a private file, does not print it, and keeps the reply."""
    link = "http://results.invalid/x.png?sig=SECRET"
    with WireServer(reply(200, {"data": [{"url": link}]})) as server:
        assert run(build_create_command(server)) == 9
    capsys.readouterr()
    for _ in range(2):
        assert run(["recover", "-o", "out/"]) == 9
        output = capsys.readouterr().err
        assert "SECRET" not in output
        assert "pass --download-origin http://results.invalid" in output
        (kept,) = (tmp_path / "out").glob("*.url.txt")
        assert kept.read_text() == f"{link}\n"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert str(kept) in output
        assert "stays in" in output
    assert len(list_records(tmp_path)) == 1


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_images_at_urls_are_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str) -> None:
    """Downloads an image that the call could not fetch, and removes the reply."""
    is_up: list[bool] = []
    keys: list[str | None] = []

    def serve(line: Line) -> None:
        if line.request_line.startswith("POST"):
            url = f"{server.base_url.removesuffix('/v1')}/fox.png?sig=SECRET"
            reply(200, {"data": [{"url": url}, {"b64_json": encoded(PICTURES[1])}]})(line)
        else:
            (reply(200, PICTURES[0], content_type="image/png") if is_up else reply(403, b"no"))(line)
            keys.append(line.headers.get("authorization"))

    with WireServer(serve) as server:
        command = ["create", "a fox", f"--backend={backend}", f"--base-url={server.base_url}"]
        assert run(command) == 9
        for printed in (1, 0):
            capsys.readouterr()
            assert run(["recover", "-o", "out/"]) == 9
            assert capsys.readouterr().out.count("\n") == printed
        assert len(list_records(tmp_path)) == 1
        is_up.append(True)
        capsys.readouterr()
        assert run(["recover", "-o", "out/", "--json"]) == 0
        (record,) = json.loads(capsys.readouterr().out)["records"]
        assert {Path(path).read_bytes() for path in record["images"]} == set(PICTURES)
        assert len(list((tmp_path / "out").glob("*.png"))) == 2
        assert record["stays"] is None
        assert list_records(tmp_path) == []
        assert server.posts == 1
        assert set(keys) == {None}


def test_unknown_records(capsys: pytest.CaptureFixture[str]) -> None:
    """Names `--list` for an unknown id; an empty list is no error."""
    assert run(["recover", "--drop", "nothing"]) == 2
    assert "recover --list" in capsys.readouterr().err
    assert run(["recover", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "records": []}


def test_unusable_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Makes the image all the same, with a warning about the state folder."""
    (tmp_path / "home").write_text("")
    with WireServer(reply(200, BODY)) as server:
        assert run(build_create_command(server, "-o", "x.png")) == 0
        assert "state folder" in capsys.readouterr().err
    with WireServer(reply(200, b'{"data": "what"}')) as server:
        assert run(build_create_command(server, "-o", "y.png")) == 7
    assert len(list(tmp_path.glob("imgkit-unsaved-*"))) == 1
    assert run(["recover"]) == 2
    assert "--state-folder" in capsys.readouterr().err


def test_a_line_break_in_a_name_forges_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists a record on one line, whatever the name of its folder."""
    folder = tmp_path / "spool" / "x\n\t99  0 min  9.9 MB"
    folder.mkdir(parents=True)
    (folder / "0.part").write_bytes(b"x")
    assert run(["recover", "--list", "--state-folder", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
