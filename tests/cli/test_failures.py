"""Failures: messages, exit codes, and paid data."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from imgkit import errors
from imgkit.cli import exit_codes, salvage
from imgkit.cli.run import run
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.images.sources import BytesSource, UrlSource
from imgkit.testing import cassette
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import WireServer, reply
from tests.cli.support import CANARY, SMALL, clear_environment
from tests.support.processes import run_process

PYTHON_WORDS = (
    "error.body",
    "error.response",
    "image.data",
    "image.url",
    "save_to",
    "api_key=",
    "base_url",
    "_s ",
    "client_options",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


def run_captured(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run the command here; return exit code, standard output and standard error."""
    code = run(args)
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize(("fault", "code", "words"), [
    ("401", 3, "Check the API key"), ("403", 3, "Verify the organization"),
    ("429", 4, "wait 1 s"), ("insufficient_quota", 4, "Add credit"),
    ("moderation_blocked", 5, "Rephrase the prompt"),
    ("400", 6, "HTTP 400"), ("404", 6, "HTTP 404"), ("empty_result", 6, "without images"),
    ("500", 7, "HTTP 500"), ("502", 7, "billed"), ("connection_refused", 7, "Nothing was sent"),
    ("connection_cut", 7, "made and billed an image"),
    ("not_json", 7, "the reply has no readable image"),
    ("timeout", 7, "made and billed an image"),
    ("no_such_fault", 2, "--simulate must be an HTTP status"),
])  # fmt: skip
def test_exit_code_of_each_fault(
    capfd: pytest.CaptureFixture[str], fault: str, code: int, words: str
) -> None:
    """Maps each fault to its exit code and message."""
    found, out, err = run_captured(capfd, "create", "fox", "--simulate", fault, "--timeout", "0.5")
    assert (found, out) == (code, "")
    assert err.startswith("imgkit: ")
    assert words in err
    assert "Traceback" not in err
    assert not any(word in err for word in PYTHON_WORDS)


def test_exit_codes_are_complete(capfd: pytest.CaptureFixture[str]) -> None:
    """Gives every error class a code, and explains all codes in --help."""
    classes = [value for value in vars(errors).values()
               if isinstance(value, type) and issubclass(value, errors.ImgkitError)]  # fmt: skip
    assert len(classes) > 25
    for kind in set(classes) - {errors.ImgkitError}:
        assert any(parent in exit_codes.CODES_BY_ERROR for parent in kind.__mro__), kind
        assert exit_codes.exit_code(kind.__new__(kind)) in exit_codes.MEANINGS
    _, out, _ = run_captured(capfd, "--help")
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code} {meaning}" in " ".join(out.split())


