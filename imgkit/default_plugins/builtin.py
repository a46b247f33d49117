"""What imgkit brings along, registered as a stranger's plugin would be."""

from __future__ import annotations

from collections.abc import Iterable

from imgkit.plugins.hookspecs import BackendSpec, PluginSpec, ProviderSpec, hookimpl


@hookimpl
def imgkit_backends() -> Iterable[BackendSpec]:
    """Return the three backends."""
    return (
        BackendSpec(
            name="offline",
            target="imgkit.backends.offline:OfflineBackend",
            flavor="sync",
            reaches_network=False,
            summary="paints by itself: no key, no network, no cost",
        ),
        BackendSpec(
            name="requests",
            target="imgkit.backends.requests:RequestsBackend",
            flavor="sync",
            checks_peer=True,
            summary="HTTP with requests (blocking)",
        ),
        BackendSpec(
            name="aiohttp",
            target="imgkit.backends.aiohttp:AiohttpBackend",
            flavor="async",
            checks_peer=True,
            summary="HTTP with aiohttp (asyncio)",
        ),
    )


@hookimpl
def imgkit_providers() -> Iterable[ProviderSpec]:
    """Return the providers."""
    return (
        ProviderSpec(
            name="openai",
            target="imgkit.providers.openai:OpenAIProvider",
            summary="OpenAI's Images API, and servers that speak it",
        ),
        ProviderSpec(
            name="azure",
            target="imgkit.providers.azure:AzureProvider",
            summary="OpenAI's models at Azure: deployments, api-version, api-key or Entra token",
        ),
    )


@hookimpl
def imgkit_plugins() -> Iterable[PluginSpec]:
    """Return the plugins that a service can be given by name."""
    return (
        PluginSpec(
            name="cache",
            target="imgkit.default_plugins.cache:CachePlugin",
            summary="equal requests are paid for once, across processes too",
        ),
        PluginSpec(
            name="logging",
            target="imgkit.default_plugins.logging:LoggingPlugin",
            summary="one line a call to the logger imgkit, the wire at DEBUG",
        ),
        PluginSpec(
            name="recorder",
            target="imgkit.default_plugins.recorder:RecorderPlugin",
            summary="requests and replies on a cassette (IMGKIT_CASSETTE), from any backend",
        ),
        PluginSpec(
            name="retry",
            target="imgkit.default_plugins.retry:RetryPlugin",
            summary="sends again what cannot have been billed; on by default",
        ),
        PluginSpec(
            name="telemetry",
            target="imgkit.default_plugins.telemetry:TelemetryPlugin",
            summary="OpenTelemetry spans and metrics",
            install="pip install 'imgkit-service[otel]'",
        ),
    )
