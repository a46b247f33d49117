"""JSON and base64 as servers write them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.wire.json_values import JsonSyntaxError, decode_base64, decode_data_url, is_data_url, parse_json

JSON_TEXTS: list[tuple[bytes, Any]] = [
    (b'{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    (b' \r\n\t{"a": 1}\n\n', {"a": 1}),
    ('{"a": "é\\ud83e\\udda6"}'.encode(), {"a": "é🦦"}),
    (b'{"a": "\\ud800"}', {"a": "\ud800"}),
    (b'"text"', "text"),
    (b"5", 5),
    (b"null", None),
    (b'{"a": {"x": 1}, "b": {"x": 2}}', {"a": {"x": 1}, "b": {"x": 2}}),
]


@pytest.mark.parametrize(("body", "value"), JSON_TEXTS)
def test_parse_json(body: bytes, value: Any) -> None:
    """Reads JSON in UTF-8, with or without a byte-order mark, and keeps lone surrogates."""
    assert parse_json(body) == value


NOT_JSON: list[tuple[bytes, str]] = [
    (b"", "Expecting value"),
    (b"\xef\xbb\xbf", "Expecting value"),
    (b'{"a": 1', "delimiter"),
    (b'{"data": [{"b64_json": "iVBO', "Unterminated string starting at .character 23"),
    (b"{}{}", "Extra data"),
    (b"{} x", "Extra data"),
    (b"<html>", "Expecting value"),
    (b'{"a": NaN}', "NaN is not JSON"),
    (b"[Infinity]", "Infinity is not JSON"),
    (b"-Infinity", "-Infinity is not JSON"),
    (b'{"data": [1], "data": null}', "key 'data' appears twice"),
    (b'{"a": {"b": 1, "c": 2, "b": 1}}', "key 'b' appears twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b"9" * 5_000, "4300"),
    ('{"a": "é"}'.encode("latin-1"), "not UTF-8 at byte 7"),
    ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    ('{"a": 1}'.encode("utf-16-le"), "Expecting property name"),
    (b'{"a": "line\nbreak"}', "Invalid control character"),
    (b"{'a': 1}", "Expecting property name"),
]


@pytest.mark.parametrize(("body", "problem"), NOT_JSON)
def test_bad_json(body: bytes, problem: str) -> None:
    """Raises a ValueError that states the problem and quotes nothing of the reply."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_json(body)
    # The errors of Python's decoders keep the whole text.
    assert type(caught.value) in (ValueError, JsonSyntaxError)
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 200


def test_a_duplicate_key_among_many() -> None:
    """Finds a duplicate key in one pass, so a hostile object costs no more than its size."""
    names = [f'"{number}": 0' for number in range(200_000)]
    body = ("{" + ", ".join([*names, '"last": 1, "last": 2']) + "}").encode()
    began = time.process_time()
    with pytest.raises(ValueError, match="'last' appears twice"):
        parse_json(body)
    assert time.process_time() - began < 5


def test_bad_byte_in_a_large_body() -> None:
    """Finds one wrong byte anywhere in a large body, and guesses nothing."""
    body = b'{"a": "' + b"x" * 5_000_000 + b'\xff"}'
    with pytest.raises(ValueError, match="not UTF-8 at byte 5000007"):
        parse_json(body)


PLAIN = bytes(range(256))
TEXT = base64.b64encode(PLAIN).decode()
BASE64: list[tuple[str, bytes]] = [
    (TEXT, PLAIN),
    ("", b""),
    ("QUJD", b"ABC"),
    ("QUI=", b"AB"),
    ("QUI", b"AB"),
    ("QQ", b"A"),
    ("QQ=", b"A"),
    ("QUJD=", b"ABC"),
    (" QU\r\nJD\t", b"ABC"),
    ("QQ==\n", b"A"),
    (base64.encodebytes(PLAIN).decode(), PLAIN),
    (base64.urlsafe_b64encode(PLAIN).decode(), PLAIN),
    (base64.urlsafe_b64encode(PLAIN).decode().rstrip("="), PLAIN),
    ("-_-_", b"\xfb\xff\xbf"),
    ("data:image/png;base64,QUJD", b"ABC"),
    ("DATA:;BASE64,QUI", b"AB"),
    (" data:image/png;charset=x;base64, QUJD", b"ABC"),
]


