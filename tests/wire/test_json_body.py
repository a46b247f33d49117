"""Replies read while they arrive: the same as reading them whole, and pictures are never held as text."""

from __future__ import annotations

import base64
import itertools
import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgkit.wire.json_body import SHORT_BYTES, JsonReply
from imgkit.wire.json_values import DivertedImage, decode_base64, parse_json, with_text

KEYS = frozenset({"b64_json", "images"})
LONG = random.Random(7).randbytes(3001)
TEXT = base64.b64encode(LONG).decode()


def read(body: bytes, cuts: list[int] | None = None) -> tuple[JsonReply, dict[str, bytes]]:
    """Feed a body in pieces; return the reply, and what a spool would have written."""
    reply, files = JsonReply(KEYS), dict[str, bytes]()
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts or [])})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    for news in [*(reply.feed(piece) for piece in pieces), reply.close()]:
        for part, data in news:
            files[part] = files.get(part, b"") + data
    assert reply.length == len(body)
    return reply, files


def whole(body: bytes) -> Any:
    """Return what `parse_json` says, or that it refuses."""
    try:
        return parse_json(body)
    except ValueError:
        return ValueError


def same(body: bytes, reply: JsonReply) -> None:
    """Assert that the reply says what reading it whole says."""
    expected = whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    assert alike(reply.json(), expected)


def alike(found: Any, expected: Any) -> bool:
    if isinstance(found, DivertedImage):
        return decode_base64(found) == decode_base64(expected)
    if isinstance(found, dict) and isinstance(expected, dict):
        return list(found) == list(expected) and all(alike(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    return bool(found == expected) and type(found) is type(expected)


def test_pictures_are_taken_out() -> None:
    body = json.dumps({"created": 1, "data": [{"b64_json": TEXT}, {"b64_json": TEXT, "x": "y"}]}).encode()
    reply, files = read(body)
    value = reply.json()
    assert [decode_base64(entry["b64_json"]) for entry in value["data"]] == [LONG, LONG]
    assert value["data"][1]["x"] == "y"
    assert files["0"] == files["1"] == LONG
    assert json.loads(files["reply"])["data"][1] == {"b64_json": "imgkit-part-1", "x": "y"}
    assert reply.raw() == body


def test_arrays_of_pictures() -> None:
    body = json.dumps({"images": [TEXT, "short", TEXT], "after": "b64_json"}).encode()
    reply, files = read(body)
    value = reply.json()
    assert [one if isinstance(one, str) else decode_base64(one) for one in value["images"]] == [
        LONG,
        "short",
        LONG,
    ]
    assert set(files) == {"reply", "0", "1"}
    assert reply.raw() == body


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"b64_json": TEXT[: SHORT_BYTES - 4]}),
        json.dumps({"prompt": TEXT}),
        json.dumps({TEXT: 1, "b64_json": {"x": TEXT}}),
        json.dumps({"note": 'a string with "b64_json": "' + TEXT}),
        json.dumps({'say "b64_json': TEXT}),
        json.dumps({"b64_json": "data:image/svg+xml,%3Csvg/%3E" + "x" * 2000}),
        json.dumps({"b64\\u005fjson": TEXT}).replace("\\\\", "\\"),
    ],
)
def test_other_strings_stay(body: str) -> None:
    reply, files = read(body.encode())
    assert set(files) == {"reply"}
    assert reply.raw() == body.encode()
    same(body.encode(), reply)


