"""Input images that rows of a run share: opened, hashed and uploaded once, and noticed when they change."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import files
from imgkit.bulk import shared_inputs
from imgkit.bulk.shared_inputs import SharedInputs
from imgkit.core import job_requests
from imgkit.images import inputs
from imgkit.images.inputs import ImageFile
from imgkit.pace import pace
from imgkit.plugins import hookimpl
from imgkit.plugins.events import Started
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.fakes import FakeReply, FakeRequest
from imgkit.testing.wire_server import serve_fake
from tests.bulk.test_bulk import carry_out
from tests.conftest import ServiceRunner
from tests.support.pictures import noise, picture
from tests.support.processes import TIMEOUT_S, run_in_fork

ROWS = 8
UPLOAD = "POST /upload/image"
_opened: list[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


@pytest.fixture(scope="module")
def _hook() -> None:
    """Add an audit hook, which Python never removes."""
    sys.addaudithook(_note_open)


@pytest.fixture
def opened(_hook: None) -> Iterator[list[str]]:
    """The paths of all files that this process opens."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[BufferedReader]:
    """The input files that were opened."""
    found: list[BufferedReader] = []

    def open_and_note(path: str) -> BufferedReader:
        found.append(real(path))
        return found[-1]

    real = files.open_regular_file
    monkeypatch.setattr(inputs, "open_regular_file", open_and_note)
    return found


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """An image file."""
    path = tmp_path / "reference.png"
    path.write_bytes(noise(1))
    return path


class Rows(FakeComfyUI):
    """The fake of ComfyUI, as a plugin too: it answers the first upload once some calls have started."""

    def __init__(self, calls: int, on_submit: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._missing = calls
        self._ready = threading.Event()
        self._on_submit = on_submit

    @hookimpl
    def imgkit_on_event(self, event: object) -> None:
        """Count a call that starts."""
        if isinstance(event, Started):
            self._missing -= 1
            if self._missing <= 0:
                self._ready.set()

    def handle(self, request: FakeRequest) -> FakeReply:
        """Answer a request."""
        assert self._ready.wait(TIMEOUT_S)
        if request.path == "/prompt":
            self._on_submit()
        return super().handle(request)


def edit_all(
    api: Rows, flavor: ServiceRunner, backend: str, requests: Any, folder: Path, **options: Any
) -> None:
    """Carry out a run of edits."""
    with serve_fake(api) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", 0.01)
        patch.setattr(pace, "FIRST_IN_FLIGHT", ROWS)
        settings = {"provider": "comfyui", "base_url": server.origin, "model": "a.safetensors"}
        more = {**settings, "plugins": [api], "state_folder": folder / "state", **options}
        outcomes, _ = carry_out(flavor, requests, folder / "out", backend, **more)
    assert {outcome.state for outcome in outcomes} == {"done"}, outcomes


@pytest.mark.parametrize("is_list", [True, False])
def test_rows_share_a_reference(
    flavor: ServiceRunner,
    http_backend: str,
    tmp_path: Path,
    reference: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_list: bool,
) -> None:
    """Eight rows in flight open, hash and upload their reference image once."""
    hashed: list[str] = []
    build = ImageFile.__init__

    def hash_and_note(file: ImageFile, *arguments: Any) -> None:
        build(file, *arguments)
        hashed.append(file.sha256)

    monkeypatch.setattr(ImageFile, "__init__", hash_and_note)
    rows = [{"image": str(reference), "prompt": f"hat {number}"} for number in range(ROWS)]
    api = Rows(ROWS)
    edit_all(api, flavor, http_backend, rows if is_list else iter(rows), tmp_path, most_in_flight=ROWS)
    assert (api.count[UPLOAD], api.count["POST /prompt"]) == (1, ROWS)
    assert opened.count(str(reference)) == 1
    assert hashed == [sha256(noise(1)).hexdigest()]


def test_a_reference_that_changes(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, reference: Path, opened: list[str]
) -> None:
    """A row that starts after the file has changed uploads the new bytes."""
    contents = [noise(2), noise(2)]

    def change() -> None:
        if contents:
            reference.write_bytes(contents.pop())
            os.utime(reference, (10**9, 10**9 + len(contents)))

    rows = [{"image": str(reference), "prompt": f"hat {number}"} for number in range(4)]
    api = Rows(1, change)
    edit_all(api, flavor, http_backend, rows, tmp_path, most_in_flight=1)
    assert [form["image"] for form in api.files.values()] == [noise(1), noise(2)]
    # Writing it, and reading it again each time.
    assert opened.count(str(reference)) == 5


@pytest.fixture
def shared() -> Iterator[SharedInputs]:
    """The input images of a run."""
    made = SharedInputs()
    yield made
    made.close()


def replace_file(path: Path) -> None:
    """Put another file in the place of one, with its size and its time."""
    status = path.stat()
    other = path.with_name("other.png")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "opens"),
    [
        (lambda path: None, 1),
        (lambda path: os.utime(path, (10**9, 10**9)), 2),
        (replace_file, 2),
        (lambda path: path.write_bytes(noise(3, 24)), 2),
    ],
    ids=["unchanged", "newer", "replaced", "rewritten"],
)
def test_the_status_tells_a_change(
    shared: SharedInputs,
    reference: Path,
    streams: list[BufferedReader],
    change: Callable[[Path], object],
    opens: int,
) -> None:
    """A file is opened anew if its status has changed, and the earlier one is closed with its last row."""
    with ExitStack() as first, ExitStack() as second:
        before = shared.open_file(str(reference), "image", first)
        change(reference)
        now = shared.open_file(str(reference), "mask", second)
        assert (before.field, now.field, len(streams)) == ("image", "mask", opens)
        assert isinstance(now, ImageFile)
        assert now.sha256 == sha256(reference.read_bytes()).hexdigest()
        assert now.read() == reference.read_bytes()
        first.close()
        assert [stream.closed for stream in streams] == [True] * (opens - 1) + [False]
    shared.close()
    assert all(stream.closed for stream in streams)


