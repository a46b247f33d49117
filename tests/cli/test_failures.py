"""What goes wrong: its message, its exit code, and what was paid for."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from imgkit import errors
from imgkit.cli import exit_codes as exits
from imgkit.cli import salvage as rescue
from imgkit.cli.run import run
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.images.sources import BytesSource, UrlSource
from tests.cli.support import CANARY, SMALL, clear
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
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


def told(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Run the command here; return exit code, stdout and stderr."""
    code = run(args)
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize(("fault", "code", "words"), [
    ("401", 3, "Check the API key"), ("403", 3, "Verify the organisation"),
    ("429", 4, "wait 1 s"), ("insufficient_quota", 4, "Add credit"),
    ("moderation_blocked", 5, "Rephrase the prompt"),
    ("400", 6, "HTTP 400"), ("404", 6, "HTTP 404"), ("empty_result", 6, "without images"),
    ("500", 7, "HTTP 500"), ("502", 7, "billed"), ("connection_refused", 7, "Nothing was sent"),
    ("connection_cut", 7, "may have been made and billed"),
    ("not_json", 7, "the reply has no readable image"),
    ("timeout", 7, "may have been made and billed"), ("no_such_fault", 2, "--simulate is an HTTP status"),
])  # fmt: skip
def test_each_fault_has_its_code(
    capfd: pytest.CaptureFixture[str], fault: str, code: int, words: str
) -> None:
    """A script can tell by the exit code what to do; a reader by the message."""
    found, out, err = told(capfd, "create", "fox", "--simulate", fault, "--timeout", "0.5")
    assert (found, out) == (code, "")
    assert err.startswith("imgkit: ")
    assert words in err
    assert "Traceback" not in err
    assert not any(word in err for word in PYTHON_WORDS)


def test_every_error_class_has_a_code_and_every_code_is_documented(capfd: pytest.CaptureFixture[str]) -> None:
    """No error of the library counts as a bug, and --help explains all codes."""
    classes = [value for value in vars(errors).values()
               if isinstance(value, type) and issubclass(value, errors.ImgkitError)]  # fmt: skip
    assert len(classes) > 25
    for kind in set(classes) - {errors.ImgkitError}:
        assert any(parent in exits.OF_ERROR for parent in kind.__mro__), kind
        assert exits.exit_code(kind.__new__(kind)) in exits.MEANING
    _, out, _ = told(capfd, "--help")
    for code, meaning in exits.MEANING.items():
        assert f"{code:>3}  {meaning}" in out


