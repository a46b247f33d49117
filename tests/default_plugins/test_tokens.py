"""Tokens that expire: kept, renewed in time, and fetched once for concurrent callers."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import TokenAuth
from imgkit.default_plugins.token_cache import TokenCache
from imgkit.errors import ConfigurationError, MissingKeyError, NotSentError
from imgkit.plugins.tokens import Token, TokenNeeded
from imgkit.redact import Secret
from imgkit.wire.messages import HttpRequest
from tests.support.auth import KEY, REQUEST, call
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

MANY = 50


class CountingSource:
    """A source of numbered tokens that are valid for 100 seconds."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0, fault: Exception | None = None) -> None:
        self.fetched = 0
        self.now = now
        self.fault = fault
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def token(self) -> Token:
        self.fetched += 1
        self.asked.set()
        self.go_on.wait(5)
        if self.fault is not None:
            raise self.fault
        return Token(f"{KEY}-{self.fetched}", self.now() + 100)


def signed(auth: TokenAuth) -> str:
    """Sign a request as the flow of a call does, and return what its header says."""
    answer_ = auth.imgkit_authenticate(REQUEST, call())
    if isinstance(answer_, TokenNeeded):
        answer_.fetch()
        answer_ = answer_.sign(REQUEST)
    assert isinstance(answer_, HttpRequest)
    return answer_.headers["authorization"]


def test_kept_and_renewed_before_it_expires() -> None:
    """Uses a token until a minute before its expiry, then fetches another."""
    now = [1000.0]
    source = CountingSource(lambda: now[0])
    auth = TokenAuth(source, clock=lambda: now[0])
    shown = []
    for moment in (1000.0, 1039.9, 1040.0, 1079.9, 1080.0):
        now[0] = moment
        shown.append(signed(auth))
    assert shown == [f"Bearer {KEY}-{number}" for number in (1, 1, 2, 2, 3)]


def test_a_kept_token_needs_no_fetch() -> None:
    """Signs within the hook while a token is valid."""
    auth = TokenAuth(CountingSource(), clock=lambda: 0.0)
    assert isinstance(auth.imgkit_authenticate(REQUEST, call()), TokenNeeded)
    signed(auth)
    assert isinstance(auth.imgkit_authenticate(REQUEST, call()), HttpRequest)


def test_short_lived_and_endless_tokens() -> None:
    """Uses an expired token once, and fetches a token without expiry once."""
    lives = {"short": 10.0, "endless": None}
    for name, expires_at in lives.items():
        count = itertools.count(1)

        class Source:
            def token(self, count: Any = count, expires_at: Any = expires_at) -> Token:
                return Token(f"t{next(count)}", expires_at)

        auth = TokenAuth(Source(), clock=lambda: 0.0)
        expected = ["Bearer t1", "Bearer t2"] if name == "short" else ["Bearer t1", "Bearer t1"]
        assert [signed(auth), signed(auth)] == expected


def test_forget() -> None:
    """Fetches another token after `forget`."""
    auth = TokenAuth(CountingSource(), clock=lambda: 0.0)
    assert signed(auth).endswith("-1")
    auth.forget()
    assert signed(auth).endswith("-2")


def test_other_header_and_scheme() -> None:
    """Sends the token in a custom header, after a custom scheme or none."""
    for scheme, shown in (("Token", f"Token {KEY}-1"), ("", f"{KEY}-1")):
        auth = TokenAuth(CountingSource(), header="X-Access-Token", scheme=scheme)
        needed = auth.imgkit_authenticate(REQUEST, call())
        assert isinstance(needed, TokenNeeded)
        needed.fetch()
        assert needed.sign(REQUEST).headers == {**REQUEST.headers, "x-access-token": shown}


