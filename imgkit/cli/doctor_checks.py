"""TODO."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import imgkit
from imgkit.cli import state
from imgkit.default_plugins.keys import normalize_key, to_secret
from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import load_hook_table
from imgkit.providers.base import Provider
from imgkit.redact import safe_url, scrub


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: "wrong" makes the command fail; a "note" is for the reader to judge.
        text: what was found, and how to mend it.
    """

    verdict: Literal["ok", "note", "wrong"]
    text: str


A_DAY_S = 24 * 3600.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def examined(given: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what a service would be built with, secrets by their last characters only.

    Args:
        given: arguments of `ImageService` that the command line gives.
    """
    yield _backend(given)
    model = given.get("model") or os.environ.get("IMGKIT_MODEL")
    yield Finding("ok", f"model used without --model: {model or 'none (IMGKIT_MODEL is not set)'}")
    provider = _provider(given)
    if isinstance(provider, Finding):
        yield provider
    else:
        yield from _keys(provider)
        variable = provider.env.get("base_url", "")
        if given.get("base_url"):
            yield Finding("ok", f"base URL: --base-url is {safe_url(given['base_url'])}")
        elif os.environ.get(variable, "").strip():
            yield Finding("ok", f"base URL: {variable} is {safe_url(os.environ[variable].strip())}")
    yield from _certificates(given)
    yield from _proxies(given)
    yield _state_folder(given.get("state_folder"))
    yield clock(time.time(), _newest_file())


def clock(now: float, newest: float) -> Finding:
    """Return whether the clock can be right: not before the files of the installation were written.

    Args:
        now: Unix time in seconds.
        newest: when the newest of these files was written.
    """
    if now >= newest - A_DAY_S:
        return Finding("ok", f"clock: {_minute(now)}")
    return Finding(
        "wrong",
        f"clock: {_minute(now)}, but files of imgkit were written at {_minute(newest)}: set it, or "
        "certificates will seem not to be valid yet",
    )


def _backend(given: Mapping[str, Any]) -> Finding:
    source = "--backend" if given.get("backend") else "IMGKIT_BACKEND"
    wanted = given.get("backend") or os.environ.get("IMGKIT_BACKEND") or "offline"
    known = load_hook_table().backend_specs()
    if wanted in known:
        return Finding("ok", f"backend used without --backend: {wanted}")
    return Finding("wrong", f"{source} is {wanted}; there are {', '.join(known)}: change or unset it")


def _provider(given: Mapping[str, Any]) -> Provider | Finding:
    source = "--provider" if given.get("provider") else "IMGKIT_PROVIDER"
    wanted = given.get("provider") or os.environ.get("IMGKIT_PROVIDER") or "openai"
    offer = load_hook_table().specs_by_name(ProviderSpec).get(wanted)
    if offer is None:
        return Finding("wrong", f"{source} names no provider that loads: change or unset it")
    try:
        made: Provider = offer.make()
    except ImgkitError as error:
        return Finding("wrong", f"provider {wanted}: {error}")
    return made


def _keys(provider: Provider) -> Iterator[Finding]:
    for variable in (one.variable for one in provider.credentials):
        text = os.environ.get(variable, "").strip()
        if not text:
            yield Finding("ok", f"API key: {variable} is not set; the offline backend needs none")
            continue
        try:
            yield Finding(
                "ok",
                f"API key: {variable} is set ({normalize_key(to_secret(text, variable), variable).hint()})",
            )
        except ConfigurationError as error:
            yield Finding("wrong", f"API key: {error}")


def _certificates(given: Mapping[str, Any]) -> Iterator[Finding]:
    if given.get("ca"):
        found = Path(given["ca"]).exists()
        yield Finding(
            "ok" if found else "wrong",
            f"certificates: --ca {given['ca']}" + ("" if found else " is not there"),
        )
    else:
        yield Finding("ok", f"certificates: those of certifi {_certifi()}, unless --ca names others")
    for name in _CERTIFICATES:
        if os.environ.get(name):
            yield Finding("note", f"{name} is set; imgkit does not read it: --ca names other certificates")
    if os.environ.get("SSLKEYLOGFILE"):
        yield Finding("note", "SSLKEYLOGFILE is set: what opens TLS connections is written there")


def _certifi() -> str:
    try:
        import certifi

        return f"{metadata.version('certifi')} in {certifi.where()}"
    except (ImportError, metadata.PackageNotFoundError):
        return "(which is not installed)"


def _proxies(given: Mapping[str, Any]) -> Iterator[Finding]:
    if given.get("proxy"):
        yield Finding("ok", f"proxy: --proxy {safe_url(given['proxy'])}")
    used = "it is used" if given.get("use_env_proxy") else "it is used with --use-env-proxy only"
    for name in _PROXIES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value:
            yield Finding("note", f"{name} is {safe_url(value)}; {used}")
    bypassed = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    if bypassed and given.get("use_env_proxy"):
        yield Finding("note", f"NO_PROXY is {scrub(bypassed, limit=200)}")


def _state_folder(given: str | None) -> Finding:
    try:
        folder = state.folder(given)
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if there == folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            return Finding(
                "wrong", f"state folder: {folder} cannot be made in {there}: give another IMGKIT_HOME"
            )
    except ImgkitError as error:
        return Finding("wrong", f"state folder: {error}")
    except OSError as error:
        return Finding("wrong", f"state folder: {state.unusable(folder, error)}")
    return Finding("ok", f"state folder: {folder}{'' if there == folder else ' (made when it is needed)'}")


def _newest_file() -> float:
    """Return when the newest file of the installation was written, 0 if that is not known."""
    try:
        files = (path for folder in imgkit.__path__ for path in Path(folder).rglob("*.py"))
        return max((path.stat().st_mtime for path in files), default=0.0)
    except OSError:
        return 0.0


def _minute(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


DISTRIBUTION = "imgkit-service"

MEND = f"pip uninstall imgkit, then pip install --force-reinstall {DISTRIBUTION}"

FOREIGN_FILE = "imgkit.py"
"""A module of the wkhtmltoimage wrapper (imgkit 1.2.3 on PyPI) that is none of ours."""


def clashes() -> list[str]:
    """Return what shows that something else owns, or has written to, the package `imgkit`."""
    found = []
    owners = {name.lower().replace("_", "-") for name in metadata.packages_distributions().get("imgkit", ())}
    strangers = sorted(owners - {DISTRIBUTION})
    if strangers:
        found.append(f"the import name imgkit belongs to {', '.join(strangers)} too")
    for folder in getattr(imgkit, "__path__", ()):
        if (Path(folder) / FOREIGN_FILE).exists():
            found.append(f"{Path(folder) / FOREIGN_FILE} is not of {DISTRIBUTION}")
    if "ImageService" not in getattr(imgkit, "__all__", ()):
        found.append("imgkit/__init__.py is missing, or is that of another package")
    return found