@pytest.mark.parametrize(("text", "data"), BASE64)
def test_decode_base64(text: str, data: bytes) -> None:
    """Decodes every spelling of base64 that servers use to the same bytes."""
    assert decode_base64(text) == data


NOT_BASE64: list[tuple[object, str]] = [
    ("QUJD=QUJD", "broken base64"),
    ("QQ==QQ==", "broken base64"),
    ("Q", "broken base64"),
    ("QUJDR", "broken base64"),
    ("QU*D", "broken base64"),
    ("QUJD\0", "broken base64"),
    ("QUé=", "broken base64"),
    ("ＱＵＪＤ", "broken base64"),
    ("\ud800AAA", "broken base64"),
    ("<svg/>", "broken base64"),
    ("data:image/png;base64,Q*", "broken base64"),
    ("data:image/png,QUJD", "a data: URL that is not base64"),
    ("data:image/png;base64", "a data: URL that is not base64"),
    (5, "base64 of type int"),
    (["QUJD"], "base64 of type list"),
    (b"QUJD", "base64 of type bytes"),
    (None, "base64 of type NoneType"),
]


@pytest.mark.parametrize(("text", "problem"), NOT_BASE64)
def test_bad_base64(text: object, problem: str) -> None:
    """Raises an error for bad base64, and never returns other bytes."""
    with pytest.raises(ValueError, match=problem):
        decode_base64(text)


DATA_URLS = [
    ("data:,", b""),
    ("data:image/svg+xml,%3Csvg/%3e", b"<svg/>"),
    ("data:text/plain;charset=utf-8,é", "é".encode()),
    ("data:;base64,QUI%3D", b"AB"),
    ("DATA:image/png;Base64,QUJD", b"ABC"),
    ("data:image/png;base64,", b""),
]


@pytest.mark.parametrize(("url", "data"), DATA_URLS)
def test_data_urls(url: str, data: bytes) -> None:
    """Reads data: URLs in base64, percent-encoded or plain."""
    assert is_data_url(url)
    assert decode_data_url(url) == data


@pytest.mark.parametrize(
    "url", ["data:", "data:image/png;base64", "data:;base64,é", "data:;base64,Q", "data:,\ud800"]
)
def test_broken_data_urls(url: str) -> None:
    """Raises a ValueError for a data: URL that it cannot read."""
    assert is_data_url(url)
    with pytest.raises(ValueError, match=".+"):
        decode_data_url(url)


@pytest.mark.parametrize("text", ["", "dat", "data", "http://h/data:", "./data:x", "database"])
def test_other_urls_are_no_data_urls(text: str) -> None:
    """Only the scheme makes a data: URL."""
    assert not is_data_url(text)


NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


# The first text builds Unicode tables, which may exceed the limits on a busy machine.
@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_json_round_trip(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Reads every JSON value as it was written."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8")) == value


@given(st.binary(max_size=100))
def test_json_raises_only_value_errors(body: bytes) -> None:
    """Any bytes parse as JSON or raise a ValueError."""
    try:
        json.dumps(parse_json(body))
    except ValueError:
        return


@given(st.binary(), st.booleans(), st.booleans(), st.integers(1, 80))
def test_base64_round_trip(data: bytes, url_safe: bool, padded: bool, width: int) -> None:
    """Any bytes survive every spelling of base64."""
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    assert decode_base64("\n".join(text[at : at + width] for at in range(0, len(text), width))) == data


@given(st.text(st.sampled_from("QUJD=-_+/ \n*é:,;data")) | st.text())
def test_base64_raises_only_value_errors(text: str) -> None:
    """Any text decodes to at most three quarters of its length, or raises a ValueError."""
    try:
        assert len(decode_base64(text)) <= len(text) * 3 // 4
    except ValueError:
        return