@pytest.mark.parametrize("flavor", ["threads", "tasks"])
def test_single_flight(flavor: str) -> None:
    """Fetches one token for fifty concurrent calls, with either service."""
    source = CountingSource()
    source.go_on.clear()
    auth = TokenAuth(source, clock=lambda: 0.0)
    arrived = threading.Semaphore(0)
    fetch = auth._cache.get

    class Cache:
        """The cache of the plugin, which lets the source answer once many are there."""

        peek = auth._cache.peek

        def get(self, wait_s: float) -> Token:
            arrived.release()
            return fetch(wait_s)

    auth._cache = Cache()  # type: ignore[assignment]

    # The asynchronous service has fewer threads; whoever finds none free comes later.
    together = MANY if flavor == "threads" else 4

    def release_when_all_wait() -> None:
        for _ in range(together):
            arrived.acquire(timeout=5)
        source.go_on.set()

    gate = threading.Thread(target=release_when_all_wait)
    gate.start()
    with WireServer(reply(200, answer())) as server:
        settings: Any = {"backend": "requests", "base_url": server.base_url, "plugins": [auth]}
        if flavor == "threads":
            with imgkit.ImageService(**settings) as service, ThreadPoolExecutor(MANY) as pool:
                list(pool.map(lambda _: service.create_image("a fox", timeout_s=10), range(MANY)))
        else:

            async def main() -> None:
                async with imgkit.AsyncImageService(**settings) as service:
                    await asyncio.gather(*(service.create_image("a fox", timeout_s=10) for _ in range(MANY)))

            asyncio.run(main())
        gate.join(5)
        assert source.fetched == 1
        assert [line.headers["authorization"] for line in server.lines] == [f"Bearer {KEY}-1"] * MANY


def crowd(cache: TokenCache, wait_s: float = 5.0) -> tuple[list[Token], list[Exception]]:
    """Ask a cache from fifty threads at once; return the tokens and the errors."""
    start = threading.Barrier(MANY)

    def one(_: int) -> Token | Exception:
        start.wait(5)
        try:
            return cache.get(wait_s)
        except Exception as error:
            return error

    with ThreadPoolExecutor(MANY) as pool:
        came = list(pool.map(one, range(MANY)))
    return [x for x in came if isinstance(x, Token)], [x for x in came if isinstance(x, Exception)]


