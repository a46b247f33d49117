"""Our own backends pass the public contract, and the contract finds every planted bug."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing import BackendContract
from imgkit.wire.messages import BackendOptions
from tests.testing import planted_backend_bugs, planted_tls_bugs
from tests.testing.planted_backend_bugs import BACKEND_BUGS, BackendBug

# Each module adds its bugs to the table when it is imported.
MODULES = (planted_backend_bugs, planted_tls_bugs)
CONTRACT_TESTS = {name for name in dir(BackendContract) if name.startswith("test_")}


class TestRequests(BackendContract):
    def backend(self, options: BackendOptions) -> Any:
        return RequestsBackend(options)


class TestPlainHttp(BackendContract):
    test_uses_https_proxy = None  # type: ignore[assignment]
    test_verifies_https_proxy = None  # type: ignore[assignment]

    def backend(self, options: BackendOptions) -> Any:
        return PlainHttpBackend(options)


class TestAiohttp(BackendContract):
    def backend(self, options: BackendOptions) -> Any:
        return AiohttpBackend(options)


class Contract(BackendContract):
    """The contract of a backend class.

    Args:
        kind: the class.

    Attributes:
        backends: the backends that the tests have built.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.backends: list[Any] = []

    def backend(self, options: BackendOptions) -> Any:
        self.backends.append(self.kind(options))
        return self.backends[-1]


def list_arguments(test: Any) -> Iterator[dict[str, Any]]:
    """Yield the parametrized arguments of a contract's test."""
    axes = [[("flavor", flavor) for flavor in ("sync", "async")]] if "flavor" in get_names(test) else []
    for mark in getattr(test, "pytestmark", ()):
        axes.append([(mark.args[0], value) for value in mark.args[1]])
    return (dict(choice) for choice in itertools.product(*axes))


def get_names(test: Any) -> set[str]:
    return set(inspect.signature(test).parameters) - {"self"}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("bug", BACKEND_BUGS, ids=lambda bug: f"{bug.backend.__name__}-{bug.test}")
def test_finds_a_planted_bug(bug: BackendBug, request: pytest.FixtureRequest) -> None:
    """Fails the backend in the test of its bug, with a message that names the bug."""
    contract = Contract(bug.backend)
    test = getattr(BackendContract, bug.test)
    with pytest.raises((Exception, pytest.fail.Exception), match=f"(?s){bug.message}"):
        for arguments in list_arguments(test):
            fixtures = get_names(test) - arguments.keys()
            arguments |= {name: request.getfixturevalue(name) for name in fixtures}
            test(contract, **arguments)
    for backend in contract.backends:
        if isinstance(backend, RequestsBackend):
            RequestsBackend.close(backend)


def test_each_bug_has_a_reason() -> None:
    """Says in one line why each planted bug matters."""
    reasons = [bug.backend.__doc__ or "" for bug in BACKEND_BUGS]
    assert all(reason and "\n" not in reason for reason in reasons)


def test_each_contract_test_can_fail() -> None:
    """Has a planted bug for each test of the contract."""
    assert {bug.backend.__module__ for bug in BACKEND_BUGS} == {module.__name__ for module in MODULES}
    assert CONTRACT_TESTS - {bug.test for bug in BACKEND_BUGS} == set()
