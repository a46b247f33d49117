"""What keeps secrets and megabytes out of messages, logs and reprs."""

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

# Shapes of keys that servers like to repeat in their messages, and long base64.
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key|sess)-[A-Za-z0-9_\-*]{6,}|\bBearer\s+[A-Za-z0-9._~+/\-=]{8,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{200,}={0,2}")
_USERINFO = re.compile(r"//[^/\s@'\"]+@")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_SENSITIVE_NAME = re.compile(r"auth|token|secret|key|cookie|session|passw|signature|credential")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

MESSAGE_LIMIT = 600


class Secret:
    """A string that is shown only by `reveal`: not by repr, str, format, vars, copies or pickle.

    Two secrets are compared in a time that does not depend on where they differ.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the one frame that puts it on the wire."""
        return self._value

    def hint(self) -> str:
        """Return the last four characters behind an ellipsis; nothing of a short secret."""
        return f"…{self._value[-4:]}" if len(self._value) >= 12 else "…"

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand the key over by its environment variable")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return False
        from hmac import compare_digest

        return compare_digest(_encoded(other), _encoded(self))

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def _encoded(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")


def scrub(text: str, secrets: Iterable[str | Secret] = (), limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` fit for a message.

    Args:
        text: anything a server, a library or a user said.
        secrets: exact strings that must not appear, such as the key that was sent.
        limit: longest result in characters.

    Returns:
        One piece of text without keys, long base64, control and direction-changing characters
        and lone surrogates.
    """
    for secret in secrets:
        plain = secret.reveal() if isinstance(secret, Secret) else secret
        if plain:
            text = text.replace(plain, "…")  # before cutting, which could leave a part of one
    text = text[: limit * 8]
    text = _KEY_LIKE.sub("…", text)
    text = _QUERY.sub(r"\1?…", _USERINFO.sub("//…@", text))
    text = _BASE64.sub(lambda found: f"<{len(found[0])} characters of base64>", text)
    text = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8").strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def safe_url(url: str) -> str:
    """Return scheme, host, port and path of `url`, without user, query and fragment.

    Signed result URLs carry their permission in the query, so it never appears in a message.
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
    """Return `headers` with the values of credentials and identities replaced by ``…``.

    Args:
        headers: by name.
        secret: further names whose values are hidden, whatever they are called.
    """
    return {
        name: "…" if name in secret or is_sensitive(name.lower()) else scrub(value, limit=200)
        for name, value in headers.items()
    }


def is_sensitive(name: str) -> bool:
    """Return whether a header of this lower-case name is taken for a credential, or for an identity."""
    return name in SENSITIVE_HEADERS or names_secret(name)


def names_secret(name: str) -> bool:
    """Return whether a lower-case name is one of a credential."""
    return _SENSITIVE_NAME.search(name) is not None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '…'?)" with the known word closest to `word`, "" if none is close."""
    import difflib

    close = difflib.get_close_matches(word.lower()[:60], list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
