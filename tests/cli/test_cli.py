"""The command as a process: its two streams, its exit codes, its signals."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import (
    CANARY,
    OFFLINE,
    SMALL,
    build_command,
    build_environment,
    read_rest,
    read_until,
    run_imgkit,
    start_on_terminal,
    wait_for_end,
)
from tests.support.processes import run_process, start_process

HEAVY = ("requests", "aiohttp", "marshmallow", "PIL", "asyncio", "rich")


@contextmanager
def serve_api(answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
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


def send_json(handler: http.server.BaseHTTPRequestHandler, status: int, value: object) -> None:
    """Send a JSON response."""
    body = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_stdout_has_one_path_per_line(tmp_path: Path) -> None:
    """Writes paths to standard output, and the notice to standard error."""
    done = run_imgkit("create", "two foxes", "--n", "2", "-o", "fox.png", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"fox-1.png\nfox-2.png\n")
    assert done.stderr.decode().count("\n") == 1
    assert OFFLINE in done.stderr.decode()
    assert "--backend requests --model" in done.stderr.decode()
    assert (tmp_path / "fox-2.png").read_bytes().startswith(b"\x89PNG")


def test_python_m_and_default_name(tmp_path: Path) -> None:
    """Runs as `python -m imgkit`, and makes a file name from the prompt."""
    args = [sys.executable, "-W", "error", "-m", "imgkit", "create", "A Red Fox!", "--no-sidecar", *SMALL]
    for expected in (b"a-red-fox.png\n", b"a-red-fox-2.png\n"):
        done = run_process(args, cwd=tmp_path, env=build_environment(), capture_output=True, timeout=50)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a-red-fox-2.png", "a-red-fox.png"]


def test_json_report(tmp_path: Path) -> None:
    """Prints one object with absolute paths and digests, and without the key."""
    done = run_imgkit(
        "create", "a fox", "--json", "--n", "2", *SMALL, cwd=tmp_path, env={"OPENAI_API_KEY": CANARY}
    )
    output = json.loads(done.stdout)
    assert (done.returncode, output["schema_version"], output["offline"]) == (0, 1, True)
    assert (output["backend"], output["provider"], output["model"]) == ("offline", "openai", None)
    assert output["usage"]["total_tokens"] > 0
    assert output["warnings"] == []
    assert output["unsaved"] == []
    assert {"request_id", "created", "elapsed_s"} <= set(output)
    assert len(output["images"]) == 2
    for image in output["images"]:
        assert Path(image["path"]).parent == tmp_path
        assert hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest() == image["sha256"]
        assert CANARY not in Path(image["path"] + ".json").read_text()
    assert CANARY.encode() not in done.stdout + done.stderr


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    """Prints help without heavy imports, and the version without click."""
    for option, forbidden in (("--help", HEAVY), ("--version", (*HEAVY, "click"))):
        program = (
            "import sys; sys.argv[0] = 'imgkit'; from imgkit.__main__ import main; code = main(); "
            f"sys.stderr.write(repr([name for name in {forbidden} if name in sys.modules])); sys.exit(code)"
        )
        done = run_process([sys.executable, "-c", program, option], cwd=tmp_path, env=build_environment(),
                              capture_output=True, timeout=50)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"[]")
        assert b"imgkit" in done.stdout


def test_without_click(tmp_path: Path) -> None:
    """Explains in one line how to install click."""
    program = "import sys; sys.modules['click'] = None; from imgkit.__main__ import main; sys.exit(main())"
    done = run_process(
        [sys.executable, "-c", program, "create", "fox"],
        cwd=tmp_path,
        env=build_environment(),
        capture_output=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr
        == b"imgkit: The command line needs click. Install it with: pip install 'imgkit-service[cli]'\n"
    )


@pytest.mark.parametrize("args", [("--version",), ("create", "--help"), ("create", "fox", *SMALL)])
def test_closed_pipe(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Ends quietly if the reader of a pipe is gone (`imgkit … | head -0`)."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_process(build_command(*args), cwd=tmp_path, env=build_environment(), stdout=writer,
                          stderr=subprocess.PIPE, timeout=50)  # fmt: skip
    os.close(writer)
    assert done.returncode == 0
    assert all(OFFLINE in line for line in done.stderr.decode().splitlines())
    assert (tmp_path / "fox.png").exists() == ("fox" in args)


@pytest.mark.parametrize("args", [("create", "--help"), ("create", "fox", *SMALL)])
def test_full_disk_behind_stdout(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Writes the paths to standard error if standard output takes none."""
    with open("/dev/full", "wb") as full:
        done = run_process(build_command(*args), cwd=tmp_path, env=build_environment(), stdout=full,
                              stderr=subprocess.PIPE, timeout=50)  # fmt: skip
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 9
    assert lines[-1] == "imgkit: Cannot write to standard output: No space left on device."
    assert ("imgkit: saved: fox.png" in lines) == ("fox" in args)


