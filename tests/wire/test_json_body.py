"""JSON replies in chunks: equal to parsing them whole, without the text of images in memory."""

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

from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_body import SHORT_BYTES, JsonReply
from imgkit.wire.json_values import DivertedImage, decode_base64, dump_json, parse_json, restore_base64

KEYS = frozenset({"b64_json", "images"})
IMAGE = random.Random(7).randbytes(3001)
TEXT = base64.b64encode(IMAGE).decode()


def read_in_chunks(body: bytes, cuts: list[int] | None = None) -> tuple[JsonReply, dict[str, bytes]]:
    """Feed a body in chunks; return the reply, and the spool files by name."""
    reply, files = JsonReply(KEYS), dict[str, bytes]()
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts or [])})
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]
    for spool_chunks in [*(reply.feed(chunk) for chunk in chunks), reply.close()]:
        for part, data in spool_chunks:
            files[part] = files.get(part, b"") + data
    assert reply.length == len(body)
    return reply, files


def parse_whole(body: bytes) -> Any:
    """Return the result of `parse_json`, or the class `ValueError` if it raises."""
    try:
        return parse_json(body)
    except ValueError:
        return ValueError


def assert_same_value(body: bytes, reply: JsonReply) -> None:
    """Assert that the reply has the value of the body parsed whole."""
    expected = parse_whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    assert is_equal(reply.json(), expected)


def is_equal(actual: Any, expected: Any) -> bool:
    """Return whether two values are equal, with diverted images decoded."""
    if isinstance(actual, DivertedImage):
        return decode_base64(actual) == decode_base64(expected)
    if isinstance(actual, dict) and isinstance(expected, dict):
        return list(actual) == list(expected) and all(is_equal(actual[key], expected[key]) for key in actual)
    if isinstance(actual, list) and isinstance(expected, list):
        return len(actual) == len(expected) and all(map(is_equal, actual, expected))
    return bool(actual == expected) and type(actual) is type(expected)


def test_diverts_images() -> None:
    """Diverts each image from the text, and keeps its place in the spool."""
    body = json.dumps({"created": 1, "data": [{"b64_json": TEXT}, {"b64_json": TEXT, "x": "y"}]}).encode()
    reply, files = read_in_chunks(body)
    value = reply.json()
    assert [decode_base64(entry["b64_json"]) for entry in value["data"]] == [IMAGE, IMAGE]
    assert value["data"][1]["x"] == "y"
    assert files["0"] == files["1"] == IMAGE
    assert json.loads(files["reply"])["data"][1] == {"b64_json": "imgkit-part-1", "x": "y"}
    assert reply.raw() == body


