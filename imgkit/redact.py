"""Functions that keep secrets and megabytes out of messages, logs and reprs."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NoReturn
from urllib.parse import urlsplit

SENSITIVE_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "api-key",
        "x-api-key",
        "x-key",
        "cookie",
        "set-cookie",
        "openai-organization",
        "openai-project",
        "x-amz-security-token",
    }
)

# Servers repeat keys of these shapes, and long base64, in their error messages.
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key|sess)-[A-Za-z0-9_\-*]{6,}|\bBearer\s+[A-Za-z0-9._~+/\-=]{8,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{200,}={0,2}")
_USERINFO = re.compile(r"//[^/\s@'\"]+@")
# The lookbehind lets each word start once, so the search takes linear time.
_QUERY = re.compile(r"""(?<![^\s?'"])([^\s?'"]*)\?([^\s'"]+)""")
_SENSITIVE_NAME = re.compile(r"auth|token|secret|key|cookie|session|passw|signature|credential")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

MESSAGE_LIMIT = 600


class Secret:
    """A string that only `reveal` shows: repr, str, format, vars, copies and pickle do not.

    The comparison of two secrets takes the same time wherever they differ.

    Example::

        >>> secret = Secret("sk-1234567890")
        >>> print(secret, secret.hint())
        Secret(…) …7890
        >>> secret.reveal()
        'sk-1234567890'

    Args:
        value: the string to hide.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself. Call this only in the function that puts it on the wire."""
        return self._value

    def hint(self) -> str:
        """Return an ellipsis and the last four characters; only the ellipsis for a short secret."""
        return f"…{self._value[-4:]}" if len(self._value) >= 12 else "…"

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Secret cannot be pickled. Pass the key in its environment variable instead.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return False
        from hmac import compare_digest

        return compare_digest(_to_bytes(other), _to_bytes(self))

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def _to_bytes(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")


def scrub(text: str, secrets: Iterable[str | Secret] = (), limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` in a form that is fit for a message.

    Example::

        >>> scrub("Wrong key sk-1234567890.")
        'Wrong key ….'

    Args:
        text: text of a server, a library or a user.
        secrets: exact strings to remove, such as the key of the request.
        limit: longest result in characters.

    Returns:
        The text without keys, long base64, control and direction-changing characters and lone
        surrogates.
    """
    for secret in secrets:
        plain = secret.reveal() if isinstance(secret, Secret) else secret
        if plain:
            # Before cutting, which could leave a part of a secret.
            text = text.replace(plain, "…")
    text = text[: limit * 8]
    text = _KEY_LIKE.sub("…", text)
    text = cut_queries(_USERINFO.sub("//…@", text))
    text = _BASE64.sub(lambda match: f"<{len(match[0])} characters of base64>", text)
    text = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8").strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_queries(text: str) -> str:
    """Return `text` with "…" in place of the query of each URL, path or file name.

    The query of a signed URL grants access.

    Example::

        >>> cut_queries("GET /fox.png?sig=abc failed. Why?")
        'GET /fox.png?… failed. Why?'
    """
    return _QUERY.sub(_cut_query, text)


def _cut_query(found: re.Match[str]) -> str:
    path, query = found.groups()
    is_url = "/" in path or any(mark in query for mark in ("=", "%3D", "%3d", "?"))
    return f"{path}?…" if is_url else found[0]


def safe_url(url: str) -> str:
    """Return scheme, host, port and path of `url`, without user, query and fragment.

    The query of a signed result URL grants access, so no message may contain it.

    Example::

        >>> safe_url("https://user:password@cdn.example/fox.png?signature=abc")
        'https://cdn.example/fox.png?…'
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "<unreadable URL>"
    host = f"[{host}]" if ":" in host else host
    scheme = f"{parts.scheme}:" if parts.scheme else ""
    origin = f"//{host}{f':{port}' if port else ''}" if host else ""
    return scrub(scheme + origin + parts.path + ("?…" if parts.query else ""), limit=200)


def safe_headers(headers: Mapping[str, str], secret: Container[str] = ()) -> dict[str, str]:
    """Return `headers` with ``…`` in place of the values of credentials and identities.

    Example::

        >>> safe_headers({"Authorization": "Bearer abc", "Accept": "application/json"})
        {'Authorization': '…', 'Accept': 'application/json'}

    Args:
        headers: values by header name.
        secret: further names whose values to hide.
    """
    return {
        name: "…" if name in secret or is_sensitive_header(name.lower()) else scrub(value, limit=200)
        for name, value in headers.items()
    }


def is_sensitive_header(name: str) -> bool:
    """Return whether a header with this lower-case name may hold a credential or an identity."""
    return name in SENSITIVE_HEADERS or is_secret_name(name)


def is_secret_name(name: str) -> bool:
    """Return whether a lower-case name suggests a credential."""
    return _SENSITIVE_NAME.search(name) is not None


def format_suggestion(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '…'?)" with the known word closest to `word`, or "" if none is close.

    Example::

        >>> format_suggestion("reqests", ["aiohttp", "requests"])
        " (did you mean 'requests'?)"
    """
    import difflib

    close = difflib.get_close_matches(word.lower()[:60], list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
