"""The common part of the contracts of a backend: services around it, and its capabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from imgkit.testing import canary
from imgkit.testing.wire_server import WireServer
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions, HttpRequest
from imgkit.wire.transfer import DriverTransfer

MAX_DELAY_S = 4.0
"""Seconds within which a call must end after a short time limit, even on a busy machine."""


class BackendHarness:
    """The functions and fixtures of a backend's contract; see `imgkit.testing.BackendContract`."""

    @pytest.fixture(params=["sync", "async"])
    def flavor(self, request: pytest.FixtureRequest) -> str:
        """The service: "sync" or "async"."""
        return str(request.param)

    def backend(self, options: BackendOptions) -> Backend | AsyncBackend:
        """Return a new backend."""
        raise NotImplementedError("Override backend() to return the backend under test.")

    def declared_capabilities(self) -> frozenset[str]:
        """Return the attribute ``capabilities`` of the backend's class, an empty set if there is none."""
        return frozenset(getattr(type(self.backend(BackendOptions())), "capabilities", ()))

    def can(self, *capabilities: str) -> bool:
        """Return whether the backend declares all of these capabilities."""
        return frozenset(capabilities) <= self.declared_capabilities()

    def require(self, *capabilities: str) -> None:
        """Skip the test unless the backend declares all of these capabilities."""
        if not self.can(*capabilities):
            pytest.skip(f"The backend does not declare {' and '.join(map(repr, capabilities))}.")

    def run(
        self,
        flavor: str,
        base_url: str,
        *calls: Callable[[Any], Any],
        options: BackendOptions | None = None,
        **settings: Any,
    ) -> list[Any]:
        """Make calls in turn with a new service; return their results.

        Args:
            flavor: "sync" or "async".
            base_url: Base URL of the service.
            calls: Functions of the service, such as ``lambda service: service.create_image("a fox")``.
            options: Options of the backend; the defaults if None.
            settings: Further arguments of the service.
        """
        arguments = {
            "backend": settings.pop("backend", None) or self.backend(options or BackendOptions()),
            "base_url": base_url, "api_key": canary.KEY, "timeout_s": 10, "retry": False, **settings,
        }  # fmt: skip
        if flavor == "sync":
            with imgkit.ImageService(**arguments) as service:
                return [call(service) for call in calls]

        async def main() -> list[Any]:
            async with imgkit.AsyncImageService(**arguments) as service:
                return [await call(service) for call in calls]

        return asyncio.run(main())

    def create(self, flavor: str, server: WireServer, prompt: str = "a fox", **settings: Any) -> Any:
        """Make a single call against the server; return its response."""
        (result,) = self.run(
            flavor, server.base_url, lambda service: service.create_image(prompt), **settings
        )
        return result

    def fail(self, flavor: str, base_url: str, **settings: Any) -> imgkit.TransportError:
        """Make a single call that cannot connect; return its error, which must not contain the key.

        A backend with the capability "unsent" must prove that nothing was sent.
        """
        with pytest.raises(imgkit.TransportError) as caught:
            self.run(flavor, base_url, call_once, **settings)
        error = caught.value
        is_proof = isinstance(error, imgkit.NotSentError) or not self.can("unsent")
        assert is_proof, f"Nothing was sent, but the error is no NotSentError: {error}"
        assert canary.find_secret(error) == [], "The error contains the key."
        return error

    def send(self, request: HttpRequest) -> bytes:
        """Send a request with a new backend, without a service; return the body of the reply."""
        backend: Any = self.backend(BackendOptions())
        transfer = DriverTransfer(timeout_s=30, connect_timeout_s=5, read_timeout_s=30)
        try:
            if hasattr(backend, "aclose"):
                return asyncio.run(_send_async(backend, request, transfer))
            reply = backend.open(request, transfer)
            body = b"".join(iter(reply.read, b""))
            reply.close()
            backend.close()
            return body
        finally:
            transfer.release()


async def _send_async(backend: AsyncBackend, request: HttpRequest, transfer: DriverTransfer) -> bytes:
    try:
        reply = await backend.open(request, transfer)
        chunks = []
        while chunk := await reply.read():
            chunks.append(chunk)
        reply.close()
        return b"".join(chunks)
    finally:
        await backend.aclose()


def call_once(service: Any) -> Any:
    """Create a single image with a service; the result of an asynchronous service is a coroutine."""
    return service.create_image("a fox")
