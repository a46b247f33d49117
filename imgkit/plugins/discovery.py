"""Installed plugins: found by their entry points, filtered, and imported once per process.

An entry point of the group "imgkit" names a module or an object with hooks. Listing imports nothing. The
first service imports every plugin that the environment does not block.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Literal, NamedTuple

from imgkit.errors import PluginError
from imgkit.files import print_to_stderr
from imgkit.plugins.table import HookImpl, PluginSource, describe_error, warn

GROUP = "imgkit"
ALLOW, BLOCK = "IMGKIT_PLUGINS", "IMGKIT_BLOCK_PLUGINS"

State = Literal["installed", "loaded", "blocked", "broken"]
Binder = Callable[[PluginSource, object], tuple[HookImpl, ...]]
SpecLister = Callable[[tuple[HookImpl, ...]], frozenset[str]]


class InstalledPlugin(NamedTuple):
    """An installed plugin and its state.

    Attributes:
        origin: its name, distribution and version.
        entry: its entry point.
        state: "installed" before the first import.
        reason: the reason why it is blocked or broken.
        plugin: the imported object, None unless loaded.
        impls: its hook implementations.
        specs: the specs that it adds, such as "backend 'acme'".
    """

    origin: PluginSource
    entry: metadata.EntryPoint
    state: State = "installed"
    reason: str = ""
    plugin: object = None
    impls: tuple[HookImpl, ...] = ()
    specs: frozenset[str] = frozenset()

    def unusable_error(self) -> PluginError:
        """Return the error for a caller that asks for this plugin."""
        return self.origin.error(f" is {self.state}: {self.reason}")


class Switches(NamedTuple):
    """The plugins that the environment allows and blocks.

    An item is a plugin's name, or "distribution:name" to tell two of the same name apart.

    Attributes:
        allowed: the only plugins to load, None for all.
        blocked: plugins that are never loaded.
    """

    allowed: tuple[str, ...] | None
    blocked: tuple[str, ...]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Switches:
        """Return the switches in an environment. An empty allow-list allows nothing."""
        allowed = environment.get(ALLOW)
        return cls(
            None if allowed is None else _split_items(allowed), _split_items(environment.get(BLOCK, ""))
        )

    def block_reason(self, origin: PluginSource) -> str:
        """Return the reason not to import a plugin, "" for none."""
        if _is_named(origin, self.blocked):
            return f"by {BLOCK}"
        if self.allowed is not None and not _is_named(origin, self.allowed):
            return f"it is not in {ALLOW}"
        return ""

    def find_unknown(self, origins: Iterable[PluginSource]) -> dict[str, list[str]]:
        """Return the items that name no installed plugin, by variable."""
        known = list(origins)
        variables = {ALLOW: self.allowed or (), BLOCK: self.blocked}
        return {
            variable: unknown
            for variable, items in variables.items()
            if (unknown := [item for item in items if not any(_is_named(o, (item,)) for o in known)])
        }


class Discovery:
    """The installed plugins of a process. Safe to use from many threads.

    Args:
        bind: returns the hooks of an imported plugin; a `PluginError` marks the plugin as broken.
        list_specs: returns the specs among hooks; two plugins with the same spec are both broken.
        list_own_specs: returns imgkit's own specs.
        scan: returns the entry points.
        environment: holds the switches; read whenever plugins are listed or loaded.
    """

    def __init__(
        self,
        bind: Binder,
        list_specs: SpecLister,
        list_own_specs: Callable[[], frozenset[str]],
        *,
        scan: Callable[[], Iterable[metadata.EntryPoint]] = lambda: metadata.entry_points(group=GROUP),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._bind, self._list_specs, self._list_own_specs = bind, list_specs, list_own_specs
        self._scan = scan
        self._environment = environment
        self.after_fork()
        self._scanned: tuple[InstalledPlugin, ...] | None = None
        self._loaded: tuple[InstalledPlugin, ...] | None = None

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold it."""
        self._lock = threading.RLock()
        self._loading = False

    def list_installed(self) -> tuple[InstalledPlugin, ...]:
        """Return the installed plugins without importing any."""
        with self._lock:
            return self._loaded if self._loaded is not None else self._apply_switches()

    def load_installed(self) -> tuple[InstalledPlugin, ...]:
        """Return the installed plugins; the first call imports those that are not blocked.

        A broken plugin has its `InstalledPlugin.reason` and costs one warning. A plugin that builds a
        service during its own import gets a service without installed plugins.
        """
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loading:
                return ()
            if self._loaded is None:
                self._loading = True
                try:
                    loaded = tuple(map(self._load, self._apply_switches()))
                    self._loaded = self._break_clashes(loaded)
                finally:
                    self._loading = False
                self._warn_about(self._loaded)
            return self._loaded

    def _apply_switches(self) -> tuple[InstalledPlugin, ...]:
        """Return the installed plugins with blocked ones and name clashes marked."""
        if self._scanned is None:
            self._scanned = self._scan_entries()
        switches = Switches.from_environment(self._environment)
        plugins = []
        for plugin in self._scanned:
            reason = switches.block_reason(plugin.origin)
            plugins.append(plugin._replace(state="blocked", reason=reason) if reason else plugin)
        return tuple(_break_name_clash(plugin, plugins) for plugin in plugins)

    def _scan_entries(self) -> tuple[InstalledPlugin, ...]:
        try:
            entries = list(self._scan())
        except Exception as error:  # a damaged installation must not stop imgkit
            warn(f"Cannot list the installed plugins ({describe_error(error)}). Run `pip check`.")
            return ()
        found = {(plugin.origin, plugin.entry.value): plugin for plugin in map(_from_entry, entries)}
        return tuple(sorted(found.values(), key=lambda it: (it.origin.plugin, it.origin.distribution)))

    def _load(self, plugin: InstalledPlugin) -> InstalledPlugin:
        if plugin.state != "installed":
            return plugin
        origin = plugin.origin
        try:
            with print_to_stderr():
                loaded = plugin.entry.load()
                loaded = loaded() if isinstance(loaded, type) else loaded
                impls = self._bind(origin, loaded)
                specs = self._list_specs(impls)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a foreign import may do anything, sys.exit included
            if isinstance(error, PluginError) and error.plugin == origin.plugin:
                reason = str(error).removeprefix(str(origin)).lstrip(": ")
            else:
                reason = describe_error(error)
            return _mark_broken(plugin, " ".join(reason.split()))
        return plugin._replace(state="loaded", plugin=loaded, impls=impls, specs=specs)

    def _break_clashes(self, plugins: tuple[InstalledPlugin, ...]) -> tuple[InstalledPlugin, ...]:
        """Return the plugins; those with a spec of imgkit or of another plugin are marked as broken."""
        own_specs = self._list_own_specs()

        def check(plugin: InstalledPlugin) -> InstalledPlugin:
            for spec in sorted(plugin.specs):
                if spec in own_specs:
                    return _mark_broken(plugin, f"it offers the {spec}, which imgkit itself has")
                for other in plugins:
                    if other is not plugin and spec in other.specs:
                        return _mark_broken(
                            plugin,
                            f"{plugin.origin} and {other.origin} both offer the {spec}. "
                            f"Block one with {BLOCK}={_format_item(other.origin)}",
                        )
            return plugin

        return tuple(map(check, plugins))

    def _warn_about(self, plugins: Iterable[InstalledPlugin]) -> None:
        for plugin in plugins:
            if plugin.state == "broken":
                warn(f"{plugin.origin} is left out: {plugin.reason}")
        switches = Switches.from_environment(self._environment)
        for variable, items in switches.find_unknown(plugin.origin for plugin in plugins).items():
            warn(f"{variable} names plugins that are not installed: {', '.join(items)}")


