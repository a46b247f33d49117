"""The services of a run: the caller's own, and one for each other provider that rows name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from imgkit.bulk.bulk_values import Work
from imgkit.errors import ImgkitError

ServiceT = TypeVar("ServiceT")


class Closable(Protocol):
    """A service that blocks, as far as a run closes it."""

    def close(self) -> None:
        """Close its connections."""


class AsyncClosable(Protocol):
    """An asynchronous service, as far as a run closes it."""

    async def close(self) -> None:
        """Close its connections."""


class Siblings(Generic[ServiceT]):
    """Services by provider. They share the state folder, the budget and the plugins. Thread-safe.

    Args:
        own: the caller's service.
        provider: the name of its provider.
        open_sibling: opens a service for another provider.
    """

    def __init__(self, own: ServiceT, provider: str, open_sibling: Callable[[str], ServiceT]) -> None:
        self._own = own
        self._open = open_sibling
        self._found: dict[str, ServiceT] = {provider: own}
        self._guard = threading.Lock()

    def find(self, provider: str | None) -> ServiceT:
        """Return the service for a provider, the caller's own for None.

        Raises:
            ConfigurationError: the provider is unknown, or lacks a setting; nothing was sent.
        """
        if provider is None:
            return self._own
        with self._guard:
            if provider not in self._found:
                self._found[provider] = self._open(provider)
            return self._found[provider]

    def find_for(self, work: Work) -> ServiceT:
        """Return the service that carries out a row. A job whose provider is unknown here stays pending."""
        try:
            return self.find(work.provider)
        except ImgkitError:
            if not work.jobs:
                raise
            return self._own

    def take_opened(self) -> list[ServiceT]:
        """Return the services other than the caller's, to close them, and forget them."""
        with self._guard:
            opened = [service for service in self._found.values() if service is not self._own]
            self._found = {name: each for name, each in self._found.items() if each is self._own}
        return opened
