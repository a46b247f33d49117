"""Tokens that expire: kept, renewed in time, fetched once for all who need them."""

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
from tests.default_plugins.test_auth import KEY, REQUEST, call
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

MANY = 50


class Counting:
    """A source of numbered tokens that are good for 100 seconds."""

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
    """A token serves until a minute before its end; then, and not before, another one is fetched."""
    now = [1000.0]
    source = Counting(lambda: now[0])
    auth = TokenAuth(source, clock=lambda: now[0])
    shown = []
    for moment in (1000.0, 1039.9, 1040.0, 1079.9, 1080.0):
        now[0] = moment
        shown.append(signed(auth))
    assert shown == [f"Bearer {KEY}-{number}" for number in (1, 1, 2, 2, 3)]


def test_a_kept_token_needs_no_fetch() -> None:
    """While a token is good the hook signs by itself, so no thread is asked for."""
    auth = TokenAuth(Counting(), clock=lambda: 0.0)
    assert isinstance(auth.imgkit_authenticate(REQUEST, call()), TokenNeeded)
    signed(auth)
    assert isinstance(auth.imgkit_authenticate(REQUEST, call()), HttpRequest)


def test_short_lived_and_endless_tokens() -> None:
    """A token that ends at once is used once; one without an end is fetched once."""
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
    """A token that the server refused is dropped on demand, and the next request fetches one."""
    auth = TokenAuth(Counting(), clock=lambda: 0.0)
    assert signed(auth).endswith("-1")
    auth.forget()
    assert signed(auth).endswith("-2")


def test_other_header_and_scheme() -> None:
    """A token goes into the header that the server wants, after the scheme it wants, or none."""
    for scheme, shown in (("Token", f"Token {KEY}-1"), ("", f"{KEY}-1")):
        auth = TokenAuth(Counting(), header="X-Access-Token", scheme=scheme)
        needed = auth.imgkit_authenticate(REQUEST, call())
        assert isinstance(needed, TokenNeeded)
        needed.fetch()
        assert needed.sign(REQUEST).headers == {**REQUEST.headers, "x-access-token": shown}


@pytest.mark.parametrize("flavor", ["threads", "tasks"])
def test_single_flight(flavor: str) -> None:
    """Fifty calls that need a token at once fetch one, under either service, and all of them send it."""
    source = Counting()
    source.go_on.clear()
    auth = TokenAuth(source, clock=lambda: 0.0)
    arrived = threading.Semaphore(0)
    fetch = auth._cache.get

    class Cache:
        """The cache of the plugin, which lets the source answer once many are there."""

        fresh = auth._cache.fresh

        def get(self, wait_s: float) -> Token:
            arrived.release()
            return fetch(wait_s)

    auth._cache = Cache()  # type: ignore[assignment]

    # The asynchronous service has fewer threads; whoever finds none free comes later.
    together = MANY if flavor == "threads" else 4

    def let_go() -> None:
        for _ in range(together):
            arrived.acquire(timeout=5)
        source.go_on.set()

    gate = threading.Thread(target=let_go)
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


def let_go(source: Counting, cache: TokenCache) -> None:
    """Let the fetch go on when all but the one who runs it wait for it."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        flight = cache._flight
        if flight is not None and len(flight.done._cond._waiters) == MANY - 1:  # type: ignore[attr-defined]
            break
        time.sleep(0.01)
    source.go_on.set()


def test_a_failure_reaches_all_and_is_not_kept() -> None:
    """All who wait for a fetch that fails get an error of their own; the next caller fetches anew."""
    source = Counting(fault=RuntimeError(f"the vault said no to {KEY}"))
    source.go_on.clear()
    cache = TokenCache(source.token, "the vault")
    threading.Thread(target=let_go, args=(source, cache)).start()
    tokens, errors = crowd(cache)
    assert not tokens
    assert {type(error) for error in errors} == {ConfigurationError}
    assert {str(error) for error in errors} == {
        "no token came from the vault (RuntimeError: the vault said no to …); nothing was sent"
    }
    assert len({id(error) for error in errors}) == MANY
    assert {error.__cause__ for error in errors} == {source.fault}
    assert source.fetched == 1
    source.fault = None
    assert cache.get(1).value == Secret(f"{KEY}-2")


def test_own_errors_pass() -> None:
    """A source that raises an error of imgkit's tree says what went wrong in its own words."""
    with pytest.raises(MissingKeyError, match="^log in first$"):
        TokenCache(Counting(fault=MissingKeyError("log in first")).token, "x").get(1)