def test_closed_streams(tmp_path: Path) -> None:
    """Makes an intact image although all three streams are closed."""
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *build_command("create", "fox", *SMALL)]
    done = run_process(shell, cwd=tmp_path, env=build_environment(), timeout=50)
    assert done.returncode == 0
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_emoji_prompt_in_ascii_locale(tmp_path: Path) -> None:
    """Sends the prompt as typed, and escapes output that the encoding lacks."""
    ascii_only = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0",
                  "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
    done = run_imgkit("create", "fox 🦊", "-o", "fuchs-ü.png", *SMALL, cwd=tmp_path, env=ascii_only)
    assert (done.returncode, done.stdout) == (0, "fuchs-ü.png\n".encode())
    assert json.loads((tmp_path / "fuchs-ü.png.json").read_text())["prompt"] == "fox 🦊"
    dry = run_imgkit("create", "fox 🦊", "--dry-run", cwd=tmp_path, env=ascii_only)
    assert dry.returncode == 0
    assert rb"fox \U0001f98a" in dry.stdout


def test_dry_run(tmp_path: Path) -> None:
    """Prints the form with sizes and digests; sends and writes nothing."""
    run_imgkit("create", "fox", "-o", "fox.png", "--no-sidecar", *SMALL, cwd=tmp_path)
    run_imgkit("mask", "--box", "0,0,9,9", "--like", "fox.png", "-o", "mask.png", cwd=tmp_path)
    data, mask = ((tmp_path / name).read_bytes() for name in ("fox.png", "mask.png"))

    def fail(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        raise AssertionError("a dry run has sent something")

    with serve_api(fail) as base_url:
        done = run_imgkit(
            "edit",
            "fox.png",
            "fox.png",
            "a hat",
            "--mask",
            "mask.png",
            "--n",
            "3",
            "-o",
            "new/",
            "--svg",
            '{"model": "x"}',
            "--extra-header",
            "X-Team: a:b",
            "--organization",
            "org-42",
            "--backend",
            "requests",
            "--base-url",
            base_url,
            "--api-key-file",
            "-",
            "--dry-run",
            cwd=tmp_path,
            stdin=CANARY.encode() + b"\n",
        )
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


def test_key_goes_to_the_server_only(tmp_path: Path) -> None:
    """Hides the key although the server repeats it and --debug shows a traceback."""
    seen: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append(handler.headers["authorization"])
        send_json(
            handler, 401, {"error": {"message": f"Incorrect API key: {seen[-1]}", "code": "invalid_api_key"}}
        )

    (tmp_path / "key.txt").write_text(f"{CANARY}\n")
    with serve_api(answer) as base_url:
        done = run_imgkit("create", "fox", "--backend", "requests", "--base-url", base_url, "--debug",
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
def test_api_key_option_is_rejected(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Rejects --api-key without repeating the key, and names the alternatives."""
    done = run_imgkit(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"The option --api-key does not exist" in done.stderr
    assert b"OPENAI_API_KEY" in done.stderr
    assert b"--api-key-file" in done.stderr
    assert b"CANARY" not in done.stderr


def test_warnings(tmp_path: Path) -> None:
    """Prints the warnings of a reply on standard error and in the JSON."""
    picture = run_imgkit("create", "fox", "-o", "fox.png", "--json", *SMALL, cwd=tmp_path)
    assert picture.returncode == 0
    b64 = base64.b64encode((tmp_path / "fox.png").read_bytes()).decode()

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        send_json(handler, 200, {"created": 1, "data": [{"b64_json": b64}, {}]})

    for backend in ("requests", "aiohttp"):
        with serve_api(answer) as base_url:
            done = run_imgkit("create", "fox", "--backend", backend, "--base-url", base_url, "--model", "m",
                          "--json", cwd=tmp_path)  # fmt: skip
        output = json.loads(done.stdout)
        assert (done.returncode, output["offline"], output["backend"]) == (0, False, backend)
        assert (output["model"], output["created"], output["usage"]) == ("m", 1, None)
        assert output["warnings"] == ["data.1 has no image"]
        warning, summary = done.stderr.decode().splitlines()
        assert warning == "imgkit: warning: data.1 has no image"
        assert re.fullmatch(r"imgkit: price unknown, \d+\.\d s", summary)


def test_status_line(tmp_path: Path) -> None:
    """Counts seconds on a terminal, except with NO_COLOR and on a dumb terminal."""
    args = ("create", "fox", "--latency", "1.2", "-o", "out/", *SMALL)
    child, ours = start_on_terminal(tmp_path, *args, TERM="xterm")
    plain, other = start_on_terminal(tmp_path, *args, TERM="xterm", NO_COLOR="1")
    dumb, third = start_on_terminal(tmp_path, *args, TERM="dumb")
    shown = read_until(ours, b"0:00:01") + read_rest(ours)
    assert b"painting offline" in shown
    assert shown.rstrip().endswith(b"in OPENAI_API_KEY.")
    code, out = wait_for_end(child)
    assert (code, out.startswith(b"out/fox"), out.count(b"\n")) == (0, True, 1)
    for one, end in ((plain, other), (dumb, third)):
        text = read_rest(end)
        assert text.startswith(b"imgkit: Painted offline")
        assert b"\x1b" not in text
        assert wait_for_end(one)[0] == 0


def test_ctrl_c_offline(tmp_path: Path) -> None:
    """Exits with 130 and says that nothing was billed."""
    child, ours = start_on_terminal(tmp_path, "create", "fox", "--latency", "40", *SMALL, TERM="xterm")
    read_until(ours, b"painting offline")
    child.send_signal(signal.SIGINT)
    text = read_rest(ours)
    assert wait_for_end(child) == (130, b"")
    assert b"imgkit: Stopped. Nothing was billed." in text
    assert b"Traceback" not in text


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_ctrl_c_after_sending(tmp_path: Path, backend: str) -> None:
    """Exits with 130 and says that the call may be billed."""
    arrived, over = threading.Event(), threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        arrived.set()
        over.wait(40)
        handler.close_connection = True

    with serve_api(answer) as base_url:
        child = start_process(
            build_command("create", "fox", "--backend", backend, "--base-url", base_url), cwd=tmp_path,
            env=build_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert arrived.wait(30)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=40)
        finally:
            over.set()
    assert (child.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        "imgkit: Stopped. The request was sent, so an image may have been made and billed."
    ]


def test_completion(tmp_path: Path) -> None:
    """Prints three scripts, and completes options and their values."""
    for shell, mark in (("bash", b"complete"), ("zsh", b"#compdef imgkit"), ("fish", b"complete")):
        done = run_imgkit("completion", shell, cwd=tmp_path)
        assert done.returncode == 0
        assert mark in done.stdout
    words = {
        "_IMGKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "imgkit create --quality m",
        "COMP_CWORD": "3",
    }
    assert run_imgkit(cwd=tmp_path, env=words).stdout.split() == [b"plain,medium", b"plain,max"]
