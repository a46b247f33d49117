"""Remove credentials, account ids and signed URLs from recorded requests and replies.

Scrubbing twice gives the same result: vcrpy scrubs both on recording and on loading.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit, urlunsplit

from imgkit.cassettes.api_keys import remove_keys, remove_keys_from_headers, scrub_keys
from imgkit.cassettes.bodies import map_parts, parse_boundary
from imgkit.images.sniff import sniff
from imgkit.redact import Secret, hide_json_members, hide_members, is_sensitive_header, list_secret_members

REQUEST_ID = "req_scrubbed"

_IDENTITY = re.compile(r"organi[sz]ation|project|request-?id|correlation|traceparent|tracestate|^cf-")
_RATE_LIMIT_PREFIX = "x-ratelimit-"
"""Headers that count model tokens, which are not credentials."""
_SECRET_PARAMETERS = re.compile(r"key|token|sig|secret|credential|password|auth", re.IGNORECASE)
_SCRUBBED = re.compile(r"scrubbed-[0-9a-f]{8}")
_URL = re.compile(rb'https?:(?:\\?/){2}[^"\s<>?]*\?[^"\s<>]*')
_USERINFO = re.compile(rb'(https?:(?:\\?/){2})[^"\s<>?/\\@]+@')
_FIELD_NAME = re.compile(rb'name="([^"]*)"')
_TEXT = re.compile(r"json|^text/|^multipart/form-data")


def is_private(header: str) -> bool:
    """Return whether a header of a request or a reply holds a credential or identifies its sender.

    >>> is_private("Authorization"), is_private("content-type")
    (True, False)
    """
    name = header.lower()
    return not name.startswith(_RATE_LIMIT_PREFIX) and (
        is_sensitive_header(name) or _IDENTITY.search(name) is not None
    )


def scrub_request_headers(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return the request headers to record; their values hold no keys and no signed URLs.

    Args:
        headers: Headers by name, in any case.
    """
    return {name: _scrub_header(value) for name, value in headers.items() if not is_private(name)}


def scrub_url(url: str, *, all_parameters: bool) -> str:
    """Replace each secret in a URL with a short digest, so different secrets stay different.

    The result has no user name and no fragment.

    >>> scrub_url("https://me@example.com/x?n=1&key=k#top", all_parameters=False)
    'https://example.com/x?n=1&key=scrubbed-8254c329'

    Args:
        url: URL of a request, or a URL in a reply.
        all_parameters: Treat the whole query as a credential, as in a result URL. If False, replace only
            parameters whose names suggest a secret.
    """
    parts = urlsplit(url)
    parameters = (
        _scrub_parameter(parameter, all_parameters) for parameter in parts.query.split("&") if parameter
    )
    return urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(parameters), fragment="")
    )


def scrub_text(body: bytes) -> bytes:
    """Return text without keys and account ids; scrub its URLs like request URLs."""
    return scrub_keys(_USERINFO.sub(rb"\1", _URL.sub(_scrub_url_match, body)))


def scrub_body(body: bytes, content_type: str) -> bytes:
    """Return a body with its text scrubbed; images stay as they are, also in forms."""
    kind = content_type.lower()
    if kind and _TEXT.search(kind) is None and not _is_utf8(body):
        return body
    return map_parts(body, content_type, lambda part: part if sniff(part[:1024]) else scrub_text(part))


def hide_secret_members(body: bytes, content_type: str) -> bytes:
    """Return a request's body with ``…`` in place of each text under a secret name, such as "api_key".

    >>> hide_secret_members(b'{"token":"t0ken"}', "application/json").decode()
    '{"token":"…"}'
    """

    def hide(name: str, text: str) -> str:
        return hide_json_members(hide_members(text, name))

    return _map_members(body, content_type, hide)


def collect_body_keys(body: bytes, content_type: str) -> frozenset[bytes]:
    """Return the texts that `hide_secret_members` hides.

    >>> collect_body_keys(b'{"token":"t0ken"}', "application/json")
    frozenset({b't0ken'})
    """
    found: list[Secret] = []

    def collect(name: str, text: str) -> str:
        found.extend(list_secret_members(text, name))
        try:
            found.extend(list_secret_members(json.loads(text)))
        except (ValueError, RecursionError):
            return text
        return text

    _map_members(body, content_type, collect)
    return frozenset(secret.reveal().encode("utf-8", "surrogatepass") for secret in found)


def _map_members(body: bytes, content_type: str, change: Callable[[str, str], str]) -> bytes:
    """Return a request's body with its text changed, or with the text of each field of a form.

    Args:
        body, content_type: The body.
        change: Takes the name of a field, "" for the whole body, and its text.
    """
    boundary = parse_boundary(content_type)
    if boundary is not None:
        delimiter = b"--" + boundary
        return delimiter.join(_map_field(part, change) for part in body.split(delimiter))
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return body
    return change("", text).encode("utf-8", "surrogatepass")


def _map_field(part: bytes, change: Callable[[str, str], str]) -> bytes:
    head, separator, content = part.partition(b"\r\n\r\n")
    name = _FIELD_NAME.search(head)
    if name is None or b"filename=" in head:
        return part
    text = content.removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
    changed = change(name[1].decode("utf-8", "replace"), text)
    return (
        part if changed == text else head + separator + changed.encode("utf-8", "surrogateescape") + b"\r\n"
    )


def scrub_reply(
    headers: Mapping[str, str], body: bytes, keys: Iterable[bytes] = ()
) -> tuple[dict[str, str], bytes]:
    """Return the headers and body of a reply to record, with the same request id for all replies.

    Args:
        headers: Headers by name, in any case.
        body: Body without content encoding.
        keys: Further keys that the server may have repeated.
    """
    recorded_headers = {
        name: value
        for name, value in headers.items()
        if not is_private(name) or name.lower().endswith("request-id")
    }
    kind = next((value for name, value in recorded_headers.items() if name.lower() == "content-type"), "")
    keys = frozenset(keys)
    scrubbed = scrub_body(remove_keys(body, keys), kind)
    for name, value in recorded_headers.items():
        if name.lower().endswith("request-id"):
            recorded_headers[name] = REQUEST_ID
        elif name.lower() == "location":
            recorded_headers[name] = scrub_url(value, all_parameters=True)
        elif name.lower() == "content-length" and len(scrubbed) != len(body):
            recorded_headers[name] = str(len(scrubbed))
        else:
            recorded_headers[name] = _scrub_header(value)
    return remove_keys_from_headers(recorded_headers, keys), scrubbed


def _scrub_header(value: str | bytes) -> str:
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return scrub_text(raw).decode("utf-8", "surrogateescape")


def _scrub_parameter(text: str, all_parameters: bool) -> str:
    if all_parameters and "=" not in text:
        # A query without a name is a credential as a whole.
        return _digest_secret(unquote_plus(text))
    ((name, value),) = parse_qsl(text, keep_blank_values=True)
    hidden = all_parameters or _SECRET_PARAMETERS.search(name) is not None
    return f"{quote(name, safe='')}={_digest_secret(value) if hidden else quote(value, safe='')}"


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _scrub_url_match(match: re.Match[bytes]) -> bytes:
    """Scrub a URL inside JSON, with JSON escapes, or in other text."""
    try:
        url = json.loads(b'"' + match.group() + b'"')
        return json.dumps(scrub_url(url, all_parameters=True), ensure_ascii=True)[1:-1].encode("ascii")
    except ValueError:
        return match.group().partition(b"?")[0] + b"?scrubbed"


def _digest_secret(value: str) -> str:
    if _SCRUBBED.fullmatch(value):
        return value
    return f"scrubbed-{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
