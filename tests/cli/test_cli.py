"""The command as a process: its two streams, its exit codes, its signals."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.support import CANARY, OFFLINE, SMALL, command, environment, imgkit
from tests.support.processes import run_process, start_process

HEAVY = ("requests", "aiohttp", "marshmallow", "PIL", "asyncio", "rich")


@contextmanager
def api(answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """Serve an API on this machine, and yield its base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self, self.rfile.read(int(self.headers["content-length"])))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: http.server.BaseHTTPRequestHandler, status: int, value: object) -> None:
    """Answer with JSON."""
    body = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def read_until(descriptor: int, wanted: bytes, seconds: float = 30) -> bytes:
    """Read a terminal until something has appeared on it."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"{wanted!r} did not appear in {seen!r}"
        seen += os.read(descriptor, 65536)
    return seen


def test_one_path_a_line_is_all_of_stdout(tmp_path: Path) -> None:
    """Pipes get paths only; what is said about them goes to stderr."""
    done = imgkit("create", "two foxes", "--n", "2", "-o", "fox.png", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"fox-1.png\nfox-2.png\n")
    assert done.stderr.decode().count("\n") == 1
    assert OFFLINE in done.stderr.decode()
    assert "--backend requests --model" in done.stderr.decode()
    assert (tmp_path / "fox-2.png").read_bytes().startswith(b"\x89PNG")


def test_python_m_and_a_name_made_from_the_prompt(tmp_path: Path) -> None:
    """`python -m imgkit` is the same command, and needs no -o."""
    args = [sys.executable, "-W", "error", "-m", "imgkit", "create", "A Red Fox!", "--no-sidecar", *SMALL]
    for expected in (b"a-red-fox.png\n", b"a-red-fox-2.png\n"):
        done = run_process(args, cwd=tmp_path, env=environment(), capture_output=True, timeout=50)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a-red-fox-2.png", "a-red-fox.png"]


def test_json_is_one_object_with_absolute_paths_and_digests(tmp_path: Path) -> None:
    """A program finds all it needs in one object, with a key in the environment that is not in it."""
    done = imgkit(
        "create", "a fox", "--json", "--n", "2", *SMALL, cwd=tmp_path, env={"OPENAI_API_KEY": CANARY}
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["schema_version"], told["offline"]) == (0, 1, True)
    assert (told["backend"], told["provider"], told["model"]) == ("offline", "openai", None)
    assert told["usage"]["total_tokens"] > 0
    assert told["warnings"] == []
    assert told["unsaved"] == []
    assert {"request_id", "created", "elapsed_s"} <= set(told)
    assert len(told["images"]) == 2
    for image in told["images"]:
        assert Path(image["path"]).parent == tmp_path
        assert hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest() == image["sha256"]
        assert CANARY not in Path(image["path"] + ".json").read_text()
    assert CANARY.encode() not in done.stdout + done.stderr


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    """Help stays quick, and the version does not even need click."""
    for option, forbidden in (("--help", HEAVY), ("--version", (*HEAVY, "click"))):
        program = (
            "import sys; sys.argv[0] = 'imgkit'; from imgkit.__main__ import main; code = main(); "
            f"sys.stderr.write(repr([name for name in {forbidden} if name in sys.modules])); sys.exit(code)"
        )
        done = run_process([sys.executable, "-c", program, option], cwd=tmp_path, env=environment(),
                              capture_output=True, timeout=50)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"[]")
        assert b"imgkit" in done.stdout


def test_without_click_one_line_says_what_to_install(tmp_path: Path) -> None:
    """The command of a bare installation explains itself."""
    program = "import sys; sys.modules['click'] = None; from imgkit.__main__ import main; sys.exit(main())"
    done = run_process([sys.executable, "-c", program, "create", "fox"], cwd=tmp_path, env=environment(),
                          capture_output=True, timeout=50)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"imgkit: the command line needs click: pip install 'imgkit-service[cli]'\n"


@pytest.mark.parametrize("args", [("--version",), ("create", "--help"), ("create", "fox", *SMALL)])
def test_a_reader_that_has_gone_is_no_error(tmp_path: Path, args: tuple[str, ...]) -> None:
    """`imgkit … | head -0` ends quietly, and its picture is there."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_process(command(*args), cwd=tmp_path, env=environment(), stdout=writer,
                          stderr=subprocess.PIPE, timeout=50)  # fmt: skip
    os.close(writer)
    assert done.returncode == 0
    assert all(OFFLINE in line for line in done.stderr.decode().splitlines())
    assert (tmp_path / "fox.png").exists() == ("fox" in args)


