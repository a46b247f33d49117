"""Keys from text, callables and the environment: forms, validation and secrecy."""

from __future__ import annotations

import copy
import os
import pickle
import re
from functools import partial
from typing import Any

import pytest

from imgkit.default_plugins.auth import BearerAuth
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.wire.messages import HttpRequest
from tests.support.auth import BROKEN, KEY, REQUEST, UNTYPED, VARIABLE, call, header


@pytest.mark.parametrize("given", [KEY, f"  {KEY} ", f"Bearer {KEY}", f" Bearer {KEY} ", f"Bearer  {KEY}"])
@pytest.mark.parametrize("source", ["text", "callable", "environment"])
def test_key_forms(given: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes blanks around a key and the scheme before it."""
    if source == "environment":
        monkeypatch.setenv(VARIABLE, given)
    api_key: Any = {"text": given, "callable": lambda: given, "environment": None}[source]
    assert header(BearerAuth(api_key, VARIABLE)) == f"Bearer {KEY}"


def test_request_is_not_changed_in_place() -> None:
    """Signs a copy of the request, so other plugins never see the key."""
    header(BearerAuth(KEY, VARIABLE))
    assert "authorization" not in REQUEST.headers


def test_callable_runs_for_each_attempt() -> None:
    """Calls the callable for each attempt."""
    keys = iter(["first", "second"])
    auth = BearerAuth(lambda: next(keys), VARIABLE)
    assert [header(auth), header(auth)] == ["Bearer first", "Bearer second"]


def test_environment_is_read_for_each_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the variable for each attempt."""
    auth = BearerAuth(None, VARIABLE)
    with pytest.raises(
        MissingKeyError, match=f"{VARIABLE} is not set. https://.* has your keys. Set it"
    ) as caught:
        header(auth)
    assert "https://api.example.com/v1" in str(caught.value)
    for key in ("first", "second"):
        monkeypatch.setenv(VARIABLE, key)
        assert header(auth) == f"Bearer {key}"


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_blank_variable_is_no_key(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats a blank variable like an unset variable."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(MissingKeyError):
        header(BearerAuth(None, VARIABLE))
    assert header(BearerAuth(None, VARIABLE), "compatible") is None


def test_unsigned_requests() -> None:
    """Signs requests to compatible servers if there is a key, and never signs offline or signed requests."""
    assert header(BearerAuth(None, VARIABLE), "compatible") is None
    assert header(BearerAuth(KEY, VARIABLE), "compatible") == f"Bearer {KEY}"
    assert header(BearerAuth(KEY, VARIABLE), "offline") is None
    signed = HttpRequest("POST", REQUEST.url, {"authorization": "Basic x"})
    assert BearerAuth(KEY, VARIABLE).imgkit_authenticate(signed, call()) is None


def catch_error(make: Any) -> str:
    """Return the message of the error that `make` raises; check that no key is in it."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "CANARY" not in repr(chain)
    return str(caught.value)


@pytest.mark.parametrize("key", [*BROKEN, *UNTYPED])
def test_invalid_argument(key: Any) -> None:
    """Rejects an invalid key when the service is built."""
    message = catch_error(partial(BearerAuth, key, VARIABLE))
    assert re.match(r"api_key is a |(Empty|Invalid) key from api_key\.", message)


@pytest.mark.parametrize("key", [*BROKEN, *UNTYPED, None])
def test_invalid_result_of_a_callable(key: Any) -> None:
    """Rejects an invalid result of a callable when it is called."""
    auth = BearerAuth(lambda: key, VARIABLE)
    message = catch_error(partial(header, auth))
    assert re.match(r"(Empty|Invalid) key from the result of api_key\(\)[.:]", message)


@pytest.mark.parametrize(
    "key", [one for one in BROKEN if one.strip() and "\0" not in one and "\ud800" not in one]
)
def test_invalid_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the variable that holds an invalid key."""
    monkeypatch.setitem(os.environ, VARIABLE, key)
    message = catch_error(partial(header, BearerAuth(None, VARIABLE)))
    assert re.match(rf"(Empty|Invalid) key from {VARIABLE}\.", message)


def test_nothing_shows_the_key() -> None:
    """Shows the key in no repr, attribute or signed request."""
    auth = BearerAuth(KEY, VARIABLE)
    signed = auth.imgkit_authenticate(REQUEST, call())
    shown = [repr(auth), str(auth), f"{auth}", repr(vars(auth)), repr(signed), str(signed), f"{signed}"]
    assert "CANARY" not in "".join(shown)
    assert repr(auth) == f"BearerAuth({VARIABLE})"


@pytest.mark.parametrize("leak", [pickle.dumps, copy.deepcopy])
def test_key_is_not_pickled(leak: Any) -> None:
    """Refuses to pickle or copy a plugin with a key."""
    with pytest.raises(TypeError, match="environment variable"):
        leak(BearerAuth(KEY, VARIABLE))
