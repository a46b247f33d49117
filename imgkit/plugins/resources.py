"""Blocking resources that plugins provide: cache store, ledgers, recorders."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from imgkit.plugins.hookspecs import ServiceSettings
from imgkit.plugins.table import HookImpl, HookTable, PluginSource

if TYPE_CHECKING:
    from imgkit.plugins.protocols import CacheStore, Ledger, Recorder

T = TypeVar("T")

_PROTOCOLS = {
    "imgkit_cache": "imgkit.plugins.protocols:CacheStore",
    "imgkit_ledger": "imgkit.plugins.protocols:Ledger",
    "imgkit_recorder": "imgkit.plugins.protocols:Recorder",
}
"""Protocols of the resources, by hook. They load only for a plugin that provides one."""


class Resource(NamedTuple, Generic[T]):
    """An object, and the source of the plugin that provides it."""

    origin: PluginSource
    thing: T


class PluginResources(NamedTuple):
    """The resources of one service. A call keeps those that it started with.

    Attributes:
        cache: the `CacheStore`, None without a cache plugin.
        ledgers: each a `Ledger`, in calling order.
        recorders: each a `Recorder`.
        results: hook results by implementation, reused when a plugin is added.
    """

    cache: Resource[CacheStore] | None = None
    ledgers: tuple[Resource[Ledger], ...] = ()
    recorders: tuple[Resource[Recorder], ...] = ()
    results: Mapping[HookImpl, object] = MappingProxyType({})


def build_resources(
    table: HookTable, settings: ServiceSettings, before: PluginResources | None = None
) -> PluginResources:
    """Return the resources that the plugins of a table provide.

    Args:
        table: the hooks of the service.
        settings: the service, for the hooks.
        before: the resources so far; results of plugins that stay are reused.

    Raises:
        PluginError: a hook failed, or returned an object without the protocol.
    """
    results: dict[HookImpl, Any] = {}
    for impl in (*table.caches, *table.ledgers, *table.recorders):
        is_known = before is not None and impl in before.results
        result = before.results[impl] if before and is_known else impl(settings=settings)
        if result is not None and not isinstance(result, protocol := resolve_name(_PROTOCOLS[impl.hook])):
            raise impl.result_error(
                f"returned a {type(result).__name__}, which is not a {protocol.__name__},"
            )
        results[impl] = result
    stores, ledgers, recorders = (
        tuple(Resource(impl.origin, results[impl]) for impl in impls if results[impl] is not None)
        for impls in (table.caches, table.ledgers, table.recorders)
    )
    return PluginResources(stores[0] if stores else None, ledgers, recorders, results)