@pytest.mark.parametrize("args", [("create", "--help"), ("create", "fox", *SMALL)])
def test_a_full_disk_behind_stdout_is_told_in_a_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Paths that stdout does not take are told on stderr instead, without a traceback."""
    with open("/dev/full", "wb") as full:
        done = run_process(command(*args), cwd=tmp_path, env=environment(), stdout=full,
                              stderr=subprocess.PIPE, timeout=50)  # fmt: skip
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 9
    assert lines[-1] == "imgkit: cannot write to standard output: No space left on device"
    assert ("imgkit: saved: fox.png" in lines) == ("fox" in args)


def test_closed_streams_do_not_matter(tmp_path: Path) -> None:
    """With all three streams closed a picture is still made, and nothing is mixed into it."""
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command("create", "fox", *SMALL)]
    done = run_process(shell, cwd=tmp_path, env=environment(), timeout=50)
    assert done.returncode == 0
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_an_emoji_prompt_where_the_locale_is_ascii(tmp_path: Path) -> None:
    """Neither argument nor output stumbles over an encoding, and the prompt arrives as it was typed."""
    ascii_only = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0",
                  "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
    done = imgkit("create", "fox 🦊", "-o", "fuchs-ü.png", *SMALL, cwd=tmp_path, env=ascii_only)
    assert (done.returncode, done.stdout) == (0, "fuchs-ü.png\n".encode())
    assert json.loads((tmp_path / "fuchs-ü.png.json").read_text())["prompt"] == "fox 🦊"
    dry = imgkit("create", "fox 🦊", "--dry-run", cwd=tmp_path, env=ascii_only)
    assert dry.returncode == 0
    assert rb"fox \U0001f98a" in dry.stdout


def test_a_dry_run_shows_the_form_and_touches_nothing(tmp_path: Path) -> None:
    """What would be sent is on stdout with sizes and digests; no key, no file, no request."""
    imgkit("create", "fox", "-o", "fox.png", "--no-sidecar", *SMALL, cwd=tmp_path)
    imgkit("mask", "--box", "0,0,9,9", "--like", "fox.png", "-o", "mask.png", cwd=tmp_path)
    data, mask = ((tmp_path / name).read_bytes() for name in ("fox.png", "mask.png"))

    def never(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        raise AssertionError("a dry run has sent something")

    with api(never) as base_url:
        done = imgkit("edit", "fox.png", "fox.png", "a hat", "--mask", "mask.png", "--n", "3", "-o", "new/",
                      "--svg", '{"model": "x"}', "--extra-header", "X-Team: a:b", "--organization", "org-42",
                      "--backend", "requests", "--base-url", base_url, "--api-key-file", "-", "--dry-run",
                      cwd=tmp_path, stdin=CANARY.encode() + b"\n")  # fmt: skip
    text = done.stdout.decode()
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert done.stderr.startswith(b"imgkit: estimated cost: unknown (no prices are known")
    assert text.startswith(f"POST {base_url}/images/edits\n")
    for line in ('prompt = "a hat"', 'n = "3"', 'svg[model] = "x"', "x-team: a:b", "openai-organization: …"):
        assert line in text.splitlines()
    assert text.count(f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}") == 2
    assert text.count(f"{len(mask)} bytes, sha256 {hashlib.sha256(mask).hexdigest()}") == 1
    assert "org-42" not in text
    assert CANARY not in text
    assert sorted(os.listdir(tmp_path)) == ["fox.png", "mask.png"]


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path) -> None:
    """A server that repeats the key, and a traceback, still show nothing of it."""
    seen: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append(handler.headers["authorization"])
        reply(
            handler, 401, {"error": {"message": f"Incorrect API key: {seen[-1]}", "code": "invalid_api_key"}}
        )

    (tmp_path / "key.txt").write_text(f"{CANARY}\n")
    with api(answer) as base_url:
        done = imgkit("create", "fox", "--backend", "requests", "--base-url", base_url, "--debug",
                      "--api-key-file", "key.txt", "-o", "out/", cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stdout) == (3, b"")
    assert seen == [f"Bearer {CANARY}"]
    assert b"Traceback" in done.stderr
    assert b"CANARY" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("args", [
    ("create", "fox", "--api-key", CANARY), ("create", f"--api-key={CANARY}", "fox"),
    ("--api-key", CANARY, "create", "fox"), ("backends", "--api-key"),
])  # fmt: skip
def test_a_key_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path, args: tuple[str, ...]) -> None:
    """There is no --api-key, and the message says what there is instead."""
    done = imgkit(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"there is no --api-key" in done.stderr
    assert b"OPENAI_API_KEY" in done.stderr
    assert b"--api-key-file" in done.stderr
    assert b"CANARY" not in done.stderr


def test_warnings_of_a_reply_are_told(tmp_path: Path) -> None:
    """What a server's reply lacks is said on stderr and in the JSON; a live picture is not called offline."""
    picture = imgkit("create", "fox", "-o", "fox.png", "--json", *SMALL, cwd=tmp_path)
    assert picture.returncode == 0
    b64 = base64.b64encode((tmp_path / "fox.png").read_bytes()).decode()

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        reply(handler, 200, {"created": 1, "data": [{"b64_json": b64}, {}]})

    for backend in ("requests", "aiohttp"):
        with api(answer) as base_url:
            done = imgkit("create", "fox", "--backend", backend, "--base-url", base_url, "--model", "m",
                          "--json", cwd=tmp_path)  # fmt: skip
        told = json.loads(done.stdout)
        assert (done.returncode, told["offline"], told["backend"]) == (0, False, backend)
        assert (told["model"], told["created"], told["usage"]) == ("m", 1, None)
        assert told["warnings"] == ["data.1 holds no picture"]
        assert done.stderr == b"imgkit: warning: data.1 holds no picture\n"


