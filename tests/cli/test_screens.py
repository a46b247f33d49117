"""The texts of the command as a person sees them, held in `screens.txt`.

``UPDATE_SCREENS=1 pytest -n 0 tests/cli/test_screens.py`` writes the file anew; read its diff.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from imgkit.backends.offline import backend as offline_backend
from imgkit.cli.run import run
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import Line, Script, WireServer, reply
from tests.cli.support import CANARY, clear_environment
from tests.support.event_streams import completed, partial, streamed
from tests.support.pictures import picture
from tests.support.screen import Screen, open_terminal

FILE = Path(__file__).with_name("screens.txt")
MODELS = 'hosts = ["compatible"]\n[[models]]\nid = "mine"\nlike = "gpt-image-2"\n'
USAGE = {"total_tokens": 1100, "input_tokens": 50, "output_tokens": 1050}
GOOD = reply(200, {**answer(picture()), "usage": USAGE}, x_request_id="req_1")
PLAIN = reply(200, answer(picture()))


def build_error(status: int, message: str, code: str, **headers: str) -> Script:
    """Return a script that sends an error of the API."""
    error = {"message": message, "type": "image_generation", "param": None, "code": code}
    return reply(status, {"error": error}, **headers)


LIMITED = build_error(429, "Slow down.", "rate_limit_exceeded", retry_after_ms="1")
BROKEN = build_error(500, "Sorry.", "server_error", retry_after_ms="1")
DENIED = build_error(401, "Incorrect API key provided.", "invalid_api_key")
BLOCKED = build_error(400, "Rejected by the safety system.", "moderation_blocked")


def answer_partly(line: Line) -> None:
    """Answer a request with an image and a URL that is no longer served."""
    if line.request_line.startswith("GET"):
        reply(404, b"gone", content_type="text/plain")(line)
    else:
        origin = f"http://{line.headers['host']}/gone.png"
        reply(200, {"created": 1, "data": [*answer(picture())["data"], {"url": origin}]})(line)


CACHED = "create 'a fox' {server} -o out/ --cache use"
BULK = "bulk rows.csv {server} -o out --in-flight 1"


class Scene(NamedTuple):
    """A run of the command.

    Attributes:
        command: the arguments; a word "{server}" becomes the options of the server.
        scripts: the answers of the server, in order; the last answers all further requests.
        before: a command that runs before, and is not shown.
    """

    command: str
    scripts: tuple[Script, ...] = (GOOD,)
    before: str = ""


SCENES = {
    "create": Scene("create 'a fox' {server} --model mine --models mine.toml"),
    "create with an unknown price": Scene("create 'a fox' {server} -o fox.png"),
    "create without usage": Scene("create 'a fox' {server} -o fox.png", (PLAIN,)),
    "create offline": Scene("create 'a fox' -o fox.png --size 64x64"),
    "edit": Scene("edit in.png 'a hat' {server} --model mine --models mine.toml -o hat.png"),
    "variation": Scene("variation in.png {server}"),
    "variation by an edit": Scene("variation in.png {server} --n 2", (reply(404, b"{}"), GOOD)),
    "variation by an edit that was asked for": Scene("variation in.png {server} --strategy emulate"),
    "stream": Scene(
        "create 'a fox' {server} --stream -o fox.png", (streamed(partial(), partial(1), completed()),)
    ),
    "stream that is cut": Scene("create 'a fox' {server} --stream -o fox.png", (streamed(partial()),)),
    "retry after 429": Scene("create 'a fox' {server} -o fox.png", (LIMITED, LIMITED, GOOD)),
    "retry after 500": Scene("create 'a fox' {server} -o fox.png", (BROKEN, GOOD)),
    "rename": Scene("create 'a fox' {server} -o fox.png", (reply(200, answer(picture("JPEG"))),)),
    "fewer images": Scene("create 'a fox' {server} --n 3 -o out/"),
    "an image that is gone": Scene("create 'a fox' {server} --n 2 -o out/ --no-retry", (answer_partly,)),
    "cache": Scene(CACHED, before=CACHED),
    "recover": Scene("recover -o back/", (answer_partly,), before="create 'a fox' {server} --no-retry"),
    "recover without a reply": Scene("recover"),
    "error": Scene("create 'a fox' {server}", (DENIED,)),
    "refusal": Scene("create 'a fox' {server}", (BLOCKED,)),
    "timeout": Scene("create 'a fox' --simulate timeout"),
    "wrong option": Scene("create 'a fox' --nonsense 5"),
    "wrong value": Scene("create 'a fox' --size big --n 0"),
    "bulk with a limit and no price": Scene("bulk rows.csv {server} -o out --max-cost 1"),
    "bulk status": Scene("bulk status out", (GOOD, BLOCKED), before=BULK),
    "bulk failures": Scene("bulk failures out -o again.jsonl", (GOOD, BLOCKED), before=BULK),
    "unknown model": Scene("models gpt-imag"),
    "provider": Scene("providers bfl"),
    "file that exists": Scene("create 'a fox' -o in.png"),
    "json": Scene("create 'a fox' {server} --model mine --models mine.toml -o fox.png --json"),
    "json of an error": Scene("create 'a fox' {server} --json", (LIMITED,)),
    "json of a wrong value": Scene("create 'a fox' --size big --json"),
}
MODES = {"terminal, 80 columns": 80, "terminal, 40 columns": 40, "pipe": 0}


PATH_LENGTH = 20
"""Characters in the path of each folder: lines wrap at equal places on every machine."""

BASES = ("/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir(), str(Path.home()), Path.cwd().anchor)


def create_folder(bases: Sequence[str]) -> Path:
    """Return a new folder whose path has `PATH_LENGTH` characters, in the first base that takes it."""
    for base in bases:
        length = PATH_LENGTH - len(os.path.join(base, ""))
        if length >= 6 and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
            folder = Path(base, secrets.token_hex(length)[:length])
            folder.mkdir(mode=0o700)
            return folder
    raise FileNotFoundError(f"no folder with a path of at most {PATH_LENGTH - 7} characters among {bases}")


def mask(text: str, folder: Path) -> str:
    """Return output without the values that differ from run to run, at an equal width."""
    text = text.replace(str(folder), "/dir/".ljust(PATH_LENGTH, "#"))
    text = re.sub(r"(?<=//127\.0\.0\.1:)\d+", "#####", text)
    text = re.sub(r"\d{8}T\d{6}Z-\w+-1", "SPOOLED-REPLY-ID".ljust(31, "#"), text)
    text = re.sub(r"imgkit-unsaved-\w{8}", "imgkit-unsaved-########", text)
    text = re.sub(r'(?<="sha256": ")\w+', "#" * 64, text)
    text = re.sub(r'(?<="elapsed_s": )[\d.]+', "#.###", text)
    return re.sub(r"\b\d+\.\d s\b", "#.# s", text)


@pytest.fixture
def make_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Yield a function that changes to a new folder, whose path is always as long."""
    folders: list[Path] = []

    def make() -> Path:
        folders.append(create_folder(BASES))
        (folders[-1] / "mine.toml").write_text(MODELS)
        (folders[-1] / "rows.csv").write_text("id,prompt\na,a fox\nb,a gun\n")
        (folders[-1] / "in.png").write_bytes(picture())
        monkeypatch.chdir(folders[-1])
        monkeypatch.setenv("IMGKIT_HOME", str(folders[-1] / "home"))
        return folders[-1]

    yield make
    for folder in folders:
        shutil.rmtree(folder)


