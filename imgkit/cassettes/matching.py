"""Compare requests by their fields, and find the recorded request nearest to a new request."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imgkit.cassettes.bodies import parse_boundary
from imgkit.cassettes.scrubbing import hide_secret_members, scrub_body, scrub_url
from imgkit.redact import scrub

_NAME = re.compile(rb'name="([^"]*)"')
_MAX_DIFFERENCES = 6


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """The fields of a request, independent of host, encoding and field order.

    Attributes:
        method: "GET" or "POST".
        endpoint: The last two path segments of a POST; the whole URL of a GET.
        fields: Object members or form fields as text; files as their SHA-256 digests.
    """

    method: str
    endpoint: str
    fields: Mapping[str, str]


def summarize_request(method: str, url: str, content_type: str, body: bytes) -> RequestSummary:
    """Return the summary of a request; requests with equal summaries match.

    Args:
        method, url, content_type, body: The request; scrubbed or not.
    """
    if method == "GET":
        return RequestSummary(method, scrub_url(url, all_parameters=True), {})
    endpoint = "/".join(urlsplit(url).path.rstrip("/").split("/")[-2:])
    return RequestSummary(method, endpoint, parse_fields(content_type, body))


def parse_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the members or form fields of a body as text; return its digest if it has neither.

    >>> parse_fields("application/json", b'{"n": 2}')
    {'n': '2'}
    """
    body = scrub_body(hide_secret_members(body, content_type), content_type)
    boundary = parse_boundary(content_type)
    if boundary is not None:
        return _parse_form(body, b"--" + boundary)
    if not body:
        return {}
    try:
        members: Any = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        return {"body": hashlib.sha256(body).hexdigest()}
    return {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in members.items()}


def describe_differences(recorded: Mapping[str, str], requested: Mapping[str, str]) -> list[str]:
    """Return a sentence fragment for each field that differs, at most six and a count.

    >>> describe_differences({"n": "1"}, {"n": "2"})
    ['n: 1 was recorded, 2 is requested']
    """
    lines = [
        f"{name}: {_format_value(recorded.get(name))} was recorded, "
        f"{_format_value(requested.get(name))} is requested"
        for name in sorted({*recorded, *requested})
        if recorded.get(name) != requested.get(name)
    ]
    more = len(lines) - _MAX_DIFFERENCES
    return lines if more <= 0 else [*lines[:_MAX_DIFFERENCES], f"and {more} more"]


def find_nearest(request: RequestSummary, recorded: Iterable[RequestSummary]) -> int | None:
    """Return the index of the nearest recorded request; return None if no endpoint matches."""
    best: tuple[int, int] | None = None
    for index, candidate in enumerate(recorded):
        if (candidate.method, candidate.endpoint) == (request.method, request.endpoint):
            names = {*candidate.fields, *request.fields}
            distance = sum(candidate.fields.get(name) != request.fields.get(name) for name in names)
            best = min(best or (distance, index), (distance, index))
    return None if best is None else best[1]


def explain_miss(request: RequestSummary, recorded: list[tuple[RequestSummary, str]]) -> str:
    """Return a sentence without its period: the reason why no recording matches a request.

    Args:
        request: The request that has no reply.
        recorded: The recorded requests, each with the path of its cassette.
    """
    request_line = f"{request.method} {request.endpoint}"
    owner = "The cassettes have" if len({path for _, path in recorded}) > 1 else "The cassette has"
    same = sum(summary == request for summary, _ in recorded)
    if same:
        recordings = "1 recording" if same == 1 else f"{same} recordings"
        return f"{owner} {recordings} of {request_line}, already replayed"
    index = find_nearest(request, (summary for summary, _ in recorded))
    if index is None:
        endpoints = sorted({f"{summary.method} {summary.endpoint}" for summary, _ in recorded})
        available = f"Available: {', '.join(endpoints)[:300]}" if endpoints else "It is empty"
        return f"{owner} no recording of {request_line}. {available}"
    summary, path = recorded[index]
    return (
        f"{owner} no recording of this {request_line}. The nearest, in {path!r}, differs: "
        f"{'; '.join(describe_differences(summary.fields, request.fields))}"
    )


def _format_value(value: str | None) -> str:
    return "nothing" if value is None else scrub(value, limit=80)


def _parse_form(body: bytes, delimiter: bytes) -> dict[str, str]:
    """Return form fields as text, and files as their digests without their names."""
    fields: dict[str, str] = {}
    for part in body.split(delimiter)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        match = _NAME.search(head)
        name = match.group(1).decode("utf-8", "replace") if match else ""
        content = content.removesuffix(b"\r\n")
        file = b"filename=" in head
        text = f"file {hashlib.sha256(content).hexdigest()}" if file else content.decode("utf-8", "replace")
        number = 1
        while (key := name if number == 1 else f"{name} ({number})") in fields:
            number += 1
        fields[key] = text
    return fields
