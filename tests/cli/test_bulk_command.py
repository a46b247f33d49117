"""The command `imgkit bulk`: money, signals, the display, and reading a run that goes on or was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from imgkit.bulk.bulk_values import BulkProgress
from imgkit.bulk.manifest import STATES, State
from imgkit.cli.bulk_display import BulkDisplay
from imgkit.cli.bulk_steps import NextSteps, list_lines
from imgkit.cli.run import run
from imgkit.cli.status_line import StatusLine
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.job_fakes import FakeJob
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import Line, WireServer, reply, serve_fake
from tests.cli.support import CANARY, clear_environment, read_rest, read_until, start_on_terminal
from tests.support.pictures import picture

BLOCKED = {"error": {"message": "Rejected.", "type": "image_generation", "code": "moderation_blocked"}}
ENVIRONMENT: dict[str, Any] = {"OPENAI_API_KEY": CANARY, "IMGKIT_HOME": "home", "TERM": "xterm"}


class Api:
    """An API that holds each request until the test lets it go; prompts with "gun" are refused.

    Attributes:
        server: the server.
        arrived: released once for each request.
        may_answer: set to answer.
    """

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.server = WireServer(self._answer)

    def _answer(self, line: Line) -> None:
        self.arrived.release()
        while not self.may_answer.wait(0.02):
            if line.closing.is_set():
                return
        is_blocked = b"gun" in line.body
        (reply(400, BLOCKED) if is_blocked else reply(200, answer(picture())))(line)

    def wait_for_requests(self, count: int) -> None:
        """Wait until this many requests have arrived."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=30)

    def options(self) -> list[str]:
        """Return the options that lead to this API."""
        return ["--backend", "requests", "--base-url", self.server.base_url]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Serve an API; the current folder is empty but for `p.csv` with the rows r0 to r5."""
    clear_environment(monkeypatch, tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    Path("p.csv").write_text("id,prompt\n" + "".join(f"r{number},fox {number}\n" for number in range(6)))
    served = Api()
    with served.server:
        yield served


def read_json(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Return the JSON lines on standard output."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_price_of_an_image(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit with unknown prices is an error, holds with a price per image, and over all processes."""
    command = ["bulk", "p.csv", "-o", "out", *api.options()]
    assert run([*command, "--max-cost", "1"]) == 2
    assert "--price-per-image" in capsys.readouterr().err
    assert api.server.posts == 0
    limited = [*command, "--price-per-image", "0.04", "--max-cost"]
    assert run([*limited, "0.10"]) == 8
    text = " ".join(capsys.readouterr().err.split())
    assert "6 requests to send, for up to 0.24 USD. --max-cost leaves 0.10 USD: the run stops there." in text
    assert "2 done, 4 waiting. 0.08 USD spent, 0.02 left." in text
    assert text.count("The budget of 0.10 USD is exhausted") == 1
    base = f"imgkit bulk p.csv -o out {' '.join(api.options())} --price-per-image 0.04 --max-cost 0.24"
    step = f"4 waiting: not sent, because --max-cost is reached. This limit covers all of them: {base}"
    assert text.endswith(step)
    assert run(["bulk", "status", "out"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0.08 USD spent. The cost of 2 requests is not known: their highest price counts." in text
    assert text.endswith(step)
    assert run([*limited, "0.10"]) == 8
    assert api.server.posts == 2
    assert run([*command, "--in-flight", "1"]) == 0  # without a limit: the manifest remembers the cost
    Path("more.csv").write_text("id,prompt\nm,a hen\n")
    capsys.readouterr()
    price = ["--price-per-image", "0.04", "--extend", "--max-cost"]
    again = ["bulk", "more.csv", "-o", "out", *api.options(), *price]
    assert run([*again, "0.25", "--json"]) == 8
    *_, summary = read_json(capsys)
    assert (summary["event"], summary["spent_usd"], summary["left_usd"]) == ("summary", "0.24", "0.01")
    assert run([*again, "0.28"]) == 0
    assert api.server.posts == 7


def test_a_price_without_a_limit(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A price per image without a limit gives the estimate; a wrong price is an error."""
    command = ["bulk", "p.csv", "-o", "out", *api.options(), "--price-per-image"]
    for wrong in ("0", "nan", "-1", "much"):
        assert run([*command, wrong]) == 2
        assert "--price-per-image must be above 0" in capsys.readouterr().err
    assert api.server.posts == 0
    assert run([*command, "0.04"]) == 0
    assert "for up to 0.24 USD" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["n", "y", "\x04"])
def test_the_question(api: Api, tmp_path: Path, word: str) -> None:
    """Asks on a terminal before a run that may cost much; nothing is sent unless the answer is yes."""
    priced = ("--price-per-image", "1", "--confirm-above", "5.50")
    command = ("bulk", "p.csv", "-o", "out", *api.options(), *priced)
    child, ours = start_on_terminal(tmp_path, *command, asked=True, columns=80, **ENVIRONMENT)
    text = read_until(ours, b"Send them? [y/N]:")
    assert b"6 requests to send, for up to 6.00 USD." in text
    os.write(ours, f"{word}\n".encode() if word.isalpha() else word.encode())
    rest = read_rest(ours)
    code = child.wait(30)
    assert (code, api.server.posts) == {"n": (2, 0), "y": (0, 6), "\x04": (130, 0)}[word]
    assert (b"Nothing was sent" in rest) == (word == "n")


def test_no_question(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A script is not asked; a person whose input is a pipe is told to pass --yes."""
    command = ["bulk", "p.csv", "-o", "out", *api.options(), "--price-per-image", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("imgkit.cli.bulk_money.console.is_terminal", lambda stream: stream is not sys.stdin)
        assert run(command) == 2
    assert "Pass --yes, or a higher --confirm-above." in " ".join(capsys.readouterr().err.split())
    assert api.server.posts == 0
    assert run(command) == 0


def test_the_status_of_a_stopped_run(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` says why the latest run stopped, until a run goes on; no row has that error."""
    command = ["bulk", "p.csv", "-o", "out", *api.options()]
    refuse = reply(401, {"error": {"message": "No such key.", "code": "invalid_api_key"}})
    with WireServer(refuse) as server:
        assert run([*command, "--base-url", server.base_url]) == 9
    capsys.readouterr()
    assert run(["bulk", "status", "out"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "6 waiting 0.00 USD spent. Stopped: HTTP 401 Unauthorized" in text
    assert run(["bulk", "status", "out", "--json"]) == 0
    [status] = read_json(capsys)
    assert "No such key." in status["stopped"]
    assert run(command) == 0
    capsys.readouterr()
    assert run(["bulk", "status", "out", "--json"]) == 0
    [status] = read_json(capsys)
    assert status["stopped"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal(api: Api, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The first signal finishes the requests in flight; the run can be read meanwhile, and goes on later."""
    api.may_answer.clear()
    command = ("bulk", "p.csv", "-o", "out", *api.options(), "--yes")
    child, ours = start_on_terminal(tmp_path, *command, columns=80, **ENVIRONMENT)
    api.wait_for_requests(2)
    assert run(["bulk", "status", "out", "--json"]) == 0
    [status] = read_json(capsys)
    assert (status["counts"]["sending"], status["counts"]["waiting"]) == (2, 4)
    assert status["process"] == child.pid
    assert run(["bulk", "failures", "out"]) == 0
    child.send_signal(number)
    read_until(ours, b"Stopping.")
    api.may_answer.set()
    text = b" ".join(read_rest(ours).split())
    assert child.wait(30) == 130
    assert b"2 done, 4 waiting." in text
    assert b"Continue with: imgkit bulk p.csv" in text
    assert run(["bulk", "status", "out", "--json"]) == 0
    [status] = read_json(capsys)
    assert (status["counts"]["done"], status["process"]) == (2, None)
    assert run(list(command)) == 0
    assert api.server.posts == 6


def test_the_second_signal(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second signal aborts the requests in flight; they are unknown, and sent again only on demand."""
    api.may_answer.clear()
    command = ("bulk", "p.csv", "-o", "out", *api.options(), "--yes")
    child, ours = start_on_terminal(tmp_path, *command, columns=200, **ENVIRONMENT)
    api.wait_for_requests(2)
    child.send_signal(signal.SIGINT)
    read_until(ours, b"Stopping.")
    child.send_signal(signal.SIGINT)
    text = b" ".join(read_rest(ours).split())
    assert child.wait(30) == 130
    assert b"0 done, 4 waiting, 2 unknown." in text
    assert b"the risk of paying twice: imgkit bulk p.csv" in text
    api.may_answer.set()
    assert run(list(command)) == 9
    assert api.server.posts == 6
    capsys.readouterr()
    assert run(["bulk", "failures", "out"]) == 0
    assert [line["id"] for line in read_json(capsys)] == ["r0", "r1"]
    assert run([*command, "--retry-unknown"]) == 0
    assert "Sent again at the risk of paying twice: 2 of them." in " ".join(capsys.readouterr().err.split())
    assert api.server.posts == 8


class HeldBfl(FakeBfl):
    """A fake whose jobs are at work until the test lets them end.

    Attributes:
        polled: set once two jobs were polled.
        may_end: set to let the jobs end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.polled, self.may_end = threading.Event(), threading.Event()
        self._seen: set[str] = set()

    def is_done(self, job: FakeJob) -> bool:
        """Return whether a job has ended."""
        self._seen.add(job.id)
        if len(self._seen) == 2:
            self.polled.set()
        return self.may_end.is_set() and super().is_done(job)


def test_jobs_stay_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first Ctrl-C leaves jobs to the next run, which collects them and sends nothing twice."""
    clear_environment(monkeypatch, tmp_path)
    Path("p.csv").write_text("id,prompt\na,a fox\nb,a hen\n")
    environment: dict[str, Any] = {**ENVIRONMENT, "BFL_API_KEY": CANARY}
    monkeypatch.setenv("BFL_API_KEY", CANARY)
    monkeypatch.setenv("IMGKIT_HOME", "home")
    fake = HeldBfl()
    with serve_fake(fake) as server:
        place = ("--backend", "requests", "--provider", "bfl", "--base-url", server.origin)
        command = ("bulk", "p.csv", "-o", "out", *place, "--yes", "--size", "64x64")
        child, ours = start_on_terminal(tmp_path, *command, columns=200, **environment)
        assert fake.polled.wait(30)
        child.send_signal(signal.SIGINT)
        text = b" ".join(read_rest(ours).split())
        assert child.wait(30) == 130
        assert b"accepted: The run was stopped. The job goes on, and may be billed. The next run col" in text
        assert b"0 done, 2 accepted." in text
        assert b"Collect the images with: imgkit bulk p.csv" in text
        assert run(["bulk", "status", "out", "--json"]) == 0
        assert read_json(capsys)[0]["counts"]["accepted"] == 2
        fake.may_end.set()
        assert run(list(command)) == 0
        assert server.posts == 2


def test_a_killed_run(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After `kill -9`, status and failures read the run, and leave it for the next process."""
    api.may_answer.clear()
    command = ("bulk", "p.csv", "-o", "out", *api.options(), "--yes")
    child, ours = start_on_terminal(tmp_path, *command, **ENVIRONMENT)
    api.wait_for_requests(2)
    child.kill()
    read_rest(ours)
    child.wait(30)
    assert Path("out/manifest.lock").exists()
    assert run(["bulk", "status", "out"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4 waiting 2 sending The cost of 2 requests is not known. 4 waiting: not sent." in text
    assert "carries out the run" not in text
    assert "Find out with: imgkit bulk p.csv -o out" in text
    assert run(["bulk", "failures", "out", "-o", "again.jsonl"]) == 0
    assert "No request of this run is blocked, failed or unknown." in capsys.readouterr().err
    assert Path("again.jsonl").read_text() == ""
    api.may_answer.set()
    assert run(list(command)) == 9
    capsys.readouterr()
    assert run(["bulk", "status", "out"]) == 0
    text = capsys.readouterr().out
    assert "2  unknown" in text
    assert "r1: unknown: The process ended before a reply arrived." in text


def test_failures_are_requests(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of `failures` are carried out again: with all columns, changed, or in another folder."""
    rows: list[dict[str, Any]] = [
        {
            "id": "a",
            "prompt": "a gun \u202e\x85",
            "size": "1024x1024",
            "n": 2,
        },
        {"id": "b", "prompt": "a gun, 銃", "extra_body": {"x": [1]}, "quality": "low"},
        {"id": "c", "prompt": "a fox"},
    ]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = [*api.options(), "--yes"]
    assert run(["bulk", "rows.jsonl", "-o", "out", *options]) == 9
    assert run(["bulk", "failures", "out", "-o", "again.jsonl"]) == 0
    text = " ".join(capsys.readouterr().err.split())
    assert "2 requests in again.jsonl. imgkit: Correct the lines, then send them again: imgkit bulk" in text
    assert run(["bulk", "failures", "out", "-o", "again.jsonl"]) == 2
    assert "exists. Nothing was written." in capsys.readouterr().err
    assert run(["bulk", "failures", "out"]) == 0
    text = Path("again.jsonl").read_text("utf-8")
    assert capsys.readouterr().out == text
    assert [json.loads(line)["id"] for line in text.splitlines()] == ["a", "b"]
    assert "\u202e" not in text
    assert "銃" in text
    posts = api.server.posts
    assert run(["bulk", "again.jsonl", "-o", "out", *options]) == 9  # unchanged: known, and not sent
    assert api.server.posts == posts
    Path("again.jsonl").write_text(text.replace("gun", "hen"), "utf-8")
    assert run(["bulk", "again.jsonl", "-o", "out", *options]) == 2
    assert "--amend" in capsys.readouterr().err
    assert run(["bulk", "again.jsonl", "-o", "out", *options, "--amend"]) == 0
    bodies = [json.loads(line.body) for line in api.server.lines[posts:]]
    assert sorted(body["prompt"] for body in bodies) == ["a hen \u202e\x85", "a hen, 銃"]
    [first] = [body for body in bodies if body["prompt"] == "a hen \u202e\x85"]
    assert (first["n"], first["size"]) == (2, "1024x1024")
    assert run(["bulk", "again.jsonl", "-o", "elsewhere", *options]) == 0
    capsys.readouterr()
    assert run(["bulk", "failures", "out"]) == 0
    assert capsys.readouterr().out == ""


def test_the_printed_commands(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the summary list the failures, and send the corrected list, to the end."""
    Path("p.csv").write_text("id,prompt,size\na,a gun,\nb,a fox,32x32\n")
    assert run(["bulk", "p.csv", "-o", "out", *api.options()]) == 9
    listing, again = [
        line.split() for line in capsys.readouterr().err.splitlines() if line[:9] == "  imgkit "
    ]
    assert run(listing[1:]) == 0
    Path("again.jsonl").write_text(Path("again.jsonl").read_text().replace("gun", "hen"))
    assert run(again[1:]) == 0
    assert api.server.posts == 3


STEPS = [
    (
        ["bulk", "a.csv", "-o", "out", "--amend"],
        {"blocked": 1, "failed": 2},
        [
            "imgkit bulk a.csv -o out",
            "imgkit bulk failures out -o again.jsonl",
            "imgkit bulk again.jsonl -o out --amend",
        ],
        "List them and the failed ones, correct the prompts, and send the list:",
    ),
    (
        ["bulk", "a.csv", "-o", "a.csv", "--", "x"],  # either word may be the file
        {"failed": 1},
        ["imgkit bulk a.csv -o a.csv -- x", "imgkit bulk failures out -o again.jsonl"],
        "Run the same command on again.jsonl with --amend.",
    ),
    (
        ["bulk", "-o", "out", "--max-cost=1", "--", "a.csv"],
        {"waiting": 1, "unknown": 1},
        [
            "imgkit bulk -o out --max-cost=USD -- a.csv",
            "imgkit bulk -o out --max-cost=1 --retry-unknown -- a.csv",
        ],
        "Continue with a higher one:",
    ),
    ([], {"waiting": 1}, [], "the same command as before with --max-cost USD."),
    (["bulk", "a.csv", "--proxy", "http://u:secret@h"], {"unknown": 1}, [], "before with --retry-unknown."),
]


@pytest.mark.parametrize(("args", "counts", "commands", "words"), STEPS)
def test_next_steps(args: list[str], counts: dict[State, int], commands: list[str], words: str) -> None:
    """Each state has a step; a command that is not known, or may hold a secret, is told in words."""
    steps = NextSteps("out", args, "a.csv").describe(
        {**dict.fromkeys(STATES, 0), **counts}, budget_reached=True
    )
    assert [line for line, is_command in list_lines(steps) if is_command] == commands
    assert words in " ".join(step.format() for step in steps)


def test_requests_of_another_file(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` names no command for requests that wait, but are not in the file of the latest command."""
    options = api.options()
    assert run(["bulk", "p.csv", "-o", "out", *options]) == 0
    Path("w.csv").write_text("id,prompt\nw0,a gun\nw1,a gun\nw2,a gun\nw3,a gun\n")
    blocked = ["bulk", "w.csv", "-o", "out", "--extend", "--stop-after-blocked", "1", "--in-flight", "1"]
    assert run([*blocked, *options]) == 9
    assert run(["bulk", "p.csv", "-o", "out", *options]) == 9
    capsys.readouterr()
    assert run(["bulk", "status", "out"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 waiting: the file of the latest command does not have them. Carry out a file that" in shown
    assert "goes on" not in shown


def test_the_events(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints a start, an outcome for each request, and a summary."""
    Path("p.csv").write_text("id,prompt\na,a fox\nb,a gun\n")
    options = ["--json", "--max-cost", "1", "--price-per-image", "0.04"]
    assert run(["bulk", "p.csv", "-o", "out", *api.options(), *options]) == 9
    start, *outcomes, summary = read_json(capsys)
    assert (start["event"], start["requests"], start["estimate_usd"]) == ("start", 2, "0.08")
    done, blocked = sorted(outcomes, key=lambda event: event["id"])
    assert {event["event"] for event in outcomes} == {"outcome"}
    assert (done["state"], done["error"], len(done["paths"])) == ("done", None, 1)
    assert (blocked["state"], blocked["error"]["class"]) == ("blocked", "ModerationBlockedError")
    assert blocked["paths"] == []
    assert (summary["event"], summary["exit_code"], summary["stopped"]) == ("summary", 9, None)
    assert (summary["counts"]["done"], summary["counts"]["blocked"]) == (1, 1)
    assert "failures out" in summary["next"][0]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "| 77 of 400 done, 16 in flight, 2 blocked, 24 s to go, 3.36 USD spent (0:00:00)"),
        (60, "| 77 of 400 done, 16 in flight, 2 blocked (0:00:00)"),
        (40, "| 77 of 400 done (0:00:00)"),
        (20, "77 of 400 done"),
    ],
)
def test_the_status_line(columns: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The elapsed time stands apart from the time that is left; the line never wraps."""
    for module in ("bulk_display", "status_line"):
        monkeypatch.setattr(f"imgkit.cli.{module}.count_columns", lambda stream: columns)
    stream = io.StringIO()
    line = StatusLine(stream)
    line.start()
    progress = BulkProgress(
        {**dict.fromkeys(STATES, 0), "waiting": 321, "done": 77, "blocked": 2},
        *(16, 900.0, 24.0, Decimal("3.36"), Decimal(0), Decimal(9), "An error", 5.0, None),
    )
    BulkDisplay(None, line, as_json=False).show_progress(progress)  # type: ignore[arg-type]  # not needed
    line.stop()
    texts = stream.getvalue().replace("\x1b[2K", "").split("\r")
    assert any(text[1:] == shown[1:] or text == shown for text in texts)


def test_export(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes tar files with an image and its facts side by side; equal runs give equal bytes."""
    assert run(["bulk", "p.csv", "-o", "out", *api.options()]) == 0
    export = ["bulk", "export", "out", "-o", "shards", "--max-images", "4"]
    capsys.readouterr()
    assert run(export) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["shard-000000.tar", "shard-000001.tar"]
    names, ids = [], []
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                names.append(member.name)
                if member.name.endswith(".json"):
                    ids.append(json.loads((tar.extractfile(member) or io.BytesIO()).read())["id"])
    assert names[:3] == ["000000001.png", "000000001.json", "000000002.png"]
    assert sorted(ids) == [f"r{number}" for number in range(6)]
    before = paths[0].read_bytes()
    assert run(export) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*export, "--force"]) == 0
    assert paths[0].read_bytes() == before
    assert run([*export[:4], "all.tar"]) == 0
    with tarfile.open("all.tar") as tar:
        assert tar.getnames() == names
    next(Path("out/images").rglob("*.png")).write_bytes(b"changed")
    assert run([*export, "--force"]) == 2
    assert paths[0].read_bytes() == before
    assert run([*export, "--force", "--skip-damaged", "--json"]) == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["bulk"], "Usage"),
        (["bulk", "p.csv"], "Missing option '--output' / '-o'"),
        (["bulk", "p.csv", "-o", "p.csv"], "'p.csv' cannot be a folder: a file is in its place."),
        (["bulk", "p.csv", "-o", "/proc/out"], "/proc/out"),
        (["bulk", "p.csv", "-o", ""], "is an empty text. Name a folder."),
        (["bulk", "p.csv", "-o", "out", "--run", ""], "is an empty text. Name a folder."),
        (["bulk", "p.xlsx", "-o", "out"], "no known extension. Give one of .csv"),
        (["bulk", "none.csv", "-o", "out"], "Cannot read 'none.csv' (No such file or directory)"),
        (["bulk", "status", "."], "holds no run"),
        (["bulk", "failures", "nowhere"], "holds no run"),
        (["bulk", "export", "nowhere", "-o", ""], "The output is an empty text."),
        (["bulk", "export", "nowhere", "-o", "x"], "holds no run"),
        (["bulk", "p.csv", "-o", "out", "--rpm", "nan"], "not a number"),
        (["bulk", "p.csv", "-o", "out", "--rpm", "inf"], "'--rpm': 'inf' is not a limit"),
        (["bulk", "p.csv", "-o", "out", "--ipm", "1e999"], "'--ipm': '1e999' is not a limit"),
    ],
)
def test_wrong_use(api: Api, args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names the problem and the remedy; nothing is made."""
    assert run(args) == 2
    captured = capsys.readouterr()
    assert words in " ".join((captured.err + captured.out).split())
    assert not Path("out").exists()