def play(
    scene: Scene,
    columns: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Run a scene on a terminal, or in pipes without columns; return the text about it."""
    with WireServer(*scene.scripts) as server:
        server_options = f"--backend requests --base-url {server.base_url}"
        before, args = (
            shlex.split(text.replace("{server}", server_options)) for text in (scene.before, scene.command)
        )
        if before:
            run(before)
        capsys.readouterr()
        if columns:
            return play_on_terminal(args, columns, folder, monkeypatch)
        return play_in_pipes(args, folder, capsys)


def play_in_pipes(args: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command with pipes; return its messages, its output and its exit code."""
    code = run(args)
    out, err = (mask(text, folder) for text in capsys.readouterr())
    assert "\x1b" not in err + out
    shown = [f"stderr: {line}" for line in err.splitlines()]
    return "\n".join([*shown, *(f"stdout: {line}" for line in out.splitlines()), f"exit code {code}"])


def play_on_terminal(args: list[str], columns: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the command on a terminal; return its status lines, the last screen and its exit code."""
    with open_terminal(columns, monkeypatch) as end:
        code = run(args)
        output = mask(end(), folder)
    screen = Screen(columns)
    screen.feed(output)
    assert screen.lines.pop() == "", "the prompt of the shell would be glued to the last line"
    # Spinner and clock depend on the time.
    texts = [re.sub(r"^[-|/\\] | \d:\d\d:\d\d$", "", line) for line in screen.erased]
    assert all(len(line) < columns for line in screen.erased)
    status = dict.fromkeys(f"  ({text})" for text in texts if text)
    return "\n".join([*status, *screen.lines, f"exit code {code}"])


@pytest.mark.parametrize("name", SCENES)
def test_screen(
    name: str,
    make_folder: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Shows a person the recorded texts, on a terminal of two widths and in a pipe."""
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr(offline_backend, "SILENCE_S", 0.03)
    scene = SCENES[name]
    shown = {
        f"=== {name} | {mode}": play(scene, columns, make_folder(), monkeypatch, capsys)
        for mode, columns in MODES.items()
    }
    known = read_screens()
    if os.environ.get("UPDATE_SCREENS"):
        write_screens(known | shown)
        return
    for heading, text in shown.items():
        assert text == known.get(heading), heading


def test_no_color(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shows a terminal without colour the messages of a pipe, and no status line."""
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    args = ["create", "a fox", "--simulate", "401", "-o", "fox.png"]
    with open_terminal(400, monkeypatch) as end:
        assert run(args) == 3
        output = end()
    assert run(args) == 3
    assert output.replace("\r\n", "\n") == capsys.readouterr().err


def read_screens() -> dict[str, str]:
    """Return the recorded texts by heading."""
    text = FILE.read_text("utf-8") if FILE.exists() else ""
    parts = re.split(r"^(=== .*)\n", text, flags=re.MULTILINE)
    return {heading: body.rstrip("\n") for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def write_screens(screens: dict[str, str]) -> None:
    """Write the texts of all scenes in the order of the scenes."""
    headings = [f"=== {name} | {mode}" for name in SCENES for mode in MODES]
    FILE.write_text(
        "\n".join(f"{heading}\n{screens[heading]}\n" for heading in headings if heading in screens), "utf-8"
    )


def test_folders_have_paths_of_equal_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes any short base that exists, as some systems have no /tmp."""
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    folder = create_folder(["/no-such-base", str(tmp_path / "a-base-with-a-long-path"), "a"])
    assert folder.is_dir()
    assert len(str(folder)) == PATH_LENGTH
    with pytest.raises(FileNotFoundError, match="no folder with a path of at most"):
        create_folder(["/no-such-base"])
