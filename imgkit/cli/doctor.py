"""`imgkit doctor`: what is installed, what would be used, what is wrong. It sends nothing."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pkgutil import resolve_name
from typing import Literal

import imgkit
from imgkit.cli import backends, clash, streams
from imgkit.plugins import DISCOVERY, build_table
from imgkit.redact import Secret, safe_url

PARTS = ("cli", "painter", "testing")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: "wrong" makes the command fail; a "note" is for the reader to judge.
        text: what was found, and how to mend it.
    """

    verdict: Literal["ok", "note", "wrong"]
    text: str


@dataclass(frozen=True)
class Need:
    """A requirement of the distribution: a name, its floors, and the optional part it belongs to."""

    name: str
    specifier: str
    part: str | None


def examine() -> int:
    """Print the findings; return 1 if something is wrong."""
    found = [*_versions(), *_parts(), *_plugins(), *_backends(), *_surroundings(), *_name()]
    wrong = sum(finding.verdict == "wrong" for finding in found)
    lines = [f"{finding.verdict:<5}  {finding.text}" for finding in found]
    lines.append(f"{wrong} to mend" if wrong else "nothing is wrong")
    streams.send_text("\n".join(lines) + "\n")
    return 1 if wrong else 0


def needs() -> list[Need]:
    """Return what the installed distribution says that it requires, [] if it is not installed."""
    try:
        lines = metadata.requires(clash.DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        whole = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", requirement.strip())
        part = re.fullmatch(r"\s*extra\s*==\s*['\"](.+?)['\"]\s*", marker)
        if whole and whole[1] != clash.DISTRIBUTION and (part or not marker):
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
        yield Finding("note", f"{clash.DISTRIBUTION} is not installed: what it needs is not known")
        return
    supported = metadata.metadata(clash.DISTRIBUTION)["Requires-Python"] or ""
    if not satisfies(platform.python_version(), supported):
        yield Finding("wrong", f"Python {platform.python_version()} does not fit {supported}")
    for need in required:
        problem = _judge(need)
        if problem:
            yield Finding("wrong", f"{problem}: pip install --upgrade {clash.DISTRIBUTION}")
        else:
            yield Finding("ok", f"{need.name} {metadata.version(need.name)} ({need.specifier})")


def _parts() -> Iterator[Finding]:
    for part in PARTS:
        own = [need for need in needs() if need.part == part]
        problems = [problem for need in own if (problem := _judge(need))]
        if not own:
            continue
        if problems:
            mend = f"pip install '{clash.DISTRIBUTION}[{part}]'"
            yield Finding("note", f"optional part {part}: {', '.join(problems)}; {mend}")
        else:
            yield Finding("ok", f"optional part {part} is installed")


def _plugins() -> Iterator[Finding]:
    for one in DISCOVERY.loaded():
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


def _surroundings() -> Iterator[Finding]:
    """Yield what the environment would set, secrets by their last characters only."""
    wanted = os.environ.get("IMGKIT_BACKEND") or "offline"
    known = build_table().backend_specs()
    if wanted in known:
        yield Finding("ok", f"backend used without --backend: {wanted}")
    else:
        yield Finding(
            "wrong", f"IMGKIT_BACKEND is {wanted}; there are {', '.join(known)}: change or unset it"
        )
    model = os.environ.get("IMGKIT_MODEL")
    yield Finding("ok", f"model used without --model: {model or 'none (IMGKIT_MODEL is not set)'}")
    variables = _provider_variables()
    if variables is None:
        yield Finding("wrong", "IMGKIT_PROVIDER names no provider that loads: change or unset it")
        return
    variable = variables["api_key"]
    key = os.environ.get(variable, "").strip()
    how = f"set ({Secret(key).hint()})" if key else "not set; the offline backend needs none"
    yield Finding("ok", f"API key: {variable} is {how}")
    base_url = os.environ.get(variables["base_url"], "").strip()
    if base_url:
        yield Finding("ok", f"base URL: {variables['base_url']} is {safe_url(base_url)}")
    yield Finding("ok", "certificates: those of certifi, unless --ca names others")
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        yield Finding("note", "HTTPS_PROXY is set; it is used with --use-env-proxy only")


def _provider_variables() -> dict[str, str] | None:
    """Return the names of the provider's environment variables."""
    spec = build_table().provider_specs().get(os.environ.get("IMGKIT_PROVIDER") or "openai")
    try:
        return dict(resolve_name(spec.target).env) if spec else None
    except Exception:  # a stranger's module
        return None


def _name() -> Iterator[Finding]:
    found = clash.clashes()
    for problem in found:
        yield Finding("wrong", f"{problem}: {clash.MEND}")
    if not found:
        yield Finding("ok", f"the import name imgkit belongs to {clash.DISTRIBUTION} alone")
