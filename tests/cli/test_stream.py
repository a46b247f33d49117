"""`imgkit create --stream`: partial pictures as files, and in a terminal that can show them."""

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
from imgkit.cli import terminal_images as preview
from imgkit.cli.run import run
from imgkit.cli.streaming import partial_plan
from imgkit.default_plugins.spool import open_spool
from imgkit.images.part_files import BUFFER_BYTES
from imgkit.images.saving import SavePlan
from tests.cli.support import CANARY, SMALL, clear, command, environment, imgkit
from tests.support.event_streams import HEAD, PARTIAL, WHOLE, chunk, completed, partial, streamed
from tests.support.pictures import noise, picture
from tests.support.processes import start_process
from tests.support.wire_server import Line, WireServer


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_files(tmp_path: Path, capsys: Any) -> None:
    """Two partial pictures by default, beside the target; only the last one is on standard output."""
    assert run(["create", "a fox", "--stream", "-o", "fox.png", *SMALL]) == 0
    assert pictures(tmp_path) == ["fox.partial-0.png", "fox.partial-1.png", "fox.png", "fox.png.json"]
    out, err = capsys.readouterr()
    assert out == "fox.png\n"
    assert "imgkit: partial picture: fox.partial-0.png\n" in err
    assert "\x1b" not in err
    sizes = {name: Image.from_bytes((tmp_path / name).read_bytes()).width for name in pictures(tmp_path)[:3]}
    assert set(sizes.values()) == {64}


def test_files_that_arrive_on_disk(tmp_path: Path) -> None:
    """Large pictures are never in memory; names and bytes are the same, and nothing else is left."""
    assert run(["create", "a fox", "--stream", "-o", "fox.png", "--size=1024x1024"]) == 0
    assert pictures(tmp_path) == ["fox.partial-0.png", "fox.partial-1.png", "fox.png", "fox.png.json"]
    with ImageService() as images:
        with images.stream_image("a fox", size="1024x1024", partial_images=2) as events:
            made = [one.image.data for one in events]
    assert min(map(len, made)) > BUFFER_BYTES
    assert [(tmp_path / name).read_bytes() for name in pictures(tmp_path)[:3]] == made


def test_an_edit_and_how_many(tmp_path: Path, capsys: Any) -> None:
    """`--partial-images` implies a stream; nothing is overwritten."""
    (tmp_path / "in.png").write_bytes(picture(size=(64, 64)))
    for _ in range(2):
        assert run(["edit", "in.png", "a hat", "--partial-images=1", "-o", "out/", "--no-sidecar"]) == 0
    assert pictures(tmp_path / "out") == [
        "a-hat-2.png", "a-hat.partial-0-2.png", "a-hat.partial-0.png", "a-hat.png",
    ]  # fmt: skip
    assert run(["edit", "in.png", "a hat", "--partial-images=0", "-o", "zero/", "--no-sidecar"]) == 0
    assert pictures(tmp_path / "zero") == ["a-hat.png"]


def test_json(tmp_path: Path, capsys: Any) -> None:
    """The object is that of a call without a stream."""
    assert run(["create", "a fox", "--stream", "--json", *SMALL]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(one["path"]).name for one in told["images"]] == ["a-fox.png"]
    assert told["usage"]["output_tokens"] > 200


