"""Nobody pays again for the request of a killed process, or because the disk of the cache is full."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin, OutcomeUnknownError
from imgkit.cache import flights
from imgkit.cache.folder import FolderStore
from imgkit.core.cached_send import _try_lease
from imgkit.core.operations import OperationFlows
from imgkit.core.recovery import find_lost_reply
from imgkit.default_plugins.spool import SpoolLedger, open_spool
from imgkit.plugins.protocols import Busy, Entry, Failure, Hit
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import PluginSource
from imgkit.runtime.flow import RunBlocking, SendRequest, advance
from tests.core.test_cached_send import MANY, SETTINGS, Gate, run_as_tasks, run_as_threads
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.processes import start_process
from tests.support.wire_server import Line, Script, WireServer, head, reply

BODY = {"created": 7, "data": [{"b64_json": encoded(noise(1)), "revised_prompt": "a red fox"}]}
PAYER = """
import os, signal, sys
import imgkit
from imgkit.default_plugins.spool import SpoolReservation
SpoolReservation.complete = lambda self: os.kill(os.getpid(), signal.SIGKILL)
state = sys.argv[2]
plugins = [imgkit.CachePlugin(folder=f"{state}/cache")]
with imgkit.ImageService("requests", base_url=sys.argv[1], api_key="sk-test-0123456789",
                         state_folder=state, plugins=plugins, retry=False) as service:
    service.create_image("a fox")
"""


def start_payer(server: WireServer, state: Path) -> subprocess.Popen[bytes]:
    """Start a process that pays for an image, and is killed when it has the whole reply."""
    return start_process([sys.executable, "-c", PAYER, server.base_url, str(state)])


def run_killed_payer(server: WireServer, state: Path) -> None:
    """Run a process that pays for an image and is killed before it has it."""
    assert start_payer(server, state).wait(50) == -signal.SIGKILL


def create(flavor: Any, server: WireServer, backend: str, state: Path, **call: Any) -> Any:
    """Create the image that the killed process paid for."""
    settings = {**SETTINGS, "base_url": server.base_url, "state_folder": state}
    settings["plugins"] = [CachePlugin(folder=state / "cache")]
    return flavor.run(lambda service: service.create_image("a fox", **call), backend, **settings)


def test_next_call_takes_the_reply_of_a_killed_process(
    flavor: Any, http_backend: str, tmp_path: Path
) -> None:
    """An equal call returns the spooled reply, stores it and sends nothing."""
    body = json.dumps(BODY).encode()
    whole = head(200, {"content-length": str(len(body)), "x-request-id": "req_lost"}) + body
    with WireServer(lambda line: line.send(whole)) as server:
        run_killed_payer(server, tmp_path)
        (record,) = open_spool(tmp_path).list_replies()
        assert record.state == "orphaned"
        for _ in range(2):
            response = create(flavor, server, http_backend, tmp_path)
            assert (response[0].data, response[0].revised_prompt) == (noise(1), "a red fox")
            assert (response.meta.cached, response.meta.request_id) == (True, "req_lost")
            assert response.warnings == ()
        assert server.posts == 1
    assert open_spool(tmp_path).list_replies() == []


def test_only_mode_takes_the_reply_of_a_killed_process(
    flavor: Any, http_backend: str, tmp_path: Path
) -> None:
    """A call with cache="only" returns the spooled reply too."""
    with WireServer(reply(200, BODY)) as server:
        run_killed_payer(server, tmp_path)
        assert create(flavor, server, http_backend, tmp_path, cache="only")[0].data == noise(1)
        assert server.posts == 1


def test_refresh_pays_and_keeps_the_lost_reply(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """A refresh after the death of a process makes a new image; the old one stays recoverable."""
    with WireServer(reply(200, BODY)) as server:
        run_killed_payer(server, tmp_path)
        assert not create(flavor, server, http_backend, tmp_path, cache="refresh").meta.cached
        assert server.posts == 2
    assert len(open_spool(tmp_path).list_replies()) == 1


def test_unfinished_reply_of_a_killed_process(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Waiting calls report an unknown outcome with the path of the part; the next call pays."""
    asked = threading.Event()

    def send_part(line: Any) -> None:
        body = b'{"data": [{"b64_json": "' + encoded(noise(1)).encode()
        line.send(head(200, {"content-length": str(len(body) + 9)}) + body[:-9])
        asked.set()
        line.until_client_leaves()

    with WireServer(send_part, reply(200, BODY)) as server:
        payer = start_payer(server, tmp_path)
        assert asked.wait(30)
        while not any(path.stat().st_size > 1000 for path in tmp_path.glob("spool/*/0.part")):
            assert payer.poll() is None
        payer.send_signal(signal.SIGKILL)
        payer.wait(20)
        (record,) = open_spool(tmp_path).list_replies()
        with pytest.raises(imgkit.CacheMissError):
            create(flavor, server, http_backend, tmp_path, cache="only")
        with pytest.raises(OutcomeUnknownError, match="imgkit recover") as caught:
            create(flavor, server, http_backend, tmp_path)
        assert caught.value.spool_path == str(record.folder)
        assert server.posts == 1
        assert create(flavor, server, http_backend, tmp_path)[0].data == noise(1)
        assert server.posts == 2
    assert [kept.id for kept in open_spool(tmp_path).list_replies()] == [record.id]


