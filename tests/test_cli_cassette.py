"""`imgkit cassette check` and `ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import vcr

import imgkit
from imgkit.cli.run import run
from imgkit.testing import canary, vcr_config
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.test_cli_support import clear

OURS = Path(__file__).with_name("cassettes")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def record(path: Path, config: dict[str, Any]) -> None:
    with (
        WireServer(reply(200, answer(png(1, 100)))) as server,
        vcr.use_cassette(str(path), record_mode="all", **config),
        imgkit.ImageService("requests", base_url=server.base_url, api_key=canary.KEY) as service,
    ):
        service.create_image("a fox in the snow")
        service.create_image_edit(png(2, 100), "a hat")


def test_a_clean_one(capsys: Any) -> None:
    record(Path("c.yaml"), vcr_config())
    assert run(["cassette", "check", "."]) == 0
    assert "1 cassettes checked, no problems" in capsys.readouterr().err
    assert run(["cassette", "ls", "c.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "/v1/images/generations  200  'a fox in the snow'" in lines[0]
    assert "/v1/images/edits  200  'a hat'" in lines[1]


def test_our_own_have_no_secret(capsys: Any) -> None:
    assert run(["cassette", "check", str(OURS)]) == 0


def test_plain_vcrpy_leaks(capsys: Any) -> None:
    """What vcrpy records by default is refused, and the key is not repeated."""
    record(Path("c.yaml"), {})
    assert run(["cassette", "check", "c.yaml"]) == 1
    told = capsys.readouterr().err
    assert "'authorization'" in told.lower()
    assert "looks like a key" in told
    assert canary.KEY not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("interactions:\n- !!python/object/new:os.system [echo]\n", "Python object"),
        ("interactions: [", "no cassette"),
        ("[1, 2]", "no cassette"),
        ("interactions:\n- {request: 1}\n", "no cassette"),
    ],
)
def test_what_is_refused(text: str, told: str, capsys: Any) -> None:
    Path("c.yaml").write_text(text)
    assert run(["cassette", "check", "c.yaml"]) == 1
    assert told in capsys.readouterr().err


def test_lost_pictures(capsys: Any) -> None:
    record(Path("c.yaml"), vcr_config())
    for path in Path("c.yaml.files").iterdir():
        path.unlink()
    assert run(["cassette", "check", "c.yaml"]) == 1
    assert "record again" in capsys.readouterr().err