@pytest.mark.parametrize(
    ("args", "said"),
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
def test_wrong_options(args: list[str], said: str, capsys: Any, tmp_path: Path) -> None:
    """What does not go with a stream is refused, and nothing is sent."""
    assert run(["create", "a fox", *args]) == 2
    assert said in capsys.readouterr().err
    assert pictures(tmp_path) == []


def test_variations_have_no_stream(capsys: Any) -> None:
    """The option is not there."""
    assert run(["variation", "in.png", "--stream"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_dry_run(capsys: Any) -> None:
    """What would be sent says that it is a stream."""
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
def test_names(tmp_path: Path, target: str, expected: str | None) -> None:
    """The number goes before the ending, whatever kind of target it is."""
    if expected is None:
        target, expected = "odd.name.", "odd.name..partial-1.png"
    image = Image.from_bytes(WHOLE, about={"prompt": "a fox"})
    plan = partial_plan(SavePlan.from_target(target), 1)
    assert plan.write(image, 1) == Path(expected.replace("%s", image.sha256[:12]))
    assert not list(tmp_path.rglob("*.json"))


def test_a_partial_picture_that_cannot_be_saved(tmp_path: Path, capsys: Any) -> None:
    """It costs a line, not the picture."""
    (tmp_path / "fox.partial-0.png").mkdir()
    assert run(["create", "a fox", "--partial-images=1", "-o", "fox.png", "--force", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert out == "fox.png\n"
    assert "a partial picture is not saved" in err


def test_a_stream_that_ends_early(tmp_path: Path, capsys: Any) -> None:
    """The exit code says network; the partial picture is there, and imgkit recover has it too."""
    with WireServer(streamed(partial())) as server:
        code = run(["create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"])
    assert code == 7
    err = capsys.readouterr().err
    assert "Try without --stream" in err
    assert "imgkit recover" in err
    assert pictures(tmp_path) == ["a-fox.partial-0.png"]
    assert run(["recover", "-o", "back.png"]) in (0, 9)
    assert (tmp_path / "back.png").read_bytes() == PARTIAL


def test_a_killed_process(tmp_path: Path, capsys: Any) -> None:
    """Killed in the midst of the last picture: what had arrived is recovered."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(partial(1, noise(13))) + chunk(completed()[:5000]))
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(
            command("create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"),
            cwd=tmp_path,
            env=environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY),
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
def test_a_process_that_is_told_to_end(tmp_path: Path, number: signal.Signals, capsys: Any) -> None:
    """It breaks the call off as Ctrl-C does, leaves no hidden file, and dies as it would have."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(completed(noise(3, 300))[:300_000]))
        line.until_client_leaves()

    with WireServer(script) as server:
        process = start_process(
            command("create", "a fox", "--stream", "--backend=requests", f"--base-url={server.base_url}"),
            cwd=tmp_path,
            env=environment(IMGKIT_HOME=str(tmp_path / "home"), OPENAI_API_KEY=CANARY),
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 30
        while not list(tmp_path.glob(".imgkit-*.part")):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=40)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert said.endswith("may have been made and billed; what had arrived is kept: `imgkit recover`\n")
    assert pictures(tmp_path) == ["a-fox.partial-0.png"]
    (record,) = open_spool(tmp_path / "home").list_replies()
    assert (record.state, record.why) == ("kept", "the call was cancelled")


def terminal(*args: str, cwd: Path, **more: str) -> tuple[bytes, bytes]:
    """Run the command with standard error on a terminal; return standard output, and what was drawn."""
    ours, theirs = pty.openpty()
    try:
        done = start_process(
            command(*args), cwd=cwd, env=environment(**more), stdout=subprocess.PIPE, stderr=theirs
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


def test_in_a_terminal(tmp_path: Path) -> None:
    """Three pictures in one place; standard output has the path alone."""
    out, drawn = terminal(
        "create", "a fox", "--stream", "-o", "fox.png", *SMALL, cwd=tmp_path,
        TERM="xterm-256color", COLORTERM="truecolor",
    )  # fmt: skip
    assert out == b"fox.png\n"
    text = drawn.decode()
    assert text.count("\x1b[21F\x1b[J") == 2  # back up over twenty rows and a line, twice
    assert text.count("▀") >= 3 * 20 * 20
    assert "imgkit: partial picture: fox.partial-1.png" in text


def test_where_nothing_is_drawn(tmp_path: Path) -> None:
    """Not in a pipe, whatever the environment says; not where colours or terminals are unwanted."""
    loud = {"TERM": "xterm-kitty", "COLORTERM": "truecolor", "TERM_PROGRAM": "iTerm.app", "FORCE_COLOR": "1"}
    done = imgkit("create", "a fox", "--stream", "-o", "fox.png", *SMALL, cwd=tmp_path, env=loud)
    assert done.returncode == 0
    assert done.stdout == b"fox.png\n"
    assert b"\x1b" not in done.stderr
    for number, more in enumerate(({"NO_COLOR": "1"}, {"TERM": "dumb"})):
        _, drawn = terminal(
            "create", "a fox", "--stream", "-o", f"{number}.png", *SMALL, cwd=tmp_path,
            **{"TERM": "xterm", "COLORTERM": "truecolor", **more},
        )  # fmt: skip
        assert b"\x1b" not in drawn
        assert b"partial picture" in drawn


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, preview.kitty),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, preview.kitty),
        ({"TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, preview.iterm),
        ({"TERM_PROGRAM": "WezTerm"}, preview.iterm),
        ({"TERM_PROGRAM": "iTerm.app", "TMUX": "1", "COLORTERM": "truecolor"}, preview.half_blocks),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, preview.half_blocks),
        ({"TERM": "xterm-kitty", "TMUX": "1"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_which_terminals_can(environment: dict[str, str], expected: Any) -> None:
    """What a terminal can is told by its environment; nothing is guessed."""
    assert preview.painter(environment) is expected


def test_half_blocks() -> None:
    """A red picture in so many rows, none longer than the terminal; transparent parts are grey."""
    lines = preview.half_blocks(Image.from_bytes(picture(size=(40, 20))), 30, 5).splitlines()
    assert len(lines) == 5
    assert all(line.count("▀") == 20 and line.endswith("\x1b[0m") for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀")
    clear_one = Image.from_bytes(picture(size=(2, 2), mode="RGBA", color="#00000000"))
    assert "\x1b[38;2;96;96;96;48;2;96;96;96m▀" in preview.half_blocks(clear_one, 2, 1)
    assert preview.half_blocks(Image.from_bytes(picture(size=(200, 2))), 10, 4).count("▀") == 40


@pytest.mark.parametrize(("paint", "found"), [
    (preview.kitty, re.compile(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\")),
    (preview.iterm, re.compile(r"\x1b\]1337;File=[^:]*:([^\x07]*)\x07")),
])  # fmt: skip
def test_protocols(paint: Any, found: re.Pattern[str]) -> None:
    """The picture is in the sequences, whole, as PNG."""
    image = Image.from_bytes(picture("JPEG", size=(30, 30)))
    drawn = paint(Image.from_bytes(noise(1, 64)), 40, 10)
    sent = base64.b64decode("".join(found.findall(drawn)))
    assert Image.from_bytes(sent).to_pil().tobytes() == Image.from_bytes(noise(1, 64)).to_pil().tobytes()
    assert max(map(len, found.findall(drawn))) <= 4096 or paint is preview.iterm
    assert Image.from_bytes(base64.b64decode("".join(found.findall(paint(image, 40, 10))))).format == "png"


def test_what_cannot_be_drawn(capsys: Any) -> None:
    """A picture that Pillow does not read is passed over; captions cannot steer the terminal."""
    canvas = preview.Canvas(preview.half_blocks)
    canvas.show(Image.from_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no")
    assert capsys.readouterr().err == ""
    canvas.show(Image.from_bytes(picture()), "a\x1b[2Jb\n")
    assert "a?[2Jb?\n" in capsys.readouterr().err


def test_the_exit_code() -> None:
    """It is that of the network."""
    from imgkit.cli.exit_codes import exit_code

    assert exit_code(errors.StreamError("no")) == 7
