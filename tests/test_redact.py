"""Messages, logs and reprs contain no secrets and no megabytes."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.redact import (
    MESSAGE_LIMIT,
    SENSITIVE_HEADERS,
    Secret,
    format_suggestion,
    safe_headers,
    safe_url,
    scrub,
)

KEY = "sk-proj-CANARY1234567890abcdef"

SHOWN: list[tuple[str, str]] = [
    ("nothing to hide", "nothing to hide"),
    (f"bad key {KEY}.", "bad key …."),
    ("bad key sk-CANARY****cdef", "bad key …"),
    ("pk-CANARY1234 rk-CANARY1234 sess-CANARY1234", "… … …"),
    (f"Authorization: Bearer {KEY}", "Authorization: …"),
    ("bearer of news; Bearer abc", "bearer of news; Bearer abc"),
    ("a risk-assessment at the desk-side", "a risk-assessment at the desk-side"),
    ("A" * 199, "A" * 199),
    ("A" * 200, "<200 characters of base64>"),
    ("x " + "QUJD" * 1000 + "== y", "x <4002 characters of base64> y"),
    ("a\x00b\x1b[31mc\x7f\x9b", "a b [31mc"),
    ("a\u202eb\u2066c\u200fd\u2028e", "a b c d e"),
    ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ("lone \ud800 surrogate", "lone ? surrogate"),
    ("  blanks  ", "blanks"),
    ("otter 🦦", "otter 🦦"),
    ("GET https://h/a.png?sig=CANARY failed", "GET https://h/a.png?… failed"),
    ("Max retries exceeded with url: /a.png?sig=CANARY&b (x)", "Max retries exceeded with url: /a.png?… (x)"),
    ("'/a/b?CANARY' <p>a.png?sig%3DCANARY</p> ?sig=CANARY", "'/a/b?…' <p>a.png?… ?…"),
    ("//h.example/a?CANARY; a.png?b?sig-CANARY", "//h.example/a?… a.png?…"),
    ("Why? Because. Really?! 1?2", "Why? Because. Really?! 1?2"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_scrub(text: str, shown: str) -> None:
    """Replaces keys, long base64 and control characters, and keeps everything else."""
    assert scrub(text) == shown


def test_scrub_removes_exact_secrets() -> None:
    """Removes an exact secret of any shape, at every place in the text."""
    assert scrub("CANARY, and xCANARYx", ("", "CANARY")) == "…, and x…x"


@pytest.mark.parametrize("before", range(MESSAGE_LIMIT * 8 - 20, MESSAGE_LIMIT * 8 + 2))
def test_scrub_cuts_after_removing_secrets(before: int) -> None:
    """Leaves no part of a secret at the cut, even if the text before it shrinks."""
    assert "CAN" not in scrub("A" * before + " CANARY-OF-ANY-SHAPE", ("CANARY-OF-ANY-SHAPE",))


@given(st.text(), st.integers(5, 50))
def test_scrub_keeps_its_limit(text: str, limit: int) -> None:
    """Returns text that fits its limit and encodes as UTF-8."""
    shown = scrub(text * 20, limit=limit)
    assert len(shown) <= limit
    assert shown.encode("utf-8").decode("utf-8") == shown


URLS: list[tuple[str, str]] = [
    ("https://h.example/a/b.png", "https://h.example/a/b.png"),
    ("https://user:CANARY@h.example:8443/a?sig=CANARY#CANARY", "https://h.example:8443/a?…"),
    ("HTTPS://H.EXAMPLE", "https://h.example"),
    ("http://[::1]:80/x", "http://[::1]:80/x"),
    ("/v1/x?CANARY", "/v1/x?…"),
    ("//h.example/x", "//h.example/x"),
    ("https://[::1", "<unreadable URL>"),
    ("https://h:99999/", "<unreadable URL>"),
    ("https://h/\ud800\x1b", "https://h/?"),
    ("data:image/png;base64," + "A" * 500, "data:image/png;base64,<500 characters of base64>"),
    ("https://h/" + "a." * 500, "https://h/" + ("a." * 95)[:189] + "…"),
    ("", ""),
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_safe_url(url: str, shown: str) -> None:
    """Shows a URL without user, query and fragment, which may grant access."""
    assert safe_url(url) == shown


@given(st.text() | st.from_regex(r"https?://[^ ]{0,20}[?#@:\[]CANARY"))
def test_safe_url_never_raises(url: str) -> None:
    """Shows any text as a URL of at most 200 characters, or as unreadable."""
    assert len(safe_url(url)) <= 200


def test_safe_headers() -> None:
    """Hides credentials and identities, whatever the case of the name, and scrubs other values."""
    headers = dict.fromkeys([*SENSITIVE_HEADERS, "Authorization", "X-API-Key"], KEY)
    shown = safe_headers({**headers, "x-trace": f"1 {KEY}", "accept": "application/json"})
    assert {shown[name] for name in headers} == {"…"}
    assert (shown["x-trace"], shown["accept"]) == ("1 …", "application/json")
    assert "CANARY" not in str(shown)


def test_only_reveal_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Hides a secret from repr, str, format, logging, vars and error messages."""
    secret = Secret(KEY)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r", secret, [secret])
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>40}",
        "{0:}".format(secret),  # noqa: UP030, UP032 - str.format is under test
        caplog.text,
    ]
    assert "CANARY" not in "".join(shown)
    assert secret.reveal() == KEY
    with pytest.raises(TypeError) as caught:
        vars(secret)
    assert "CANARY" not in str(caught.value)
    with pytest.raises(TypeError):
        json.dumps(secret)


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secret_cannot_be_copied(leak: Callable[[object], object]) -> None:
    """Refuses to pickle or copy a secret, alone or in a list, and names the remedy."""
    for value in (Secret(KEY), [Secret(KEY)]):
        if leak is copy.copy and isinstance(value, list):
            continue  # a new list of the same secret
        with pytest.raises(TypeError, match="environment variable") as caught:
            leak(value)
        assert "CANARY" not in str(caught.value)


def test_secret_hint_and_equality() -> None:
    """Shows four characters of a long secret and none of a short secret; compares by value."""
    assert Secret(KEY).hint() == "…cdef"
    assert Secret("short").hint() == "…"
    assert Secret(KEY) == Secret(KEY) != Secret("other")
    assert Secret("5") != "5"
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("reqests", " (did you mean 'requests'?)"),
        ("REQUESTS", " (did you mean 'requests'?)"),
        ("zzz", ""),
        ("", ""),
        ("x" * 1_000_000, ""),
    ],
)
def test_format_suggestion(word: str, hint: str) -> None:
    """Suggests the known name that is close to a misspelt name, and nothing without a close name."""
    assert format_suggestion(word, iter(["requests", "aiohttp", "offline"])) == hint


def test_format_suggestion_finds_typos_only() -> None:
    """Suggests a name for a letter that is missing, added or swapped; not for another word."""
    known = ["openai", "provider", "gpt-image-2", "bfl", "fal"]
    for word, name in (
        ("opneai", "openai"),
        ("opnai", "openai"),
        ("provdier", "provider"),
        ("gpt-imgae-2", "gpt-image-2"),
        ("blf", "bfl"),
    ):
        assert format_suggestion(word, known) == f" (did you mean '{name}'?)"
    for word in ("nope", "nobody", "image"):
        assert format_suggestion(word, known) == "", word
