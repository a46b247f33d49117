"""What imgkit brings along, registered as a stranger's plugin would be."""

from __future__ import annotations

from collections.abc import Iterable

from imgkit.hookspecs import BackendSpec, ProviderSpec, hookimpl


@hookimpl
def imgkit_backends() -> Iterable[BackendSpec]:
    """Return the three backends."""
    return (
        BackendSpec(
            name="offline",
            target="imgkit.backends.offline:OfflineBackend",
            face="sync",
            reaches_network=False,
            summary="paints by itself: no key, no network, no cost",
        ),
        BackendSpec(
            name="requests",
            target="imgkit.backends.requests:RequestsBackend",
            face="sync",
            checks_peer=True,
            summary="HTTP with requests (blocking)",
        ),
        BackendSpec(
            name="aiohttp",
            target="imgkit.backends.aiohttp:AiohttpBackend",
            face="async",
            checks_peer=True,
            summary="HTTP with aiohttp (asyncio)",
        ),
    )


@hookimpl
def imgkit_providers() -> Iterable[ProviderSpec]:
    """Return the provider."""
    return (
        ProviderSpec(
            name="openai",
            target="imgkit.providers.openai:OpenAIProvider",
            summary="OpenAI's Images API, and servers that speak it",
        ),
    )
