"""Fixtures of all tests: both services, the HTTP backends, a clean environment, child processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import imgkit
from tests.support.processes import _reap_processes as _reap_processes

FOREIGN = (
    "ACME_",
    "OPENAI_",
    "IMGKIT_",
    "AZURE_",
    "AWS_",
    "OTEL_",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "NETRC",
)

APART = {"integrations", "browser"}
"""Folders of tests that need more than the environment of `make test`."""

# On a busy machine, examples may take longer than Hypothesis allows.
settings.register_profile("imgkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("imgkit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave some folders to a `make` target of their name, whose environment has their packages."""
    is_apart = collection_path.parent == Path(__file__).parent and collection_path.name in APART
    asked = any(f"tests/{collection_path.name}" in argument for argument in config.args)
    return True if is_apart and not asked else None


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the keys, proxies and folders of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # The command writes state and cache files for its user.
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / name.lower()))


class ServiceRunner:
    """A runner of the same test code under the sync or the async service.

    Attributes:
        flavor: "sync" or "async".
    """

    def __init__(self, flavor: str) -> None:
        self.flavor = flavor

    def run(self, work: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        """Create a service, return the result of `work(service)`, and close the service.

        Args:
            work: Takes the service; returns a result, or a coroutine under the async service.
            args, options: Arguments of the service; retries are off by default.
        """
        # Most tests count requests; tests of retries turn them on.
        options.setdefault("retry", False)
        if self.flavor == "sync":
            with imgkit.ImageService(*args, **options) as service:
                return work(service)

        async def main() -> Any:
            async with imgkit.AsyncImageService(*args, **options) as service:
                return await work(service)

        return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def flavor(request: pytest.FixtureRequest) -> ServiceRunner:
    """A runner of the sync service, then of the async service."""
    return ServiceRunner(request.param)


@pytest.fixture(params=["requests", "aiohttp"])
def http_backend(request: pytest.FixtureRequest) -> str:
    """The name of an HTTP backend."""
    return str(request.param)
