"""The commands `imgkit plugins` and `imgkit backends`: the installed parts and their state."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from imgkit._version import __version__
from imgkit.cli import console, report
from imgkit.cli.doctor_checks import DISTRIBUTION
from imgkit.errors import ImgkitError, PluginError, PluginWarning
from imgkit.plugins.binding import collect_hooks
from imgkit.plugins.discovery import InstalledPlugin
from imgkit.plugins.hookspecs import BackendSpec, PluginSpec
from imgkit.plugins.registry import DISCOVERY, build_hook_table, built_in_plugin, load_hook_table
from imgkit.plugins.table import HookImpl, NamedSpec, PluginSource, describe_error


@dataclass(frozen=True)
class PluginEntry:
    """A plugin in the list; its attributes are the members of the JSON.

    Attributes:
        name: the name of the plugin.
        distribution: the distribution that installs it.
        version: the version of the distribution.
        state: "built-in", "loaded", "installed" (not imported yet), "not installed" (a part of imgkit that
            lacks its extra), "blocked" or "broken".
        reason: why it is blocked or broken, or how to install it; else None.
        hooks: the names of its hooks; None if it is not loaded.
    """

    name: str
    distribution: str
    version: str
    state: str
    reason: str | None = None
    hooks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class BackendEntry:
    """A backend in the list.

    Attributes:
        spec: the spec from its plugin.
        problem: why it cannot be loaded, None if it can.
    """

    spec: BackendSpec
    problem: str | None


def print_plugins(*, load: bool, as_json: bool) -> int:
    """Print the plugins and return the exit code.

    Args:
        load: import the plugins that are not blocked, and print their hooks.
        as_json: print a JSON object instead of a table.
    """
    entries = [*_list_built_in_plugins(load=load), *_list_installed_plugins(load=load)]
    if as_json:
        return console.write_bytes(report.encode_json({"plugins": list(map(asdict, entries))}))
    rows = [(entry.name, entry.distribution, entry.version, _format_state(entry)) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return console.write_text("\n".join(lines) + "\n")


def print_backends(*, as_json: bool) -> int:
    """Print the backends and return the exit code.

    Args:
        as_json: print a JSON object instead of a table.
    """
    entries = list_backends()
    if as_json:
        return console.write_bytes(report.encode_json({"backends": list(map(_to_json, entries))}))
    width = max(len(entry.spec.name) for entry in entries)
    lines = [
        f"{entry.spec.name:<{width}}  {'loads' if entry.problem is None else 'fails'}  {entry.spec.summary}"
        + (f"\n{'':<{width}}  {entry.problem}" if entry.problem else "")
        for entry in entries
    ]
    return console.write_text("\n".join(lines) + "\n")


def list_backends() -> list[BackendEntry]:
    """Return all backends; each is loaded to find its problem."""
    specs = load_hook_table().specs_by_name(BackendSpec).values()
    return [BackendEntry(named.spec, _find_problem(named)) for named in specs]


def _find_problem(named: NamedSpec[BackendSpec]) -> str | None:
    try:
        named.load()
    except PluginError as error:
        remedy = f"; {named.spec.install}" if named.spec.install else ""
        return f"{describe_error(error.__cause__ or error)}{remedy}"
    return None


def _to_json(entry: BackendEntry) -> dict[str, object]:
    return {
        "name": entry.spec.name,
        "summary": entry.spec.summary,
        "flavor": entry.spec.flavor,
        "reaches_network": entry.spec.reaches_network,
        "loads": entry.problem is None,
        "problem": entry.problem,
    }


def _format_state(entry: PluginEntry) -> str:
    text = f"{entry.state}: {entry.reason}" if entry.reason else entry.state
    return f"{text}; {', '.join(entry.hooks)}" if entry.hooks else text


def _list_built_in_plugins(*, load: bool) -> Iterator[PluginEntry]:
    """Yield the plugins of imgkit; an optional plugin may lack its requirements."""
    for named in build_hook_table((built_in_plugin(),)).specs_by_name(PluginSpec).values():
        identity = (named.spec.name, DISTRIBUTION, __version__)
        if not load:
            yield PluginEntry(*identity, "built-in")
            continue
        try:
            impls = collect_hooks(PluginSource(named.spec.name), named.make())
        except ImgkitError as error:
            if isinstance(error.__cause__, ImportError) and named.spec.install:
                yield PluginEntry(*identity, "not installed", named.spec.install)
            else:
                yield PluginEntry(*identity, "broken", str(error))
        else:
            yield PluginEntry(*identity, "built-in", hooks=_list_hooks(impls))


def _list_installed_plugins(*, load: bool) -> Iterator[PluginEntry]:
    for plugin in load_silently() if load else DISCOVERY.list_installed():
        yield PluginEntry(
            plugin.origin.plugin,
            plugin.origin.distribution,
            plugin.origin.version,
            plugin.state,
            plugin.reason or None,
            _list_hooks(plugin.impls) if plugin.state == "loaded" else None,
        )


def load_silently() -> tuple[InstalledPlugin, ...]:
    """Load the installed plugins without a word about broken ones: the caller lists them itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is left out", PluginWarning)
        return DISCOVERY.load_installed()


def _list_hooks(impls: Iterable[HookImpl]) -> tuple[str, ...]:
    return tuple(impl.hook for impl in impls)
