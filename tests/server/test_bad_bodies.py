"""Malformed bodies: each has an answer in the envelope, and nothing is sent."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import pytest

from imgkit.server import silent_clients
from imgkit.server.received_bodies import MOST_VALUES
from tests.support.pictures import answer, picture
from tests.support.served import (
    EDITS,
    GENERATIONS,
    exchange,
    find_error,
    find_status,
    request_bytes,
    send,
    serve_before,
)
from tests.support.wire_server import reply

PICTURE = picture()
FOX = b'{"prompt":"a fox"}'


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no more of a body that the server does not read."""
    monkeypatch.setattr(silent_clients, "LINGER_S", 0.02)


def part(head: str = 'name="image"; filename="a.png"', data: bytes = PICTURE, *more: str) -> bytes:
    """Return a part of a form."""
    lines = [f"Content-Disposition: form-data; {head}", *more, "", ""]
    return b"--b\r\n" + "\r\n".join(lines).encode() + data + b"\r\n"


HEADS = {
    'name="image"; filename="a;b; c.png"': True,
    'name="image"; filename="a\\";b.png"': True,
    'name="image"; filename="a"b.png"': True,
    'name="image"; filename="foto-ä.png"': True,
    'name="image[]"; filename=a.png;': True,
    "name=image; filename*=utf-8''a%20b.png": True,
    "; name=image ; FileName=a": True,
    'name="image"; filename="a': False,
    'name="image"; filename=a b.png': False,
    'name="image"; filename="a" b': False,
    'name="image"; x; filename="a"': False,
}
"""Heads of an image in a form, and whether they can be read."""

PROMPT = part('name="prompt"', b"a hat")
END = b"--b--\r\n"

FORMS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "invalid_body"),
    "no final boundary": (PROMPT + part(), "invalid_body"),
    "cut in a part": (PROMPT + part()[:-40], "invalid_body"),
    "cut in a head": (PROMPT + b"--b\r\nContent-Dispo", "invalid_body"),
    "text alone": (b"hello\r\n", "invalid_body"),
    "end alone": (END, "missing_image"),
    "nested": (
        PROMPT + b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n" + END,
        "invalid_body",
    ),
    "huge head": (PROMPT + part('name="image"', PICTURE, "X: " + "a" * 70_000) + END, "invalid_body"),
    "many heads": (PROMPT + part('name="image"', PICTURE, *["X: a"] * 900) + END, "invalid_body"),
    "many parts": (part('name="p"', b"x") * 100_000 + END, "invalid_value"),
    "many names": (b"".join(part(f'name="p{number}"', b"x") for number in range(900)) + END, "invalid_body"),
    "double text": (PROMPT + PROMPT + part() + END, "invalid_value"),
    "double mask": (PROMPT + part() + part('name="mask"; filename="m"') * 2 + END, "invalid_value"),
    "base64": (
        PROMPT + part('name="image"; filename="a"', b"QQ==", "Content-Transfer-Encoding: base64"),
        "invalid_body",
    ),
    "gzip": (PROMPT + part('name="image"; filename="a"', gzip.compress(PICTURE)) + END, "invalid_request"),
    "not UTF-8": (part('name="prompt"', b"\xff\xfe") + part() + END, "invalid_body"),
    "charset": (part('name="_charset_"', b"latin-1") + PROMPT + part() + END, "invalid_body"),
    "empty file": (PROMPT + part(data=b"") + END, "invalid_request"),
    "no image": (PROMPT + part(data=b"<html>") + END, "invalid_request"),
    "no name": (PROMPT + part('filename="a"') + END, "invalid_body"),
    "malformed head": (PROMPT + part(';;name==x; ="') + END, "invalid_body"),
    "two names": (PROMPT + part('name="image"; name="mask"; filename="x"') + END, "invalid_body"),
    "path as text": (PROMPT + part('name="image"', b"/etc/passwd") + END, "invalid_value"),
    "prompt as file": (part('name="prompt"; filename="p"', b"a hat") + part() + END, "invalid_value"),
    "number": (PROMPT + part() + part('name="n"', "١".encode()) + END, "invalid_request"),
    "long texts": (
        part('name="a"', bytes(3_000_000)) + part('name="b"', bytes(3_000_000)) + END,
        "invalid_body",
    ),
    "deep options": (PROMPT + part() + part('name="model_options"', b"[" * 99_999) + END, "invalid_value"),
    "extra body": (PROMPT + part() + part('name="extra_body"', b"{}") + END, "invalid_value"),
}