def test_many_waiting_calls_share_the_lost_outcome(tmp_path: Path) -> None:
    """Calls that wait for a killed process get one error each, and none of them pays."""
    asked, goes = threading.Event(), threading.Event()

    def script(line: Any) -> None:
        asked.set()
        goes.wait(30)

    settings: dict[str, Any] = {**SETTINGS, "api_key": "sk-test-0123456789", "state_folder": tmp_path}
    errors: list[Any] = []
    with WireServer(script, reply(200, BODY)) as server:
        payer = start_payer(server, tmp_path)
        assert asked.wait(30)

        def wait_for_payer(service: Any) -> None:
            with pytest.raises(OutcomeUnknownError) as caught:
                service.create_image("a fox")
            errors.append(caught.value)

        services = [
            imgkit.ImageService(
                "requests",
                base_url=server.base_url,
                plugins=[CachePlugin(folder=tmp_path / "cache")],
                **settings,
            )
            for _ in range(2)
        ]
        threads = [threading.Thread(target=wait_for_payer, args=(service,)) for service in services * 3]
        for thread in threads:
            thread.start()
        payer.send_signal(signal.SIGKILL)
        payer.wait(20)
        goes.set()
        for thread in threads:
            thread.join(30)
        for service in services:
            service.close()
        assert server.posts == 1
    assert len(errors) == 6


def test_lease_says_sent_only_while_it_may_be_billed(tmp_path: Path) -> None:
    """The lease of a call is marked before its request goes out, and unmarked by a free failure."""
    store = FolderStore(tmp_path)
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=[CachePlugin(store)])
    flow = OperationFlows(service._core).create_image("a fox")
    effect = advance(flow, None)
    while not isinstance(effect, SendRequest):
        assert isinstance(effect, RunBlocking)
        effect = advance(flow, effect.fn())
    (path,) = (tmp_path / "v2" / "leases").iterdir()
    assert path.read_text().endswith("-1")
    flow.close()
    service.close()
    key = path.stem
    first = store.try_lease(key)
    assert isinstance(first, imgkit.plugins.Lease)
    assert first.lost_attempt == ""
    store.mark_sent(first, "call-1")
    store.mark_sent(first, "")
    store._leases._locks.clear()  # the process dies
    second = store.try_lease(key)
    assert isinstance(second, imgkit.plugins.Lease)
    assert (second.lost_attempt, second.holder == first.holder) == ("", False)
    store.mark_sent(second, "call-2")
    store._leases._locks.clear()
    assert not store.list_keys()
    assert store.remove(key)
    for _ in range(2):
        third = store.try_lease(key)
        assert isinstance(third, imgkit.plugins.Lease)
        assert (third.lost_attempt, third.holder) == ("call-2", second.holder)
        third.close()


def await_all(script: Script) -> Script:
    """Return a script that replies when MANY calls are under way."""

    def wait(line: Line) -> None:
        while sum(flight._calls for flight in list(flights._FLIGHTS.values())) < MANY:
            time.sleep(0.005)
        script(line)

    return wait


