"""`imgkit backends`: which there are, and which of them would work here."""

from __future__ import annotations

import json
from dataclasses import dataclass

from imgkit.cli import console as streams
from imgkit.errors import PluginError
from imgkit.plugins.hookspecs import BackendSpec
from imgkit.plugins.registry import load_hook_table
from imgkit.plugins.table import NamedSpec, describe_error


@dataclass(frozen=True)
class Listed:
    """A backend and what came of loading it.

    Attributes:
        spec: as its plugin offers it.
        problem: why it cannot be loaded, None if it can.
    """

    spec: BackendSpec
    problem: str | None


def listed() -> list[Listed]:
    """Return all backends, each tried."""
    return [
        Listed(offer.spec, _problem(offer)) for offer in load_hook_table().specs_by_name(BackendSpec).values()
    ]


def show(*, as_json: bool) -> int:
    """Print the backends and return the exit code."""
    found = listed()
    if as_json:
        entries = [
            {
                "name": one.spec.name,
                "summary": one.spec.summary,
                "flavor": one.spec.flavor,
                "reaches_network": one.spec.reaches_network,
                "loads": one.problem is None,
                "problem": one.problem,
            }
            for one in found
        ]
        return streams.send_text(json.dumps({"schema_version": 1, "backends": entries}) + "\n")
    width = max(len(one.spec.name) for one in found)
    lines = [
        f"{one.spec.name:<{width}}  {'loads' if one.problem is None else 'fails'}  {one.spec.summary}"
        + (f"\n{'':<{width}}  {one.problem}" if one.problem else "")
        for one in found
    ]
    return streams.send_text("\n".join(lines) + "\n")


def _problem(offer: NamedSpec[BackendSpec]) -> str | None:
    try:
        offer.load()
    except PluginError as error:
        how = f"; {offer.spec.install}" if offer.spec.install else ""
        return f"{describe_error(error.__cause__ or error)}{how}"
    return None