def test_a_hanging_fetch_holds_nobody_else() -> None:
    """Those who wait for a fetch that hangs leave at the end of their time, with nothing sent."""
    source = Counting()
    source.go_on.clear()
    cache = TokenCache(source.token, "the vault", clock=lambda: 0.0)
    leader = threading.Thread(target=cache.get, args=(5,))
    leader.start()
    assert source.asked.wait(5)
    with pytest.raises(NotSentError, match=r"the vault within 0\.02 s; nothing was sent"):
        cache.get(0.02)
    source.go_on.set()
    leader.join(5)
    assert cache.get(0.02).value == Secret(f"{KEY}-1")


def test_a_hung_fetch_is_given_up() -> None:
    """After its patience is over a fetch counts as hung, and another caller fetches for itself."""
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
    """If whoever fetches is interrupted, the next one fetches, and none of them waits for ever."""
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
    """Milliseconds, dates and what is no number are refused, since such a token would never be renewed."""
    with pytest.raises(ConfigurationError, match="Unix time in seconds"):
        Token("t", expires_at)


@pytest.mark.parametrize("given", ["", "a b", "a\n", "é"])
def test_token_that_no_header_can_carry(given: str) -> None:
    """A token that cannot be sent is refused by the name of its source, and is not kept."""

    class Vault:
        def token(self) -> Token:
            return Token(given)

    auth = TokenAuth(Vault())
    with pytest.raises(
        ConfigurationError,
        match=r"the token of tests\.default_plugins\.test_tokens\.\S+Vault (is empty|holds)",
    ):
        signed(auth)
    assert auth._cache.fresh() is None


def test_what_is_no_token() -> None:
    """A source that returns something else is named, and what it returned is not shown."""

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
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = []
    one: Any = told
    while one is not None:
        frames += [f"{frame.name} {frame.locals}" for frame in one.stack if "tests" not in frame.filename]
        frames.append(str(one))
        one = one.__cause__ or one.__context__
    assert any("imgkit" in frame.filename for frame in told.stack)
    return "\n".join(frames)


class Coroutine:
    async def token(self) -> Token:
        raise AssertionError("is never called")


@pytest.mark.parametrize("source", [None, KEY, lambda: KEY, Coroutine()])
def test_what_is_no_source(source: Any) -> None:
    """What has no plain method token() is refused when the plugin is made."""
    with pytest.raises(ConfigurationError, match="plain method token") as caught:
        TokenAuth(source)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"header": "content-length"}, {"header": "a b"}, {"scheme": "a b"}, {"scheme": None}, {"early_s": -1},
     {"early_s": True}, {"early_s": "60"}, {"early_s": float("nan")}],
)  # fmt: skip
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    """Headers, schemes and times that cannot be meant are refused by their name."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        TokenAuth(Counting(), **wrong)


def test_nothing_shows_a_token() -> None:
    """Neither the plugin nor what waits for a token shows one, and none of them is pickled or copied."""
    auth = TokenAuth(Counting(), clock=lambda: 0.0)
    needed = auth.imgkit_authenticate(REQUEST, call())
    assert isinstance(needed, TokenNeeded)
    needed.fetch()
    shown = [auth, vars(auth), needed, needed.sign(REQUEST), auth._cache, auth._cache.fresh()]
    assert "CANARY" not in f"{shown!r} {auth} {needed}"
    for leak in (pickle.dumps, copy.deepcopy):
        for thing in (auth, auth._cache, auth._cache.fresh()):
            with pytest.raises(TypeError, match="pickled"):
                leak(thing)