SPELLINGS = {
    "plain": TEXT,
    "escaped slashes": TEXT.replace("/", "\\/"),
    "unicode escapes": TEXT.replace("/", "\\u002f").replace("A", "\\u0041"),
    "lines": "\\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "spaces": TEXT.replace("A", " A\\t"),
    "url-safe": TEXT.replace("+", "-").replace("/", "_"),
    "no padding": TEXT.rstrip("="),
    "too much padding": TEXT.rstrip("=") + "====",
    "data URL": "data:image/png;base64," + TEXT,
    "data URL, escaped": "data:image\\/png;base64," + TEXT,
    "no-break spaces": TEXT.replace("A", "A\u00a0"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    """Every spelling that is read whole is read in pieces, wherever it is cut."""
    body = b'{"data":[{"b64_json":"' + SPELLINGS[spelling].encode() + b'"}]}'
    for cuts in ([], list(range(len(body))), list(range(0, len(body), 7)), [1100, 1101, 1102, 3000]):
        reply, _ = read(body, cuts)
        entry = reply.json()["data"][0]["b64_json"]
        assert decode_base64(entry) == LONG


BROKEN = {
    "text behind the padding": TEXT + " " + TEXT[:9],
    "inner padding": TEXT[:2000] + "=" + TEXT[2000:],
    "a wrong character": TEXT[:2001] + "!" + TEXT[2001:],
    "a raw line break": TEXT[:2001] + "\n" + TEXT[2001:],
    "a broken escape": TEXT[:2001] + "\\q" + TEXT[2001:],
    "half a character": TEXT[:2001] + "\xff" + TEXT[2001:],
    "one character too many": TEXT.rstrip("=") + "ABC=",
    "prose": "The quick brown fox. " * 100,
    "backslashes": "\\\\" * 3000,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken(broken: str) -> None:
    """What cannot be decoded is refused as ever, and the spool has all of it."""
    content = BROKEN[broken].encode("latin-1")
    body = b'{"data":[{"b64_json":"' + content + b'"},{"b64_json":"' + TEXT.encode() + b'"}]}'
    for cuts in ([], list(range(0, len(body), 3))):
        reply, files = read(body, cuts)
        same_entry(body, reply)
        assert reply.raw() == body
        assert base64.b64encode(files.get("0", b"")) + files["raw"] == content
        assert files["1"] == LONG


def same_entry(body: bytes, reply: JsonReply) -> None:
    expected = whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    problems = []
    for value in (expected, reply.json()):
        with pytest.raises(ValueError, match="base64") as caught:
            decode_base64(value["data"][0]["b64_json"])
        problems.append(str(caught.value))
        assert decode_base64(value["data"][1]["b64_json"]) == LONG
    assert problems[0] == problems[1]


def test_a_cut_off_reply_keeps_what_came() -> None:
    body = json.dumps({"data": [{"b64_json": TEXT}, {"b64_json": TEXT}]}).encode()
    cut = body[: -len(TEXT) // 2]
    reply, files = read(cut)
    with pytest.raises(ValueError, match="Unterminated"):
        reply.json()
    assert files["0"] == LONG
    assert LONG.startswith(files["1"])
    assert len(files["1"]) > 1000
    assert cut.startswith(reply.raw()[:-4])


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"<html>", b"\xef\xbb\xbf \n[1]", b'"text"', b"\x89PNG\r\n", b"nul"]
)
def test_what_is_no_object(body: bytes) -> None:
    for cuts in ([], list(range(len(body)))):
        reply, _ = read(body, cuts)
        assert reply.raw() == body
        same(body, reply)


@pytest.mark.parametrize(
    "rest", ['"x":1,"x":2', '"x":NaN', '"x":' + "[" * 200_000 + "]" * 200_000, '"x":' + "9" * 5000]
)
def test_the_rest_is_read_strictly(rest: str) -> None:
    body = b'{"b64_json":"' + TEXT.encode() + b'",' + rest.encode() + b"}"
    reply, _ = read(body)
    with pytest.raises(ValueError, match="."):
        reply.json()


def test_deep_nesting() -> None:
    body = '{"x":' + "[" * 400 + '{"b64_json":"' + TEXT + '"}' + "]" * 400 + "}"
    reply, _ = read(body.encode())
    same(body.encode(), reply)


def test_a_server_cannot_forge_a_place() -> None:
    body = json.dumps({"b64_json": TEXT, "x": "imgkit-part-0", "y": ["imgkit-part-0"]}).encode()
    value = read(body)[0].json()
    assert value["x"] == "imgkit-part-0"
    assert value["y"] == ["imgkit-part-0"]


def test_text_where_nobody_expects_a_picture() -> None:
    body = json.dumps({"extra": {"b64_json": TEXT, "more": [{"b64_json": TEXT}]}}).encode()
    assert with_text(read(body)[0].json()) == json.loads(body)


CONTENT = st.one_of(
    st.text(max_size=20),
    st.integers(0, 4000).map(lambda size: TEXT[:size]),
    st.sampled_from([*SPELLINGS.values(), *BROKEN.values()]),
)
MEMBERS = st.dictionaries(st.sampled_from(["b64_json", "images", "prompt", "x"]), CONTENT, max_size=3)
BODIES = st.one_of(
    st.lists(MEMBERS, max_size=3).map(lambda entries: json.dumps({"data": entries})),
    st.lists(CONTENT, max_size=4).map(lambda all: json.dumps({"images": all, "n": 1})),
    CONTENT.map(lambda content: '{"b64_json":"' + content + '"}'),
    CONTENT.map(lambda content: '{"images" : [ "' + content + '" , "x" ] }'),
).map(lambda text: text.encode("utf-8", "replace"))


@settings(max_examples=400, deadline=None)
@given(BODIES, st.lists(st.integers(0, 20_000), max_size=12), st.integers(0, 40))
def test_always_as_if_read_whole(body: bytes, cuts: list[int], lost: int) -> None:
    """Whatever comes, however it is cut, and wherever it ends: the value, or an error, is the same."""
    body = body[: len(body) - lost] if lost < len(body) else body
    reply, _ = read(body, cuts)
    expected = whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    assert outcome(reply.json()) == outcome(expected)


def outcome(value: Any) -> Any:
    """Return a value with all strings decoded where they can be."""
    if isinstance(value, dict):
        return {key: outcome(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [outcome(inner) for inner in value]
    try:
        return decode_base64(value)
    except ValueError as error:
        return str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=8))
def test_garbage(body: bytes, cuts: list[int]) -> None:
    for begin in (b"", b'{"b64_json":"' + TEXT.encode()):
        reply, _ = read(begin + body, cuts)
        try:
            reply.json()
        except ValueError:
            continue


def test_the_text_of_a_picture_never_exists_whole() -> None:
    """What is held while 8 MB arrive is the picture, once, and little more."""
    piece = TEXT.encode()[:3996]  # ends on a whole group of four
    reply = JsonReply(KEYS)
    tracemalloc.start()
    try:
        reply.feed(b'{"b64_json":"')
        for _ in range(2000):
            reply.feed(piece)
        reply.feed(b'"}')
        reply.close()
        data = decode_base64(reply.json()["b64_json"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) == 2000 * 2997
    assert peak < 1.3 * len(data) + 2_000_000
