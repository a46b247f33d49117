"""Keys: where they come from, which are refused, and that none is ever shown."""

from __future__ import annotations

import copy
import os
import pickle
from functools import partial
from typing import Any

import pytest

from imgkit.default_plugins.auth import BearerAuth
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.wire.messages import HttpRequest
from tests.support.auth import BROKEN, KEY, REQUEST, UNTYPED, VARIABLE, call, header


@pytest.mark.parametrize("given", [KEY, f"  {KEY} ", f"Bearer {KEY}", f" Bearer {KEY} ", f"Bearer  {KEY}"])
@pytest.mark.parametrize("source", ["text", "callable", "environment"])
def test_forms_of_a_key(given: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around a key and the scheme before it are a copying accident, and are left out."""
    if source == "environment":
        monkeypatch.setenv(VARIABLE, given)
    api_key: Any = {"text": given, "callable": lambda: given, "environment": None}[source]
    assert header(BearerAuth(api_key, VARIABLE)) == f"Bearer {KEY}"


def test_request_is_not_changed_in_place() -> None:
    """Signing makes a new request: the one that other plugins saw stays without the key."""
    header(BearerAuth(KEY, VARIABLE))
    assert "authorization" not in REQUEST.headers


def test_callable_is_asked_each_time() -> None:
    """A key that is renewed by a callable is asked for on every sending."""
    keys = iter(["first", "second"])
    auth = BearerAuth(lambda: next(keys), VARIABLE)
    assert [header(auth), header(auth)] == ["Bearer first", "Bearer second"]


def test_environment_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set, changed or removed later counts from the next sending on."""
    auth = BearerAuth(None, VARIABLE)
    with pytest.raises(MissingKeyError, match=f"set {VARIABLE}, or pass api_key=") as caught:
        header(auth)
    assert "https://api.example.com/v1" in str(caught.value)
    for key in ("first", "second"):
        monkeypatch.setenv(VARIABLE, key)
        assert header(auth) == f"Bearer {key}"


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_blank_variable_is_no_key(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing is as good as unset."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(MissingKeyError):
        header(BearerAuth(None, VARIABLE))
    assert header(BearerAuth(None, VARIABLE), "compatible") is None


def test_where_a_key_is_not_needed() -> None:
    """A compatible server gets a key if there is one; the offline backend and signed requests get none."""
    assert header(BearerAuth(None, VARIABLE), "compatible") is None
    assert header(BearerAuth(KEY, VARIABLE), "compatible") == f"Bearer {KEY}"
    assert header(BearerAuth(KEY, VARIABLE), "offline") is None
    signed = HttpRequest("POST", REQUEST.url, {"authorization": "Basic x"})
    assert BearerAuth(KEY, VARIABLE).imgkit_authenticate(signed, call()) is None


def refusal(make: Any) -> str:
    """Return why a key is refused: before anything is sent, and without a trace of it."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "CANARY" not in repr(chain)
    return str(caught.value)


@pytest.mark.parametrize("key", [*BROKEN, *UNTYPED])
def test_refused_as_an_argument(key: Any) -> None:
    """A key that no header can carry, or that is no text, is refused when the service is built."""
    assert refusal(partial(BearerAuth, key, VARIABLE)).startswith("api_key ")


@pytest.mark.parametrize("key", [*BROKEN, *UNTYPED, None])
def test_refused_from_a_callable(key: Any) -> None:
    """What a callable returns is held to the same, when it is asked."""
    auth = BearerAuth(lambda: key, VARIABLE)
    assert refusal(partial(header, auth)).startswith("what api_key() returned ")


@pytest.mark.parametrize(
    "key", [one for one in BROKEN if one.strip() and "\0" not in one and "\ud800" not in one]
)
def test_refused_from_the_environment(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken variable is refused by its name."""
    monkeypatch.setitem(os.environ, VARIABLE, key)
    assert refusal(partial(header, BearerAuth(None, VARIABLE))).startswith(VARIABLE)


def test_nothing_shows_the_key() -> None:
    """Neither the plugin, its attributes, a signed request nor its format show the key."""
    auth = BearerAuth(KEY, VARIABLE)
    signed = auth.imgkit_authenticate(REQUEST, call())
    shown = [repr(auth), str(auth), f"{auth}", repr(vars(auth)), repr(signed), str(signed), f"{signed}"]
    assert "CANARY" not in "".join(shown)
    assert repr(auth) == f"BearerAuth({VARIABLE})"


@pytest.mark.parametrize("leak", [pickle.dumps, copy.deepcopy])
def test_key_is_not_pickled(leak: Any) -> None:
    """A plugin that holds a key cannot be pickled: the key would end up in a file or another process."""
    with pytest.raises(TypeError, match="environment variable"):
        leak(BearerAuth(KEY, VARIABLE))
