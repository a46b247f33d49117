"""Checks of the settings and of the import name; none of them sends anything."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import imgkit
from imgkit.catalogue.catalogue import Catalogue
from imgkit.cli import values
from imgkit.cli.messages import format_error
from imgkit.default_plugins.keys import normalize_key, to_secret
from imgkit.errors import ConfigurationError, ImgkitError, UnknownProviderError
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import find_spec, load_hook_table
from imgkit.providers.accounts import Account
from imgkit.providers.base import Provider
from imgkit.redact import safe_url, scrub

DISTRIBUTION = "imgkit-service"
CLASH_REMEDY = f"Run: pip uninstall imgkit, then: pip install --force-reinstall {DISTRIBUTION}"

_FOREIGN_FILE = "imgkit.py"
"""A module of the wkhtmltoimage wrapper (imgkit 1.2.3 on PyPI); our package has no such file."""

_DAY_S = 24 * 3600.0
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        verdict: "wrong" makes the command fail; a "note" may matter or not.
        text: the fact or problem, and the remedy.
    """

    verdict: Literal["ok", "note", "wrong"]
    text: str


def check_settings(given: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the settings of a service; secrets show their last characters only.

    Args:
        given: arguments of `ImageService` from the command line.
    """
    yield _check_backend(given)
    if not given.get("backend") and not os.environ.get("IMGKIT_BACKEND"):
        for variable in ("IMGKIT_MODEL", "IMGKIT_PROVIDER"):
            if os.environ.get(variable):
                text = f"{variable} is set without IMGKIT_BACKEND, so calls without --backend fail."
                yield Finding("note", f"{text} Set it to requests or aiohttp.")
    backend = given.get("backend") or os.environ.get("IMGKIT_BACKEND") or "offline"
    model = given.get("model") or os.environ.get("IMGKIT_MODEL")
    yield Finding("ok", f"model without --model: {model or 'none (IMGKIT_MODEL is not set)'}")
    provider = _load_provider(given)
    if isinstance(provider, Finding):
        yield provider
    else:
        variable = provider.env.get("base_url", "")
        has_own_address = bool(given.get("base_url") or os.environ.get(variable, "").strip())
        is_named = bool(given.get("provider")) and given.get("backend") != "offline"
        is_needed = (backend != "offline" or is_named) and not has_own_address
        unneeded = "your server may need none" if backend != "offline" else "the offline backend needs none"
        yield from _check_keys(provider, is_needed=is_needed, unneeded=unneeded)
        if given.get("base_url"):
            yield Finding("ok", f"base URL: --base-url is {safe_url(given['base_url'])}")
        elif os.environ.get(variable, "").strip():
            yield Finding("ok", f"base URL: {variable} is {safe_url(os.environ[variable].strip())}")
    yield from _check_certificates(given)
    yield from _check_proxies(given)
    yield _check_state_folder(given.get("state_folder"))
    yield check_clock(time.time(), _find_newest_file())


def check_clock(now: float, newest: float) -> Finding:
    """Return whether the clock is plausible: not before the installation of imgkit.

    Args:
        now: the time now, in Unix seconds.
        newest: the time of the newest file of the installation, in Unix seconds.
    """
    if now >= newest - _DAY_S:
        return Finding("ok", f"clock: {_format_minute(now)}")
    return Finding(
        "wrong",
        f"clock: {_format_minute(now)}, but imgkit was installed at {_format_minute(newest)}. Set the clock: "
        "certificates seem invalid before their start date.",
    )


def find_clashes() -> list[str]:
    """Return the signs that another distribution owns or overwrites the package `imgkit`."""
    problems = []
    installed = (dist for dist in metadata.distributions() if _has_import_name(dist))
    owners = {dist.metadata["Name"].lower().replace("_", "-") for dist in installed}
    others = sorted(owners - {DISTRIBUTION})
    if others:
        problems.append(f"The import name imgkit belongs to {', '.join(others)} too")
    for folder in getattr(imgkit, "__path__", ()):
        if (Path(folder) / _FOREIGN_FILE).exists():
            problems.append(f"{Path(folder) / _FOREIGN_FILE} does not belong to {DISTRIBUTION}")
    if "ImageService" not in getattr(imgkit, "__all__", ()):
        problems.append("imgkit/__init__.py is missing, or belongs to another package")
    return problems


def _has_import_name(dist: metadata.Distribution) -> bool:
    """Return whether a distribution has the package `imgkit`.

    `metadata.packages_distributions` tells the same, but reads the names of all installed files.
    """
    if declared := dist.read_text("top_level.txt"):
        return "imgkit" in declared.split()
    record = dist.read_text("RECORD")
    if record is None:
        return any(file.parts[0] in ("imgkit", "imgkit.py") for file in dist.files or ())
    return re.search(r"^imgkit(/|\.py,)", record, re.MULTILINE) is not None


def _check_backend(given: Mapping[str, Any]) -> Finding:
    source = "--backend" if given.get("backend") else "IMGKIT_BACKEND"
    name = given.get("backend") or os.environ.get("IMGKIT_BACKEND") or "offline"
    known = load_hook_table().backend_specs()
    if name in known:
        return Finding("ok", f"backend without --backend: {name}")
    return Finding(
        "wrong",
        f"Unknown backend {name!r} in {source}. Available: {', '.join(known)}. Change or unset it.",
    )


def _load_provider(given: Mapping[str, Any]) -> Provider | Finding:
    source = "--provider" if given.get("provider") else "IMGKIT_PROVIDER"
    name = given.get("provider") or os.environ.get("IMGKIT_PROVIDER") or "openai"
    try:
        table = load_hook_table()
        provider: Provider = find_spec(table, ProviderSpec, name, UnknownProviderError, "").make()
    except UnknownProviderError as error:
        return Finding("wrong", f"{format_error(error)} Change or unset {source}.")
    except ImgkitError as error:
        return Finding("wrong", f"provider {name}: {format_error(error)}")
    return provider


def _check_keys(provider: Provider, *, is_needed: bool, unneeded: str) -> Iterator[Finding]:
    """Yield the state of each variable for a key.

    Args:
        provider: the provider, which names the variables.
        is_needed: requests go to the provider's own host, which wants a key.
        unneeded: the reason why there may be no key.
    """
    try:
        account = Catalogue("", provider.model_facts).account
    except ImgkitError as error:
        yield Finding("wrong", f"facts of the provider: {format_error(error)}")
        account = {}
    credentials = provider.credentials
    variables = [credential.variable for credential in credentials]
    is_needed = is_needed and any(credential.required for credential in credentials)
    has_key = any(os.environ.get(variable, "").strip() for variable in variables)
    if is_needed and not has_key:
        names = " or ".join(variables)
        console = f" {account['console']} has your keys." if "console" in account else ""
        text = f"API key: {names} is not set. Set it, or pass --api-key-file FILE to a call.{console}"
        yield Finding("note", text)
        return
    for credential in credentials:
        if os.environ.get(credential.variable, "").strip():
            variables += [name for name in credential.may_need if os.environ.get(name, "").strip()]
            variables += credential.needs
            missing = [name for name in credential.needs if not os.environ.get(name, "").strip()]
            for name in missing:
                yield Finding("wrong", f"API key: {credential.variable} needs {name}, which is not set")
            variables = [name for name in variables if name not in missing]
    for variable in variables:
        text = os.environ.get(variable, "").strip()
        if not text:
            yield Finding("ok", f"API key: {variable} is not set; {'another is' if has_key else unneeded}")
            continue
        try:
            key = normalize_key(to_secret(text, variable), variable)
            if is_needed:
                Account("", provider.model_facts).check_key(key, variable, provider.base_url)
            yield Finding("ok", f"API key: {variable} is set ({key.hint()})")
            prefixes = tuple(account.get("key_prefixes", ()))
            is_own = variable == provider.env["api_key"]
            if is_needed and is_own and prefixes and not key.reveal().startswith(prefixes):
                form = account.get("key_form", " or ".join(prefixes))
                yield Finding(
                    "note", f"API key: {variable} does not look like {form}. Check that it is whole."
                )
        except ConfigurationError as error:
            yield Finding("wrong", f"API key: {format_error(error)}")


def _check_certificates(given: Mapping[str, Any]) -> Iterator[Finding]:
    path = given.get("ca")
    if not path:
        yield Finding("ok", f"certificates: {_describe_certifi()}, without --ca")
    elif Path(path).exists():
        yield Finding("ok", f"certificates: --ca {path}")
    else:
        yield Finding("wrong", f"certificates: --ca {path} does not exist")
    for name in _CERTIFICATE_VARIABLES:
        if os.environ.get(name):
            yield Finding("note", f"{name} is set, but imgkit does not read it. Use --ca instead.")
    if os.environ.get("SSLKEYLOGFILE"):
        yield Finding("note", "SSLKEYLOGFILE is set: TLS libraries write the keys of connections there.")


def _describe_certifi() -> str:
    try:
        import certifi

        return f"certifi {metadata.version('certifi')} in {certifi.where()}"
    except (ImportError, metadata.PackageNotFoundError):
        return "certifi (not installed)"


def _check_proxies(given: Mapping[str, Any]) -> Iterator[Finding]:
    if given.get("proxy"):
        yield Finding("ok", f"proxy: --proxy {safe_url(given['proxy'])}")
    use = "imgkit uses it" if given.get("use_env_proxy") else "imgkit uses it with --use-env-proxy only"
    for name in _PROXY_VARIABLES:
        url = os.environ.get(name) or os.environ.get(name.lower())
        if url:
            yield Finding("note", f"{name} is {safe_url(url)}; {use}")
    bypassed = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    if bypassed and given.get("use_env_proxy"):
        yield Finding("note", f"NO_PROXY is {scrub(bypassed, limit=200)}")


def _check_state_folder(option: str | None) -> Finding:
    try:
        folder = values.find_state_folder(option)
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if nearest == folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            return Finding(
                "wrong",
                f"state folder: {folder} cannot be created in {nearest}. Set IMGKIT_HOME to another folder.",
            )
    except ImgkitError as error:
        return Finding("wrong", f"state folder: {format_error(error)}")
    except OSError as error:
        return Finding("wrong", f"state folder: {values.unusable_folder_error(folder, error)}")
    return Finding("ok", f"state folder: {folder}{'' if nearest == folder else ' (created on first use)'}")


def _find_newest_file() -> float:
    """Return the time of the newest file of the installation in Unix seconds, 0 if it is unknown."""
    try:
        files = (path for folder in imgkit.__path__ for path in Path(folder).rglob("*.py"))
        return max((path.stat().st_mtime for path in files), default=0.0)
    except OSError:
        return 0.0


def _format_minute(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
