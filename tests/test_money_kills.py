"""Kill -9 in the middle of a paid call: nothing is lost, and nobody pays again unasked.

A forked process makes the call, on each backend, under each service, in each kind of call. The server counts.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import Budget, CachePlugin
from imgkit.default_plugins.spool import open_spool
from tests.conftest import ServiceRunner
from tests.support.event_streams import HEAD, chunk, completed
from tests.support.official import official
from tests.support.pictures import encoded
from tests.support.processes import TIMEOUT_S, kill_fork, start_fork
from tests.support.wire_server import Line, WireServer, head
from tests.test_money import BODY, CALLS, FIRST, SECOND, SECOND_STARTS, decode_sent, list_kept

MOMENTS = ("before the reply", "in the second image", "after the last image")
REPLY_HEAD = head(200, {"content-type": "application/json", "content-length": str(len(BODY))})
CUT = SECOND_STARTS + 4001
SECOND_CUT = completed(SECOND)[:4001]
SECOND_EVENT_STARTS = completed(SECOND).index(encoded(SECOND)[:40].encode())


class SendAndWait:
    """A script that sends a part of a reply and keeps the connection open.

    Attributes:
        is_sent: set when the part was sent.
    """

    def __init__(self, data: bytes) -> None:
        self.is_sent = threading.Event()
        self._data = data

    def __call__(self, line: Line) -> None:
        line.send(self._data)
        self.is_sent.set()
        line.until_client_leaves()


def build_reply(call: str, moment: str) -> tuple[bytes, list[bytes]]:
    """Return the bytes that the server sends before the kill, and the images in them."""
    if moment == "before the reply":
        return b"", []
    is_whole = moment == "after the last image"
    if call == "stream":
        second = SECOND if is_whole else decode_sent(SECOND_CUT[SECOND_EVENT_STARTS:])
        events = [completed(FIRST), completed(SECOND) if is_whole else SECOND_CUT]
        return HEAD + b"".join(map(chunk, events)), [FIRST, second]
    second = SECOND if is_whole else decode_sent(BODY[SECOND_STARTS:CUT])
    return REPLY_HEAD + BODY[: len(BODY) - 1 if is_whole else CUT], [FIRST, second]


def make_call(flavor: ServiceRunner, backend: str, call: str, server: WireServer, folder: Path) -> Any:
    """Make a call with all safety nets."""
    settings: dict[str, Any] = {
        "provider": official(server.base_url), "model": "gpt-image-2", "api_key": "sk-test-0123456789",
        "plugins": [Budget(usd=1, folder=folder / "budget"), CachePlugin(folder=folder / "cache")],
        "state_folder": folder, "retry": True,
    }  # fmt: skip
    return flavor.run(CALLS[call], backend, **settings)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", CALLS)
def test_killed_process(
    flavor: ServiceRunner, http_backend: str, call: str, moment: str, tmp_path: Path
) -> None:
    """Keeps every byte of a killed call, counts it as spent, and lets no equal call pay again unasked."""
    data, images = build_reply(call, moment)
    script = SendAndWait(data)
    with WireServer(script) as server:
        payer = start_fork(lambda: make_call(flavor, http_backend, call, server, tmp_path) is None)
        assert script.is_sent.wait(TIMEOUT_S)
        until = time.monotonic() + TIMEOUT_S
        while list_kept(tmp_path) != images and time.monotonic() < until:
            time.sleep(0.01)
        kill_fork(payer)
        kept = list_kept(tmp_path)
        assert kept == images
        assert Budget(usd=1, folder=tmp_path / "budget").spent > 0
        assert server.posts == 1
        if call != "stream":
            with pytest.raises(imgkit.OutcomeUnknownError) as caught:
                make_call(flavor, http_backend, call, server, tmp_path)
            records = [str(record.folder) for record in open_spool(tmp_path).list_replies()]
            assert caught.value.spool_path == (records[0] if records else None)
            assert list_kept(tmp_path) == kept
            assert server.posts == 1
