"""The registry: the plugins of a service and their order.

imgkit asks the plugins of the service first, in the given order; then the installed ones
(`imgkit.plugins.discovery`), by name; then its own. pluggy's ``tryfirst`` and ``trylast`` move an
implementation before or behind all others.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module

from imgkit.errors import ConfigurationError, ImgkitError, UnknownPluginError
from imgkit.fork import run_in_forked_children
from imgkit.plugins.binding import build_table, collect_hooks
from imgkit.plugins.discovery import Discovery
from imgkit.plugins.hookspecs import BackendSpec, EngineSpec, PluginSpec, ProviderSpec
from imgkit.plugins.table import HookImpl, NamedSpec, PluginSource, Spec, describe_error
from imgkit.plugins.table import HookTable as HookTable
from imgkit.redact import format_suggestion

BUILT_IN = "imgkit.default_plugins.builtin"
"""The module that registers imgkit's own backends, providers and plugins, through public hooks."""

_KIND_NAMES = {BackendSpec: "backend", ProviderSpec: "provider", PluginSpec: "plugin", EngineSpec: "engine"}

_MIX_UP_HINTS = {
    ("backend", "provider"): 'Pass backend="requests" or backend="aiohttp", with provider="{name}".',
    ("backend", "plugin"): 'Pass plugins=["{name}"].',
    ("provider", "backend"): 'Pass backend="{name}". OpenAI\'s dialect needs no provider.',
    ("provider", "plugin"): 'Pass plugins=["{name}"].',
    ("plugin", "backend"): 'Pass backend="{name}".',
    ("plugin", "provider"): 'Pass provider="{name}" with a backend.',
}
"""Hints by the kind that a caller asked for, and the kind of the name."""


class PluginPriority(IntEnum):
    """The order of plugins by their provenance: lower ones are asked first."""

    GIVEN = 0
    INSTALLED = 1
    OWN = 2


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredPlugin:
    """A plugin of a service.

    Attributes:
        origin: its registered name and its distribution.
        plugin: the instance or module.
        impls: its hook implementations.
        rank: its provenance.
    """

    origin: PluginSource
    plugin: object
    impls: tuple[HookImpl, ...]
    rank: PluginPriority

    @property
    def name(self) -> str:
        """The registered name."""
        return self.origin.plugin


PluginList = tuple[RegisteredPlugin, ...]


def standard_plugins() -> PluginList:
    """Return the plugins of every service: the installed ones, and imgkit's own."""
    return (*_installed_plugins(), built_in_plugin())


def register_plugins(
    plugins: Iterable[object], *, own: Iterable[object] = (), to: PluginList | None = None
) -> PluginList:
    """Return the plugins of a service in calling order.

    Args:
        plugins: instances, classes (called without arguments), modules, or names.
        own: instances that imgkit adds.
        to: the plugins so far, `standard_plugins` by default.

    Raises:
        UnknownPluginError: there is no plugin of a name.
        PluginError: a plugin cannot be loaded, or does not fit its hooks.
        ConfigurationError: a plugin is given twice, or two add a spec of the same name.
    """
    registered = standard_plugins() if to is None else to
    for rank, group in ((PluginPriority.GIVEN, plugins), (PluginPriority.OWN, own)):
        for plugin in group:
            added = _register(plugin, registered, rank)
            before = [other for other in registered if other.rank <= added.rank]
            registered = (*before, added, *registered[len(before) :])
    return registered


def build_hook_table(plugins: PluginList) -> HookTable:
    """Return the hook table of plugins. Raises `ConfigurationError` if two add the same spec."""
    table = build_table(impl for plugin in plugins for impl in plugin.impls)
    _list_specs(table)
    return table


def load_hook_table(plugins: Sequence[object] = ()) -> HookTable:
    """Return the hook table of a service with these plugins.

    Raises:
        ConfigurationError: as `register_plugins` and `build_hook_table`.
    """
    return build_hook_table(register_plugins(plugins))