def test_few_files_stay_open(
    shared: SharedInputs, tmp_path: Path, streams: list[BufferedReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closes the file that was used least recently, but none that a row still uses."""
    monkeypatch.setattr(shared_inputs, "MAX_OPEN_FILES", 2)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    with ExitStack() as in_use:
        for path in paths:
            path.write_bytes(picture())
            with ExitStack() as cleanup:
                shared.open_file(str(path), "image", in_use if path == paths[0] else cleanup)
        assert [stream.closed for stream in streams] == [False, True, False, False]
        shared.close()
        assert [stream.closed for stream in streams] == [False, True, True, True]
    assert all(stream.closed for stream in streams)


def test_no_failure_is_remembered(
    shared: SharedInputs, reference: Path, streams: list[BufferedReader]
) -> None:
    """Each row is told of its own field that the file is no image, and a mended file is found."""
    reference.write_bytes(noise(1)[:-20])
    with ExitStack() as cleanup:
        for field in ("image", "mask"):
            with pytest.raises(imgkit.InvalidRequestError, match=f"{field}: The file is a png image that is"):
                shared.open_file(str(reference), field, cleanup)
        reference.write_bytes(noise(1))
        shared.open_file(str(reference), "image", cleanup)
    assert [stream.closed for stream in streams] == [True, True, False]


@pytest.mark.parametrize("value", ["missing.png", "a\0b", ".", "data:;base64,R0lGODlhAQ", b"GIF89a"])
def test_other_inputs_are_opened_as_before(shared: SharedInputs, value: Any) -> None:
    """An input that is no path of a file gets the error of a single call."""
    problems = []
    for open_input in (shared.open_file, inputs.open_file):
        with ExitStack() as cleanup:
            try:
                file = open_input(value, "image", cleanup)
            except imgkit.InvalidRequestError as error:
                problems.append(str(error))
            else:
                problems.append(str(type(file)))
    assert problems[0] == problems[1]


def test_a_failure_to_read_names_the_field(
    shared: SharedInputs, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while a row reads a shared file is an error of the field of this row."""

    def fail(*arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    with ExitStack() as cleanup:
        shared.open_file(str(reference), "image", cleanup)
        mask = shared.open_file(str(reference), "mask", cleanup)
        monkeypatch.setattr(inputs, "_read_descriptor", fail)
        with pytest.raises(imgkit.InvalidRequestError, match=r"mask: Cannot read '.*png': Input/output"):
            mask.read()


def test_a_forked_child_closes_its_files(shared: SharedInputs, reference: Path) -> None:
    """A child waits for no thread of its parent when it closes the files that it inherits."""
    cleanup = ExitStack()
    shared.open_file(str(reference), "image", cleanup)

    def close() -> bool:
        cleanup.close()
        return True

    with shared._guard:
        assert run_in_fork(close) == 0
    cleanup.close()