@pytest.mark.parametrize(("args", "words"), [
    (("create",), "PROMPT is missing"),
    (("create", "a", "b"), "put it in quotes"),
    (("create", "-5 degrees"), "put '--' before it"),
    (("create", "-"), "--prompt-file -"),
    (("create", "fox", "--prompt-file", "p.txt"), "either PROMPT or --prompt-file"),
    (("create", "--prompt-file", "nowhere.txt"), "cannot read 'nowhere.txt'"),
    (("create", "--prompt-file", "-", "--api-key-file", "-"), "only one of"),
    (("create", "fox", "--api-key-file", "empty.txt", "--backend", "requests"), "--api-key-file is empty"),
    (("create", "fox", "--n", "9999", "--size", "big"), "imgkit: --n: Must be a whole number from 1 to 1000"),
    (("create", "fox", "--size", "big"), "imgkit: --size: 'big' is not a size"),
    (("create", "fox", "--svg", "[1]"), "'--svg': give an object"),
    (("create", "fox", "--extra-body", "{"), "this is no JSON"),
    (("create", "fox", "--extra-header", "X-A"), "write NAME:VALUE"),
    (("create", "fox", "--extra-header", "X-A:1", "--extra-header", "x-a:2"), "given twice"),
    (("create", "fox", "--extra-body", '{"stream": true}'), "--extra-body stream: imgkit sets this member"),
    (("create", "fox", "-o", "nowhere/fox.png"), "--output: Cannot write in 'nowhere'"),
    (("create", "fox", "-o", "-"), "not written to standard output"),
    (("create", "fox", "-o", "{nonsense}"), "A pattern may contain"),
    (("create", "fox", "--base-url", "http://localhost/v1"), "--base-url is given, but the default backend"),
    (("create", "fox", "--backend", "nope"), "Unknown backend 'nope'"),
    (("create", "fox", "--backend", "requests", "--latency", "1"), "--latency: for the offline backend only"),
    (("create", "fox", "--timeout", "nan"), "--timeout must be a positive number"),
    (("create", "fox", "--backend", "requests", "--base-url", "https://127.0.0.1:9", "--ca", "/nowhere"),
     "--ca: no certificates can be read"),
    (("create", "fox", "--backend", "requests"), "Pass --model … or set IMGKIT_MODEL"),
    (("edit", "fox.png"), "IMAGE is missing: give a picture file, and then PROMPT"),
    (("edit", "nowhere.png", "empty.txt", "a hat"), "IMAGE 1: Cannot open 'nowhere.png'"),
    (("variation", "a.png", "b.png"), "give one IMAGE"),
    (("variation", "empty.txt"), "IMAGE: 'empty.txt' is empty"),
    ((CANARY,), "No such command"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_the_words_of_the_command_line(
    capfd: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    """Usage and invalid requests end with 2 before anything is sent, named by option and not by parameter."""
    Path("empty.txt").touch()
    code, out, err = told(capfd, *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("imgkit: ")
    assert CANARY not in err
    assert not any(word in err for word in PYTHON_WORDS)
    assert os.listdir() == ["empty.txt"]


def test_paths_are_repeated_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is called like a parameter keeps its name in messages."""
    for path in ("out/base_url", "timeout_s", "my base_url.png", "base_url.png"):
        assert f"Cannot open '{path}'" in told(capfd, "variation", path)[2]


def test_no_key_is_3_and_names_the_variable(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for the official host without a key learns where one would come from."""
    code, _, err = told(capfd, "create", "fox", "--backend", "requests", "--model", "gpt-image-2")
    assert code == 3
    assert err.count("\n") == 1
    assert "Set OPENAI_API_KEY, pass --api-key-file …, or stay offline with --backend offline." in err


def test_a_bug_is_told_in_a_line_and_shown_on_request(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug ends with 1, with its traceback only under --debug or IMGKIT_DEBUG, and never with the key."""
    secret = f"quite-another-{CANARY}"
    monkeypatch.setenv("OPENAI_API_KEY", secret)

    def broken(*args: object, **more: object) -> None:
        raise RuntimeError(f"broken by {secret}")

    monkeypatch.setattr("imgkit.cli.output_paths.plan", broken)
    code, out, err = told(capfd, "create", "fox")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "a bug in imgkit (RuntimeError: broken by …)" in err
    shown = told(capfd, "create", "fox", "--debug")[2]
    monkeypatch.setenv("IMGKIT_DEBUG", "1")
    for text in (shown, told(capfd, "create", "fox")[2]):
        assert "Traceback" in text
        assert "CANARY" not in text


def test_existing_files_are_refused_before_anything_is_sent(capfd: pytest.CaptureFixture[str]) -> None:
    """A named file is never replaced without --force, whatever its extension and number will be."""
    for name in ("fox.png", "owl.jpg", "cat-2.png", "elk.png.json", "own.txt"):
        Path(name).write_text("mine")
    sent = ("--no-retry", "--simulate", "500")  # ends with 7 if it gets that far
    for args, words in (
        (("-o", "fox.png"), "'fox.png' exists: say --force"),
        (("-o", "fox"), "'fox.png' exists"),
        (("-o", "owl.png", "--output-format", "jpeg"), "'owl.jpg' exists"),
        (("-o", "cat.png", "--n", "3"), "'cat-2.png' exists"),
        (("-o", "cat.png", "--extra-body", '{"n": 3}'), "'cat-2.png' exists"),
        (("-o", "elk.png"), "'elk.png.json' exists, where the sidecar would go"),
        (("-o", "elk.png", "--force"), "'elk.png.json' exists and is not a sidecar of imgkit"),
    ):
        code, _, err = told(capfd, "create", "fox", *args, *sent)
        assert code == 2, (args, err)
        assert f"imgkit: --output: {words}" in err
    for args in (
        ("-o", "fox.png", "--force"),
        ("-o", "cat.png"),
        ("-o", "elk.png", "--no-sidecar"),
        ("-o", "./"),
    ):
        assert told(capfd, "create", "fox", *args, *sent)[0] == 7, args
    assert told(capfd, "create", "fox", "-o", "fox.png", "--force", *SMALL)[:2] == (0, "fox.png\n")
    assert Path("fox.png").read_bytes().startswith(b"\x89PNG")
    assert Path("own.txt").read_text() == "mine"


def test_an_unreadable_paid_reply_is_kept_for_its_owner(capfd: pytest.CaptureFixture[str]) -> None:
    """The bytes of a reply that cannot be read end in the output folder, readable by nobody else."""
    code, out, err = told(capfd, "create", "fox", "-o", "out/", "--simulate", "not_json")
    (kept,) = Path("out").iterdir()
    assert (code, out) == (7, "")
    assert f"imgkit: what arrived is kept in {kept.absolute()}" in err
    assert kept.read_bytes() == b"<html>hello</html>"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_where_the_folder_takes_nothing_the_temporary_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has vanished does not cost a reply; if nothing takes it, the message says so."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = errors.UnreadableReplyError("no picture", body=b"paid")
    (kept,) = rescue.keep(error, tmp_path / "vanished")
    assert kept.parent == tmp_path
    assert kept.read_bytes() == b"paid"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    lost = errors.UnreadableReplyError("no picture", body=b"paid")
    assert rescue.keep(lost, tmp_path / "vanished") == []
    assert "could not be kept" in lost.__notes__[0]


@pytest.mark.parametrize("as_json", [False, True])
def test_pictures_that_cannot_be_saved_are_kept(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """One failed file ends with 9; the others are told as ever, and its bytes are beside them."""
    write = SavePlan.write

    def second_fails(plan: SavePlan, image: Image, count: int) -> Path:
        if image.index == 1:
            raise errors.SaveError(
                "Cannot write 'fox-2.png' (No space left on device). The image is still in image.data. "
                "Free some space or choose another place, and call image.save again."
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
    code, out, err = told(capfd, *args)
    (kept,) = Path().glob("imgkit-unsaved-*.png")
    assert code == 9
    assert f"imgkit: picture 2 is kept in {kept.absolute()}" in err
    assert "No space left on device" in err
    assert not any(word in err for word in PYTHON_WORDS)
    assert kept.read_bytes().startswith(b"\x89PNG")
    assert kept.read_bytes() != Path("fox-1.png").read_bytes()
    if as_json:
        story: dict[str, Any] = json.loads(out)
        assert [Path(one["path"]).name for one in story["images"]] == ["fox-1.png", "fox-3.png"]
        assert story["unsaved"] == [str(kept.absolute())]
    else:
        assert out == "fox-1.png\nfox-3.png\n"


def test_the_url_of_a_picture_that_was_not_fetched_is_kept_out_of_messages(tmp_path: Path) -> None:
    """A signed URL is a permission to read: it goes into a private file, and is not fetched again."""
    url = "https://pictures.example/1.png?sig=CANARY"

    def fetch(url: str) -> bytes:
        raise AssertionError("fetched again")

    remote = Image(index=0, url=url, source=UrlSource(url, fetch))
    local = Image(index=1, source=BytesSource(b"\x89PNG\r\n\x1a\n"))
    error = errors.SaveError("2 of 2 pictures could not be saved", images=(remote, local))
    first, second = rescue.keep(error, tmp_path)
    assert first.read_text() == url + "\n"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert second.read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert "CANARY" not in "".join(error.__notes__)


def test_half_a_reply_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of a reply that did arrive before the connection was cut is in a private file."""
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
