"""The option `--stream`: partial images as files and in the terminal."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from imgkit import Image, ImageService, errors
from imgkit.cli import console, terminal_images
from imgkit.cli.run import run
from imgkit.cli.streaming import build_partial_plan
from imgkit.default_plugins.spool import open_spool
from imgkit.images.part_files import BUFFER_BYTES
from imgkit.images.saving import SavePlan
from tests.cli.support import CANARY, SMALL, build_command, build_environment, clear_environment, run_imgkit
from tests.support.event_streams import HEAD, PARTIAL, WHOLE, chunk, completed, partial, streamed
from tests.support.pictures import noise, picture
from tests.support.processes import start_process
from tests.support.wire_server import Line, WireServer


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def list_files(folder: Path) -> list[str]:
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Saves two partial images by default; prints the path of the last image only."""
    assert run(["create", "a fox", "--stream", "-o", "fox.png", *SMALL]) == 0
    assert list_files(tmp_path) == ["fox.partial-0.png", "fox.partial-1.png", "fox.png", "fox.png.json"]
    out, err = capsys.readouterr()
    assert out == "fox.png\n"
    assert "imgkit: partial image: fox.partial-0.png\n" in err
    assert "\x1b" not in err
    sizes = {
        name: Image.from_bytes((tmp_path / name).read_bytes()).width for name in list_files(tmp_path)[:3]
    }
    assert set(sizes.values()) == {64}


def test_large_images(tmp_path: Path) -> None:
    """Saves large images from disk with the same names and bytes."""
    assert run(["create", "a fox", "--stream", "-o", "fox.png", "--size=1024x1024"]) == 0
    assert list_files(tmp_path) == ["fox.partial-0.png", "fox.partial-1.png", "fox.png", "fox.png.json"]
    with ImageService() as images:
        with images.stream_image("a fox", size="1024x1024", partial_images=2) as events:
            made = [one.image.data for one in events]
    assert min(map(len, made)) > BUFFER_BYTES
    assert [(tmp_path / name).read_bytes() for name in list_files(tmp_path)[:3]] == made


def test_edit_and_number_of_partial_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Streams with --partial-images alone, and overwrites nothing."""
    (tmp_path / "in.png").write_bytes(picture(size=(64, 64)))
    for _ in range(2):
        assert run(["edit", "in.png", "a hat", "--partial-images=1", "-o", "out/", "--no-sidecar"]) == 0
    assert list_files(tmp_path / "out") == [
        "a-hat-2.png", "a-hat.partial-0-2.png", "a-hat.partial-0.png", "a-hat.png",
    ]  # fmt: skip
    assert run(["edit", "in.png", "a hat", "--partial-images=0", "-o", "zero/", "--no-sidecar"]) == 0
    assert list_files(tmp_path / "zero") == ["a-hat.png"]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the same object as without a stream."""
    assert run(["create", "a fox", "--stream", "--json", *SMALL]) == 0
    output = json.loads(capsys.readouterr().out)
    assert [Path(one["path"]).name for one in output["images"]] == ["a-fox.png"]
    assert output["usage"]["output_tokens"] > 200


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stream", "--cache=use"], "--cache: not with --stream"),
        (["--stream", "--response-format=url"], "--response-format: not with --stream"),
        (["--partial-images=4"], "0<=x<=3"),
        (
            ["--stream", "--model=gpt-image-2.6-flare", "--output-format=gif", "--backend=requests"],
            "gif and svg come whole",
        ),
        (["--stream", '--extra-body={"stream": true}'], "leave it out"),
    ],
)
def test_wrong_options(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Rejects options that do not go with a stream; sends nothing."""
    assert run(["create", "a fox", *args]) == 2
    assert message in capsys.readouterr().err
    assert list_files(tmp_path) == []


def test_variations_have_no_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """Has no --stream for variations."""
    assert run(["variation", "in.png", "--stream"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints a request for a stream."""
    assert run(["create", "a fox", "--stream", "--dry-run"]) == 0
    assert '"partial_images":2' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("fox.png", "fox.partial-1.png"),
        ("my.fox.webp", "my.fox.partial-1.png"),
        ("fox", "fox.partial-1.png"),
        ("out/", "out/a-fox.partial-1.png"),
        ("out/{index:02d}-{slug}.{ext}", "out/01-a-fox.partial-1.png"),
        ("out/{slug}", "out/a-fox.partial-1.png"),
        ("{digest}.d/{slug}", "%s.d/a-fox.partial-1.png"),
        ("b{r}ace.png", None),
    ],
)
def test_names_of_partial_images(tmp_path: Path, target: str, expected: str | None) -> None:
    """Puts the number before the extension of every kind of target."""
    if expected is None:
        target, expected = "odd.name.", "odd.name..partial-1.png"
    image = Image.from_bytes(WHOLE, about={"prompt": "a fox"})
    plan = build_partial_plan(SavePlan.from_target(target), 1)
    assert plan.write(image, 1) == Path(expected.replace("%s", image.sha256[:12]))
    assert not list(tmp_path.rglob("*.json"))