class FullDisk(FolderStore):
    """A store whose disk is full from a given step on."""

    full_at = ""

    def _check(self, step: str) -> None:
        if step == self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def try_lease(self, key: str, **more: Any) -> Any:
        self._check("lease")
        return super().try_lease(key, **more)

    def mark_sent(self, lease: Any, attempt: str) -> None:
        self._check("mark")
        super().mark_sent(lease, attempt)

    def _write_entry(self, key: str, entry: Any) -> Any:
        self._check("commit")
        return super()._write_entry(key, entry)


@pytest.mark.parametrize("at_once", [run_as_threads, run_as_tasks])
@pytest.mark.parametrize("full_at", ["lease", "mark", "commit"])
def test_single_flight_on_a_full_disk(at_once: Any, http_backend: str, tmp_path: Path, full_at: str) -> None:
    """One call pays for all calls of a process also when the cache cannot write."""
    store = FullDisk(tmp_path)
    store.full_at = full_at
    gate = Gate(await_all(reply(200, answer())))
    with WireServer(gate) as server:
        results = at_once(server, http_backend, gate, plugins=[CachePlugin(store)])
        assert server.posts == 1
    assert [result[0].data for result in results] == [picture()] * MANY
    assert sum(result.meta.cached for result in results) == MANY - 1
    warned = [result for result in results if any("No space left" in text for text in result.warnings)]
    assert len(warned) == (MANY if full_at == "lease" else 1)


def test_failed_commit_ends_waiting_processes(tmp_path: Path) -> None:
    """A process that waits for a call whose images cannot be stored learns of it, and does not pay."""
    store, other = FullDisk(tmp_path), FolderStore(tmp_path)
    store.full_at = "commit"
    waited_for = ""

    def script(line: Line) -> None:
        nonlocal waited_for
        (path,) = (tmp_path / "v2" / "leases").iterdir()
        busy = other.try_lease(path.stem)
        assert isinstance(busy, imgkit.plugins.Busy)
        waited_for = busy.holder
        reply(200, answer())(line)

    with WireServer(script) as server, imgkit.ImageService(
        "requests", base_url=server.base_url, plugins=[CachePlugin(store)], **SETTINGS
    ) as service:  # fmt: skip
        (warning,) = service.create_image("a fox").warnings
    assert "No space left" in warning
    failures = [path.stem for path in (tmp_path / "v2" / "failures").iterdir()]
    assert failures == [waited_for]


@pytest.mark.parametrize("full_at", ["lease", "commit"])
def test_failure_is_shared_on_a_full_disk(http_backend: str, tmp_path: Path, full_at: str) -> None:
    """Calls that wait for a failed one get its error also when the cache cannot write."""
    store = FullDisk(tmp_path)
    store.full_at = full_at
    gate = Gate(await_all(reply(200, {"data": []})))
    with WireServer(gate) as server:
        results = run_as_threads(server, http_backend, gate, plugins=[CachePlugin(store)])
        assert server.posts == 1
    assert {type(result) for result in results} == {imgkit.EmptyResultError}


def test_an_entry_that_arrives_meanwhile_outweighs_the_failure_of_the_store(tmp_path: Path) -> None:
    """A call that asks a store while the payer's commit fails takes the payer's entry."""
    entry = Entry({}, (picture(),), time.time())

    class Late(FolderStore):
        def try_lease(self, key: str, **options: Any) -> Any:
            flight.end(entry)
            return Busy("someone", Failure("OutcomeUnknownError", "not stored"))

    store = Late(tmp_path)
    flight = flights.join_flight(store, "a1")
    found = _try_lease(Resource(PluginSource("a test"), store), "a1", None, "someone", flight)
    flight.leave()
    assert found == Hit(entry)


def test_a_lost_reply_without_facts(tmp_path: Path) -> None:
    """A whole reply counts as a success, also if a crash of the machine has taken the facts beside it."""
    spool = open_spool(tmp_path)
    record = spool.new("0123456789ab-1", {"status": 200, "request_id": "req_1"})
    record.write("reply", json.dumps(BODY).encode())
    record.keep("x")
    (record.folder / "call.json").unlink()
    ledger = Resource[Any](PluginSource("a test"), SpoolLedger(spool, None))
    lost = find_lost_reply([ledger], "0123456789abcdef-1")
    assert (lost.head.status, lost.head.request_id) == (200, None)
    assert lost.decoded is not None
    assert lost.decoded.pictures[0].data == noise(1)
