"""The command `imgkit doctor`: a report on the installation, with ``--live`` or ``--provider`` on the API."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import imgkit
from imgkit.cli import console, doctor_checks, doctor_live, plugins
from imgkit.cli.doctor_checks import DISTRIBUTION, Finding
from imgkit.core.core import DEFAULT_BACKEND
from imgkit.plugins.table import describe_error

EXTRAS = ("cli", "painter", "testing")


@dataclass(frozen=True)
class Requirement:
    """A requirement of the distribution.

    Attributes:
        name: the required distribution.
        specifier: its versions, such as ``>=2.0,<3``.
        extra: the extra of imgkit-service that requires it, None if imgkit always does.
    """

    name: str
    specifier: str
    extra: str | None


def run_doctor(*, live: bool = False, api_key_file: str | None = None, **settings: Any) -> int:
    """Print a line for each finding.

    Args:
        live: also make a free request. A provider that is named asks for it, unless the backend is offline.
        api_key_file: a file with the key for the request.
        settings: arguments of `ImageService` from the command line.

    Returns:
        0, or 1 if a finding is "wrong".
    """
    given = {name: value for name, value in settings.items() if value is not None}
    backend = given.get("backend") or os.environ.get("IMGKIT_BACKEND")
    asks_host = live or (bool(given.get("provider")) and backend != DEFAULT_BACKEND)
    findings = [
        *_check_requirements(),
        *_check_imports(),
        *_check_extras(),
        *_check_plugins(),
        *_check_backends(),
        *doctor_checks.check_settings(given),
        *_check_import_name(),
        *(doctor_live.check_api(given, api_key_file) if asks_host else ()),
    ]
    problems = sum(finding.verdict == "wrong" for finding in findings)
    lines = [f"{finding.verdict:<5}  {finding.text}" for finding in findings]
    lines.append(f"{problems} problems found." if problems > 1 else f"{problems or 'No'} problem found.")
    console.write_text("\n".join(lines) + "\n")
    return 1 if problems else 0


def list_requirements() -> list[Requirement]:
    """Return the requirements of the installed distribution, [] if it is not installed."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    requirements = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        name = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", requirement.strip())
        extra = re.fullmatch(r"\s*extra\s*==\s*['\"](.+?)['\"]\s*", marker)
        if name and name[1] != DISTRIBUTION and (extra or not marker):
            requirements.append(Requirement(name[1], name[2].strip("() "), extra[1] if extra else None))
    return requirements


def is_version_in(version: str, specifier: str) -> bool:
    """Return whether a version fits a specifier such as ``>=2.0,<3``; only numbers are compared.

    Example:
        >>> is_version_in("1.10", ">=1.9,<2")
        True
    """
    operators: dict[str, Callable[[int], bool]] = {
        ">=": lambda order: order >= 0,
        "<=": lambda order: order <= 0,
        "==": lambda order: order == 0,
        ">": lambda order: order > 0,
        "<": lambda order: order < 0,
        "!=": lambda order: order != 0,
    }
    for operator, bound in re.findall(r"([<>=!]=?)\s*([\w.]+)", specifier):
        if operator in operators and not operators[operator](_compare_versions(version, bound)):
            return False
    return True


def _compare_versions(version: str, other: str) -> int:
    """Return 1, 0 or -1: whether a version is newer than, equal to or older than the other."""
    numbers = (map(int, re.findall(r"\d+", text)) for text in (version, other))
    for left, right in zip_longest(*numbers, fillvalue=0):
        if left != right:
            return 1 if left > right else -1
    return 0


def _find_problem(requirement: Requirement) -> str | None:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if is_version_in(version, requirement.specifier):
        return None
    return f"{requirement.name} {version} does not fit {requirement.specifier}"


