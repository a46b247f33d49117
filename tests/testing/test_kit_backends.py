"""imgkit's own backends under the contract that strangers get, and proof that the contract can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing import BackendContract
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions
from tests.support.processes import run_process

ALL = frozenset({"unsent", "connect timeout", "reuse", "proxy", "early refusal"})


class TestRequests(BackendContract):
    capabilities = ALL

    def backend(self, options: BackendOptions) -> Backend:
        return RequestsBackend(options)


class TestAiohttp(BackendContract):
    capabilities = ALL

    def backend(self, options: BackendOptions) -> AsyncBackend:
        return AiohttpBackend(options)


MUTANT = '''
from dataclasses import replace
import requests
from imgkit.backends.requests import RequestsBackend
from imgkit.testing import BackendContract
from imgkit.wire.transfer import Transfer
from imgkit.wire.messages import BackendOptions

class Wrapped:
    """A reply of another one."""
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
''', "test_faults"),
    "follows redirects": ('''
    def open(self, request, transfer):
        reply = super().open(request, transfer)
        if reply.head.status in (307, 308):
            return super().open(replace(request, url=reply.head.headers["location"]), transfer)
        return reply
''', "test_no_redirects"),
    "loses the last bytes": ('''
    def open(self, request, transfer):
        class Short(Wrapped):
            def read(self):
                return self._reply.read()[:-1]
        return Short(super().open(request, transfer))
''', "test_a_call"),
    "takes an early end for the end": ('''
    def open(self, request, transfer):
        class Deaf(Wrapped):
            def read(self):
                try:
                    return self._reply.read()
                except Exception:
                    return b""
        return Deaf(super().open(request, transfer))
''', "test_faults"),
    "waits for all of it": ('''
    def open(self, request, transfer):
        class Patient(Wrapped):
            def read(self):
                return b"".join(iter(self._reply.read, b""))
        return Patient(super().open(request, transfer))
''', "test_what_arrives_is_read"),
    "says that nothing was sent": ('''
    unsent_errors = (requests.ConnectionError,)
''', "test_faults"),
    "knows no deadline": ('''
    def open(self, request, transfer):
        own = Transfer(5, 5, 5)
        self.kept = getattr(self, "kept", []) + [own]
        return super().open(request, own)
''', "test_the_deadline"),
    "logs the key": ('''
    def open(self, request, transfer):
        import logging
        logging.getLogger("mine").debug("sending %s", dict(request.headers))
        return super().open(request, transfer)
''', "test_a_call"),
    "reads the environment": ('''
    def open(self, request, transfer):
        import os
        if os.environ.get("HTTP_PROXY"):
            self._options = replace(self._options, proxy=os.environ["HTTP_PROXY"])
        return super().open(request, transfer)
''', "test_the_environment"),
    "keeps connections": ('''
    def __init__(self, options):
        super().__init__(replace(options, reuse_connections=True))
''', "test_connections"),
    "adds a header": ('''
    def open(self, request, transfer):
        more = {**request.headers, "accept-encoding": "gzip"}
        return super().open(replace(request, headers=more), transfer)
''', "test_a_call"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_contract_can_fail(mutant: str, tmp_path: Path) -> None:
    """A backend with one fault fails the test that is about it."""
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
    done = run_process(
        [sys.executable, "-m", "pytest", *options, str(path), "-k", test],
        capture_output=True, text=True, timeout=55, cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-2000:]
    assert f"::{test}" in done.stdout
