"""The plugins of a service: who is among them, in which order they are asked, how they are swapped.

Asked first are those given to the service, in the order given; then those that are installed
(`imgkit.plugins.discovery`), by name; then those that imgkit brings along. ``tryfirst`` and ``trylast`` of
pluggy move an implementation before or behind all others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module

from imgkit.errors import ConfigurationError, ImgkitError, UnknownPluginError
from imgkit.plugins.binding import build_table, collect_hooks
from imgkit.plugins.discovery import Discovery
from imgkit.plugins.hookspecs import BackendSpec, PluginSpec, ProviderSpec
from imgkit.plugins.table import HookImpl, NamedSpec, PluginSource, Spec, describe_error
from imgkit.plugins.table import HookTable as HookTable
from imgkit.plugins.table import PluginWarning as PluginWarning
from imgkit.redact import nearest

BUILT_IN = "imgkit.default_plugins.builtin"
"""The module that registers what imgkit brings along, through the hooks that strangers use."""

_KINDS = {BackendSpec: "backend", ProviderSpec: "provider", PluginSpec: "plugin"}


class PluginPriority(IntEnum):
    """Who is asked before whom."""

    GIVEN = 0
    INSTALLED = 1
    OWN = 2


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredPlugin:
    """A plugin in its place.

    Attributes:
        origin: the name it is registered by, and its distribution.
        plugin: the instance or module.
        impls: its hooks.
        rank: who brought it.
    """

    origin: PluginSource
    plugin: object
    impls: tuple[HookImpl, ...]
    rank: PluginPriority

    @property
    def name(self) -> str:
        """The name it is registered by."""
        return self.origin.plugin


PluginList = tuple[RegisteredPlugin, ...]


def standard() -> PluginList:
    """Return the members of every service: the installed plugins, and what imgkit brings along."""
    return (*_installed(), built_in())


def register_plugins(
    plugins: Iterable[object], *, own: Iterable[object] = (), to: PluginList | None = None
) -> PluginList:
    """Return the members of a service in the order in which they are asked.

    Args:
        plugins: instances, classes (called without arguments), modules, or names of plugins.
        own: instances that imgkit adds.
        to: the members that are there already; `standard` ones by default.

    Raises:
        UnknownPluginError: no plugin is known by a name.
        PluginError: one cannot be loaded, or does not fit its hooks.
        ConfigurationError: one is given twice, or two offer something by the same name.
    """
    members = standard() if to is None else to
    for rank, group in ((PluginPriority.GIVEN, plugins), (PluginPriority.OWN, own)):
        for plugin in group:
            member = _member(plugin, members, rank)
            others = [one for one in members if one.rank <= member.rank]
            members = (*others, member, *members[len(others) :])
    return members


def build_hook_table(members: PluginList) -> HookTable:
    """Return the frozen table of these members. Raises `ConfigurationError` if their offers clash."""
    table = build_table(impl for member in members for impl in member.impls)
    _offered(table)
    return table


def load_hook_table(plugins: Sequence[object] = ()) -> HookTable:
    """Return the table of a service with these plugins. Raises what `gather` and `table_of` raise."""
    return build_hook_table(register_plugins(plugins))


def find_spec(
    table: HookTable, kind: type[Spec], name: str, unknown: type[ConfigurationError], hint: str
) -> NamedSpec[Spec]:
    """Return what is offered by a name.

    Args:
        table: where it is looked up.
        kind: `BackendSpec`, `ProviderSpec` or `PluginSpec`.
        name: as the caller has it.
        unknown: the error for a name that nobody offers.
        hint: a sentence for the end of that error.

    Raises:
        PluginError: an installed plugin has this name, and is blocked or broken.
        ConfigurationError: of the class `unknown`, with the nearest real name and those that exist.
    """
    offers = table.specs_by_name(kind)
    if name in offers:
        return offers[name]
    idle = [one for one in DISCOVERY.load_installed() if one.state != "loaded"]
    for one in idle:
        if one.origin.plugin == name:
            raise one.problem()
    text = f"there is no {_KINDS[kind]} {name[:60]!r}{nearest(name, offers)}. There are: {', '.join(offers)}."
    notes: list[str] = [f"{one.origin} is {one.state} ({one.reason})." for one in idle]
    raise unknown(" ".join(part for part in (text, hint, *notes) if part))


class ServicePlugins:
    """The plugins of one service, by name, in the order in which they are asked.

    Adding and removing swap in a new table; a call that runs keeps the one it began with. All methods
    may be used from any thread.

    Args:
        read: returns the members.
        swap: replaces members and table.
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
        """Add a plugin, behind those that were given before it.

        Args:
            plugin: an instance, a class, a module or a name, as in ``plugins=[…]``.

        Raises:
            ConfigurationError: it is unknown, unfit, or there already. Nothing has changed then.
        """
        with self._lock:
            members = register_plugins([plugin], to=self._read())
            self._swap(members, build_hook_table(members))

    def remove(self, plugin: object) -> None:
        """Remove a plugin.

        Args:
            plugin: the object that was added, or the name that iteration shows.

        Raises:
            UnknownPluginError: it is not there.
            ConfigurationError: imgkit cannot do without it.
        """
        with self._lock:
            members = self._read()
            gone = [one for one in members if _is(one, plugin)]
            if not gone:
                names = [one.name for one in members]
                said = plugin if isinstance(plugin, str) else _name_of(plugin)
                raise UnknownPluginError(
                    f"this service has no plugin {said[:80]!r}{nearest(said, names)}. "
                    f"It has: {', '.join(names)}"
                )
            if gone[0].name == BUILT_IN:
                raise ConfigurationError(f"{BUILT_IN} holds what imgkit itself offers, and stays")
            members = tuple(one for one in members if one is not gone[0])
            self._swap(members, build_hook_table(members))

    def __iter__(self) -> Iterator[str]:
        return iter([one.name for one in self._read()])

    def __contains__(self, plugin: object) -> bool:
        return any(_is(one, plugin) for one in self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"<plugins: {', '.join(self)}>"


def _member(plugin: object, members: PluginList, rank: PluginPriority) -> RegisteredPlugin:
    """Return a plugin, as a caller gives it, as a member beside others."""
    if isinstance(plugin, str):
        return _by_name(plugin, members)
    if isinstance(plugin, type):
        plugin = _made(plugin)
    for one in members:
        if one.plugin is plugin:
            raise one.origin.error(" is there already: give it once")
    origin = PluginSource(_free(_name_of(plugin), members))
    return RegisteredPlugin(origin, plugin, collect_hooks(origin, plugin), rank)


def _by_name(name: str, members: PluginList) -> RegisteredPlugin:
    """Return the plugin that a name stands for: one that is offered, or an installed one that was removed."""
    base = build_hook_table(standard())
    offers = base.specs_by_name(PluginSpec)
    for one in members:
        # An installed plugin may well have the name of what it offers.
        if one.name == name and (one.rank is PluginPriority.GIVEN or name not in offers):
            raise one.origin.error(" is there already: name it once")
    for one in _installed():
        if one.name == name and name not in offers:
            return one
    offer = find_spec(base, PluginSpec, name, UnknownPluginError, "Others are given as objects.")
    origin = PluginSource(_free(name, members), offer.origin.distribution, offer.origin.version)
    plugin = offer.make()
    return RegisteredPlugin(origin, plugin, collect_hooks(origin, plugin), PluginPriority.GIVEN)


def _made(kind: type) -> object:
    try:
        return kind()
    except ImgkitError:
        raise
    except Exception as error:
        raise PluginSource(_name_of(kind)).error(
            f" cannot be made without arguments ({describe_error(error)}): give an instance"
        ) from error


def _is(member: RegisteredPlugin, plugin: object) -> bool:
    return member.name == plugin if isinstance(plugin, str) else member.plugin is plugin


def _name_of(plugin: object) -> str:
    if isinstance(plugin, type):
        return f"{plugin.__module__}.{plugin.__qualname__}"
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else _name_of(type(plugin))


def _free(name: str, members: PluginList) -> str:
    """Return the name, with a number where it is taken: two instances of one class may both be there."""
    taken = {one.name for one in members}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


@cache
def built_in() -> RegisteredPlugin:
    """Return the member that registers what imgkit brings along."""
    origin, module = PluginSource(BUILT_IN), import_module(BUILT_IN)
    return RegisteredPlugin(origin, module, collect_hooks(origin, module), PluginPriority.OWN)


def _installed() -> PluginList:
    return tuple(
        RegisteredPlugin(one.origin, one.plugin, one.impls, PluginPriority.INSTALLED)
        for one in DISCOVERY.load_installed()
        if one.state == "loaded"
    )


def _offered(table: HookTable) -> frozenset[str]:
    """Return what plugins offer by name, each said with its kind. Raises as `HookTable.offered` does."""
    named: dict[str, Iterable[str]] = {
        "backend": table.backend_specs(),
        "provider": table.provider_specs(),
        "plugin": table.plugin_specs(),
    }
    return frozenset(f"{kind} {name!r}" for kind, names in named.items() for name in names)


def _offers(impls: Iterable[HookImpl]) -> frozenset[str]:
    return _offered(build_table(impls))


DISCOVERY = Discovery(collect_hooks, _offers, lambda: _offers(built_in().impls))
"""The installed plugins of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=DISCOVERY.after_fork)
