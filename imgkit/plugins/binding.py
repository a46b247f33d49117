"""From plugins to a table: their hooks found, checked, bound, and put in order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pluggy

from imgkit.plugins import hookspecs
from imgkit.plugins.table import HookImpl, HookTable, PluginSource
from imgkit.redact import nearest

FIELDS = {
    "imgkit_backends": "backends",
    "imgkit_providers": "providers",
    "imgkit_plugins": "plugins",
    "imgkit_prepare": "prepares",
    "imgkit_before_send": "before_sends",
    "imgkit_authenticate": "authenticates",
    "imgkit_retry_wait": "retry_waits",
    "imgkit_cache": "caches",
    "imgkit_ledger": "ledgers",
    "imgkit_recorder": "recorders",
    "imgkit_commands": "commands",
    "imgkit_on_event": "observers",
}
"""The hooks, and where the table has their implementations."""

_COLLECTING = ("imgkit_backends", "imgkit_providers", "imgkit_plugins", "imgkit_commands")


def collect_hooks(origin: PluginSource, plugin: object) -> tuple[HookImpl, ...]:
    """Return the hooks of a plugin, bound and checked.

    Args:
        origin: whom errors name.
        plugin: an instance or a module.

    Raises:
        PluginError: a misspelt hook, a coroutine, a wrapper, a wrong parameter.
    """
    _check_hooks(origin, plugin)
    manager = pluggy.PluginManager("imgkit")
    manager.add_hookspecs(hookspecs.Hooks)
    try:
        manager.register(plugin, origin.plugin)
    except pluggy.PluginValidationError as error:
        raise origin.error(f": {error}") from error
    return tuple(
        HookImpl(origin, hook, one.function, tuple(one.argnames), one.trylast - one.tryfirst)
        for hook in FIELDS
        for one in getattr(manager.hook, hook).get_hookimpls()
    )


def build_table(impls: Iterable[HookImpl]) -> HookTable:
    """Return the table of these implementations, asked in this order but for `Impl.rank`."""
    ranked = sorted(impls, key=lambda impl: impl.rank)
    places: dict[str, Any] = {
        place: tuple(impl for impl in ranked if impl.hook == hook) for hook, place in FIELDS.items()
    }
    return HookTable(**places)


def _check_hooks(origin: PluginSource, plugin: object) -> None:
    """Refuse what pluggy would take without a word."""
    names = dir(plugin if inspect.ismodule(plugin) else type(plugin))
    functions = {name: getattr(plugin, name, None) for name in names if name.startswith("imgkit_")}
    for name, function in functions.items():
        if function is None:
            continue
        marks = getattr(function, "imgkit_impl", None)
        if marks is None:
            raise origin.error(f": {name} is not marked: put @imgkit.hookimpl above it")
        if name not in FIELDS:
            raise origin.error(
                f": there is no hook {name!r}{nearest(name, FIELDS)}; there are {', '.join(FIELDS)}"
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise origin.error(f": {name} is a coroutine, and hooks are synchronous")
        if marks["wrapper"] or marks["hookwrapper"]:
            raise origin.error(f": {name} is a wrapper, and hooks of imgkit are not wrapped")
        if inspect.isgeneratorfunction(function) and name not in _COLLECTING:
            raise origin.error(f": {name} is a generator, and would never run")