def _from_entry(entry: metadata.EntryPoint) -> InstalledPlugin:
    distribution = entry.dist
    name = distribution.name if distribution is not None else ""
    version = distribution.version if distribution is not None else ""
    return InstalledPlugin(
        PluginSource(entry.name, name or "unknown", version or "of unknown version"), entry
    )


def _break_name_clash(plugin: InstalledPlugin, plugins: Iterable[InstalledPlugin]) -> InstalledPlugin:
    """Return the plugin, marked as broken if another that may be loaded has the same name."""
    name = plugin.origin.plugin
    same = [other for other in plugins if other.origin.plugin == name and other.state == "installed"]
    if plugin.state != "installed" or len(same) < 2:
        return plugin
    owners = " and ".join(f"{other.origin.distribution} {other.origin.version}" for other in same)
    item = _format_item(same[-1].origin)
    return _mark_broken(plugin, f"{owners} both have a plugin of this name. Block one with {BLOCK}={item}")


def _mark_broken(plugin: InstalledPlugin, reason: str) -> InstalledPlugin:
    return InstalledPlugin(plugin.origin, plugin.entry, "broken", reason)


def _split_items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _format_item(origin: PluginSource) -> str:
    return f"{origin.distribution}:{origin.plugin}"


def _is_named(origin: PluginSource, items: Iterable[str]) -> bool:
    for item in items:
        distribution, colon, name = item.rpartition(":")
        if name != origin.plugin:
            continue
        if not colon or _normalize_name(distribution) == _normalize_name(origin.distribution):
            return True
    return False


def _normalize_name(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