@pytest.mark.parametrize(("args", "words"), [
    (("create",), "PROMPT is missing"),
    (("create", "a", "b"), "Put it in quotes: 'a b'."),
    (("create", "-5 degrees"), "then '--' and the prompt"),
    (("create", "-"), "Pass --prompt-file - to read"),
    (("create", "fox", "--prompt-file", "p.txt"), "Give either PROMPT or --prompt-file, not both."),
    (("create", "--prompt-file", "nowhere.txt"), "Cannot read 'nowhere.txt'"),
    (("create", "--prompt-file", "-", "--api-key-file", "-"), "Only one of"),
    (("create", "fox", "--api-key-file", "empty.txt", "--backend", "requests"), "--api-key-file is empty"),
    (("create", "fox", "--n", "9999", "--size", "big"), "imgkit: --n: Must be a whole number from 1 to 1000"),
    (("create", "fox", "--size", "big"), "imgkit: --size: 'big' is not a size"),
    (("create", "fox", "--svg", "[1]"), "'--svg': Give an object"),
    (("create", "fox", "--extra-body", "{"), "This is not JSON"),
    (("create", "fox", "--extra-header", "X-A"), "Write NAME:VALUE."),
    (("create", "fox", "--extra-header", "X-A:1", "--extra-header", "x-a:2"), "given twice"),
    (("create", "fox", "--extra-body", '{"stream": true}'),
     "--extra-body stream: imgkit sets this member; leave it out.\nimgkit: Pass --stream for a stream."),
    (("create", "fox", "-o", "nowhere/fox.png"), "--output: Cannot write in 'nowhere'"),
    (("create", "fox", "-o", "-"), "cannot be written to standard output"),
    (("create", "fox", "-o", "{nonsense}"), "A pattern may contain"),
    (("create", "fox", "--base-url", "http://localhost/v1"), "--base-url is given without a backend."),
    (("create", "fox", "--model", "gpt-image-2"), "--model is given without a backend."),
    (("create", "fox", "--backend", "nope"), "Unknown backend 'nope'"),
    (("create", "fox", "--backend", "azure"), "--backend aiohttp, with --provider azure."),
    (("create", "fox", "--backend", ""), "The name of the backend is empty."),
    (("edit", "empty.txt", "a", "red", "hat"), "Put it in quotes: empty.txt 'a red hat'."),
    (("edit", "empty.txt", "make", "it", "1.5", "times/larger"), "empty.txt 'make it 1.5 times/larger'."),
    (("edit", "empty.txt", "hat.png", "a", "hat"), "IMAGE 1: 'empty.txt' is empty"),
    (("edit", "a red hat", "empty.txt"), "PROMPT comes after IMAGE: empty.txt 'a red hat'."),
    (("edit", "empty.txt"), "PROMPT is missing. Describe the change after IMAGE."),
    (("edit", "https://h/fox.png", "a hat"), "Download it and pass the file.\n"),
    (("create", "fox", "--backend", "requests", "--latency", "1"), "--latency: for the offline backend only"),
    (("create", "fox", "--timeout", "nan"), "'--timeout': 'nan' is not a number"),
    (("create", "fox", "--backend", "requests", "--base-url", "https://127.0.0.1:9", "--ca", "/nowhere"),
     "--ca: No certificates can be read"),
    (("create", "fox", "--backend", "requests"), "Pass --model NAME or set IMGKIT_MODEL."),
    (("edit", "fox.png"), "IMAGE is missing. Give an image file and then PROMPT."),
    (("edit", "nowhere.png", "empty.txt", "a hat"), "IMAGE 1: Cannot open 'nowhere.png'"),
    (("variation", "a.png", "b.png"), "Give one IMAGE only."),
    (("variation", "empty.txt"), "IMAGE: 'empty.txt' is empty"),
    ((CANARY,), "No such command"),
])  # fmt: skip
def test_usage_errors(capfd: pytest.CaptureFixture[str], args: tuple[str, ...], words: str) -> None:
    """Exits with 2 before sending; names options instead of parameters."""
    Path("empty.txt").touch()
    code, out, err = run_captured(capfd, *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("imgkit: ")
    assert CANARY not in err
    assert not any(word in err for word in PYTHON_WORDS)
    assert os.listdir() == ["empty.txt"]


def test_paths_named_like_parameters(capfd: pytest.CaptureFixture[str]) -> None:
    """Keeps a path that is named like a parameter."""
    for path in ("out/base_url", "timeout_s", "my base_url.png", "base_url.png"):
        assert f"Cannot open '{path}'" in run_captured(capfd, "variation", path)[2]


def test_missing_key(capfd: pytest.CaptureFixture[str]) -> None:
    """Exits with 3 and names the variable of the key."""
    code, _, err = run_captured(capfd, "create", "fox", "--backend", "requests", "--model", "gpt-image-2")
    assert code == 3
    assert err.count("\n") == 1
    assert (
        "OPENAI_API_KEY is not set. https://platform.openai.com/api-keys has your keys. Set it, pass "
        "--api-key-file FILE, or stay offline with "
        "--backend offline." in err
    )


def test_bug(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exits with 1; shows a traceback with --debug or IMGKIT_DEBUG only, and never the key."""
    secret = f"quite-another-{CANARY}"
    monkeypatch.setenv("OPENAI_API_KEY", secret)

    def raise_error(*args: object, **more: object) -> None:
        raise RuntimeError(f"broken by {secret}")

    monkeypatch.setattr("imgkit.cli.output_paths.build_save_plan", raise_error)
    code, out, err = run_captured(capfd, "create", "fox")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "This is a bug in imgkit (RuntimeError: broken by …)" in err
    shown = run_captured(capfd, "create", "fox", "--debug")[2]
    monkeypatch.setenv("IMGKIT_DEBUG", "1")
    for text in (shown, run_captured(capfd, "create", "fox")[2]):
        assert "Traceback" in text
        assert "CANARY" not in text


def test_existing_files(capfd: pytest.CaptureFixture[str]) -> None:
    """Rejects an existing file before sending, with its final extension and number."""
    for name in ("fox.png", "owl.jpg", "cat-2.png", "elk.png.json", "own.txt"):
        Path(name).write_text("mine")
    sent = ("--no-retry", "--simulate", "500")  # ends with 7 if it gets that far
    for args, words in (
        (("-o", "fox.png"), "'fox.png' exists. Pass --force"),
        (("-o", "fox"), "'fox.png' exists"),
        (("-o", "owl.png", "--output-format", "jpeg"), "'owl.jpg' exists"),
        (("-o", "cat.png", "--n", "3"), "'cat-2.png' exists"),
        (("-o", "cat.png", "--extra-body", '{"n": 3}'), "'cat-2.png' exists"),
        (("-o", "elk.png"), "'elk.png.json' exists, and the sidecar would go there"),
        (("-o", "elk.png", "--force"), "'elk.png.json' exists and is not a sidecar of imgkit"),
    ):
        code, _, err = run_captured(capfd, "create", "fox", *args, *sent)
        assert code == 2, (args, err)
        assert f"imgkit: --output: {words}" in err
    for args in (
        ("-o", "fox.png", "--force"),
        ("-o", "cat.png"),
        ("-o", "elk.png", "--no-sidecar"),
        ("-o", "./"),
    ):
        assert run_captured(capfd, "create", "fox", *args, *sent)[0] == 7, args
    assert run_captured(capfd, "create", "fox", "-o", "fox.png", "--force", *SMALL)[:2] == (0, "fox.png\n")
    assert Path("fox.png").read_bytes().startswith(b"\x89PNG")
    assert Path("own.txt").read_text() == "mine"


def test_unreadable_reply(capfd: pytest.CaptureFixture[str]) -> None:
    """Saves an unreadable reply to the output folder, with mode 0600."""
    code, out, err = run_captured(capfd, "create", "fox", "-o", "out/", "--simulate", "not_json")
    (kept,) = Path("out").iterdir()
    assert (code, out) == (7, "")
    assert f"imgkit: The received data was saved to {kept.absolute()}" in err
    assert kept.read_bytes() == b"<html>hello</html>"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_missing_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves to the temporary folder instead; the note says if that fails too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = errors.UnreadableReplyError("no picture", body=b"paid")
    (kept,) = salvage.save_paid_data(error, tmp_path / "vanished")
    assert kept.parent == tmp_path
    assert kept.read_bytes() == b"paid"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    lost = errors.UnreadableReplyError("no picture", body=b"paid")
    assert salvage.save_paid_data(lost, tmp_path / "vanished") == []
    assert "could not be saved" in lost.__notes__[0]


@pytest.mark.parametrize("as_json", [False, True])
def test_unsaved_image(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """Exits with 9 for one failed file; saves the others, and salvages its bytes."""
    write = SavePlan.write

    def second_fails(plan: SavePlan, image: Image, count: int) -> Path:
        if image.index == 1:
            raise errors.SaveError(
                "Cannot write 'fox-2.png' (No space left on device).",
                hint="The image is still in image.data. Call image.save again.",
            )
        return write(plan, image, count)

    monkeypatch.setattr(SavePlan, "write", second_fails)
    args = [
        "create",
        "fox",
        "--n",
        "3",
        "-o",
        "fox.png",
        "--no-sidecar",
        *SMALL,
        *(["--json"] if as_json else []),
    ]
    code, out, err = run_captured(capfd, *args)
    (kept,) = Path().glob("imgkit-unsaved-*.png")
    assert code == 9
    assert f"imgkit: Image 2 was saved to {kept.absolute()}" in err
    assert "No space left on device" in err
    assert not any(word in err for word in PYTHON_WORDS)
    assert kept.read_bytes().startswith(b"\x89PNG")
    assert kept.read_bytes() != Path("fox-1.png").read_bytes()
    if as_json:
        sidecar: dict[str, Any] = json.loads(out)
        assert [Path(one["path"]).name for one in sidecar["images"]] == ["fox-1.png", "fox-3.png"]
        assert sidecar["unsaved"] == [str(kept.absolute())]
        assert (sidecar["error"]["class"], sidecar["error"]["exit_code"]) == ("SaveError", 9)
    else:
        assert out == "fox-1.png\nfox-3.png\n"


@pytest.mark.parametrize(("args", "expected"), [
    (("create", "fox", "--simulate", "429", "--no-retry"),
     {"class": "RateLimitError", "exit_code": 4, "status": 429, "code": "rate_limit_exceeded",
      "request_id": "req_offline_simulated", "maybe_billed": False}),
    (("create", "fox", "--simulate", "connection_cut"),
     {"class": "OutcomeUnknownError", "exit_code": 7, "maybe_billed": True, "request_id": None}),
    (("create", "fox", "--size", "big"), {"class": "InvalidRequestError", "exit_code": 2, "field": "size"}),
    (("create", "fox", "--base-url", "http://localhost/v1"),
     {"class": "ConfigurationError", "exit_code": 2, "field": "base_url",
      "hint": "Pass --backend requests or --backend aiohttp to reach the API, or --backend offline to "
              "paint."}),
    (("create", "fox", "--nonsense"), {"class": "NoSuchOption", "exit_code": 2, "hint": None}),
    (("create", "fox", "--svg", "["), {"class": "BadParameter", "exit_code": 2}),
    (("edit", "nowhere.png", "a hat"), {"class": "InvalidRequestError", "exit_code": 2, "field": "image"}),
    (("variation", "nowhere.png"), {"class": "InvalidRequestError", "exit_code": 2}),
    (("create", "fox", "--stream", "--simulate", "500", "--no-retry"), {"class": "ServerError"}),
    (("create", "fox", "--dry-run", "--size", "big"), {"class": "InvalidRequestError", "exit_code": 2}),
    (("models", "gpt-imag"), {"class": "ConfigurationError", "exit_code": 2}),
    (("models", "--models", "nowhere.toml"), {"class": "ConfigurationError", "exit_code": 2}),
    (("cache", "ls", "--folder", "/dev/null"), {"class": "ConfigurationError", "exit_code": 2}),
    (("recover", "--nonsense"), {"class": "NoSuchOption", "exit_code": 2}),
    (("plugins", "more"), {"class": "UsageError", "exit_code": 2}),
])  # fmt: skip
def test_json_of_errors(
    capfd: pytest.CaptureFixture[str], args: tuple[str, ...], expected: dict[str, object]
) -> None:
    """Prints one object on standard output for every failure, with the message of standard error."""
    code, out, err = run_captured(capfd, *args, "--json")
    document = json.loads(out, parse_constant=pytest.fail)
    assert out.count("\n") == document["schema_version"] == 1
    error = document["error"]
    assert {"message", "hint", "field", "maybe_billed", "request_id", "spool_path"} <= set(error)
    assert error["exit_code"] == code
    assert expected.items() <= error.items()
    assert all(f"{line}\n" in err for line in error["message"].splitlines())


def test_json_of_a_bug_and_of_ctrl_c(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints an object for failures that are no errors of imgkit; a prompt is no option."""
    failures: list[tuple[BaseException, str, int]]
    failures = [(RuntimeError("x"), "RuntimeError", 1), (KeyboardInterrupt(), "Stopped", 130)]
    for error, name, expected in failures:

        def fail(*args: object, problem: BaseException = error, **more: object) -> None:
            raise problem

        monkeypatch.setattr("imgkit.cli.output_paths.build_save_plan", fail)
        code, out, _ = run_captured(capfd, "create", "fox", "--json")
        assert (code, json.loads(out)["error"]["class"]) == (expected, name)
        assert run_captured(capfd, "create", "--", "--json")[1] == ""


def test_json_is_strict(capfd: pytest.CaptureFixture[str]) -> None:
    """Writes null for a number that JSON does not have."""
    usage = b'{"total_tokens": 5, "huge": 1e999, "deep": [{"far": -1e999}]}'
    body = json.dumps(answer()).encode()[:-1] + b', "usage": ' + usage + b"}"
    with WireServer(reply(200, body)) as server:
        code, out, _ = run_captured(
            capfd, "create", "fox", "--json", "--backend=requests", f"--base-url={server.base_url}"
        )
    assert code == 0
    document = json.loads(out, parse_constant=pytest.fail)
    assert document["usage"] == {"total_tokens": 5, "huge": None, "deep": [{"far": None}]}


def test_a_cassette_without_the_request(capfd: pytest.CaptureFixture[str]) -> None:
    """Says that the cassette has no recording, with its own exit code: this is no bug of imgkit."""
    Path("empty.yaml").write_text("interactions: []\nversion: 1\n")
    with cassette("empty.yaml", record_mode="none"):
        code, out, err = run_captured(
            capfd, "create", "fox", "--json", "--backend=requests", "--base-url=http://127.0.0.1:9/v1"
        )
    assert code == json.loads(out)["error"]["exit_code"] == 6
    assert err.startswith("imgkit: The cassette has no recording of this request. Nothing was sent. ")
    assert "bug" not in err


def test_url_of_an_image(tmp_path: Path) -> None:
    """Writes a signed URL to a private file, without another download."""
    url = "https://pictures.example/1.png?sig=CANARY"

    def fetch(url: str) -> bytes:
        raise AssertionError("fetched again")

    remote = Image(index=0, url=url, source=UrlSource(url, fetch))
    local = Image(index=1, source=BytesSource(b"\x89PNG\r\n\x1a\n"))
    error = errors.SaveError("2 of 2 pictures could not be saved", images=(remote, local))
    first, second = salvage.save_paid_data(error, tmp_path)
    assert first.read_text() == url + "\n"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert second.read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert "CANARY" not in "".join(error.__notes__)


def test_partial_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the part of a reply before the connection was lost to a private file."""
    monkeypatch.chdir(tmp_path)
    done = run_process(
        [sys.executable, "-m", "imgkit", "create", "fox", "--size", "64x64", "--simulate", "half_body"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7
    (kept,) = tmp_path.glob("imgkit-unsaved-*.bin")
    assert kept.read_bytes().startswith(b'{"created"')
    assert kept.stat().st_mode & 0o777 == 0o600
    assert str(kept) in done.stderr
