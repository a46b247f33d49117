"""Secrets in text: found in every spelling, at every cut, without harm to JSON, headers and images."""

from __future__ import annotations

import base64
import itertools
import json
import pickle
import random
from typing import Any

import pytest

import imgkit
from imgkit.core.sent_secrets import MAX_REMEMBERED, SentSecrets
from imgkit.redact import Secret
from imgkit.wire.event_body import EVENT_MARK
from imgkit.wire.json_values import parse_json
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.spool_filter import SpoolFilter, TextFilter
from tests.support.leaks import SHAPES, list_traces, spell
from tests.support.pictures import encoded, noise

ODD_KEYS = (
    *("a\\nb\\tc&d<e>'f\"", "pässwörd-ü€", "nope", "00e9", "u00e9", "tail\\", "null", "true", "-1.5e9"),
    *("data", "b64_json", "x%41y%2Fzz", "&amp;key;1"),
)
KEYS = (*(make(3) for make in SHAPES.values()), *ODD_KEYS)
ALL = SecretFilter(map(Secret, KEYS))
PIN = int(SHAPES["number"](3))
"""A key that also occurs as a number, and in one."""


@pytest.mark.parametrize("key", KEYS)
def test_every_spelling_is_found(key: str) -> None:
    """A key is removed from a text as it is, escaped, encoded, wrapped and in another case."""
    secrets = SecretFilter([Secret(key)])
    for form in spell(key):
        text = f"The key {form} is wrong."
        is_wrapped = "\n" in form
        if is_wrapped and len(json.dumps(key)) > len(key) + 2:
            continue
        cleaned = secrets.clean_text(text)
        assert "…" in cleaned, form
        assert secrets.clean_bytes(text.encode()).decode() == cleaned
        assert [trace for trace in list_traces(key) if trace in cleaned] == [], form


@pytest.mark.parametrize("key", KEYS)
def test_other_text_stays(key: str) -> None:
    """A text without the key stays as it is, the same object."""
    secrets = SecretFilter([Secret(key)])
    text = 'A red fox %20 &lt; "\\u00ab\\n" in the snow\nand 100 % more.'
    assert secrets.clean_text(text) is text
    data = text.encode()
    assert secrets.clean_bytes(data) is data


def make_body(key: str) -> str:
    """Return a JSON reply with a key in many places, and with values that look like keys."""
    text = json.dumps(key)[1:-1]
    return (
        f'{{"created": 1{PIN}00, "data": [{{"url": "{text}", "caf\\u00e9": "\\nope \\u00e9"}}], "n": 7391, '
        f'"nope": [1, true, null, -1.5e9, {PIN}, "x{text}y"], "name {text}": 1, "q": "\\"{text}.\\\\", '
        '"b64_json": "x"}'
    )


@pytest.mark.parametrize("key", KEYS)
def test_json_stays_json(key: str) -> None:
    """Numbers, constants, escapes and the names of members stay; the texts lose the key."""
    secrets = SecretFilter([Secret(key)])
    body = make_body(key)
    for value in (
        json.loads(secrets.clean_bytes(body.encode())),
        secrets.clean_json(json.loads(body), keep=frozenset({"b64_json"})),
    ):
        assert value["created"] == int(f"1{PIN}00")
        assert value["n"] == 7391
        assert value["nope"][:5] == [1, True, None, -1.5e9, PIN]
        assert value["data"][0]["url"] == "…"
        assert value["nope"][5] == "x…y"
        assert value["q"] == '"….\\'
        assert key not in json.dumps(list(value["nope"][5:]), ensure_ascii=False)


@pytest.mark.parametrize("key", KEYS)
def test_no_cut_changes_the_text_of_a_spool(key: str) -> None:
    """A text that arrives in pieces loses the same secrets, wherever it is cut."""
    secrets = SecretFilter([Secret(key), Secret("another-Secret-0123456789")])
    chance = random.Random(5)
    items = []
    for form in spell(key):
        filler = base64.b64encode(chance.randbytes(chance.choice([20, 170, 400]))).decode()
        items += [json.dumps(form), str(PIN), json.dumps(filler), f'"\\\\\\u0041\\n{"y" * 30}"']
        items.append(json.dumps({"data": "another-Secret-0123456789", "nope": [True]}))
    text = ("{" + ", ".join(f'"f{number}": {item}' for number, item in enumerate(items)) + "}").encode()
    whole = secrets.clean_bytes(text)
    json.loads(whole)
    for pieces in (1, 2, 9, 50):
        cuts = [0, *sorted(chance.randrange(len(text)) for _ in range(pieces)), len(text)]
        kept = TextFilter(secrets)
        done = [kept.feed(text[start:end]) for start, end in itertools.pairwise(cuts)]
        assert b"".join(done) + kept.close() == whole


