"""Blocking resources that plugins provide: cache store, ledgers, recorders, sinks, guards."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from imgkit.plugins.hookspecs import ServiceSettings
from imgkit.plugins.table import HookImpl, HookTable, PluginSource

if TYPE_CHECKING:
    from imgkit.plugins.protocols import CacheStore, Guard, Ledger, Recorder, Sink

T = TypeVar("T")

_PROTOCOLS = {
    "imgkit_cache": "imgkit.plugins.protocols:CacheStore",
    "imgkit_ledger": "imgkit.plugins.protocols:Ledger",
    "imgkit_recorder": "imgkit.plugins.protocols:Recorder",
    "imgkit_sinks": "imgkit.plugins.protocols:Sink",
    "imgkit_guards": "imgkit.plugins.protocols:Guard",
}
"""Protocols of the resources, by hook. They load only for a plugin that provides one."""

_METHODS = ("try_lease", "commit", "abandon", "reserve", "record", "receive", "check")
"""Methods of the protocols, which imgkit calls where they may block."""

_SEVERAL = ("imgkit_sinks", "imgkit_guards")
"""Hooks that return any number of resources."""


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
        sinks: each a `Sink`.
        guards: each a `Guard`.
        results: checked hook results by implementation, reused when a plugin is added.
    """

    cache: Resource[CacheStore] | None = None
    ledgers: tuple[Resource[Ledger], ...] = ()
    recorders: tuple[Resource[Recorder], ...] = ()
    sinks: tuple[Resource[Sink], ...] = ()
    guards: tuple[Resource[Guard], ...] = ()
    results: Mapping[HookImpl, tuple[Any, ...]] = MappingProxyType({})


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
    known = before.results if before is not None else {}
    groups = (table.caches, table.ledgers, table.recorders, table.sinks, table.guards)
    results: dict[HookImpl, tuple[Any, ...]] = {
        impl: known[impl] if impl in known else _call_resource_hook(impl, settings)
        for impls in groups
        for impl in impls
    }
    stores, ledgers, recorders, sinks, guards = (
        tuple(Resource(impl.origin, thing) for impl in impls for thing in results[impl]) for impls in groups
    )
    return PluginResources(stores[0] if stores else None, ledgers, recorders, sinks, guards, results)


def _call_resource_hook(impl: HookImpl, settings: ServiceSettings) -> tuple[Any, ...]:
    """Return the resources of one hook after checking them.

    Raises:
        PluginError: the hook failed, or returned an object without the protocol.
    """
    result = impl(settings=settings)
    if result is None:
        return ()
    protocol = resolve_name(_PROTOCOLS[impl.hook])
    resources = (result,)
    if impl.hook in _SEVERAL and not isinstance(result, protocol):
        try:
            resources = tuple(result)
        except TypeError:
            raise impl.result_error(f"returned a {type(result).__name__}") from None
    for resource in resources:
        if isinstance(resource, type):
            raise impl.result_error(f"returned the class {resource.__name__} instead of an instance")
        if not isinstance(resource, protocol):
            name = type(resource).__name__
            raise impl.result_error(f"returned a {name}, which is not a {protocol.__name__},")
        for method in _METHODS:
            if inspect.iscoroutinefunction(getattr(resource, method, None)):
                raise impl.result_error(
                    f"returned a {type(resource).__name__} whose {method} is a coroutine function"
                )
    return resources
