"""Base URLs of services: checked, with the URL to write in place of a wrong one."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from imgkit.errors import ConfigurationError
from imgkit.redact import Secret, safe_url
from imgkit.wire.urls import can_be_host, is_loopback

_DEPLOYMENT = re.compile(
    r"(?P<root>.*?)(?:/openai/deployments(?:/+(?P<name>[^/]*).*)?|/deployments/+(?P<other>[^/]+)/+images/.*)"
)
_ENDPOINT = re.compile(
    r"(.*)/images/(?:generations|edits|variations)/*"
    r"|(.*/v\d\w*)/(?:images|chat|chat/completions|completions|responses|embeddings|models|files)/*"
)
_API_VERSION = re.compile(r"(?:.*&)?api-version=([A-Za-z0-9.-]{1,40})(?:&.*)?")
_LOCAL_DOMAINS = ("local", "lan", "internal", "localhost", "home.arpa")


class _Problem(NamedTuple):
    """A problem of a base URL, as the rest of a sentence.

    Attributes:
        text: starts with a verb, or with the URL without its secrets.
        url: the base URL to write instead, "" if nobody can know it.
        also: the other settings that a wrong URL contains.
    """

    text: str
    url: str = ""
    also: str = ""


def check_base_url(url: object, source: str, official: str = "") -> str:
    """Return a base URL without its trailing slashes. No error shows a password in it.

    Example::

        >>> check_base_url("https://api.openai.com/v1/", "base_url")
        'https://api.openai.com/v1'

    Args:
        url: the value that the caller gave, perhaps wrapped in a `Secret`.
        source: the argument or environment variable of the value, for error messages.
        official: the provider's own base URL, whose path imgkit knows.

    Raises:
        ConfigurationError: no http(s) scheme, no host, credentials, a query, a fragment, the path of an
            operation, or characters outside ASCII. Where the right URL is clear, the hint has it.
    """
    wrapped = Secret(url) if isinstance(url, str) else url
    del url  # tracebacks may show local variables
    problem = _find_problem(wrapped.reveal() if isinstance(wrapped, Secret) else None)
    if problem is not None or not isinstance(wrapped, Secret):
        text, better, also = problem or _NO_URL
        if better and not also and not urlsplit(better).path and official.startswith(f"{better}/"):
            better = official
        hint = f"{suggest_base_url(source, better)}{also}" if better else None
        raise ConfigurationError(f"{source} {text}", hint=hint, field=source)
    return wrapped.reveal().rstrip("/")


def suggest_base_url(source: str, url: str) -> str:
    """Return the sentence that asks for a base URL in the argument or variable of the wrong one.

    Example::

        >>> suggest_base_url("OPENAI_BASE_URL", "http://localhost:8000/v1")
        'Set OPENAI_BASE_URL=http://localhost:8000/v1.'
    """
    return f"Set {source}={url}." if source.isupper() else f'Pass {source}="{url}".'


_NO_URL = _Problem(
    "is not a URL. Give a URL such as 'https://api.openai.com/v1', and a host outside ASCII in its xn-- form."
)


def _find_problem(url: str | None) -> _Problem | None:
    """Return the problem of a base URL, None without a problem."""
    if url is None or not re.fullmatch(r"[!-~]+", url) or re.search(r'[\\"<>^`{|}]', url):
        return _NO_URL
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Python's own message quotes the port, which may be the first part of a password with a slash.
        return _Problem(
            "is not a URL: its host or its port is not valid. Write it as 'https://host:port/path'."
        )
    if parts.scheme not in ("http", "https"):
        return _find_scheme_problem(url)
    if parts.username is not None or parts.password is not None:
        return _Problem("contains credentials. Remove them and give the API key by itself.")
    if not parts.netloc and (rest := parts.path.lstrip("/")):
        better = f"{parts.scheme}://{rest}"
        if _find_problem(better) is None:
            return _Problem(f"{safe_url(url)!r} lacks a slash before its host.", better)
    if not can_be_host(parts.hostname) or port == 0:
        return _Problem(f"{safe_url(url)!r} has no valid host to connect to.")
    place = f"{parts.scheme}://{parts.netloc}"
    is_azure = (parts.hostname or "").endswith(".azure.com")
    match = _DEPLOYMENT.fullmatch(parts.path)
    # Other servers, such as proxies, have roots of this form.
    if match and (is_azure or "/images/" in parts.path):
        return _find_deployment_problem(
            f"{place}{match['root']}", unquote(match["name"] or match["other"] or ""), parts
        )
    if match := _ENDPOINT.fullmatch(parts.path):
        return _Problem(
            f"{safe_url(url)!r} is the address of one operation. imgkit adds '/images/…' by itself.",
            f"{place}{match[1] or match[2] or ''}".rstrip("/"),
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return _Problem("contains '?' or '#'. It must end with its path.", f"{place}{parts.path}")
    return None


def _find_scheme_problem(url: str) -> _Problem:
    """Return the problem of a URL without http:// or https://."""
    if "@" in url or ("://" in url and not url.startswith("//")):
        return _Problem("must start with http:// or https://.")
    if re.match(r"/(?!/)|[?#]|:(?!:)", url):
        return _Problem(f"{re.split('[?#]', url)[0][:200]!r} has no host to connect to.")
    bare = url.lstrip("/")
    scheme = "http" if _is_local(bare) else "https"
    problem = _find_problem(f"{scheme}://{bare}")
    shown = f"{re.split('[?#]', url)[0][:200]!r} does not start with http:// or https://."
    if problem is None:
        return _Problem(shown, f"{scheme}://{bare}")
    return problem._replace(text=shown if problem.url else problem.text)


def _find_deployment_problem(root: str, deployment: str, parts: SplitResult) -> _Problem:
    """Return the problem of a URL in the layout of Azure, which contains the name of a deployment."""
    version = _API_VERSION.fullmatch(parts.query)
    name = f"the deployment {deployment[:100]!r}" if deployment else "deployments"
    model = f'model="{deployment[:100]}"' if deployment else "the name of a deployment as model"
    also = f' Pass provider="azure" and {model}.'
    return _Problem(
        f"is the address of {name}, not of the resource.",
        root,
        f"{also} Set OPENAI_API_VERSION={version[1]}." if version else also,
    )


def _is_local(url: str) -> bool:
    """Return whether a URL without a scheme names a host that rarely has a certificate."""
    try:
        host = urlsplit(f"//{url}").hostname or ""
    except ValueError:
        return False
    try:
        return is_loopback(host) or ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(tuple(f".{name}" for name in _LOCAL_DOMAINS))