def test_arrays_of_images() -> None:
    """Diverts the long strings of an array, and keeps the short ones."""
    body = json.dumps({"images": [TEXT, "short", TEXT], "after": "b64_json"}).encode()
    reply, files = read_in_chunks(body)
    value = reply.json()
    assert [item if isinstance(item, str) else decode_base64(item) for item in value["images"]] == [
        IMAGE,
        "short",
        IMAGE,
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
    """Keeps short strings, other keys and text without base64 in the JSON text."""
    reply, files = read_in_chunks(body.encode())
    assert set(files) == {"reply"}
    assert reply.raw() == body.encode()
    assert_same_value(body.encode(), reply)


SPELLINGS = {
    "plain": TEXT,
    "escaped slashes": TEXT.replace("/", "\\/"),
    "unicode escapes": TEXT.replace("/", "\\u002f").replace("A", "\\u0041"),
    "lines": "\\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "indented lines": "  \\n ".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + " ",
    "lines joined by blanks": " ".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "a blank beside plus signs": TEXT[:2001] + " " + TEXT[2001:],
    "blanks for plus signs": TEXT.replace("+", " "),
    "escaped blanks for plus signs": TEXT.replace("+", "\\u0020"),
    "url-safe": TEXT.replace("+", "-").replace("/", "_"),
    "no padding": TEXT.rstrip("="),
    "too much padding": TEXT.rstrip("=") + "====",
    "data URL": "data:image/png;base64," + TEXT,
    "data URL, escaped": "data:image\\/png;base64," + TEXT,
    "no-break spaces": TEXT.replace("A", "A\u00a0"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    """Decodes each spelling in chunks as it does whole, wherever the chunks end."""
    body = b'{"data":[{"b64_json":"' + SPELLINGS[spelling].encode() + b'"}]}'
    for cuts in ([], list(range(len(body))), list(range(0, len(body), 7)), [1100, 1101, 1102, 3000]):
        reply, _ = read_in_chunks(body, cuts)
        entry = reply.json()["data"][0]["b64_json"]
        assert decode_base64(entry) == IMAGE


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
def test_broken_base64(broken: str) -> None:
    """Rejects broken base64 with the usual message, and spools all of it."""
    content = BROKEN[broken].encode("latin-1")
    body = b'{"data":[{"b64_json":"' + content + b'"},{"b64_json":"' + TEXT.encode() + b'"}]}'
    for cuts in ([], list(range(0, len(body), 3))):
        reply, files = read_in_chunks(body, cuts)
        assert_same_problem(body, reply)
        assert reply.raw() == body
        assert base64.b64encode(files.get("0", b"")) + files["raw"] == content
        assert files["1"] == IMAGE


def assert_same_problem(body: bytes, reply: JsonReply) -> None:
    """Assert that the first image fails as in the body parsed whole."""
    expected = parse_whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    problems = []
    for value in (expected, reply.json()):
        with pytest.raises(ValueError, match="base64") as caught:
            decode_base64(value["data"][0]["b64_json"])
        problems.append(str(caught.value))
        assert decode_base64(value["data"][1]["b64_json"]) == IMAGE
    assert problems[0] == problems[1]


def test_a_truncated_reply_keeps_its_images() -> None:
    """Keeps the complete image and the received part of the next."""
    body = json.dumps({"data": [{"b64_json": TEXT}, {"b64_json": TEXT}]}).encode()
    cut = body[: -len(TEXT) // 2]
    reply, files = read_in_chunks(cut)
    with pytest.raises(ValueError, match="Unterminated"):
        reply.json()
    assert files["0"] == IMAGE
    assert IMAGE.startswith(files["1"])
    assert len(files["1"]) > 1000
    assert cut.startswith(reply.raw()[:-4])


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"<html>", b"\xef\xbb\xbf \n[1]", b'"text"', b"\x89PNG\r\n", b"nul"]
)
def test_bodies_without_an_object(body: bytes) -> None:
    """Keeps the bytes of a body that is no JSON object, and parses them as usual."""
    for cuts in ([], list(range(len(body)))):
        reply, _ = read_in_chunks(body, cuts)
        assert reply.raw() == body
        assert_same_value(body, reply)


@pytest.mark.parametrize(
    "rest", ['"x":1,"x":2', '"x":NaN', '"x":' + "[" * 200_000 + "]" * 200_000, '"x":' + "9" * 5000]
)
def test_parses_the_rest_strictly(rest: str) -> None:
    """Rejects repeated keys, NaN, deep nesting and huge numbers around an image."""
    body = b'{"b64_json":"' + TEXT.encode() + b'",' + rest.encode() + b"}"
    reply, _ = read_in_chunks(body)
    with pytest.raises(ValueError, match="."):
        reply.json()


def test_numbers_beyond_a_float_are_written_as_null() -> None:
    """Writes null for a number that JSON does not have, such as 1e999 of a reply."""
    value = read_in_chunks(b'{"usage":[1e999, {"a": -1e999}, 5]}')[0].json()
    assert json.loads(dump_json(value), parse_constant=pytest.fail) == {"usage": [None, {"a": None}, 5]}


def test_deep_nesting() -> None:
    """Finds an image inside 400 arrays."""
    body = '{"x":' + "[" * 400 + '{"b64_json":"' + TEXT + '"}' + "]" * 400 + "}"
    reply, _ = read_in_chunks(body.encode())
    assert_same_value(body.encode(), reply)


def test_a_server_cannot_forge_an_image() -> None:
    """Leaves text that looks like the name of a spool file alone."""
    body = json.dumps({"b64_json": TEXT, "x": "imgkit-part-0", "y": ["imgkit-part-0"]}).encode()
    value = read_in_chunks(body)[0].json()
    assert value["x"] == "imgkit-part-0"
    assert value["y"] == ["imgkit-part-0"]


def test_restores_base64_text() -> None:
    """Restores the text of images in parts of a reply without images."""
    body = json.dumps({"extra": {"b64_json": TEXT, "more": [{"b64_json": TEXT}]}}).encode()
    assert restore_base64(read_in_chunks(body)[0].json()) == json.loads(body)


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


@settings(max_examples=400)
@given(BODIES, st.lists(st.integers(0, 20_000), max_size=12), st.integers(0, 40))
def test_any_chunks_give_the_same_value(body: bytes, cuts: list[int], lost: int) -> None:
    """Gives the value, or the error, of the body parsed whole, for any chunks and any truncation."""
    body = body[: len(body) - lost] if lost < len(body) else body
    reply, _ = read_in_chunks(body, cuts)
    expected = parse_whole(body)
    if expected is ValueError:
        with pytest.raises(ValueError, match="."):
            reply.json()
        return
    assert decode_all(reply.json()) == decode_all(expected)


PIECES = [
    *(
        "A",
        "b/+9",
        "Zm94",
        "-_",
        "=",
        "==",
        " ",
        "  ",
        "\u00a0",
        "\u3000",
        "\u00e9",
        "\U0001f98a",
        "!",
        "\x01",
    ),
    *(
        '\\"',
        "\\\\",
        "\\/",
        "\\n",
        "\\t",
        "\\b",
        "\\u0041",
        "\\u003d",
        "\\u0020",
        "\\u0022",
        "\\ud83d",
        "\\u00",
        "\\q",
    ),
]


def decode_in_chunks(text: bytes, cuts: list[int]) -> tuple[bytes, bool, bytes]:
    """Return the decoded bytes, whether the decoding failed, and the rejected text."""
    decoder = Base64Decoder()
    edges = sorted({0, len(text), *cuts})
    pieces = [piece for start, end in itertools.pairwise(edges) for piece in decoder.feed(text[start:end])]
    pieces.append(decoder.close())
    return b"".join(pieces), decoder.failed, b"".join(decoder.rejected)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode()))
