"""Functions that keep secrets and megabytes out of messages, logs and reprs."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Any, NoReturn
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
_SECRET_WORDS = frozenset(
    [
        *("auth", "authentication", "authorization", "bearer", "cookie", "cookies", "credential"),
        *("credentials", "jwt", "key", "keys", "passphrase", "passwd", "password", "pwd", "secret"),
        *("secrets", "session", "sig", "signature", "token", "tokens"),
    ]
)
_SECRET_ENDINGS = (
    *("accesskey", "apikey", "authkey", "passkey", "password", "privatekey", "secret", "secretkey"),
    "token",
)
_SIGNED_NAMES = re.compile(r"\bSignedHeaders=[^,\s]*")
"""The names of the headers that a signature of AWS covers: words that stand in any text."""
_SINGLE_CREDENTIAL = re.compile(r"([A-Za-z]+) ([^\s,;=]+=*)")
# The words of snake_case, kebab-case and camelCase.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
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


def wrap_key(value: Any) -> Any:
    """Return text as a `Secret`, and bytes as empty bytes. Other values stay.

    Tracebacks may show local variables, and an error about bytes needs only their type.
    """
    if issubclass(type(value), str):
        return Secret(str.__str__(value))
    return b"" if issubclass(type(value), bytes | bytearray) else value


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
    # An idempotency key names a request; it grants nothing.
    return name in SENSITIVE_HEADERS or (name != "idempotency-key" and is_secret_name(name))


def remove_credentials(headers: Mapping[str, str], secret: Collection[str] = ()) -> dict[str, str]:
    """Return the headers of a request without those that may hold a credential or an identity.

    Args:
        headers: by lower-case name.
        secret: further names to leave out.
    """
    return {
        name: value for name, value in headers.items() if name not in secret and not is_sensitive_header(name)
    }


def is_secret_name(name: str) -> bool:
    """Return whether a lower-case name suggests a credential."""
    return _SENSITIVE_NAME.search(name) is not None


def is_secret_member(name: str) -> bool:
    """Return whether a word in the name of a JSON member suggests a credential.

    Example::

        >>> [is_secret_member(name) for name in ("api_key", "userToken", "keywords", "author")]
        [True, True, False, False]
    """
    return any(
        word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS)
        for word in map(str.lower, _WORD.findall(name))
    )


def list_credentials(value: str) -> list[str]:
    """Return the credentials in the value of a secret header, the whole value first.

    Example::

        >>> list_credentials("Basic dTpwYXNzd29yZA==")
        ['dTpwYXNzd29yZA==', 'u:password', 'password']
        >>> list_credentials("token-1, token-2")
        ['token-1, token-2', 'token-1', 'token-2']

    Args:
        value: one credential with or without a scheme, or a list of them.
    """
    if (single := _SINGLE_CREDENTIAL.fullmatch(value)) is not None and single[1].lower() != "basic":
        return [single[2]]
    found: list[str] = []
    for element in re.split(r"[,;]", _SIGNED_NAMES.sub("", value)):
        scheme, _, rest = element.strip().partition(" ")
        for word in rest.split() or [scheme]:
            content = word.partition("=")[2].strip('"')
            found += [word, content] if content.strip("=") else [word]
            found += [content.partition("/")[0]] if word.startswith("Credential=") else []
        if scheme.lower() == "basic" and (pair := _decode_basic(rest)) is not None:
            found += [pair, pair.partition(":")[2]]
    whole = [] if single is not None else [value]
    return [text for text in dict.fromkeys(whole + found) if text]


def _decode_basic(text: str) -> str | None:
    from base64 import b64decode

    try:
        return b64decode(text.strip()).decode("utf-8", "surrogateescape")
    except ValueError:
        return None


def hide_members(value: Any, name: str = "") -> Any:
    """Return a copy of a JSON value with ``…`` in place of each value under a secret name.

    Numbers stay: ``max_tokens`` is no credential.

    Example::

        >>> hide_members({"api_key": "s3cr3t", "max_tokens": 5, "auth": {"user": "me"}})
        {'api_key': '…', 'max_tokens': 5, 'auth': {'user': '…'}}

    Args:
        value: a JSON value.
        name: name of the member that holds it.
    """
    if isinstance(value, Mapping):
        hides = is_secret_member(name)
        return {key: hide_members(inner, name if hides else str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_members(inner, name) for inner in value]
    is_number = value is None or isinstance(value, int | float)
    return value if is_number or not is_secret_member(name) else "…"


def list_secret_members(value: Any, name: str = "") -> list[Secret]:
    """Return the texts that `hide_members` hides."""
    if isinstance(value, Mapping):
        hides = is_secret_member(name)
        return [
            secret
            for key, inner in value.items()
            for secret in list_secret_members(inner, name if hides else str(key))
        ]
    if isinstance(value, list | tuple):
        return [secret for inner in value for secret in list_secret_members(inner, name)]
    if isinstance(value, bytes) and is_secret_member(name):
        value = value.decode("utf-8", "surrogateescape")
    return [Secret(value)] if isinstance(value, str) and is_secret_member(name) else []


def hide_json_members(text: str) -> str:
    """Return JSON text with the texts under secret names hidden; any other text stays as it is.

    Example::

        >>> hide_json_members('{"seed": 5, "token": "t0ken"}')
        '{"seed":5,"token":"…"}'
    """
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not list_secret_members(value):
        return text
    return json.dumps(hide_members(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


class PrivateDict(dict[str, Any]):
    """A dictionary whose repr hides the texts under secret names.

    Example::

        >>> PrivateDict({"api_key": "s3cr3t", "seed": 5})
        {'api_key': '…', 'seed': 5}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(hide_members(dict(self)))


class HiddenDict(dict[str, Any]):
    """A dictionary whose repr shows no value.

    Example::

        >>> HiddenDict({"authorization": "Bearer s3cr3t"})
        {'authorization': '…'}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "…"))


def escape_control(text: str) -> str:
    r"""Return text with escapes in place of control and direction-changing characters.

    Line breaks and tabs stay.

    Example::

        >>> print(escape_control("a\x1b[31mb\u202ec"))
        a\x1b[31mb\u202ec
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def mask_control(text: str) -> str:
    """Return text with blanks in place of control and direction-changing characters."""
    return _CONTROL.sub(" ", text)


def format_suggestion(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '…'?)" with the known word closest to `word`, or "" if none is close.

    Example::

        >>> format_suggestion("reqests", ["aiohttp", "requests"])
        " (did you mean 'requests'?)"
    """
    import difflib

    # "blf" (0.67) is close to "bfl"; "nope" (0.6) is not to "openai".
    close = difflib.get_close_matches(word.lower()[:60], list(known), n=1, cutoff=0.65)
    return f" (did you mean {close[0]!r}?)" if close else ""
