"""Binding: check the hooks of a plugin, collect them, and put them in order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pluggy

from imgkit.plugins import hookspecs
from imgkit.plugins.table import HookImpl, HookTable, PluginSource
from imgkit.redact import format_suggestion

TABLE_FIELDS = {
    "imgkit_backends": "backends",
    "imgkit_providers": "providers",
    "imgkit_plugins": "plugins",
    "imgkit_engines": "engines",
    "imgkit_prepare": "prepares",
    "imgkit_before_send": "before_sends",
    "imgkit_authenticate": "authenticates",
    "imgkit_retry_wait": "retry_waits",
    "imgkit_cache": "caches",
    "imgkit_ledger": "ledgers",
    "imgkit_recorder": "recorders",
    "imgkit_sinks": "sinks",
    "imgkit_guards": "guards",
    "imgkit_commands": "commands",
    "imgkit_on_event": "observers",
}
"""Fields of `HookTable`, by the hook whose implementations they hold."""

_COLLECTING = (
    "imgkit_backends",
    "imgkit_providers",
    "imgkit_plugins",
    "imgkit_engines",
    "imgkit_commands",
    "imgkit_sinks",
    "imgkit_guards",
)


def collect_hooks(origin: PluginSource, plugin: object) -> tuple[HookImpl, ...]:
    """Return the hook implementations of a plugin after checking them.

    Args:
        origin: source of the plugin, for errors.
        plugin: an instance or a module.

    Raises:
        PluginError: a hook is misspelt, a coroutine or a wrapper, or has a wrong parameter; or there is
            no hook at all.
    """
    _check_hooks(origin, plugin)
    manager = _HookManager("imgkit")
    manager.add_hookspecs(hookspecs.Hooks)
    try:
        manager.register(plugin, origin.plugin)
    except pluggy.PluginValidationError as error:
        raise origin.error(f": {_explain_refusal(plugin, error)}") from error
    impls = tuple(
        HookImpl(origin, hook, impl.function, tuple(impl.argnames), impl.trylast - impl.tryfirst)
        for hook in TABLE_FIELDS
        for impl in getattr(manager.hook, hook).get_hookimpls()
    )
    if not impls:
        raise origin.error(
            ": it has no hook, so it would do nothing. Name a function after a hook, such as "
            "imgkit_on_event, and put @imgkit.hookimpl above it."
        )
    return impls


class _HookManager(pluggy.PluginManager):
    """A manager that skips the special methods: looking for marks on them takes most of the time."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the mark of a hook, None if the attribute is no hook."""
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(
        self, module_or_class: ModuleType | type, name: str
    ) -> pluggy.HookspecOpts | None:
        """Return the mark of a hook's specification, None if the attribute is none."""
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)


def build_table(impls: Iterable[HookImpl]) -> HookTable:
    """Return the table of implementations: by `HookImpl.rank`, then in the given order."""
    ranked = sorted(impls, key=lambda impl: impl.rank)
    fields: dict[str, Any] = {
        field: tuple(impl for impl in ranked if impl.hook == hook) for hook, field in TABLE_FIELDS.items()
    }
    return HookTable(**fields)


def _check_hooks(origin: PluginSource, plugin: object) -> None:
    """Refuse mistakes that pluggy accepts in silence."""
    names = dir(plugin if inspect.ismodule(plugin) else type(plugin))
    functions = {name: getattr(plugin, name, None) for name in names if name.startswith("imgkit_")}
    for name, function in functions.items():
        if function is None:
            continue
        marks = getattr(function, "imgkit_impl", None)
        if marks is None:
            raise origin.error(f": {name} is not marked. Put @imgkit.hookimpl above it.")
        if name not in TABLE_FIELDS:
            raise origin.error(
                f": unknown hook {name!r}{format_suggestion(name, TABLE_FIELDS)}. "
                f"Available: {', '.join(TABLE_FIELDS)}."
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise origin.error(f": {name} is a coroutine. Hooks are synchronous.")
        if marks["wrapper"] or marks["hookwrapper"]:
            raise origin.error(f": {name} is a wrapper. imgkit's hooks take no wrappers.")
        if inspect.isgeneratorfunction(function) and name not in _COLLECTING:
            raise origin.error(f": {name} is a generator, which would never run.")


def _explain_refusal(plugin: object, error: pluggy.PluginValidationError) -> str:
    """Name the parameter that a hook does not have; return the words of pluggy for another problem."""
    for hook in TABLE_FIELDS:
        function, spec = getattr(plugin, hook, None), getattr(hookspecs.Hooks, hook)
        if function is None:
            continue
        known = [name for name in inspect.signature(spec).parameters if name != "self"]
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in known and parameter.default is inspect.Parameter.empty:
                takes = f"It may take {', '.join(known)}." if known else "It takes none."
                return f"{hook} has no parameter {name!r}{format_suggestion(name, known)}. {takes}"
    return str(error)
