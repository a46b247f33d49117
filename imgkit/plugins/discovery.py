"""The plugins that are installed: found by their entry points, filtered, imported once a process.

A distribution has a plugin if it has an entry point in the group "imgkit", whose value names a module or
an object with hooks. Finding imports nothing; only what is neither blocked nor left out is imported, when
the first service is built.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Literal, NamedTuple

from imgkit.errors import PluginError
from imgkit.plugins.table import HookImpl, PluginSource, describe_error, warn

GROUP = "imgkit"
ALLOW, BLOCK = "IMGKIT_PLUGINS", "IMGKIT_BLOCK_PLUGINS"

State = Literal["installed", "loaded", "blocked", "broken"]
Binder = Callable[[PluginSource, object], tuple[HookImpl, ...]]
Offers = Callable[[tuple[HookImpl, ...]], frozenset[str]]


class InstalledPlugin(NamedTuple):
    """An installed plugin, and what became of it.

    Attributes:
        origin: its name, distribution and version.
        entry: the entry point.
        state: "installed" if nothing has imported it yet.
        reason: why it is blocked or broken.
        plugin: the imported object; None unless loaded.
        impls: its hooks.
        offers: what can be asked for by name because of it, such as "backend 'acme'".
    """

    origin: PluginSource
    entry: metadata.EntryPoint
    state: State = "installed"
    reason: str = ""
    plugin: object = None
    impls: tuple[HookImpl, ...] = ()
    offers: frozenset[str] = frozenset()

    def problem(self) -> PluginError:
        """Return the error for somebody who needs this plugin."""
        return self.origin.error(f" is {self.state}: {self.reason}")


class Switches(NamedTuple):
    """Which plugins may be loaded; items are names, or "distribution:name" where two have one name.

    Attributes:
        allowed: all others are blocked; None if nothing is said.
        blocked: these in any case.
    """

    allowed: tuple[str, ...] | None
    blocked: tuple[str, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Switches:
        """Return what the environment says; an allow-list that is set but empty allows nothing."""
        allowed = environment.get(ALLOW)
        return cls(None if allowed is None else _items(allowed), _items(environment.get(BLOCK, "")))

    def reason(self, origin: PluginSource) -> str:
        """Return why a plugin must not be imported, "" if it may."""
        if _named(origin, self.blocked):
            return f"by {BLOCK}"
        if self.allowed is not None and not _named(origin, self.allowed):
            return f"it is not in {ALLOW}"
        return ""

    def unknown(self, origins: Iterable[PluginSource]) -> dict[str, list[str]]:
        """Return the items that name no installed plugin, by variable."""
        known = list(origins)
        said = {ALLOW: self.allowed or (), BLOCK: self.blocked}
        return {
            variable: strangers
            for variable, items in said.items()
            if (strangers := [item for item in items if not any(_named(one, (item,)) for one in known)])
        }


class Discovery:
    """What is installed, and what of it is loaded. Safe to use from many threads.

    Args:
        bind: returns the hooks of an imported plugin; its `PluginError` makes the plugin a broken one.
        offers: returns what they offer by name; two plugins that offer the same are both broken.
        taken: returns what imgkit itself offers.
        scan: returns the entry points.
        environment: where the switches are read, when plugins are loaded or listed.
    """

    def __init__(
        self,
        bind: Binder,
        offers: Offers,
        taken: Callable[[], frozenset[str]],
        *,
        scan: Callable[[], Iterable[metadata.EntryPoint]] = lambda: metadata.entry_points(group=GROUP),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._bind, self._offers, self._taken = bind, offers, taken
        self._scan = scan
        self._environment = environment
        self.after_fork()
        self._scanned: tuple[InstalledPlugin, ...] | None = None
        self._loaded: tuple[InstalledPlugin, ...] | None = None

    def after_fork(self) -> None:
        """Forget a lock that a thread of the parent held."""
        self._lock = threading.RLock()
        self._loading = False

    def list_installed(self) -> tuple[InstalledPlugin, ...]:
        """Return the installed plugins as far as they are known; this imports none of them."""
        with self._lock:
            return self._loaded if self._loaded is not None else self._judged()

    def load_installed(self) -> tuple[InstalledPlugin, ...]:
        """Return the installed plugins; the first time, those that may be are imported.

        What is wrong with one is in its `Found.reason`, and warned of once. A plugin that builds a
        service while it is imported gets that service without installed plugins.
        """
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loading:
                return ()
            if self._loaded is None:
                self._loading = True
                try:
                    self._loaded = self._without_clashes(tuple(map(self._load, self._judged())))
                finally:
                    self._loading = False
                self._warn(self._loaded)
            return self._loaded

    def _judged(self) -> tuple[InstalledPlugin, ...]:
        """Return what is installed, with what must not be imported marked as such."""
        if self._scanned is None:
            self._scanned = self._found()
        switches = Switches.of(self._environment)
        judged = [
            one._replace(state="blocked", reason=reason) if (reason := switches.reason(one.origin)) else one
            for one in self._scanned
        ]
        return tuple(_of_one_name(one, judged) for one in judged)

    def _found(self) -> tuple[InstalledPlugin, ...]:
        try:
            entries = list(self._scan())
        except Exception as error:  # one damaged installation would otherwise stop all of imgkit
            warn(f"the installed plugins cannot be found out ({describe_error(error)}); see `pip check`")
            return ()
        found = {(one.origin, one.entry.value): one for one in map(_of_entry, entries)}
        return tuple(sorted(found.values(), key=lambda one: (one.origin.plugin, one.origin.distribution)))

    def _load(self, one: InstalledPlugin) -> InstalledPlugin:
        if one.state != "installed":
            return one
        try:
            plugin = one.entry.load()
            plugin = plugin() if isinstance(plugin, type) else plugin
            impls = self._bind(one.origin, plugin)
            offers = self._offers(impls)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger does, sys.exit included
            own = isinstance(error, PluginError) and error.plugin == one.origin.plugin
            reason = str(error).removeprefix(f"{one.origin}").lstrip(": ") if own else describe_error(error)
            return _broken(one, " ".join(reason.split()))
        return one._replace(state="loaded", plugin=plugin, impls=impls, offers=offers)

    def _without_clashes(self, all_: tuple[InstalledPlugin, ...]) -> tuple[InstalledPlugin, ...]:
        taken = self._taken()

        def checked(one: InstalledPlugin) -> InstalledPlugin:
            for offer in sorted(one.offers):
                if offer in taken:
                    return _broken(one, f"it offers the {offer}, which imgkit has itself")
                for other in all_:
                    if other is not one and offer in other.offers:
                        return _broken(
                            one,
                            f"{one.origin} and {other.origin} both offer the {offer}: "
                            f"block one with {BLOCK}={_item(other.origin)}",
                        )
            return one

        return tuple(map(checked, all_))

    def _warn(self, found: Iterable[InstalledPlugin]) -> None:
        for one in found:
            if one.state == "broken":
                warn(f"{one.origin} is left out: {one.reason}")
        switches = Switches.of(self._environment)
        for variable, items in switches.unknown(one.origin for one in found).items():
            warn(f"{variable} names what is not installed here: {', '.join(items)}")


def _of_entry(entry: metadata.EntryPoint) -> InstalledPlugin:
    distribution = entry.dist
    name = distribution.name if distribution is not None else ""
    version = distribution.version if distribution is not None else ""
    return InstalledPlugin(
        PluginSource(entry.name, name or "unknown", version or "of unknown version"), entry
    )


def _of_one_name(one: InstalledPlugin, all_: Iterable[InstalledPlugin]) -> InstalledPlugin:
    """Mark a plugin as broken if another that may be loaded has its name."""
    name = one.origin.plugin
    same = [other for other in all_ if other.origin.plugin == name and other.state == "installed"]
    if one.state != "installed" or len(same) < 2:
        return one
    owners = " and ".join(f"{other.origin.distribution} {other.origin.version}" for other in same)
    return _broken(
        one, f"{owners} both have a plugin of this name: block one with {BLOCK}={_item(same[-1].origin)}"
    )


def _broken(one: InstalledPlugin, reason: str) -> InstalledPlugin:
    return InstalledPlugin(one.origin, one.entry, "broken", reason)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _item(origin: PluginSource) -> str:
    return f"{origin.distribution}:{origin.plugin}"


def _named(origin: PluginSource, items: Iterable[str]) -> bool:
    for item in items:
        distribution, colon, name = item.rpartition(":")
        if name == origin.plugin and (not colon or _plain(distribution) == _plain(origin.distribution)):
            return True
    return False


def _plain(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
