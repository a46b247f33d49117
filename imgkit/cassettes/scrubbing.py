"""What must not be on a cassette, and what stands there instead.

Everything here may be done twice with the same result: vcrpy scrubs what it loads as what it records.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from imgkit.cassettes.parts import in_parts
from imgkit.redact import SENSITIVE_HEADERS
from imgkit.sniff import sniff

REQUEST_ID = "req_scrubbed"

PRIVATE_REQUEST_HEADERS = SENSITIVE_HEADERS | {
    "cookie", "idempotency-key", "openai-organization", "openai-project", "x-client-request-id",
    "x-request-id",
}  # fmt: skip
PRIVATE_REPLY_HEADERS = frozenset(
    {"cf-ray", "cf-cache-status", "openai-organization", "openai-project", "set-cookie", "www-authenticate"}
)
_SECRET_PARAMETERS = re.compile(r"key|token|sig|secret|credential|password|auth", re.IGNORECASE)
_SCRUBBED = re.compile(r"scrubbed-[0-9a-f]{8}")
_URL = re.compile(rb'https?:(?:\\?/){2}[^"\s<>?]*\?[^"\s<>]*')
_IDS = re.compile(rb"\b(org-|proj_|req_)(?!scrubbed\b)[A-Za-z0-9]{8,}\b")
_KEY = re.compile(rb"\bsk-(?!scrubbed\b)[A-Za-z0-9_-]{8,}")
_KEY_LIKE = re.compile(
    rb"\b(?:sk-(?!scrubbed\b)[A-Za-z0-9_-]{16,}|Bearer\s+(?!scrubbed\b)[A-Za-z0-9._~+/-]{16,}|AKIA[0-9A-Z]{16}"
    rb"|eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.)"
)


def scrub_url(url: str, *, all_parameters: bool) -> str:
    """Return a URL without secrets: each becomes a short digest, so that different ones stay different.

    Args:
        url: of a request, or in a reply.
        all_parameters: the whole query is somebody's permission, as in the URL of a result; otherwise only
            parameters with telling names.
    """
    parts = urlsplit(url)
    if not parts.query:
        return url
    shown = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        hidden = all_parameters or _SECRET_PARAMETERS.search(name) is not None
        shown.append(f"{quote(name, safe='')}={_digest(value) if hidden else quote(value, safe='')}")
    return urlunsplit(parts._replace(query="&".join(shown)))


def scrub_text(body: bytes) -> bytes:
    """Return text without keys and ids of accounts, its URLs scrubbed as requests for them are."""
    return _IDS.sub(rb"\1scrubbed", _KEY.sub(b"sk-scrubbed", _URL.sub(_scrubbed_match, body)))


def scrub_body(body: bytes, content_type: str) -> bytes:
    """Return the body of a request or a reply with its text scrubbed; pictures, also in forms, are left."""
    kind = content_type.lower()
    if kind and not ("json" in kind or kind.startswith(("text/", "multipart/form-data"))):
        return body
    return in_parts(body, content_type, lambda part: part if sniff(part[:1024]) else scrub_text(part))


def scrub_reply(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Return a reply as it is recorded: no keys, cookies and permissions, and one request id for all.

    Args:
        headers: by name, in any case.
        body: without a content encoding.
    """
    kept = {name: value for name, value in headers.items() if name.lower() not in PRIVATE_REPLY_HEADERS}
    kind = next((value for name, value in kept.items() if name.lower() == "content-type"), "")
    scrubbed = scrub_body(body, kind)
    for name, value in kept.items():
        if name.lower().endswith("request-id"):
            kept[name] = REQUEST_ID
        elif name.lower() == "location":
            kept[name] = scrub_url(value, all_parameters=True)
        elif name.lower() == "content-length" and len(scrubbed) != len(body):
            kept[name] = str(len(scrubbed))
    return kept, scrubbed


def key_like(text: bytes) -> str | None:
    """Return the beginning of something that looks like a key, None if nothing does."""
    found = _KEY_LIKE.search(text)
    return None if found is None else f"{found.group()[:6].decode('ascii', 'replace')}…"


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