def test_unsaved_partial_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints a message, and saves the final image all the same."""
    (tmp_path / "fox.partial-0.png").mkdir()
    assert run(["create", "a fox", "--partial-images=1", "-o", "fox.png", "--force", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert out == "fox.png\n"
    assert "A partial image was not saved" in err


def test_stream_that_ends_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exits with 7; the partial image is saved, and `imgkit recover` has it too."""
    with WireServer(streamed(partial())) as server:
        code = run(["create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"])
    assert code == 7
    err = capsys.readouterr().err
    assert "Try again without --stream." in err
    assert "imgkit recover" in err
    assert list_files(tmp_path) == ["a-fox.partial-0.png"]
    assert run(["recover", "-o", "back.png"]) in (0, 9)
    assert (tmp_path / "back.png").read_bytes() == PARTIAL


def test_killed_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recovers the part of the last image that had arrived."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(partial(1, noise(13))) + chunk(completed()[:5000]))
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(
            build_command(
                "create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"
            ),
            cwd=tmp_path,
            env=build_environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY),
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 30
        while not any(path.stat().st_size > 1000 for path in tmp_path.glob("home/spool/*/2.part")):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    (record,) = open_spool(tmp_path / "home").list_replies()
    assert record.state == "orphaned"
    run(["recover", "-o", "back/"])
    capsys.readouterr()
    saved = [path.read_bytes() for path in (tmp_path / "back").glob("*") if path.suffix != ".json"]
    assert noise(13) in saved
    assert any(WHOLE.startswith(one) and len(one) > 1000 for one in saved)
    assert len(saved) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals(tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """Cancels the call as on Ctrl-C, leaves no hidden file, and dies of the signal."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(completed(noise(3, 300))[:300_000]))
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(
            build_command(
                "create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"
            ),
            cwd=tmp_path,
            env=build_environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY),
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 30
        # A hidden file may also be that of the check before the request.
        while not (list(tmp_path.glob("home/spool/*/1.part")) and list(tmp_path.glob(".imgkit-*.part"))):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.02)
        process.send_signal(number)
        _, message = process.communicate(timeout=40)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert message.endswith(
        "may have been made and billed. The received part of the reply is kept: run `imgkit recover`.\n"
    )
    assert list_files(tmp_path) == ["a-fox.partial-0.png"]
    (record,) = open_spool(tmp_path / "home").list_replies()
    assert (record.state, record.why) == ("kept", "the call was cancelled")


def run_on_terminal(*args: str, cwd: Path, **more: str) -> tuple[bytes, bytes]:
    """Run the command with standard error on a terminal; return standard output and the drawing."""
    ours, theirs = pty.openpty()
    try:
        done = start_process(
            build_command(*args),
            cwd=cwd,
            env=build_environment(**more),
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = bytearray()
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            drawn += piece
        out, _ = done.communicate(timeout=30)
        assert done.returncode == 0, drawn
        return out, bytes(drawn)
    finally:
        os.close(ours)


def test_drawing_in_a_terminal(tmp_path: Path) -> None:
    """Draws three images in one place; standard output has the path alone."""
    out, drawn = run_on_terminal(
        "create", "a fox", "--stream", "-o", "fox.png", *SMALL, cwd=tmp_path,
        TERM="xterm-256color", COLORTERM="truecolor",
    )  # fmt: skip
    assert out == b"fox.png\n"
    text = drawn.decode()
    assert text.count("\x1b[21F\x1b[J") == 2  # back up over twenty rows and a line, twice
    assert text.count("▀") >= 3 * 20 * 20
    assert "imgkit: partial image: fox.partial-1.png" in text


def test_no_drawing(tmp_path: Path) -> None:
    """Draws nothing into a pipe, with NO_COLOR, or on a dumb terminal."""
    loud = {"TERM": "xterm-kitty", "COLORTERM": "truecolor", "TERM_PROGRAM": "iTerm.app", "FORCE_COLOR": "1"}
    done = run_imgkit("create", "a fox", "--stream", "-o", "fox.png", *SMALL, cwd=tmp_path, env=loud)
    assert done.returncode == 0
    assert done.stdout == b"fox.png\n"
    assert b"\x1b" not in done.stderr
    for number, more in enumerate(({"NO_COLOR": "1"}, {"TERM": "dumb"})):
        _, drawn = run_on_terminal(
            "create", "a fox", "--stream", "-o", f"{number}.png", *SMALL, cwd=tmp_path,
            **{"TERM": "xterm", "COLORTERM": "truecolor", **more},
        )  # fmt: skip
        assert b"\x1b" not in drawn
        assert b"partial image" in drawn


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, terminal_images.draw_kitty),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, terminal_images.draw_kitty),
        ({"TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, terminal_images.draw_iterm),
        ({"TERM_PROGRAM": "WezTerm"}, terminal_images.draw_iterm),
        (
            {"TERM_PROGRAM": "iTerm.app", "TMUX": "1", "COLORTERM": "truecolor"},
            terminal_images.draw_half_blocks,
        ),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, terminal_images.draw_half_blocks),
        ({"TERM": "xterm-kitty", "TMUX": "1"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_choose_painter(environment: dict[str, str], expected: Any) -> None:
    """Chooses the painter by the variables of the terminal."""
    assert terminal_images.choose_painter(environment) is expected


def test_draw_half_blocks() -> None:
    """Draws within rows and columns; transparent pixels are grey."""
    lines = terminal_images.draw_half_blocks(Image.from_bytes(picture(size=(40, 20))), 30, 5).splitlines()
    assert len(lines) == 5
    assert all(line.count("▀") == 20 and line.endswith("\x1b[0m") for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀")
    clear_one = Image.from_bytes(picture(size=(2, 2), mode="RGBA", color="#00000000"))
    assert "\x1b[38;2;96;96;96;48;2;96;96;96m▀" in terminal_images.draw_half_blocks(clear_one, 2, 1)
    assert terminal_images.draw_half_blocks(Image.from_bytes(picture(size=(200, 2))), 10, 4).count("▀") == 40


@pytest.mark.parametrize(("paint", "found"), [
    (terminal_images.draw_kitty, re.compile(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\")),
    (terminal_images.draw_iterm, re.compile(r"\x1b\]1337;File=[^:]*:([^\x07]*)\x07")),
])  # fmt: skip
def test_draw_protocols(paint: Any, found: re.Pattern[str]) -> None:
    """Sends the complete image as PNG in escape sequences."""
    image = Image.from_bytes(picture("JPEG", size=(30, 30)))
    drawn = paint(Image.from_bytes(noise(1, 64)), 40, 10)
    sent = base64.b64decode("".join(found.findall(drawn)))
    assert Image.from_bytes(sent).to_pil().tobytes() == Image.from_bytes(noise(1, 64)).to_pil().tobytes()
    assert max(map(len, found.findall(drawn))) <= 4096 or paint is terminal_images.draw_iterm
    assert Image.from_bytes(base64.b64decode("".join(found.findall(paint(image, 40, 10))))).format == "png"


def test_undrawable_image(capsys: pytest.CaptureFixture[str]) -> None:
    """Skips an image that Pillow cannot read; removes control characters from captions."""
    canvas = terminal_images.Canvas(terminal_images.draw_half_blocks)
    canvas.show(Image.from_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no")
    assert capsys.readouterr().err == ""
    canvas.show(Image.from_bytes(picture()), "a\x1b[2Jb\n")
    assert "a?[2Jb?\n" in capsys.readouterr().err


def test_a_message_below_an_image_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """Draws the next image below a message, and only without a message in place of the last image."""
    canvas = terminal_images.Canvas(terminal_images.draw_half_blocks)
    for print_something in (False, False, True):
        if print_something:
            console.print_message("imgkit: careful")
        capsys.readouterr()
        canvas.show(Image.from_bytes(picture()), "")
        drawn = capsys.readouterr().err
        assert drawn.endswith("\x1b[0m\n")
    assert not drawn.startswith("\x1b[20F")
    canvas.show(Image.from_bytes(picture()), "")
    assert capsys.readouterr().err.startswith("\x1b[20F\x1b[J")


def test_exit_code() -> None:
    """Exits with the code of network errors."""
    from imgkit.cli.exit_codes import exit_code

    assert exit_code(errors.StreamError("no")) == 7
