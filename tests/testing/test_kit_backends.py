"""Our own backends pass the public contract, and each faulty backend fails the test about its fault."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.errors import ImgkitError
from imgkit.testing import BackendContract
from imgkit.wire.messages import BackendOptions
from tests.testing.faulty_backends import FAULTS


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


def list_arguments(test: Any) -> Iterator[dict[str, Any]]:
    """Yield the parametrized arguments of a contract's test."""
    axes = [[("flavor", flavor) for flavor in ("sync", "async")]] if "flavor" in get_names(test) else []
    for mark in getattr(test, "pytestmark", ()):
        axes.append([(mark.args[0], value) for value in mark.args[1]])
    return (dict(choice) for choice in itertools.product(*axes))


def get_names(test: Any) -> set[str]:
    return set(inspect.signature(test).parameters) - {"self"}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("faulty", FAULTS, ids=lambda faulty: faulty.__name__)
def test_contract_finds_fault(faulty: type[Any], request: pytest.FixtureRequest) -> None:
    """Fails a faulty backend in the test about its fault."""
    backends: list[Any] = []

    class FaultyContract(BackendContract):
        def backend(self, options: BackendOptions) -> Any:
            backends.append(faulty(options))
            return backends[-1]

    test = getattr(BackendContract, FAULTS[faulty])
    # A bug of the faulty backend itself, such as a TypeError, is no proof.
    with pytest.raises((AssertionError, pytest.fail.Exception, ImgkitError)):
        for arguments in list_arguments(test):
            fixtures = get_names(test) - arguments.keys()
            arguments |= {name: request.getfixturevalue(name) for name in fixtures}
            test(FaultyContract(), **arguments)
    for backend in backends:
        if isinstance(backend, RequestsBackend):
            RequestsBackend.close(backend)
