"""Signatures of Amazon Web Services, version 4, with the standard library.

Source: botocore 1.44.8, whose signatures are equal, read 2026-11-28.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.redact import HiddenDict, Secret
from imgkit.wire.messages import HttpRequest, hash_body

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"

ALGORITHM = "AWS4-HMAC-SHA256"

_REGION = re.compile(r"(?:^|\.)([a-z]{2}(?:-[a-z]+)+-\d+)(?=\.)")
_AWS_HOST = re.compile(r".*\.(amazonaws\.com(\.cn)?|api\.aws)")
_SIGNED_HEADERS = frozenset({"accept", "content-type"})
"""The headers of a request that a signature covers beside its own; proxies may change others."""


def find_region(url: str) -> str:
    """Return the region in the name of a host of AWS, "" if it has none.

    Example:
        >>> find_region("https://bedrock-runtime.us-west-2.amazonaws.com/model")
        'us-west-2'
    """
    host = urlsplit(url).hostname or ""
    found = _REGION.search(host) if _AWS_HOST.fullmatch(host) else None
    return found[1] if found is not None else ""


class AwsSigner:
    """Signs requests to a service of AWS: a `RequestSigner`.

    Its credential reads ``AWS_ACCESS_KEY_ID`` and needs ``AWS_SECRET_ACCESS_KEY``; it may need
    ``AWS_SESSION_TOKEN``, which temporary keys have.

    Args:
        service: name of the service in signatures, such as "bedrock".
        region: the region of hosts that name none.
        clock: returns Unix time in seconds, read for each signature.

    Example:
        >>> AwsSigner("bedrock", "us-west-2")
        AwsSigner('bedrock', 'us-west-2')
    """

    def __init__(self, service: str, region: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._region = region
        self._clock = clock

    def __call__(self, request: HttpRequest, keys: Mapping[str, Secret]) -> dict[str, str]:
        """Return the headers of the signature.

        Raises:
            ConfigurationError: Neither the host nor the service names a region, or a key is missing.
        """
        if missing := [name for name in (ACCESS_KEY, SECRET_KEY) if name not in keys]:
            raise MissingKeyError(
                f"A signature of AWS needs {' and '.join(missing)}.", hint="Add it to the keys.", field="keys"
            )
        region = find_region(request.url) or self._region
        if not region:
            raise ConfigurationError(
                "A signature of AWS needs a region, and the host names none.",
                hint="Set AWS_REGION, or pass the region to the provider.",
                field="region",
            )
        own = HiddenDict(
            {
                "x-amz-content-sha256": hash_body(request.body),
                "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock())),
            }
        )
        if SESSION_TOKEN in keys:
            own["x-amz-security-token"] = keys[SESSION_TOKEN].reveal()
        sent = request.wire_headers().items()
        covered = HiddenDict({**{name: value for name, value in sent if name in _SIGNED_HEADERS}, **own})
        signature = sign_headers(request, covered, keys, f"{region}/{self._service}")
        return HiddenDict({**own, "authorization": signature})

    def __repr__(self) -> str:
        return f"AwsSigner({self._service!r}, {self._region!r})"


def sign_headers(
    request: HttpRequest, headers: Mapping[str, str], keys: Mapping[str, Secret], place: str
) -> str:
    """Return the Authorization header for a request.

    Args:
        request: its method, URL and body are signed.
        headers: the headers to sign beside ``host``, by lower-case name; ``x-amz-date`` among them.
        keys: the access key and the secret key, by the names of their variables.
        place: region and service, such as "us-west-2/bedrock".
    """
    signed = {**headers, "host": urlsplit(request.url).netloc}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed))
    path, _, query = request.path_and_query.partition("?")
    # The path has escapes already, and a signature covers it with its percent signs escaped again.
    canonical = (request.method, quote(path, safe="/-_.~"), _sort_query(query), lines, names)
    text = "\n".join((*canonical, hash_body(request.body)))
    moment = headers["x-amz-date"]
    scope = f"{moment[:8]}/{place}/aws4_request"
    to_sign = "\n".join((ALGORITHM, moment, scope, hashlib.sha256(text.encode()).hexdigest()))
    signature = _chain_digests(keys[SECRET_KEY], (*scope.split("/"), to_sign)).hex()
    credential = f"{keys[ACCESS_KEY].reveal()}/{scope}"
    return f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"


def _sort_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(
        sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    )


def _chain_digests(secret: Secret, parts: tuple[str, ...]) -> bytes:
    """Return the digest of each part, keyed with the digest of the part before."""
    digest = f"AWS4{secret.reveal()}".encode()
    for part in parts:
        digest = hmac.new(digest, part.encode(), hashlib.sha256).digest()
    return digest