def test_a_spool_keeps_a_whole_value_at_once() -> None:
    """The text is kept as soon as it ends like a JSON value: the process may die while it waits."""
    kept = TextFilter(ALL)
    assert kept.feed(b'{"data": [{"url": "https://h/fox.png"') == b""
    assert kept.feed(b"}]}").endswith(b'fox.png"}]}')
    assert kept.feed(b"\n") + kept.close() == b"\n"


def test_images_and_events_pass_the_spool() -> None:
    """Images pass unchanged; each event is a text of its own."""
    key = SHAPES["shape"](3)
    spool = SpoolFilter(ALL)
    image = key.encode() * 3
    chunks = [("reply", EVENT_MARK), ("reply", b'{"a": "x'), ("0", image), ("reply", EVENT_MARK)]
    chunks += [("reply", f'{{"n": {PIN}, "b": "{key} {PIN}"}}'.encode()), ("raw", key.encode())]
    cleaned = [*spool.clean(chunks), *spool.close()]
    assert b"".join(data for name, data in cleaned if name == "0") == image
    text = b"".join(data for name, data in cleaned if name == "reply")
    assert text == EVENT_MARK + b'{"a": "x' + EVENT_MARK + f'{{"n": {PIN}, "b": "… …"}}'.encode()
    assert ("raw", "…".encode()) in cleaned
    assert SpoolFilter(SecretFilter()).clean(chunks) == chunks


@pytest.mark.parametrize("length", [4, 6, 9])
def test_the_base64_of_an_image_stays(length: int) -> None:
    """A short key that occurs in base64 by chance stays there, and goes elsewhere."""
    text = encoded(noise(32))
    key = text[400 : 400 + length]
    body = json.dumps({"data": [{"b64_json": text}], "note": f"key {key}"}).encode()
    cleaned = json.loads(SecretFilter([Secret(key)]).clean_bytes(body))
    assert cleaned == {"data": [{"b64_json": text}], "note": "key …"}


def test_the_base64_of_an_image_stays_in_a_spool() -> None:
    """A short key in base64 stays, even if most of the base64 has been kept before it arrives."""
    kept = TextFilter(SecretFilter([Secret("Q7zX")]))
    text = f'{{"a": "{"QUJD" * 100}Q7zXQUJD", "b": "{" " * 200}", "c": "Q7zX"}}'.encode()
    done = kept.feed(text[:630])
    assert 300 < len(done) < 410
    assert done + kept.feed(text[630:]) + kept.close() == text.replace(b'"Q7zX"', '"…"'.encode())


def test_binary_data_stays() -> None:
    """Bytes that are no text stay, even with a long key in them."""
    data = b"\x89PNG\r\n\x1a\n\0\0" + SHAPES["shape"](3).encode()
    assert ALL.clean_bytes(data) is data


def test_headers_that_tell_how_to_read_a_reply_stay() -> None:
    """A key such as "json" or "7391" does not change the meaning of a head, and goes from other headers."""
    secrets = SecretFilter(map(Secret, ("json", "7391", "k3Y!z")))
    headers = {"content-type": "application/json", "content-length": "7391", "retry-after": "7391"}
    assert secrets.clean_headers({**headers, "x-a": "json 7391"}) == {**headers, "x-a": "… …"}
    assert secrets.clean_headers({"content-length": "7391 A7391", "date": "k3Y!z"}) == {
        "content-length": "… A…",
        "date": "…",
    }


def test_links_stay_if_they_must() -> None:
    """The URL of an image stays a URL where it is fetched from, and loses the key where it is shown."""
    key = SHAPES["shape"](3)
    value = {"data": [{"url": f"https://h.example/{key}.png", "note": key}], "url": f"the key {key}"}
    kept = ALL.clean_json(value, links=False)
    assert kept == {"data": [{"url": f"https://h.example/{key}.png", "note": "…"}], "url": "the key …"}
    assert ALL.clean_json(value)["data"][0]["url"] == "https://h.example/….png"


def test_deep_values_are_cleaned() -> None:
    """A value that is nested deeply is cleaned without recursion."""
    value: Any = SHAPES["shape"](3)
    for _ in range(5_000):
        value = [value]
    value = ALL.clean_json(value)
    while isinstance(value, list):
        (value,) = value
    assert value == "…"


