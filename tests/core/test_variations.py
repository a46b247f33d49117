"""Variations that still work: native where they are, an edit where not, and no doubt which it was."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

import imgkit
from imgkit.core.variations import PROMPT
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, Script, WireServer, reply
from tests.support.official import official

KEY = "sk-test-0123456789"
MISSING = reply(404, {"detail": "Not Found"})


def server_with(variations: Script | None) -> tuple[WireServer, list[str]]:
    asked: list[str] = []

    def script(line: Line) -> None:
        asked.append(line.request_line.split()[1].rpartition("/")[2])
        if asked[-1] == "variations":
            (variations or MISSING)(line)
        else:
            reply(200, answer())(line)

    return WireServer(script), asked


def vary(flavor: Any, backend: str, server: WireServer, **given: Any) -> Any:
    own = given.pop("own_host", False)
    where = {"provider": official(server.base_url)} if own else {"base_url": server.base_url}
    call = lambda service: service.create_image_variation(png(), **given)  # noqa: E731
    return flavor.run(call, backend, api_key=KEY, model="gpt-image-2", **where)


def test_the_official_host_is_asked_for_an_edit(flavor: Any, http_backend: str) -> None:
    """Nothing is sent to an endpoint that is known to be gone; the reply says what was done."""
    server, asked = server_with(None)
    with server:
        got = vary(flavor, http_backend, server, own_host=True)
        other = vary(flavor, http_backend, server, own_host=True, variation_prompt="again, at night")
    assert asked == ["edits", "edits"]
    assert got.meta.emulated
    assert got.meta.operation == "create_image_variation"
    assert got.meta.emulation_prompt == PROMPT == got[0].about["prompt"]
    assert other.meta.emulation_prompt == "again, at night"


@pytest.mark.parametrize("status", [404, 405])
def test_compatible_servers_are_tried_first(flavor: Any, http_backend: str, status: int) -> None:
    """What they do not have is emulated, with a warning; 404 and 405 cost nothing."""
    server, asked = server_with(reply(status, {}))
    with server:
        got = vary(flavor, http_backend, server)
    assert asked == ["variations", "edits"]
    assert got.meta.emulated
    assert f"no variations (HTTP {status})" in got.warnings[0]
    assert [attempt.status for attempt in got.meta.attempts] == [status, 200]


def test_compatible_servers_that_have_it(flavor: Any, http_backend: str) -> None:
    server, asked = server_with(reply(200, answer()))
    with server:
        got = vary(flavor, http_backend, server)
        forced = vary(flavor, http_backend, server, strategy="emulate")
    assert asked == ["variations", "edits"]
    assert not got.meta.emulated
    assert got.meta.emulation_prompt is None
    assert forced.meta.emulated


def test_offline_is_native(flavor: Any) -> None:
    got = flavor.run(lambda service: service.create_image_variation(png(), size="64x64"))
    assert not got.meta.emulated


@pytest.mark.parametrize(
    "problem",
    [
        reply(404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}),
        reply(400, {"error": {"message": "square pictures only"}}),
        reply(500, {"error": {"message": "sorry"}}),
    ],
)
def test_other_failures_are_not_answered_by_an_edit(flavor: Any, problem: Script) -> None:
    server, asked = server_with(problem)
    with server, pytest.raises(imgkit.ApiError):
        vary(flavor, "requests", server)
    assert asked == ["variations"]


def test_native_where_it_is_gone(flavor: Any, http_backend: str) -> None:
    """It is told with the date and the way out, and nothing is sent; elsewhere the server's word stands."""
    server, asked = server_with(None)
    with server:
        with pytest.raises(imgkit.EndpointRetiredError) as caught:
            vary(flavor, http_backend, server, own_host=True, strategy="native")
        assert asked == []
        assert caught.value.date == date(2026, 5, 12)
        assert caught.value.status == 0
        assert "2026-05-12" in str(caught.value)
        assert 'strategy="auto"' in str(caught.value)
        with pytest.raises(imgkit.NotFoundError):
            vary(flavor, http_backend, server, strategy="native")
        assert asked == ["variations"]


def test_a_wrong_strategy(flavor: Any) -> None:
    with pytest.raises(imgkit.InvalidRequestError, match="strategy"):
        flavor.run(lambda service: service.create_image_variation(png(), strategy="magic"))
    with pytest.raises(imgkit.InvalidRequestError, match="prompt"):
        call = lambda service: service.create_image_variation(png(), strategy="emulate", variation_prompt=" ")  # noqa: E731
        flavor.run(call)