VALUES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "invalid_json"),
    "list": (b"[]", "invalid_json"),
    "NaN": (b'{"prompt":"a","n":NaN}', "invalid_json"),
    "infinite": (b'{"prompt":"a","x":1e999}', "invalid_json"),
    "huge number": (b'{"prompt":"a","x":' + b"9" * 5000 + b"}", "invalid_json"),
    "double key": (b'{"prompt":"a","prompt":"b"}', "invalid_json"),
    "surrogate": (rb'{"prompt":"\ud800"}', "invalid_request"),
    "surrogate key": (rb'{"prompt":"a","\ud800":1}', "invalid_request"),
    "surrogate file": (rb'{"prompt":"a","images":[{"file_id":"\ud800"}]}', "invalid_value"),
    "NUL": (rb'{"prompt":"a\u0000"}', "invalid_request"),
    "more behind": (FOX + FOX, "invalid_json"),
    "not UTF-8": (b'{"prompt":"\xff"}', "invalid_json"),
    "UTF-16": ('{"prompt":"a"}'.encode("utf-16"), "invalid_json"),
    "deep": (b"[" * 100_000, "invalid_json"),
    "deep member": (b'{"prompt":"a","x":' + b"[" * 600 + b"]" * 600 + b"}", "invalid_request"),
    "many members": (
        json.dumps({f"k{number}": 1 for number in range(MOST_VALUES + 1)}).encode(),
        "invalid_body",
    ),
    "many values": (b'{"prompt":"a","x":[' + b"1," * MOST_VALUES + b"1]}", "invalid_body"),
    "long text": (b'{"prompt":"' + b"x" * 4_300_000 + b'"}', "invalid_body"),
    "hidden image": (
        b'{"prompt":"a","x":{"url":"data:image/png;base64,' + b"A" * 400_000 + b'"}}',
        "invalid_json",
    ),
}