def test_an_error_is_cleaned_with_all_that_belongs_to_it() -> None:
    """Message, arguments, notes, attributes, causes, contexts and the members of groups lose the key."""
    key = SHAPES["shape"](3)
    error = imgkit.BadRequestError(key, status=400, code=key, request_id=key)
    error.add_note(key)
    foreign, grouped = ValueError(key), KeyError(key)
    foreign.add_note(key)
    error.__cause__ = ExceptionGroup("x", [foreign])
    error.__context__ = grouped
    grouped.__context__ = error
    ALL.clean_error(error)
    for each in (error, foreign, grouped):
        assert key not in f"{each}{each.args}{vars(each)}"
    assert pickle.loads(pickle.dumps(error)).code == "…"


def test_a_filter_keeps_its_secrets() -> None:
    """Neither repr nor pickle of a filter shows a secret."""
    assert all(key not in repr(ALL) + repr(ALL.finder) for key in KEYS)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(ALL)


def test_sent_secrets_are_remembered_for_a_while() -> None:
    """A service removes the secrets of its arguments always, and those of its latest requests."""
    sent = SentSecrets([Secret("argument-0")])
    for number in range(MAX_REMEMBERED + 1):
        first = sent.remember((Secret(f"token-{number:04}"),))
        assert first is sent.remember((Secret(f"token-{number:04}"),))
        assert first.clean_text(f"argument-0 token-{number:04}") == "… …"
    assert sent.all.clean_text("argument-0 token-0000 token-0001 token-0016") == "… token-0000 … …"


def test_a_flood_of_escapes_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a limit, escapes are not decoded any more; the key as it is is still found."""
    monkeypatch.setattr("imgkit.wire.secret_finder.MAX_ESCAPES", 10)
    secrets = SecretFilter([Secret("s3cr3t/key")])
    text = "s3cr3t%2Fkey " + "%41" * 40 + " s3cr3t/key s3cr3t%2Fkey"
    assert secrets.clean_text(text) == "… " + "%41" * 40 + " … s3cr3t%2Fkey"


def test_short_secrets_stay() -> None:
    """A secret of fewer than four characters stays in texts."""
    assert SecretFilter([Secret("abc")]).clean_text("abc abcd") == "abc abcd"


def test_a_reply_is_cleaned_after_it_is_parsed() -> None:
    """A key that JSON escapes in part is removed from the parsed value, too."""
    body = b'{"note": "k\\u0033Y!z0\\u0033"}'
    secrets = SecretFilter([Secret("k3Y!z03")])
    assert secrets.clean_json(parse_json(body)) == {"note": "…"}
    assert json.loads(secrets.clean_bytes(body)) == {"note": "…"}


def test_a_zero_byte_does_not_hide_a_secret() -> None:
    """Cleans a text with a zero byte; the beginning of an image is what stops the filter."""
    secrets = SecretFilter([Secret("k3Y!00zz")])
    assert secrets.clean_bytes(b"a\0 k3Y!00zz") == "a\0 …".encode()
    assert secrets.clean_bytes(b"\x89PNG\r\n k3Y!00zz") == b"\x89PNG\r\n k3Y!00zz"


class Stubborn(Exception):
    """An error whose text does not come from its arguments, as those of many libraries."""

    def __init__(self, text: str) -> None:
        super().__init__("x")
        self.text = text

    def __str__(self) -> str:
        return self.text


class Broken(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_causes_with_texts_of_their_own(link: str) -> None:
    """Puts a plain error in place of a cause whose text cannot be cleaned; any other stays."""
    secrets = SecretFilter([Secret("k3Y!00zz")])
    for inner, text in ((Stubborn("to k3Y!00zz"), "Stubborn: to …"), (Stubborn("to me"), "to me")):
        outer = ValueError("outer")
        setattr(outer, link, inner)
        secrets.clean_error(outer)
        assert str(getattr(outer, link)) == text
        assert outer.__suppress_context__ == (link == "__cause__")
    outer = ValueError("outer")
    setattr(outer, link, Broken())
    secrets.clean_error(outer)
    assert isinstance(getattr(outer, link), Broken)


def test_a_run_of_backslashes_is_not_held_back() -> None:
    """Hands on a text of backslashes as it arrives, so that its cost stays linear."""
    text = TextFilter(SecretFilter([Secret("k3Y!00zz")]))
    returned = sum(len(text.feed(b"\\" * 10_000)) for _ in range(20))
    assert returned > 190_000
    assert returned + len(text.close()) == 200_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_texts(encoding: str) -> None:
    """Finds a key in a text of two or four bytes a character."""
    secrets = SecretFilter([Secret("k3Y!00zz")])
    text = '{"message": "to k3Y!00zz"}'
    assert secrets.clean_bytes(text.encode(encoding)).decode(encoding) == '{"message": "to …"}'
    assert secrets.clean_bytes(b"\0" + b"\xff" * 9) == b"\0" + b"\xff" * 9