def find_spec(
    table: HookTable, kind: type[Spec], name: str, unknown: type[ConfigurationError], hint: str
) -> NamedSpec[Spec]:
    """Return the spec of a name.

    Args:
        table: the hook table to search.
        kind: `BackendSpec`, `ProviderSpec`, `PluginSpec` or `EngineSpec`.
        name: the name that the caller gave.
        unknown: class of the error for an unknown name.
        hint: a sentence for the end of that error.

    Raises:
        PluginError: an installed plugin of this name is blocked or broken.
        ConfigurationError: the name is unknown; the message has the nearest name and all names.
    """
    specs = table.specs_by_name(kind)
    if name in specs:
        return specs[name]
    unusable = [plugin for plugin in DISCOVERY.load_installed() if plugin.state != "loaded"]
    for plugin in unusable:
        if plugin.origin.plugin == name:
            raise plugin.unusable_error()
    wanted, suggestion = _KIND_NAMES[kind], format_suggestion(name, specs)
    if kind is ProviderSpec and not suggestion:
        suggestion = _suggest_by_summary(name, specs)
    problem, field = f"Unknown {wanted} {name[:60]!r}{suggestion}.", None
    hint = "" if suggestion else hint
    if not name.strip():
        problem, field = f"The name of the {wanted} is empty.", "name"
        hint = f'Pass a name, such as {wanted}="{next(iter(specs))}".'
    for other in _KIND_NAMES:
        if other is not kind and name in table.specs_by_name(other):
            field = _KIND_NAMES[other]
            problem = f"{name!r} is a {field}, not a {wanted}."
            hint = _MIX_UP_HINTS[wanted, field].format(name=name)
    text = f"{problem} Available: {', '.join(specs)}."
    notes: list[str] = [f"{plugin.origin} is {plugin.state} ({plugin.reason})." for plugin in unusable]
    raise unknown(" ".join([text, *notes]), hint=hint or None, field=field)


def _suggest_by_summary(name: str, specs: Mapping[str, NamedSpec[Spec]]) -> str:
    """Return the suggestion of a spec whose summary has the name as a word, such as a vendor; "" for none."""
    for known, named in specs.items():
        if len(name) > 3 and name.lower() in re.findall(r"\w+", named.spec.summary.lower()):
            return f" (did you mean {known!r}?)"
    return ""


