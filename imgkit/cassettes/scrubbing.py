"""What must not be on a cassette, and what stands there instead.

Everything here may be done twice with the same result: vcrpy scrubs what it loads as what it records.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit, urlunsplit

from imgkit.cassettes.keys import scrub_keys, without
from imgkit.cassettes.parts import in_parts
from imgkit.images.sniff import sniff
from imgkit.redact import is_sensitive_header

REQUEST_ID = "req_scrubbed"

_IDENTITY = re.compile(r"organi[sz]ation|project|request-?id|correlation|traceparent|tracestate|^cf-")
_COUNTS = "x-ratelimit-"
"""Headers that count tokens, of another kind than credentials."""
_SECRET_PARAMETERS = re.compile(r"key|token|sig|secret|credential|password|auth", re.IGNORECASE)
_SCRUBBED = re.compile(r"scrubbed-[0-9a-f]{8}")
_URL = re.compile(rb'https?:(?:\\?/){2}[^"\s<>?]*\?[^"\s<>]*')
_USER = re.compile(rb'(https?:(?:\\?/){2})[^"\s<>?/\\@]+@')
_TEXT = re.compile(r"json|^text/|^multipart/form-data")


def is_private(header: str) -> bool:
    """Return whether a header, of a request or a reply, is a credential or tells who has asked."""
    name = header.lower()
    return not name.startswith(_COUNTS) and (is_sensitive_header(name) or _IDENTITY.search(name) is not None)


def scrub_request_headers(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return the headers of a request that are recorded, without keys and permissions in their values.

    Args:
        headers: by name, in any case.
    """
    return {name: _scrubbed_header(value) for name, value in headers.items() if not is_private(name)}


def scrub_url(url: str, *, all_parameters: bool) -> str:
    """Return a URL without secrets: each becomes a short digest, so that different ones stay different.

    Who asks, before the host, and what is for browsers, behind ``#``, are left out.

    Args:
        url: of a request, or in a reply.
        all_parameters: the whole query is somebody's permission, as in the URL of a result; otherwise only
            parameters with telling names.
    """
    parts = urlsplit(url)
    shown = (_scrubbed_parameter(one, all_parameters) for one in parts.query.split("&") if one)
    return urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(shown), fragment="")
    )


def scrub_text(body: bytes) -> bytes:
    """Return text without keys and ids of accounts, its URLs scrubbed as requests for them are."""
    return scrub_keys(_USER.sub(rb"\1", _URL.sub(_scrubbed_match, body)))


def scrub_body(body: bytes, content_type: str) -> bytes:
    """Return the body of a request or a reply with its text scrubbed; pictures, also in forms, are left."""
    kind = content_type.lower()
    if kind and _TEXT.search(kind) is None and not _is_utf8(body):
        return body
    return in_parts(body, content_type, lambda part: part if sniff(part[:1024]) else scrub_text(part))


def scrub_reply(
    headers: Mapping[str, str], body: bytes, keys: Iterable[bytes] = ()
) -> tuple[dict[str, str], bytes]:
    """Return a reply as it is recorded: no keys, cookies and permissions, and one request id for all.

    Args:
        headers: by name, in any case.
        body: without a content encoding.
        keys: that the server may have repeated, whatever they look like.
    """
    kept = {
        name: value
        for name, value in headers.items()
        if not is_private(name) or name.lower().endswith("request-id")
    }
    kind = next((value for name, value in kept.items() if name.lower() == "content-type"), "")
    scrubbed = scrub_body(without(body, keys), kind)
    for name, value in kept.items():
        if name.lower().endswith("request-id"):
            kept[name] = REQUEST_ID
        elif name.lower() == "location":
            kept[name] = scrub_url(value, all_parameters=True)
        elif name.lower() == "content-length" and len(scrubbed) != len(body):
            kept[name] = str(len(scrubbed))
        else:
            kept[name] = _scrubbed_header(value)
    return kept, scrubbed


def _scrubbed_header(value: str | bytes) -> str:
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return scrub_text(raw).decode("utf-8", "surrogateescape")


def _scrubbed_parameter(text: str, all_parameters: bool) -> str:
    if all_parameters and "=" not in text:
        return _digest(unquote_plus(text))  # all of it is the permission
    ((name, value),) = parse_qsl(text, keep_blank_values=True)
    hidden = all_parameters or _SECRET_PARAMETERS.search(name) is not None
    return f"{quote(name, safe='')}={_digest(value) if hidden else quote(value, safe='')}"


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _scrubbed_match(found: re.Match[bytes]) -> bytes:
    """Scrub a URL where it stands in JSON, with its escapes, or in other text."""
    try:
        url = json.loads(b'"' + found.group() + b'"')
        return json.dumps(scrub_url(url, all_parameters=True), ensure_ascii=True)[1:-1].encode("ascii")
    except ValueError:
        return found.group().partition(b"?")[0] + b"?scrubbed"


def _digest(value: str) -> str:
    if _SCRUBBED.fullmatch(value):
        return value
    return f"scrubbed-{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
