"""The content of error replies, in any of the known shapes: JSON, XML, HTML and text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from imgkit.providers.error_codes import known_codes
from imgkit.providers.error_problems import (
    ENTRY_MEMBERS,
    TEXT_LIMIT,
    TEXT_MEMBERS,
    Problem,
    list_problems,
    name_field,
    parse_code,
    read_problem,
    to_text,
)
from imgkit.providers.nested_errors import MAX_ITEMS, MAX_TEXT, NestedFinder, NestedText, iterate_objects
from imgkit.wire.json_values import parse_json

MAX_DEPTH = 8
"""Deepest error object within an error whose sentences count."""

TAIL_LIMIT = 300
"""Longest text behind an error object that counts."""

CODE_MEMBERS = ("code", "error_code", "errorCode", "reject_reason")
_STATUS_WORD = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
_CODE_WORD = re.compile(r"[a-z]+(?:_[a-z]+)+")
_GENERIC_CODE = re.compile(
    r"bad_|error|fail|gateway|internal|invalid_request|provider|proxy|response|unavail|upstream"
)
_PAGE = re.compile(rb"(?i)<(?:!doctype\s+html|html|head|body|title|center|h1)\b")
_XML = re.compile(
    r"(?i)\s*(?:<\?xml\b[^>]*>\s*)?(?:<!doctype\b[^>\[]*(?:\[[^\]]*\]\s*)?>\s*)?"
    r"<(?:\w+:)?(?:error|errors|errorresponse|\w*fault|response)\b"
)
_MARKUP = re.compile(
    r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)"
    r"|<!doctype\b(?:\"[^\"]*\"|'[^']*'|[^>\[\"'])*\[.*?(?:\]\s*>|\Z)"
    r"|</?[a-z!?][^>]*(?:>|\Z)"
)
# Azure appends the string to sign, others a request id and the time.
_DETAILS = re.compile(r"String[- ]to[- ]sign|\bRequestId:|\bTime:", re.IGNORECASE)


class ErrorBody(NamedTuple):
    """The content of an error reply.

    Attributes:
        message: the sentences of the reply, "" if it has none.
        codes: its codes, those of the outer object first; gateways wrap the API's own error.
        outer_codes: those of the outer object itself, and of its ``error``.
        type, param: None if the reply has none.
        objects: the error objects, each before the objects within it.
        structured: True for JSON or XML, False for a text or a web page.
        is_page: True for a web page, which APIs do not send.
        is_text_error: True if ``error`` of the reply is no object.
        is_quoted: True if an error object stands within a text.
        maybe_billed: whether the request may be billed, as `imgkit serve` tells; None from any other server.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    outer_codes: tuple[str, ...] = ()
    type: str | None = None
    param: str | None = None
    objects: tuple[Mapping[str, Any], ...] = ()
    structured: bool = False
    is_page: bool = False
    is_text_error: bool = False
    is_quoted: bool = False
    maybe_billed: bool | None = None

    @property
    def code(self) -> str | None:
        """The first code, None if there is none."""
        return self.codes[0] if self.codes else None


def read_error_body(body: bytes) -> ErrorBody:
    """Parse an error body of any known shape.

    Known shapes are those of OpenAI, Azure, Google, FastAPI, JSON:API and RFC 9457, the XML of stores, text
    and HTML. Gateways such as LiteLLM and OpenRouter put another of them into a member or a sentence.

    Example:
        >>> read_error_body(b'{"error": {"message": "No such size", "code": "bad_size"}}').code
        'bad_size'
        >>> read_error_body(b'{"detail": [{"loc": ["body", "n"], "msg": "Too many"}]}').param
        'n'
    """
    try:
        value = parse_json(body)
    except ValueError:
        return _read_text(body)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        # Google's servers wrap the object in a list.
        value = value[0]
    if not isinstance(value, dict):
        parsed = _read_sentence(value) if isinstance(value, str) else None
        return parsed or ErrorBody("" if value is None else to_text(value), structured=value is not None)
    return _read_objects(value, NestedFinder())


