"""Fixtures of all tests: no test sees the keys and proxies of whoever runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from tests.support.processes import _reap_processes as _reap_processes

FOREIGN = ("OPENAI_", "IMGKIT_", "AZURE_", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NETRC")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):  # what the command keeps for its user
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / name.lower()))


class Face:
    """One of the two services, driven the same way by a test."""

    def __init__(self, flavor: str) -> None:
        self.flavor = flavor

    def run(self, work: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        """Build a service, let `work` call it (it may return a coroutine), close it."""
        options.setdefault("retry", False)  # tests count what is sent; those of retries ask for them
        if self.flavor == "sync":
            with imgkit.ImageService(*args, **options) as service:
                return work(service)

        async def main() -> Any:
            async with imgkit.AsyncImageService(*args, **options) as service:
                return await work(service)

        return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def flavor(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture(params=["requests", "aiohttp"])
def http_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend
