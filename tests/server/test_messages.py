"""The words of `imgkit serve` on standard error: warnings of calls, and options that cannot be used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from imgkit.cli.run import run as imgkit_command
from imgkit.cli.serve import _print_report
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.server.image_server import ImageServer, StopReport
from imgkit.server.served_service import ServedService
from imgkit.testing.app_server import AppServer
from tests.support.served import GENERATIONS, SETTINGS, send


def test_a_warning_is_told_once(tmp_path: Path) -> None:
    """Tells that a cassette cannot be written: its client has the image, and no place for a warning."""
    (tmp_path / "file").write_text("")
    told: list[str] = []

    async def main() -> list[str]:
        service = ServedService(plugins=[RecorderPlugin(tmp_path / "file/fox.yaml")], state_folder=tmp_path)
        server = ImageServer(service, SETTINGS, warn=told.append)
        place = AppServer()
        place.address = await server.start()
        for _ in range(2):
            got = await asyncio.to_thread(send, place, GENERATIONS, {"prompt": "a fox", "size": "64x64"})
            assert got.status == 200
        status = await asyncio.to_thread(send, place, "/status")
        await server.stop()
        return [text for each in status.json["requests"] for text in each["warnings"]]

    shown = asyncio.run(main())
    assert len(shown) == 2
    assert len(told) == len(set(shown)), (told, shown)
    assert "cassette" in told[0]


def test_names_paid_images_that_no_client_has_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the place of each at the end."""
    assert _print_report(StopReport((), ["home/undelivered/1.png"], None)) == 0
    assert capsys.readouterr().err == "imgkit: no client has read this paid image: home/undelivered/1.png\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--ready-file", "{folder}"),
            "Cannot write '{folder}' (Is a directory). Pass another --ready-file.",
        ),
        (("--record", "a.yaml", "--replay", "a.yaml"), "--record and --replay exclude each other."),
        (("--host", "0.0.0.0"), "Set a token for the callers with --token"),
        (("--map", "a=nobody:b"), "Unknown provider 'nobody'."),
    ],
)
def test_an_option_that_cannot_be_used_ends_the_command(
    options: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prints the problem and the remedy, and nothing on standard output."""
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    given = [option.format(folder=tmp_path) for option in options]
    assert imgkit_command(["serve", "--port", "0", *given]) == 2
    printed = capsys.readouterr()
    assert message.format(folder=tmp_path) in printed.err
    assert printed.out == ""