def _read_objects(value: dict[str, Any], finder: NestedFinder) -> ErrorBody:
    own_objects = tuple(iterate_objects(value))
    inner = value.get("error")
    outer_codes = tuple(_iterate_codes((value, inner) if isinstance(inner, dict) else (value,), []))
    # An API that names its own code may quote the prompt: its sentences are no errors.
    inner_finder = None if any(map(is_specific, outer_codes)) else finder
    objects = tuple(iterate_objects(value, inner_finder))
    problems = [problem for item in objects for problem in list_problems(item)]
    paths = [problem.path for problem in problems if problem.path]
    return ErrorBody(
        message=_format_message(value, inner_finder)[: 2 * TEXT_LIMIT],
        codes=tuple(dict.fromkeys(_iterate_codes(objects, problems))),
        outer_codes=outer_codes,
        type=_first_code(objects, ("type",)),
        param=_first_code(objects, ("param",)) or (parse_code(name_field(paths[0])) if paths else None),
        objects=objects,
        structured=True,
        is_text_error=bool(value.get("error")) and not isinstance(inner, dict),
        is_quoted=len(objects) > len(own_objects),
        maybe_billed=_read_verdict(inner),
    )


def _read_verdict(error: object) -> bool | None:
    """Return whether a request may be billed, as the error object of `imgkit serve` tells."""
    facts = error.get("imgkit") if isinstance(error, dict) else None
    told = facts.get("maybe_billed") if isinstance(facts, dict) else None
    return told if isinstance(told, bool) else None


def add_code(body: bytes, code: str) -> bytes:
    """Return the body of an error with the code that the API tells in a header; unchanged without either.

    Example:
        >>> add_code(b'{"message": "Busy"}', "Throttling")
        b'{"message": "Busy", "code": "Throttling"}'
    """
    try:
        value = parse_json(body)
    except ValueError:
        return body
    return json.dumps({**value, "code": code}).encode() if code and isinstance(value, dict) else body


def is_specific(code: str) -> bool:
    """Return whether a code without a meaning names a problem that only the API itself knows.

    Example:
        >>> is_specific("string_too_long"), is_specific("bad_request"), is_specific("BadRequest")
        (True, False, False)
    """
    return (
        _CODE_WORD.fullmatch(code) is not None
        and _GENERIC_CODE.search(code) is None
        and code not in known_codes()
    )


def _iterate_codes(objects: tuple[Mapping[str, Any], ...], problems: list[Problem]) -> Iterator[str]:
    for item in objects:
        if (code := _first_code((item,), CODE_MEMBERS)) is not None:
            yield code
        has_text = any(isinstance(item.get(name), str) for name in TEXT_MEMBERS)
        for name, pattern, is_code in (
            ("status", _STATUS_WORD, True),
            ("reason", _STATUS_WORD, True),
            ("error", _CODE_WORD, has_text),
            ("name", _CODE_WORD, "errors" in item),
        ):
            word = item.get(name)
            if isinstance(word, str) and is_code and pattern.fullmatch(word):
                yield word[:120]
    for problem in problems:
        if problem.code is not None:
            yield problem.code
        # FastAPI names kinds of errors such as "missing" there, fal the code.
        if problem.type is not None and problem.type in known_codes():
            yield problem.type


