"""The option `--cache` and the command `imgkit cache`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgkit.cli.run import run
from tests.cli.support import SMALL, clear_environment
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))


def test_equal_request_is_sent_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends every request, unless --cache finds an equal one in the cache."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-this-test")
    with WireServer(reply(200, answer())) as server:
        args = ["create", "a fox", "--backend=requests", f"--base-url={server.base_url}"]
        assert run([*args, "-o", "a.png", "--cache", "only"]) == 6
        assert run([*args, "-o", "a.png"]) == 0
        assert run([*args, "-o", "b.png", "--cache", "use"]) == 0
        capsys.readouterr()
        assert run([*args, "-o", "c.png", "--cache", "use", "--json"]) == 0
        out, output = capsys.readouterr()
        assert json.loads(out)["cached"] is True
        assert "From the cache." in output
        assert server.posts == 2
        assert run([*args, "-o", "d.png", "--cache", "use", "--replica", "1"]) == 0
        assert run([*args, "-o", "e.png", "--cache", "refresh"]) == 0
        assert server.posts == 4


def test_list_and_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, measures and clears the entries, as text and as JSON."""
    for prompt in ("a fox", "a cat"):
        assert run(["create", prompt, "--cache", "use", *SMALL]) == 0
    capsys.readouterr()

    assert run(["cache", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["create_image" in line for line in lines] == [True, True]
    assert "'a fox'" in lines[0]
    assert run(["cache", "ls", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [one["prompt"] for one in entries] == ["a fox", "a cat"]

    assert run(["cache", "stats"]) == 0
    assert "entries    2" in capsys.readouterr().out
    assert run(["cache", "stats", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["entries"], facts["images"], facts["folder"]) == (2, 2, str(tmp_path / "home/cache"))
    assert facts["bytes"] == sum(one["size_bytes"] for one in entries)

    assert run(["cache", "clear", "--older-than", "1"]) == 0
    assert "0 entries removed." in capsys.readouterr().err
    assert run(["cache", "clear"]) == 0
    assert "2 entries removed." in capsys.readouterr().err
    assert run(["cache", "ls"]) == 0
    assert "is empty" in capsys.readouterr().err


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports damaged entries, removes them on demand, and rebuilds the index."""
    for prompt in ("a fox", "a cat"):
        assert run(["create", prompt, "--cache", "use", *SMALL]) == 0
    assert run(["cache", "verify"]) == 0
    assert "2 of 2 entries are intact" in capsys.readouterr().err
    folder = tmp_path / "home/cache/v2"
    entry = next((folder / "entries").rglob("*.entry"))
    entry.write_bytes(entry.read_bytes()[:-1])
    (folder / "index.sqlite3").unlink()
    assert run(["cache", "verify"]) == 9
    output = capsys.readouterr().err
    assert entry.stem in output
    assert "1 of 2" in output
    stray = folder / "entries/aa/.aabb.entry.0123.part"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"")
    assert run(["cache", "verify", "--remove"]) == 0
    assert "1 stray" in capsys.readouterr().err
    assert not stray.exists()
    assert run(["cache", "stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 1


def test_other_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Uses the folder of --folder; a file in its place is an error."""
    assert run(["cache", "stats", "--folder", "elsewhere", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "elsewhere"
    (tmp_path / "file").write_text("")
    assert run(["cache", "ls", "--folder", "file"]) == 2
    assert "another folder" in capsys.readouterr().err