def release_when_all_wait(source: CountingSource, cache: TokenCache) -> None:
    """Let the fetch continue when all other callers wait for it."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        fetch = cache._running
        if fetch is not None and len(fetch.done._cond._waiters) == MANY - 1:  # type: ignore[attr-defined]
            break
        time.sleep(0.01)
    source.go_on.set()


def test_a_failure_reaches_all_and_is_not_kept() -> None:
    """Raises a copy of the error in each waiting caller; the next caller fetches again."""
    source = CountingSource(fault=RuntimeError(f"the vault said no to {KEY}"))
    source.go_on.clear()
    cache = TokenCache(source.token, "the vault")
    threading.Thread(target=release_when_all_wait, args=(source, cache)).start()
    tokens, errors = crowd(cache)
    assert not tokens
    assert {type(error) for error in errors} == {ConfigurationError}
    assert {str(error) for error in errors} == {
        "No token from the vault (RuntimeError: the vault said no to …). Nothing was sent."
    }
    assert len({id(error) for error in errors}) == MANY
    assert {error.__cause__ for error in errors} == {source.fault}
    assert source.fetched == 1
    source.fault = None
    assert cache.get(1).value == Secret(f"{KEY}-2")


def test_own_errors_pass() -> None:
    """Passes an imgkit error of the source on with its own message."""
    with pytest.raises(MissingKeyError, match="^log in first$"):
        TokenCache(CountingSource(fault=MissingKeyError("log in first")).token, "x").get(1)


def test_waiting_for_a_hung_fetch_times_out() -> None:
    """Times out callers that wait for a hung fetch; nothing is sent."""
    source = CountingSource()
    source.go_on.clear()
    cache = TokenCache(source.token, "the vault", clock=lambda: 0.0)
    leader = threading.Thread(target=cache.get, args=(5,))
    leader.start()
    assert source.asked.wait(5)
    with pytest.raises(NotSentError, match=r"the vault within 0\.02 s\. Nothing was sent\."):
        cache.get(0.02)
    source.go_on.set()
    leader.join(5)
    assert cache.get(0.02).value == Secret(f"{KEY}-1")


def test_a_hung_fetch_is_replaced() -> None:
    """Starts another fetch after patience_s."""
    asked, hang, calls = threading.Event(), threading.Event(), itertools.count(1)

    def fetch() -> Token:
        number = next(calls)
        asked.set()
        if number == 1:
            hang.wait(5)
        return Token(f"t{number}")

    cache = TokenCache(fetch, "x", patience_s=0.02)
    leader = threading.Thread(target=cache.get, args=(5,))
    leader.start()
    assert asked.wait(5)
    second = cache.get(5)
    assert second.value == Secret("t2")
    hang.set()
    leader.join(5)
    assert cache.get(5) is second  # the late one does not replace the newer


def test_ctrl_c_in_the_fetch_frees_the_others() -> None:
    """Lets the next caller fetch after Ctrl-C in a fetch."""
    calls = itertools.count(1)

    def fetch() -> Token:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return Token("t")

    cache = TokenCache(fetch, "x")
    with pytest.raises(KeyboardInterrupt):
        cache.get(1)
    assert cache.get(1) == Token("t")


@pytest.mark.parametrize("expires_at", ["soon", True, float("nan"), float("inf"), 1.7e12, datetime.now(UTC)])
def test_expiry_is_unix_seconds(expires_at: Any) -> None:
    """Rejects milliseconds, dates and other values as expiry."""
    with pytest.raises(ConfigurationError, match="Unix time in seconds"):
        Token("t", expires_at)


@pytest.mark.parametrize("given", ["", "a b", "a\n", "é"])
def test_token_that_no_header_can_carry(given: str) -> None:
    """Names the source of an invalid token, and does not keep the token."""

    class Vault:
        def token(self) -> Token:
            return Token(given)

    auth = TokenAuth(Vault())
    with pytest.raises(
        ConfigurationError,
        match=r"(Empty|Invalid) key from the token of tests\.default_plugins\.test_tokens\.\S+Vault\.",
    ):
        signed(auth)
    assert auth._cache.peek() is None


def test_source_without_tokens() -> None:
    """Names a source that returns anything but a Token, and does not show its result."""

    class Vault:
        def token(self) -> Any:
            return KEY

    with pytest.raises(ConfigurationError, match="Vault returned a str instead of a Token") as caught:
        signed(TokenAuth(Vault()))
    assert "CANARY" not in seen(caught.value)
    with pytest.raises(ConfigurationError, match="value is a bytes") as caught:
        Token(KEY.encode())  # type: ignore[arg-type]


def seen(error: BaseException) -> str:
    """Return what a traceback with local variables shows behind the frames of this file."""
    summary = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = []
    one: Any = summary
    while one is not None:
        frames += [f"{frame.name} {frame.locals}" for frame in one.stack if "tests" not in frame.filename]
        frames.append(str(one))
        one = one.__cause__ or one.__context__
    assert any("imgkit" in frame.filename for frame in summary.stack)
    return "\n".join(frames)


class Coroutine:
    async def token(self) -> Token:
        raise AssertionError("is never called")


@pytest.mark.parametrize("source", [None, KEY, lambda: KEY, Coroutine()])
def test_invalid_sources(source: Any) -> None:
    """Rejects a source without a plain method token()."""
    with pytest.raises(ConfigurationError, match="plain method token") as caught:
        TokenAuth(source)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"header": "content-length"}, {"header": "a b"}, {"scheme": "a b"}, {"scheme": None}, {"early_s": -1},
     {"early_s": True}, {"early_s": "60"}, {"early_s": float("nan")}],
)  # fmt: skip
def test_invalid_settings(wrong: dict[str, Any]) -> None:
    """Names the invalid header, scheme or time."""
    with pytest.raises(ConfigurationError, match=f"(?i){next(iter(wrong))}"):
        TokenAuth(CountingSource(), **wrong)


def test_nothing_shows_a_token() -> None:
    """Shows no token in reprs, and refuses to pickle or copy its holders."""
    auth = TokenAuth(CountingSource(), clock=lambda: 0.0)
    needed = auth.imgkit_authenticate(REQUEST, call())
    assert isinstance(needed, TokenNeeded)
    needed.fetch()
    shown = [auth, vars(auth), needed, needed.sign(REQUEST), auth._cache, auth._cache.peek()]
    assert "CANARY" not in f"{shown!r} {auth} {needed}"
    for leak in (pickle.dumps, copy.deepcopy):
        for thing in (auth, auth._cache, auth._cache.peek()):
            with pytest.raises(TypeError, match="pickled"):
                leak(thing)