def _first_code(objects: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> str | None:
    codes = (parse_code(item.get(name)) for item in objects for name in names)
    return next((code for code in codes if code is not None), None)


def _format_message(item: Mapping[str, Any], finder: NestedFinder | None, depth: int = 0) -> str:
    """Return the sentences of an error object, with those of the objects within it."""
    if depth > MAX_DEPTH:
        return ""
    texts: list[str] = []
    inner = item.get("error")
    if isinstance(inner, dict) and (text := _format_message(inner, finder, depth + 1)):
        return text
    for name in ("error", *TEXT_MEMBERS):
        value = item.get(name)
        if isinstance(value, str):
            texts.append(_flatten_text(value, finder, depth))
        elif isinstance(value, dict) and name != "error":
            texts.append(_format_message(value, finder, depth + 1))
        elif isinstance(value, list) and name not in ENTRY_MEMBERS:
            texts.append("; ".join(str(read_problem(entry)) for entry in value[:MAX_ITEMS]))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            texts.append(to_text(value))
    metadata = item.get("metadata")
    if isinstance(metadata, dict) and isinstance(raw := metadata.get("raw"), str):
        texts.append(_flatten_text(raw, finder, depth))
    texts.append("; ".join(map(str, list_problems(item))))
    return ": ".join(_drop_repeated(texts)).replace(".: ", ". ")[: 2 * TEXT_LIMIT]


def _flatten_text(text: str, finder: NestedFinder | None, depth: int) -> str:
    """Return a text with the sentences of an error object in place of its JSON."""
    nested = None if finder is None else finder.find(text)
    inner = "" if nested is None else _format_message(nested.value, finder, depth + 1)
    return _surround(nested, inner) if nested is not None and inner else text[:TEXT_LIMIT]


def _surround(nested: NestedText, inner: str) -> str:
    """Return the sentences of an object between the texts before and behind it."""
    after = nested.after[:TAIL_LIMIT].rstrip()
    inner = inner.rstrip(". ") if after.startswith(".") else inner
    return f"{nested.before[:TEXT_LIMIT]}{inner}{after}"


def _drop_repeated(texts: list[str]) -> list[str]:
    """Return texts without empty ones, and without those that stand within another."""
    stripped = list(dict.fromkeys(text.strip().rstrip(": ") for text in texts))
    return [
        text for text in stripped if text and not any(text in other for other in stripped if other != text)
    ]


def _read_sentence(text: str) -> ErrorBody | None:
    """Return the error within a text, None if it has none. No server has put its codes outside the text."""
    finder = NestedFinder()
    nested = finder.find(text)
    if nested is None:
        return None
    parsed = _read_objects(nested.value, finder)
    message = _surround(nested, parsed.message) if parsed.message else text
    return parsed._replace(
        message=message[: 2 * TEXT_LIMIT], outer_codes=(), is_quoted=True, maybe_billed=None
    )


def _read_text(body: bytes) -> ErrorBody:
    start = body[:MAX_TEXT]
    text = start.decode("utf-8", "replace")
    if is_page(start):
        return ErrorBody(page_text(body), is_page=True)
    if _XML.match(text):
        code, message = find_element(text, "Code"), find_element(text, "Message")
        detail = find_element(text, "AuthenticationErrorDetail") or find_element(text, "Details")
        parts = [part.rstrip(". ") for part in (message, detail) if part]
        if code or parts:
            codes = (code[:120],) if parse_code(code) else ()
            return ErrorBody(". ".join(parts), codes, codes, structured=True)
    return _read_sentence(text) or ErrorBody(page_text(body))


def find_element(text: str, name: str) -> str:
    """Return the text of the first XML element with this name, up to the details of a store.

    Only elements that are asked for count: the others repeat signatures and keys.

    Example:
        >>> find_element("<Error><Code>ExpiredRequest</Code></Error>", "Code")
        'ExpiredRequest'
    """
    match = re.search(rf"<(?:\w+:)?{name}\b[^<>]*>([^<]*)", text, re.IGNORECASE)
    content = html.unescape(match[1]) if match else ""
    return " ".join(_DETAILS.split(content)[0].split())


def is_page(body: bytes) -> bool:
    """Return whether a body is a web page.

    Example:
        >>> is_page(b"<!DOCTYPE html><title>Log in</title>"), is_page(b'{"html": "<p>"}')
        (True, False)
    """
    start = body[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<") and _PAGE.search(start) is not None


def page_text(body: bytes) -> str:
    """Return the text of a text or HTML page, without its markup."""
    text = body[:4096].decode("utf-8", "replace")
    if "<" in text:
        text = _MARKUP.sub(" ", text)
    return " ".join(html.unescape(text).split())
