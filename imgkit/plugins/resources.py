"""What plugins supply to a service: the objects behind hooks whose work may block."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, NamedTuple

from imgkit.plugins.hookspecs import ServiceSettings
from imgkit.plugins.table import HookImpl, HookTable, PluginSource

_KINDS = {
    "imgkit_cache": "imgkit.plugins.protocols:CacheStore",
    "imgkit_ledger": "imgkit.plugins.protocols:Ledger",
    "imgkit_recorder": "imgkit.plugins.protocols:Recorder",
}
"""What hooks supply, imported for a plugin that supplies it: most services have none."""


class Resource(NamedTuple):
    """An object, and the plugin that supplies it."""

    origin: PluginSource
    thing: Any


class PluginResources(NamedTuple):
    """The objects of one service; a call keeps those it began with.

    Attributes:
        cache: the `CacheStore`, None where no plugin has one.
        ledgers: each a `Ledger`, in the order in which they are asked.
        recorders: each a `Recorder`.
        answers: what each hook has answered, so that adding a plugin does not make the others' anew.
    """

    cache: Resource | None = None
    ledgers: tuple[Resource, ...] = ()
    recorders: tuple[Resource, ...] = ()
    answers: Mapping[HookImpl, Any] = MappingProxyType({})


def build_resources(
    table: HookTable, settings: ServiceSettings, before: PluginResources | None = None
) -> PluginResources:
    """Return what the plugins of a table supply.

    Args:
        table: of the service.
        settings: handed to the hooks.
        before: what there was with other plugins; answers of those that stayed are kept.

    Raises:
        PluginError: a hook failed, or supplies something else.
    """
    answers: dict[HookImpl, Any] = {}
    for impl in (*table.caches, *table.ledgers, *table.recorders):
        known = before is not None and impl in before.answers
        answer = before.answers[impl] if before and known else impl(settings=settings)
        if answer is not None and not isinstance(answer, kind := resolve_name(_KINDS[impl.hook])):
            raise impl.wrong(f"returned a {type(answer).__name__}, which is no {kind.__name__},")
        answers[impl] = answer
    stores, ledgers, recorders = (
        tuple(Resource(one.origin, answers[one]) for one in impls if answers[one] is not None)
        for impls in (table.caches, table.ledgers, table.recorders)
    )
    return PluginResources(stores[0] if stores else None, ledgers, recorders, answers)