def on_terminal(cwd: Path, *args: str, **env: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the command with stderr on a terminal; return it and the terminal's other end."""
    ours, theirs = pty.openpty()
    child = start_process(command(*args), cwd=cwd, env=environment(**env), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=theirs)  # fmt: skip
    os.close(theirs)
    return child, ours


def rest(ours: int) -> bytes:
    """Return what else appears on a terminal until its last user has gone."""
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:
        pass  # Linux says EIO at the end
    os.close(ours)
    return seen


def finish(child: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Return exit code and stdout."""
    out: IO[bytes] = child.stdout  # type: ignore[assignment]
    with out:
        text = out.read()
    return child.wait(50), text


def test_a_line_moves_on_a_terminal_only_where_it_may(tmp_path: Path) -> None:
    """Seconds are counted while somebody watches; plain terminals get plain text; stdout is paths anyway."""
    args = ("create", "fox", "--latency", "1.2", "-o", "out/", *SMALL)
    child, ours = on_terminal(tmp_path, *args, TERM="xterm")
    plain, other = on_terminal(tmp_path, *args, TERM="xterm", NO_COLOR="1")
    dumb, third = on_terminal(tmp_path, *args, TERM="dumb")
    shown = read_until(ours, b"0:00:01") + rest(ours)
    assert b"waiting for offline" in shown
    assert shown.rstrip().endswith(b"in OPENAI_API_KEY")
    code, out = finish(child)
    assert (code, out.startswith(b"out/fox"), out.count(b"\n")) == (0, True, 1)
    for one, end in ((plain, other), (dumb, third)):
        text = rest(end)
        assert text.startswith(b"imgkit: painted offline")
        assert b"\x1b" not in text
        assert finish(one)[0] == 0


def test_ctrl_c_while_nothing_can_have_been_billed(tmp_path: Path) -> None:
    """Ctrl-C under the offline backend ends with 130 and says that nothing was spent."""
    child, ours = on_terminal(tmp_path, "create", "fox", "--latency", "40", *SMALL, TERM="xterm")
    read_until(ours, b"waiting for offline")
    child.send_signal(signal.SIGINT)
    text = rest(ours)
    assert finish(child) == (130, b"")
    assert b"imgkit: stopped. Nothing was billed" in text
    assert b"Traceback" not in text


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_ctrl_c_after_a_request_was_sent(tmp_path: Path, backend: str) -> None:
    """Ctrl-C while a server works ends with 130 and says that it may cost money."""
    arrived, over = threading.Event(), threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        arrived.set()
        over.wait(40)
        handler.close_connection = True

    with api(answer) as base_url:
        child = start_process(
            command("create", "fox", "--backend", backend, "--base-url", base_url), cwd=tmp_path,
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert arrived.wait(30)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=40)
        finally:
            over.set()
    assert (child.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        "imgkit: stopped. The request had been sent, so a picture may have been made and billed"
    ]


def test_completion_is_printed_and_answered(tmp_path: Path) -> None:
    """The three scripts exist, and complete options and the values that the library names."""
    for shell, mark in (("bash", b"complete"), ("zsh", b"#compdef imgkit"), ("fish", b"complete")):
        done = imgkit("completion", shell, cwd=tmp_path)
        assert done.returncode == 0
        assert mark in done.stdout
    words = {
        "_IMGKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "imgkit create --quality m",
        "COMP_CWORD": "3",
    }
    assert imgkit(cwd=tmp_path, env=words).stdout.split() == [b"plain,medium", b"plain,max"]
