"""`imgkit backends`: which there are, and which of them would work here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pkgutil import resolve_name

from imgkit.cli import streams
from imgkit.hookspecs import BackendSpec
from imgkit.plugins import build_table


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
    return [Listed(spec, _problem(spec)) for spec in build_table().backend_specs().values()]


def show(*, as_json: bool) -> int:
    """Print the backends and return the exit code."""
    found = listed()
    if as_json:
        entries = [
            {
                "name": one.spec.name,
                "summary": one.spec.summary,
                "face": one.spec.face,
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


def _problem(spec: BackendSpec) -> str | None:
    try:
        resolve_name(spec.target)
    except Exception as error:  # whatever a stranger's module does while it is imported
        how = f"; {spec.install}" if spec.install else ""
        return f"{type(error).__name__}: {error}{how}"
    return None
