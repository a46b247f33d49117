"""`imgkit doctor`: what is installed and would be used, what is wrong; with ``--live``, what the API says."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from typing import Any, Literal

import imgkit
from imgkit.cli import backends, doctor_checks
from imgkit.cli import console as streams
from imgkit.cli import doctor_live as liveness
from imgkit.cli.doctor_checks import Finding
from imgkit.plugins.registry import DISCOVERY

PARTS = ("cli", "painter", "testing")


@dataclass(frozen=True)
class Need:
    """A requirement of the distribution: a name, its floors, and the optional part it belongs to."""

    name: str
    specifier: str
    part: str | None


def examine(*, live: bool = False, api_key_file: str | None = None, **settings: Any) -> int:
    """Print the findings; return 1 if something is wrong.

    Args:
        live: make one free request, too.
        api_key_file: the key of ``--live`` is in this file.
        settings: arguments of `ImageService`, as the command line gives them.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    found = [
        *_versions(),
        *_parts(),
        *_plugins(),
        *_backends(),
        *doctor_checks.examined(given),
        *_name(),
        *(liveness.examined(given, api_key_file) if live else ()),
    ]
    wrong = sum(finding.verdict == "wrong" for finding in found)
    lines = [f"{finding.verdict:<5}  {finding.text}" for finding in found]
    lines.append(f"{wrong} to mend" if wrong else "nothing is wrong")
    streams.send_text("\n".join(lines) + "\n")
    return 1 if wrong else 0


def needs() -> list[Need]:
    """Return what the installed distribution says that it requires, [] if it is not installed."""
    try:
        lines = metadata.requires(doctor_checks.DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        whole = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", requirement.strip())
        part = re.fullmatch(r"\s*extra\s*==\s*['\"](.+?)['\"]\s*", marker)
        if whole and whole[1] != doctor_checks.DISTRIBUTION and (part or not marker):
            found.append(Need(whole[1], whole[2].strip("() "), part[1] if part else None))
    return found


def satisfies(version: str, specifier: str) -> bool:
    """Return whether a version is within a specifier such as ``>=2.0,<3``; only numbers are compared."""
    rules: dict[str, Callable[[int], bool]] = {
        ">=": lambda order: order >= 0,
        "<=": lambda order: order <= 0,
        "==": lambda order: order == 0,
        ">": lambda order: order > 0,
        "<": lambda order: order < 0,
        "!=": lambda order: order != 0,
    }
    for operator, wanted in re.findall(r"([<>=!]=?)\s*([\w.]+)", specifier):
        if operator in rules and not rules[operator](_order(version, wanted)):
            return False
    return True


def _order(one: str, other: str) -> int:
    numbers = (map(int, re.findall(r"\d+", text)) for text in (one, other))
    for left, right in zip_longest(*numbers, fillvalue=0):
        if left != right:
            return 1 if left > right else -1
    return 0


def _judge(need: Need) -> str | None:
    """Return what is wrong with a requirement, None if it is met."""
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is not installed"
    if satisfies(version, need.specifier):
        return None
    return f"{need.name} {version} does not fit {need.specifier}"


def _versions() -> Iterator[Finding]:
    folder = next(iter(imgkit.__path__), "")
    yield Finding("ok", f"imgkit {getattr(imgkit, '__version__', 'of unknown version')} in {folder}")
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    required = [need for need in needs() if need.part is None]
    if not required:
        yield Finding("note", f"{doctor_checks.DISTRIBUTION} is not installed: what it needs is not known")
        return
    supported = metadata.metadata(doctor_checks.DISTRIBUTION)["Requires-Python"] or ""
    if not satisfies(platform.python_version(), supported):
        yield Finding("wrong", f"Python {platform.python_version()} does not fit {supported}")
    for need in required:
        problem = _judge(need)
        if problem:
            yield Finding("wrong", f"{problem}: pip install --upgrade {doctor_checks.DISTRIBUTION}")
        else:
            yield Finding("ok", f"{need.name} {metadata.version(need.name)} ({need.specifier})")


def _parts() -> Iterator[Finding]:
    for part in PARTS:
        own = [need for need in needs() if need.part == part]
        problems = [problem for need in own if (problem := _judge(need))]
        if not own:
            continue
        if problems:
            mend = f"pip install '{doctor_checks.DISTRIBUTION}[{part}]'"
            yield Finding("note", f"optional part {part}: {', '.join(problems)}; {mend}")
        else:
            yield Finding("ok", f"optional part {part} is installed")


def _plugins() -> Iterator[Finding]:
    for one in DISCOVERY.load_installed():
        if one.state == "loaded":
            yield Finding("ok", f"{one.origin} loads")
        else:
            verdict: Literal["wrong", "note"] = "wrong" if one.state == "broken" else "note"
            yield Finding(verdict, f"{one.origin} is {one.state}: {one.reason}")


def _backends() -> Iterator[Finding]:
    for one in backends.listed():
        if one.problem is None:
            yield Finding("ok", f"backend {one.spec.name} loads")
        else:
            yield Finding("wrong", f"backend {one.spec.name} does not load: {one.problem}")


def _name() -> Iterator[Finding]:
    found = doctor_checks.clashes()
    for problem in found:
        yield Finding("wrong", f"{problem}: {doctor_checks.MEND}")
    if not found:
        yield Finding("ok", f"the import name imgkit belongs to {doctor_checks.DISTRIBUTION} alone")
