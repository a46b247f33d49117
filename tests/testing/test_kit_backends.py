"""Our own backends pass the public contract, and faulty backends fail it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing import BackendContract
from imgkit.wire.messages import BackendOptions
from tests.support.processes import run_process

ALL = frozenset({"unsent", "connect timeout", "reuse", "proxy", "early refusal"})


class TestRequests(BackendContract):
    capabilities = ALL

    def backend(self, options: BackendOptions) -> Any:
        return RequestsBackend(options)


class TestAiohttp(BackendContract):
    capabilities = ALL

    def backend(self, options: BackendOptions) -> Any:
        return AiohttpBackend(options)


MUTANT = '''
from dataclasses import replace
import requests
from imgkit.backends.requests import RequestsBackend
from imgkit.testing import BackendContract
from imgkit.wire.transfer import Transfer
from imgkit.wire.messages import BackendOptions

class Wrapped:
    """A wrapper of another reply."""
    def __init__(self, reply):
        self.head, self._reply = reply.head, reply
    def read(self):
        return self._reply.read()
    def close(self):
        self._reply.close()

class Mutant(RequestsBackend):
{body}

class TestMutant(BackendContract):
    capabilities = frozenset({{"unsent", "reuse", "proxy", "early refusal"}})
    def backend(self, options):
        return Mutant(options)
'''

MUTANTS = {
    "sends again": ('''
    def open(self, request, transfer):
        try:
            return super().open(request, transfer)
        except requests.ConnectionError:
            return super().open(request, transfer)
''', "test_maps_faults_to_errors"),
    "follows redirects": ('''
    def open(self, request, transfer):
        reply = super().open(request, transfer)
        if reply.head.status in (307, 308):
            return super().open(replace(request, url=reply.head.headers["location"]), transfer)
        return reply
''', "test_follows_no_redirect"),
    "loses the last bytes": ('''
    def open(self, request, transfer):
        class Short(Wrapped):
            def read(self):
                return self._reply.read()[:-1]
        return Short(super().open(request, transfer))
''', "test_sends_request_as_is"),
    "ignores an early end": ('''
    def open(self, request, transfer):
        class IgnoresErrors(Wrapped):
            def read(self):
                try:
                    return self._reply.read()
                except Exception:
                    return b""
        return IgnoresErrors(super().open(request, transfer))
''', "test_maps_faults_to_errors"),
    "waits for the whole body": ('''
    def open(self, request, transfer):
        class ReadsWholeBody(Wrapped):
            def read(self):
                return b"".join(iter(self._reply.read, b""))
        return ReadsWholeBody(super().open(request, transfer))
''', "test_yields_each_chunk_at_once"),
    "reports sent requests as not sent": ('''
    unsent_errors = (requests.ConnectionError,)
    def open(self, request, transfer):
        transfer.mark_sent = lambda: None
        return super().open(request, transfer)
''', "test_maps_faults_to_errors"),
    "ignores the deadline": ('''
    def open(self, request, transfer):
        own = Transfer(5, 5, 5)
        self.transfers = getattr(self, "transfers", []) + [own]
        return super().open(request, own)
''', "test_total_deadline"),
    "logs the key": ('''
    def open(self, request, transfer):
        import logging
        logging.getLogger("mine").debug("sending %s", dict(request.headers))
        return super().open(request, transfer)
''', "test_sends_request_as_is"),
    "reads the environment": ('''
    def open(self, request, transfer):
        import os
        if os.environ.get("HTTP_PROXY"):
            self._options = replace(self._options, proxy=os.environ["HTTP_PROXY"])
        return super().open(request, transfer)
''', "test_ignores_the_environment"),
    "keeps connections": ('''
    def __init__(self, options):
        super().__init__(replace(options, reuse_connections=True))
''', "test_connection_reuse"),
    "adds a header": ('''
    def open(self, request, transfer):
        more = {**request.headers, "accept-encoding": "gzip"}
        return super().open(replace(request, headers=more), transfer)
''', "test_sends_request_as_is"),
    "decodes URLs": ('''
    def open(self, request, transfer):
        return super().open(replace(request, url=request.url.replace("%3A", ":")), transfer)
''', "test_sends_urls_byte_for_byte"),
    "folds URLs": ('''
    def open(self, request, transfer):
        return super().open(replace(request, url=request.url.replace("/c/..", "")), transfer)
''', "test_sends_urls_byte_for_byte"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_contract_can_fail(mutant: str, tmp_path: Path) -> None:
    """Fails a faulty backend in the test about its fault."""
    body, test = MUTANTS[mutant]
    path = tmp_path / "test_mutant.py"
    path.write_text(MUTANT.format(body=body))
    options = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--rootdir",
        str(tmp_path),
        "-c",
        "/dev/null",
    ]
    completed = run_process(
        [sys.executable, "-m", "pytest", *options, str(path), "-k", test],
        capture_output=True, text=True, timeout=30, cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert completed.returncode == 1, completed.stdout[-2000:]
    assert f"::{test}" in completed.stdout