def _check_requirements() -> Iterator[Finding]:
    folder = next(iter(imgkit.__path__), "")
    yield Finding("ok", f"imgkit {getattr(imgkit, '__version__', 'of unknown version')} in {folder}")
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    requirements = [requirement for requirement in list_requirements() if requirement.extra is None]
    if not requirements:
        yield Finding("note", f"{DISTRIBUTION} is not installed, so its requirements are unknown.")
        return
    supported = metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    if not is_version_in(platform.python_version(), supported):
        yield Finding("wrong", f"Python {platform.python_version()} does not fit {supported}.")
    for requirement in requirements:
        problem = _find_problem(requirement)
        if problem:
            yield Finding("wrong", f"{problem}. Run: pip install --upgrade {DISTRIBUTION}")
        else:
            version = metadata.version(requirement.name)
            yield Finding("ok", f"{requirement.name} {version} ({requirement.specifier})")


def _check_imports() -> Iterator[Finding]:
    """Compare the modules that Python imports with the distributions that are installed.

    The metadata of a distribution stays although another distribution has replaced its files.
    """
    owners = metadata.packages_distributions()
    for requirement in list_requirements():
        if requirement.extra is not None or _find_problem(requirement):
            continue
        distribution = metadata.distribution(requirement.name)
        for module, names in sorted(owners.items()):
            others = {name for name in names if _normalize_name(name) != _normalize_name(requirement.name)}
            if len(others) < len(set(names)) and not module.startswith("_"):
                yield from _compare_module(module, distribution, sorted(others))


def _compare_module(module: str, distribution: metadata.Distribution, others: list[str]) -> Iterator[Finding]:
    """Yield a note if a module is not the module that its distribution has installed.

    Args:
        module: name of the module.
        distribution: the distribution that we require.
        others: names of further distributions that have installed the module.
    """
    try:
        imported = vars(import_module(module))
    except Exception as error:
        yield Finding("wrong", f"{module} cannot be imported: {describe_error(error)}")
        return
    version = str(imported.get("__version__", distribution.version))
    folder = Path(str(distribution.locate_file(""))).resolve()
    file = Path(str(imported.get("__file__") or folder)).resolve()
    is_editable = '"editable": true' in (distribution.read_text("direct_url.json") or "")
    is_elsewhere = not is_editable and not file.is_relative_to(folder)
    if others or is_elsewhere or _compare_versions(version, distribution.version):
        cause = f" {' and '.join(others)} has installed the same module." if others else ""
        yield Finding(
            "note",
            f"{module} {version} is imported from {file}, but {distribution.name} {distribution.version} is "
            f"installed in {folder}.{cause} Remove the other copy, then run: pip install --force-reinstall "
            f"{distribution.name}",
        )


def _normalize_name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _check_extras() -> Iterator[Finding]:
    for extra in EXTRAS:
        requirements = [requirement for requirement in list_requirements() if requirement.extra == extra]
        if not requirements:
            continue
        problems = list(filter(None, map(_find_problem, requirements)))
        if problems:
            remedy = f"Run: pip install '{DISTRIBUTION}[{extra}]'"
            yield Finding("note", f"Extra {extra}: {', '.join(problems)}. {remedy}")
        else:
            yield Finding("ok", f"Extra {extra} is installed.")


def _check_plugins() -> Iterator[Finding]:
    for plugin in plugins.load_silently():
        if plugin.state == "loaded":
            yield Finding("ok", f"{plugin.origin} loads")
        else:
            verdict: Literal["wrong", "note"] = "wrong" if plugin.state == "broken" else "note"
            yield Finding(verdict, f"{plugin.origin} is {plugin.state}: {plugin.reason}")


def _check_backends() -> Iterator[Finding]:
    for entry in plugins.list_backends():
        if entry.problem is None:
            yield Finding("ok", f"backend {entry.spec.name} loads")
        else:
            yield Finding("wrong", f"backend {entry.spec.name} does not load: {entry.problem}")


def _check_import_name() -> Iterator[Finding]:
    clashes = doctor_checks.find_clashes()
    for problem in clashes:
        yield Finding("wrong", f"{problem}. {doctor_checks.CLASH_REMEDY}")
    if not clashes:
        yield Finding("ok", f"The import name imgkit belongs to {DISTRIBUTION} alone.")