def test_base64_is_decoded_alike_for_every_cut(text: bytes) -> None:
    """Decodes and rejects the same bytes of a text wherever it is cut, and loses none."""
    whole = decode_in_chunks(text, [])
    for cut in range(1, len(text)):
        assert decode_in_chunks(text, [cut]) == whole
    assert decode_in_chunks(text, list(range(len(text)))) == whole
    assert text.endswith(whole[2])


PLACES = st.one_of(st.integers(SHORT_BYTES - 12, SHORT_BYTES + 4), st.integers(0, len(TEXT)))


@settings(max_examples=60)
@given(st.sampled_from([*PIECES, '\\"b64_json\\": \\"', '\\"}']), PLACES, st.integers(0, 60))
def test_every_cut_gives_the_same_result(piece: str, place: int, lost: int) -> None:
    """Gives the same value, bytes and spool for every cut near an unusual piece of an image's text."""
    begin, text = '{"data":[{"b64_json":"', TEXT[:place] + piece + TEXT[place:]
    body = f'{begin}{text}"}},{{"b64_json":"{TEXT}"}}]}}'.encode()
    body = body[: len(body) - lost]
    whole = describe_reply(body, [])
    at = len(begin) + place
    for cut in range(at - 8, at + 20):
        assert describe_reply(body, [cut]) == whole
    assert describe_reply(body, list(range(at - 8, at + 20))) == whole


def describe_reply(body: bytes, cuts: list[int]) -> tuple[Any, bytes, dict[str, bytes]]:
    """Return value or error, bytes and spool files of a body in chunks."""
    reply, files = read_in_chunks(body, cuts)
    try:
        return decode_all(reply.json()), reply.raw(), files
    except ValueError as error:
        return str(error), reply.raw(), files


def decode_all(value: Any) -> Any:
    """Return a value with each base64 string decoded, and an error text for each other string."""
    if isinstance(value, dict):
        return {key: decode_all(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [decode_all(inner) for inner in value]
    try:
        return decode_base64(value)
    except ValueError as error:
        return str(error)


@settings(max_examples=200)
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=8))
def test_garbage(body: bytes, cuts: list[int]) -> None:
    """Raises nothing but ValueError for any bytes."""
    for begin in (b"", b'{"b64_json":"' + TEXT.encode()):
        reply, _ = read_in_chunks(begin + body, cuts)
        try:
            reply.json()
        except ValueError:
            continue


def test_the_text_of_an_image_never_exists_whole() -> None:
    """Holds one copy of an image of 6 MB while its text arrives, and little more."""
    chunk = TEXT.encode()[:3996]  # a multiple of four
    reply = JsonReply(KEYS)
    tracemalloc.start()
    try:
        reply.feed(b'{"b64_json":"')
        for _ in range(2000):
            reply.feed(chunk)
        reply.feed(b'"}')
        reply.close()
        data = decode_base64(reply.json()["b64_json"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) == 2000 * 2997
    assert peak < 1.3 * len(data) + 2_000_000
