"""`imgkit plugins`: which there are, where they come from, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from imgkit._version import __version__
from imgkit.cli import console as streams
from imgkit.cli import doctor_checks as clash
from imgkit.errors import ImgkitError
from imgkit.plugins.binding import collect_hooks
from imgkit.plugins.hookspecs import PluginSpec
from imgkit.plugins.registry import DISCOVERY, build_hook_table, built_in_plugin
from imgkit.plugins.table import HookImpl, PluginSource


@dataclass(frozen=True)
class Listed:
    """A plugin in the listing; its members are those of the JSON.

    Attributes:
        name: as it is asked for.
        distribution: where it comes from.
        version: of the distribution.
        state: "built-in", "loaded", "installed" (it would be loaded), "blocked" or "broken".
        reason: why it is blocked or broken, else None.
        hooks: what it implements; None as long as it is not loaded.
    """

    name: str
    distribution: str
    version: str
    state: str
    reason: str | None = None
    hooks: tuple[str, ...] | None = None


def show(*, load: bool, as_json: bool) -> int:
    """Print the plugins and return the exit code.

    Args:
        load: import those that may be.
        as_json: one JSON object instead of a table.
    """
    found = [*_built_in(load=load), *_installed(load=load)]
    if as_json:
        entries = [asdict(one) for one in found]
        return streams.send_text(json.dumps({"schema_version": 1, "plugins": entries}) + "\n")
    rows = [(one.name, one.distribution, one.version, _state(one)) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[3]])
             for row in rows]  # fmt: skip
    return streams.send_text("\n".join(lines) + "\n")


def _state(one: Listed) -> str:
    text = f"{one.state}: {one.reason}" if one.reason else one.state
    return f"{text}; {', '.join(one.hooks)}" if one.hooks else text


def _built_in(*, load: bool) -> Iterator[Listed]:
    """Yield what imgkit brings along; an optional part of it may lack what it needs."""
    for offer in build_hook_table((built_in_plugin(),)).specs_by_name(PluginSpec).values():
        own = (offer.spec.name, clash.DISTRIBUTION, __version__)
        if not load:
            yield Listed(*own, "built-in")
            continue
        try:
            impls = collect_hooks(PluginSource(offer.spec.name), offer.make())
        except ImgkitError as error:
            yield Listed(*own, "broken", str(error))
        else:
            yield Listed(*own, "built-in", hooks=_hooks(impls))


def _installed(*, load: bool) -> Iterator[Listed]:
    for one in DISCOVERY.load_installed() if load else DISCOVERY.list_installed():
        yield Listed(
            one.origin.plugin,
            one.origin.distribution,
            one.origin.version,
            one.state,
            one.reason or None,
            _hooks(one.impls) if one.state == "loaded" else None,
        )


def _hooks(impls: Iterable[HookImpl]) -> tuple[str, ...]:
    return tuple(impl.hook for impl in impls)
