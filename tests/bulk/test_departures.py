"""Requests that were about to leave when their process was killed: the log tells that they never did."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.bulk import departures
from imgkit.bulk.departures import FILE, Departures
from imgkit.bulk.row_values import BulkRow
from imgkit.core.context import SentPart
from imgkit.errors import NotSentError
from imgkit.runtime.bridges import LoopBackend, ThreadBackend
from imgkit.runtime.driver import note_leaving
from imgkit.runtime.flow import SendRequest
from imgkit.testing.wire_server import serve_fake
from imgkit.wire.messages import BackendOptions, BytesBody, HttpRequest
from imgkit.wire.transfer import DriverTransfer
from tests.bulk.test_bulk_recovery import Parts, kill_run, list_indexes, run_parts


@pytest.fixture(autouse=True)
def boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with the id of the time since the machine started, on all systems."""
    path = tmp_path / "boot_id"
    path.write_text("boot-1\n")
    monkeypatch.setattr(departures, "BOOT_ID", path)
    return path


def restart(path: Path, log: Path) -> None:
    """Restart the machine."""
    path.write_text("boot-2\n")


def forget(path: Path, log: Path) -> None:
    """Find no id of the time since the machine started."""
    path.unlink()


def lose(path: Path, log: Path) -> None:
    """Lose the log."""
    log.unlink()


def replace(path: Path, log: Path) -> None:
    """Find the log of another process."""
    log.write_text("00000000 boot-1\n")


@pytest.mark.parametrize(
    ("place", "change", "is_proof"),
    [
        ("core.send.send_request", None, True),
        ("core.send.send_request", restart, False),
        ("core.send.send_request", forget, False),
        ("core.send.send_request", lose, False),
        ("core.send.send_request", replace, False),
        ("core.send.read_response", None, False),
    ],
    ids=["unsent", "restarted", "no id", "no log", "other log", "sent"],
)
def test_a_kill_before_a_request_leaves(
    place: str, change: Callable[[Path, Path], None] | None, is_proof: bool, boot_id: Path, tmp_path: Path
) -> None:
    """A request that never left is sent by the next run; without proof, its row is unknown."""
    api, log = Parts(), tmp_path / "out" / FILE
    with serve_fake(api) as server:
        kill_run(server, tmp_path, place)
        posts = len(api.bodies)
        assert log.exists()
        if change is not None:
            change(boot_id, log)
        _, run = run_parts(server, tmp_path)
    assert run.counts["done" if is_proof else "unknown"] == 1
    assert not log.exists()
    if is_proof:
        assert (posts, len(api.bodies)) == (0, 3)
        assert list_indexes(tmp_path) == [0, 1, 2]


def test_a_disk_that_takes_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot be written is removed; if that fails, too, nothing is sent."""
    log, part = Departures(tmp_path), SentPart("call", 1, 0, 1)
    log.begin()
    rows = [BulkRow(1, "a", "sending", {}, {"log": log.token, "sent": [list(part)]})]
    assert log.find_unsent(rows) == {1: [part]}
    log.note(part)
    assert log.find_unsent(rows) == {1: []}
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: 3)
        full.setattr(Path, "unlink", lambda path, missing_ok: path.rmdir())
        with pytest.raises(NotSentError, match="Cannot write departures.log"):
            log.note(part)
        full.undo()
        full.setattr(os, "write", lambda descriptor, data: 3)
        log.note(part)
    assert not (tmp_path / FILE).exists()
    assert log.find_unsent(rows) == {}
    log.close()


class Wrapped(RequestsBackend):
    """A backend that may send in another way."""


def test_who_tells_when_a_request_leaves() -> None:
    """Backends that mark a transfer before a request leaves are trusted with that, and no others."""
    options = BackendOptions()
    effect = SendRequest(
        HttpRequest("POST", "http://127.0.0.1:1", {}, BytesBody(b"")), lambda: calls.append(1)
    )
    own: list[Any] = [RequestsBackend(options), AiohttpBackend(options)]
    own += [LoopBackend(own[1]), ThreadBackend(own[0], lambda: pytest.fail("no thread"))]
    for backend in own:
        calls: list[int] = []
        transfer = DriverTransfer(1.0, 1.0, 1.0)
        note_leaving(effect, backend, transfer)
        assert calls == []
        transfer.mark_sent()
        transfer.mark_sent()
        assert calls == [1]
    for backend in (Wrapped(options), ThreadBackend(Wrapped(options), lambda: pytest.fail("no")), object()):
        calls = []
        note_leaving(effect, backend, DriverTransfer(1.0, 1.0, 1.0))
        assert calls == [1]