class ServicePlugins:
    """The plugins of one service, by name, in calling order.

    >>> from imgkit import ImageService
    >>> service = ImageService(plugins=["logging"])
    >>> "logging" in service.plugins
    True
    >>> service.plugins.remove("logging")

    `add` and `remove` swap in a new hook table; a running call keeps the table that it started with. All
    methods are safe to use from any thread.

    Args:
        read: returns the plugins.
        swap: replaces plugins and hook table.
        lock: held while they are replaced.
    """

    def __init__(
        self,
        read: Callable[[], PluginList],
        swap: Callable[[PluginList, HookTable], None],
        lock: threading.Lock,
    ) -> None:
        self._read, self._swap, self._lock = read, swap, lock

    def add(self, plugin: object) -> None:
        """Add a plugin behind those that the service was given before.

        Args:
            plugin: an instance, a class, a module or a name, as in ``plugins=[…]``.

        Raises:
            ConfigurationError: the plugin is unknown, does not fit its hooks, or is there already;
                nothing has changed.
        """
        with self._lock:
            plugins = register_plugins([plugin], to=self._read())
            self._swap(plugins, build_hook_table(plugins))

    def remove(self, plugin: object) -> None:
        """Remove a plugin.

        Args:
            plugin: the added object, or a name as iteration shows it.

        Raises:
            UnknownPluginError: the service has no such plugin.
            ConfigurationError: imgkit cannot work without it.
        """
        with self._lock:
            plugins = self._read()
            matches = [registered for registered in plugins if _is_same(registered, plugin)]
            if not matches:
                names = [registered.name for registered in plugins]
                wanted = plugin if isinstance(plugin, str) else _default_name(plugin)
                raise UnknownPluginError(
                    f"This service has no plugin {wanted[:80]!r}{format_suggestion(wanted, names)}. "
                    f"It has: {', '.join(names)}."
                )
            if matches[0].name == BUILT_IN:
                raise ConfigurationError(f"{BUILT_IN} registers imgkit's own parts and cannot be removed.")
            plugins = tuple(registered for registered in plugins if registered is not matches[0])
            self._swap(plugins, build_hook_table(plugins))

    def __iter__(self) -> Iterator[str]:
        return iter([registered.name for registered in self._read()])

    def __contains__(self, plugin: object) -> bool:
        return any(_is_same(registered, plugin) for registered in self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"<plugins: {', '.join(self)}>"


def _register(plugin: object, registered: PluginList, rank: PluginPriority) -> RegisteredPlugin:
    """Return a caller's plugin with its hooks, ready to stand beside the registered ones."""
    if isinstance(plugin, str):
        return _register_by_name(plugin, registered)
    if isinstance(plugin, type):
        plugin = _instantiate(plugin)
    for other in registered:
        if other.plugin is plugin:
            raise other.origin.error(" is registered already. Give it once.")
    origin = PluginSource(_free_name(_default_name(plugin), registered))
    return RegisteredPlugin(origin, plugin, collect_hooks(origin, plugin), rank)


def _register_by_name(name: str, registered: PluginList) -> RegisteredPlugin:
    """Return the plugin of a name: from a spec, or an installed plugin that was removed."""
    table = build_hook_table(standard_plugins())
    specs = table.specs_by_name(PluginSpec)
    for other in registered:
        # An installed plugin may have the name of its own spec.
        if other.name == name and (other.rank is PluginPriority.GIVEN or name not in specs):
            raise other.origin.error(" is registered already. Name it once.")
    for installed in _installed_plugins():
        if installed.name == name and name not in specs:
            return installed
    found = find_spec(table, PluginSpec, name, UnknownPluginError, "Give any other plugin as an object.")
    origin = PluginSource(_free_name(name, registered), found.origin.distribution, found.origin.version)
    plugin = found.make()
    return RegisteredPlugin(origin, plugin, collect_hooks(origin, plugin), PluginPriority.GIVEN)


def _instantiate(kind: type) -> object:
    try:
        return kind()
    except ImgkitError:
        raise
    except Exception as error:
        raise PluginSource(_default_name(kind)).error(
            f" cannot be created without arguments ({describe_error(error)}). Give an instance."
        ) from error


def _is_same(registered: RegisteredPlugin, plugin: object) -> bool:
    return registered.name == plugin if isinstance(plugin, str) else registered.plugin is plugin


def _default_name(plugin: object) -> str:
    if isinstance(plugin, type):
        return f"{plugin.__module__}.{plugin.__qualname__}"
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else _default_name(type(plugin))


def _free_name(name: str, registered: PluginList) -> str:
    """Return the name, with a number if it is taken: two instances of one class may coexist."""
    taken = {other.name for other in registered}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


@cache
def built_in_plugin() -> RegisteredPlugin:
    """Return the plugin that registers imgkit's own parts."""
    origin, module = PluginSource(BUILT_IN), import_module(BUILT_IN)
    return RegisteredPlugin(origin, module, collect_hooks(origin, module), PluginPriority.OWN)


def _installed_plugins() -> PluginList:
    return tuple(
        RegisteredPlugin(installed.origin, installed.plugin, installed.impls, PluginPriority.INSTALLED)
        for installed in DISCOVERY.load_installed()
        if installed.state == "loaded"
    )


def _list_specs(table: HookTable) -> frozenset[str]:
    """Return the kinds and names of all specs. Raises as `HookTable.specs_by_name`."""
    specs: dict[str, Iterable[str]] = {
        "backend": table.backend_specs(),
        "provider": table.provider_specs(),
        "plugin": table.plugin_specs(),
        "engine": table.specs_by_name(EngineSpec),
    }
    return frozenset(f"{kind} {name!r}" for kind, names in specs.items() for name in names)


def _list_impl_specs(impls: Iterable[HookImpl]) -> frozenset[str]:
    return _list_specs(build_table(impls))


DISCOVERY = Discovery(collect_hooks, _list_impl_specs, lambda: _list_impl_specs(built_in_plugin().impls))
"""The installed plugins of this process."""

run_in_forked_children(DISCOVERY.after_fork)