def test_answers_malformed_forms(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers each malformed form with 400; nothing is sent, and standard error stays empty."""
    kind = "Content-Type: multipart/form-data; boundary=b"
    with serve_before(tmp_path) as (server, api):
        for name, (body, code) in FORMS.items():
            length = () if body else ("Content-Length: 0",)
            got = exchange(server, request_bytes("POST", EDITS, kind, *length, body=body))
            assert (find_status(got), find_error(got)["code"]) == (400, code), name
            assert b"x-should-retry: false" in got
        whole = PROMPT + part() + END
        for other in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=" + "b" * 99,
            "multipart/form-data; boundary=\xff",
            "multipart/form-data; boundary=c",
        ):
            got = exchange(server, request_bytes("POST", EDITS, f"Content-Type: {other}", body=whole))
            assert find_status(got) == 400, other
        assert api.posts == 0
    assert capfd.readouterr().err == ""


def test_reads_the_heads_of_parts_without_a_warning(tmp_path: Path) -> None:
    """Reads each name that is clear, refuses all others, and leaves the filters of warnings alone."""
    kind, before = "Content-Type: multipart/form-data; boundary=b", list(warnings.filters)
    good = [reply(200, answer()) for can_be_read in HEADS.values() if can_be_read]
    with serve_before(tmp_path, *good) as (server, api):
        for head, can_be_read in HEADS.items():
            body = PROMPT + part(head) + END
            got = exchange(server, request_bytes("POST", EDITS, kind, body=body))
            assert find_status(got) == (200 if can_be_read else 400), (head, got)
            assert warnings.filters == before
        assert api.posts == len(good)


def test_answers_malformed_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers each malformed JSON body with 400; nothing is sent, and standard error stays empty."""
    with serve_before(tmp_path) as (server, api):
        for name, (body, code) in VALUES.items():
            path = EDITS if b"images" in body else GENERATIONS
            length = () if body else ("Content-Length: 0",)
            got = exchange(server, request_bytes("POST", path, *length, body=body))
            assert (find_status(got), find_error(got)["code"]) == (400, code), (name, got[-300:])
            assert b"x-should-retry: false" in got
        assert send(server, "/status").json["requests"] == []
        assert api.posts == 0
    assert capfd.readouterr().err == ""


def test_answers_bodies_of_other_kinds_and_lengths(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers bodies that it does not read with 4xx, and never with 5xx."""
    chunked = "Transfer-Encoding: chunked"
    tries: list[tuple[tuple[str, ...], bytes, int]] = [
        (("Content-Type: text/plain", "Content-Length: 18"), FOX, 415),
        (("Content-Type: application/x-www-form-urlencoded", "Content-Length: 18"), FOX, 415),
        (("Content-Type: multipart/mixed; boundary=b", "Content-Length: 18"), FOX, 415),
        (("Content-Encoding: gzip", "Content-Length: 18"), FOX, 415),
        (("Content-Encoding: br", "Content-Length: 18"), FOX, 415),
        (("Content-Encoding: wonders", "Content-Length: 18"), FOX, 415),
        (("Content-Length: 999999999999",), FOX, 413),
        (("Content-Length: " + "9" * 30,), FOX, 400),
        (("Content-Length: -1",), FOX, 400),
        (("Content-Length: 18", "Content-Length: 19"), FOX, 400),
        (("Content-Length: 18", chunked), FOX, 400),
        ((chunked,), b"zz\r\n\r\n", 400),
        ((chunked,), b"2\r\n{}\r\nzz\r\n", 400),
    ]
    with serve_before(tmp_path) as (server, api):
        for headers, body, status in tries:
            got = exchange(server, request_bytes("POST", GENERATIONS, *headers) + body)
            assert find_status(got) == status, (headers, got[:200])
            assert find_error(got)
        assert send(server, "/status").json["requests"] == []
        assert api.posts == 0
    assert capfd.readouterr().err == ""


def test_reads_bodies_that_are_only_unusual(tmp_path: Path) -> None:
    """Reads chunks, a byte order mark, text around a form, and a last boundary without a line end."""
    kind = "Content-Type: multipart/form-data; boundary=b"
    with serve_before(tmp_path, reply(200, answer())) as (server, api):
        for got in (
            exchange(server, request_bytes("POST", GENERATIONS, body=b"\xef\xbb\xbf" + FOX)),
            exchange(
                server,
                request_bytes("POST", GENERATIONS, "Transfer-Encoding: chunked")
                + b"12\r\n"
                + FOX
                + b"\r\n0\r\n\r\n",
            ),
            exchange(
                server, request_bytes("POST", EDITS, kind, body=b"hello\r\n" + PROMPT + part() + END + b"bye")
            ),
            exchange(server, request_bytes("POST", EDITS, kind, body=PROMPT + part() + END[:-2])),
        ):
            assert find_status(got) == 200, got
        assert api.posts == 4


def test_keeps_requests_of_a_connection_apart(tmp_path: Path) -> None:
    """Answers the next request of a connection after a refusal, or ends the connection; never its body."""
    inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request_bytes("GET", "/healthz")
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/json\r\n"
    sized = b"Content-Length: %d\r\n\r\n"
    with serve_before(tmp_path) as (server, api):
        for first, statuses in (
            (head + sized % 13 + b'{"prompt":""}', [400, 200]),
            (head + sized % 2 + b"[]", [400]),
            (head.replace(b"POST", b"PUT") + sized % len(inner) + inner, [405]),
            (head.replace(b"json", b"x") + sized % len(inner) + inner, [415]),
            (head.replace(b"{H}", b"evil") + sized % len(inner) + inner, [421]),
            (b"GET /v1/models/x HTTP/1.1\r\nHost: {H}\r\n" + sized % len(inner) + inner, [404, 200]),
            (head + sized % 13 + b'{"prompt":""}GARBAGE\r\n\r\n', [400]),
        ):
            got = exchange(server, first + last)
            found = [find_status(b"HTTP/" + each) for each in got.split(b"HTTP/1.")[1:] if each[1:2] == b" "]
            assert [status for status in found if status] == statuses, (first, got)
        assert api.posts == 0


def test_says_where_a_body_is_not_json(tmp_path: Path) -> None:
    """Gives line and column, without a word of the text; the line alone behind an image."""
    image = b'{"image":"' + b"A" * 4000 + b'",\n"prompt": secret}'
    ending = "Nothing was sent."
    with serve_before(tmp_path) as (server, api):
        for path, body, message in (
            (
                GENERATIONS,
                b'{"prompt": "a fox",\n "size" secret}',
                "(line 2, column 9: Expecting ':' delimiter)",
            ),
            (GENERATIONS, b"prompt=secret", "(line 1, column 1: Expecting value)"),
            (
                GENERATIONS,
                b'{"prompt": "secret\n"}',
                "(line 1, column 19: Invalid control character)",
            ),
            (GENERATIONS, b'{"prompt": "secret', "(line 1, column 12: Unterminated string)"),
            (EDITS, image, "(line 2: Expecting value)"),
            (GENERATIONS, b'{"prompt": "\xff"}', ""),
        ):
            found = find_error(
                exchange(server, request_bytes("POST", path, "Content-Type: application/json", body=body))
            )
            expected = (
                f"The body is not JSON {message}. {ending}" if message else f"The body is not JSON. {ending}"
            )
            assert found["message"] == expected
        assert api.posts == 0
