"""The modes of a server: cache, recorded and replayed cassettes, budgets, a pace."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.server.served_service import ServedService
from imgkit.server.settings import parse_routes
from imgkit.server.thread import ServerThread
from tests.support.pictures import answer, encoded, noise
from tests.support.served import EDITS, GENERATIONS, SETTINGS, form, send, serve_before, serve_offline
from tests.support.wire_server import reply

FOX = {"prompt": "a red fox", "size": "1024x1024"}
PRICED: dict[str, Any] = {
    "hosts": ["compatible"],
    "prices": {"own": {"currency": "USD", "text_in": 5, "image_in": 8, "image_out": 30}},
    "tokens": {"own": {"medium": {"1024x1024": 1056}}},
    "models": [{"id": "priced", "prices": "own", "tokens": "own"}],
}
"""Facts about a model whose price is known."""


def test_replays_what_it_has_recorded(tmp_path: Path) -> None:
    """Answers recorded requests from the cassette, whatever client sends them; others are a miss."""
    cassette = tmp_path / "fox.yaml"
    body, kind = form(image=noise(1), prompt="a hat")
    scripts = reply(200, answer()), reply(200, answer())
    with serve_before(tmp_path / "one", *scripts, plugins=[RecorderPlugin(cassette)]) as (server, _):
        first = send(server, GENERATIONS, FOX, authorization="Bearer sk-callers-0123456789abcdef")
        assert send(server, EDITS, body, content_type=kind).status == 200
    assert "sk-" not in cassette.read_text()
    make_service = partial(
        ServedService, "offline", model="gpt-image-2", fixtures=cassette, state_folder=tmp_path / "two"
    )
    with ServerThread(SETTINGS, make_service) as server:
        assert send(server, GENERATIONS, FOX).json["data"] == first.json["data"]
        assert send(server, EDITS, body, content_type=kind).status == 200
        miss = send(server, GENERATIONS, {"prompt": "an owl"})
    assert (miss.status, miss.error["code"], miss.headers["x-should-retry"]) == (
        404,
        "fixture_missing",
        "false",
    )


def test_answers_equal_requests_from_the_cache(tmp_path: Path) -> None:
    """Sends an equal request once, and says that a reply came from the cache."""
    settings = SETTINGS._replace(cache="use")
    with serve_before(tmp_path, reply(200, answer()), settings=settings, plugins=["cache"]) as (server, api):
        first, second = (send(server, GENERATIONS, FOX) for _ in range(2))
        assert api.posts == 1
    assert first.json["data"] == second.json["data"] == [{"b64_json": encoded()}]
    assert (second.headers["x-imgkit-cached"], second.headers["x-imgkit-cost-usd"]) == ("true", "0")


def test_sends_no_stream_if_only_the_cache_may_answer(tmp_path: Path) -> None:
    """Answers a stream without an entry as a miss, as any other request."""
    settings = SETTINGS._replace(cache="only")
    with serve_before(tmp_path, settings=settings, plugins=["cache"]) as (server, api):
        missed = send(server, GENERATIONS, {**FOX, "stream": True})
        assert (missed.status, missed.error["code"], api.posts) == (404, "cache_miss", 0)


def test_spends_no_more_than_its_budget(tmp_path: Path) -> None:
    """Refuses a request that could exceed the budget with 402, which no client repeats."""
    budget = imgkit.Budget("0.05", price_per_image="0.04")
    scripts = reply(200, answer()), reply(200, answer())
    model = {"model": "a-model-of-nobody"}
    with serve_before(tmp_path, *scripts, plugins=[budget]) as (server, api):
        assert send(server, GENERATIONS, {**FOX, **model}).status == 200
        got = send(server, GENERATIONS, {**FOX, **model})
        unknown = send(server, GENERATIONS, {**FOX, "num_images": 100})
        assert api.posts == 1
    assert (unknown.status, unknown.error["param"]) == (400, "num_images")
    assert (got.status, got.error["code"], got.headers["x-should-retry"]) == (402, "budget_exceeded", "false")
    assert got.error["message"].endswith("or raise the budget. The server's --max-cost sets the budget.")


def test_an_estimate_tells_that_the_budget_refuses_a_request(tmp_path: Path) -> None:
    """Says so of an unknown price, unless the budget names a price, allows such calls or counts nothing.

    The price of the budget is the upper bound.
    """
    unknown = {**FOX, "model": "a-model-of-nobody"}
    budgets = (
        (imgkit.Budget(5), True, None),
        (imgkit.Budget(5, allow_unknown=True), False, None),
        (imgkit.Budget(5, price_per_image="0.04"), False, "0.04"),
    )
    for budget, is_refused, high_usd in budgets:
        given: dict[str, Any] = {"plugins": [budget], "models": PRICED}
        with serve_before(tmp_path, reply(200, answer()), **given) as (server, _):
            estimate = send(server, "/estimate", unknown).json
            assert (estimate["low_usd"], estimate["high_usd"]) == (None, high_usd)
            assert ("reserves 0.04 USD for each image" in estimate["note"]) is (high_usd is not None)
            assert estimate["note"].startswith("no prices are known for this model on this host")
            several = send(server, "/estimate", {**unknown, "n": 3}).json["high_usd"]
            assert several == (high_usd and "0.12")
            assert ("refuses the request" in estimate["note"]) is is_refused
            got = send(server, GENERATIONS, unknown)
            assert (got.status == 400) is is_refused
            if is_refused:
                assert "--price-per-image USD or --allow-unknown-price" in got.error["message"]
            priced = send(server, "/estimate", {**FOX, "model": "priced", "quality": "medium"}).json
            assert priced["high_usd"] is not None
            assert "refuses" not in priced["note"]
            assert "reserves" not in priced["note"]
    offline = partial(ServedService, plugins=[imgkit.Budget(5)], state_folder=tmp_path)
    with ServerThread(SETTINGS, offline) as server:
        assert "refuses" not in send(server, "/estimate", unknown).json["note"]


def test_an_estimate_gives_no_other_currency_as_dollars(tmp_path: Path) -> None:
    """Names the price in the note, and gives no bounds in dollars."""
    in_euros = {**PRICED, "prices": {"own": {**PRICED["prices"]["own"], "currency": "EUR"}}}
    asked = {**FOX, "model": "priced", "quality": "medium"}
    for plugins, more in (([], ""), ([imgkit.Budget(5)], "budget of this server refuses")):
        with serve_before(tmp_path, models=in_euros, plugins=plugins) as (server, _):
            estimate = send(server, "/estimate", asked).json
        assert (estimate["low_usd"], estimate["high_usd"]) == (None, None)
        assert estimate["note"].startswith("its price is 0.")
        assert " EUR" in estimate["note"]
        assert more in estimate["note"]


def test_suggests_a_model_for_a_misspelt_name(tmp_path: Path) -> None:
    """Names the listed model that is closest to an unknown name, also one of a map; else none."""
    settings = SETTINGS._replace(routes=parse_routes(["fast-fox=gpt-image-1-mini"]))
    with serve_offline(tmp_path, settings) as server:
        for name, words in (
            ("gpt-imgae-2", "'gpt-imgae-2' is not listed here (did you mean 'gpt-image-2'?)."),
            ("fast_fox", "(did you mean 'fast-fox'?)"),
            ("x", "'x' is not listed here. Other models"),
        ):
            got = send(server, f"/v1/models/{name}")
            assert (got.status, got.error["code"]) == (404, "model_not_found")
            assert words in got.error["message"]


def test_keeps_its_pace(tmp_path: Path) -> None:
    """Spreads requests over the minute."""
    scripts = [reply(200, answer()) for _ in range(4)]
    with serve_before(tmp_path, *scripts, settings=SETTINGS._replace(per_minute=1200)) as (server, api):
        started = time.monotonic()
        for number in range(4):
            assert send(server, GENERATIONS, {"prompt": f"{number} foxes"}).status == 200
        assert time.monotonic() - started >= 3 * 60 / 1200
        assert api.posts == 4


def test_refuses_calls_beyond_those_that_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers 503 once too many calls run; nothing is sent, and the client may try again."""
    monkeypatch.setattr("imgkit.server.api.MOST_RUNNING", 0)
    with serve_before(tmp_path) as (server, api):
        got = send(server, GENERATIONS, FOX)
        assert api.posts == 0
    assert (got.status, got.error["code"], got.headers["x-should-retry"]) == (503, "server_busy", "true")
