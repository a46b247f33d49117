"""5xx replies of gateways and of the API: attempts, billing and waits, counted at the server."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from imgkit.core.operations import OperationFlows
from imgkit.providers import BaseProvider, Head, OpenAIProvider
from imgkit.runtime.flow import EffectFailed, ReadChunk, SendRequest, Sleep, advance
from tests.conftest import ServiceRunner
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import Script, WireServer, reply

OWN = {"error": {"message": "The server had an error.", "type": "server_error", "code": "server_error"}}
IMAGE = encoded()
PAGE = b"<html><body><h1>Gateway</h1></body></html>"
GATEWAYS: list[tuple[int, Any]] = [
    (500, {"statusCode": 500, "message": "Internal server error"}),
    (500, {"error": {"message": "boom"}}),
    (500, PAGE),
    (500, b""),
    (501, OWN),
    (502, OWN),
    (502, {"error": "bad gateway"}),
    (503, {"message": "Service Unavailable"}),
    (503, b"upstream connect error"),
    (504, OWN),
    (504, {"detail": "timeout"}),
    (520, OWN),
    (524, {"error_code": 524, "retryable": True}),
    (529, OWN),
    (599, b""),
]


def create_image(service: Any) -> Any:
    return service.create_image("a fox")


def edit_image(service: Any) -> Any:
    return service.create_image_edit(picture(), "blue")


def vary_image(service: Any) -> Any:
    return service.create_image_variation(picture())


def stream_image(service: Any) -> Any:
    return read_stream(service, service.stream_image("a fox"))


def stream_edit(service: Any) -> Any:
    return read_stream(service, service.stream_image_edit(picture(), "blue"))


def read_stream(service: Any, stream: Any) -> Any:
    """Return the events of a stream, as a coroutine under the async service."""

    async def read() -> list[Any]:
        async with stream as events:
            return [event async for event in events]

    if not isinstance(service, imgkit.ImageService):
        return read()
    with stream as events:
        return list(events)


OPERATIONS = (create_image, edit_image, vary_image, stream_image, stream_edit)


def run_calls(
    flavor: ServiceRunner,
    backend: str,
    operation: Callable[[Any], Any],
    scripts: list[Script],
    **options: Any,
) -> tuple[list[Any], int]:
    """Return the ends of one call per script, in turn, and the number of POSTs.

    Retries are on; the clock of the retry plugin keeps the circuit breaker closed.
    """
    clock = itertools.count(0.0, 1000.0).__next__
    options = {"retry": imgkit.RetryPlugin(clock=clock, chance=lambda: 0.0), **options}
    ends: list[Any] = []

    def run_blocking(service: Any) -> None:
        for _ in scripts:
            try:
                ends.append(operation(service))
            except imgkit.ImgkitError as error:
                ends.append(error)

    async def run_async(service: Any) -> None:
        for _ in scripts:
            try:
                ends.append(await operation(service))
            except imgkit.ImgkitError as error:
                ends.append(error)

    with WireServer(*scripts) as server:
        run = run_blocking if flavor.flavor == "sync" else run_async
        flavor.run(run, backend, base_url=server.base_url, **options)
        return ends, server.posts


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_gateways_are_sent_once(
    flavor: ServiceRunner, http_backend: str, operation: Callable[[Any], Any]
) -> None:
    """Sends once, and counts as spent, after any 5xx that is not the API's own word."""
    budget = imgkit.Budget(100, allow_unknown=True)
    scripts = [reply(status, body) for status, body in GATEWAYS]
    ends, posts = run_calls(flavor, http_backend, operation, scripts, plugins=[budget])
    assert [(type(end), end.status) for end in ends] == [
        (imgkit.OutcomeUnknownError, status) for status, _ in GATEWAYS
    ]
    assert posts == len(GATEWAYS) == budget.unpriced
    assert all("may have created and billed an image" in str(end) for end in ends)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_own_errors_are_sent_again(
    flavor: ServiceRunner, http_backend: str, operation: Callable[[Any], Any]
) -> None:
    """Sends three times, and counts nothing, after the API's own error object under 500 or 503."""
    budget = imgkit.Budget(100, allow_unknown=True)
    failing = [reply(status, OWN, retry_after_ms="1") for status in (500, 503, 500)]
    with WireServer(*failing) as server, pytest.raises(imgkit.ServerError):
        flavor.run(operation, http_backend, base_url=server.base_url, retry=True, plugins=[budget])
    assert server.posts == 3
    assert budget.unpriced == 0


WITH_IMAGE = [
    (500, OWN["error"]),
    (502, OWN["error"]),
    (409, {"message": "busy", "code": "conflict"}),
    (429, {"message": "slow", "code": "rate_limit_exceeded"}),
    (415, {"message": "no"}),
    (400, {"message": "stream of errors", "code": "moderation_blocked"}),
]


@pytest.mark.parametrize("operation", [create_image, stream_image], ids=lambda operation: operation.__name__)
def test_images_in_an_error_reply_are_kept(
    flavor: ServiceRunner, http_backend: str, operation: Callable[[Any], Any]
) -> None:
    """Sends once, counts as spent, and hands out the image of an error reply, whatever it says."""
    budget = imgkit.Budget(100, allow_unknown=True)
    scripts = [
        reply(status, {**answer(), "error": error}, retry_after_ms="1", x_should_retry="true")
        for status, error in WITH_IMAGE
    ]
    retry = imgkit.RetryPlugin(on_unknown="retry-once", chance=lambda: 0.0)
    ends, posts = run_calls(flavor, http_backend, operation, scripts, plugins=[budget], retry=retry)
    assert posts == len(ends) == budget.unpriced == len(WITH_IMAGE)
    for end in ends:
        assert end.maybe_billed
        assert [len(image.data) for image in end.images] == [len(base64.b64decode(IMAGE))]
        assert b'"error"' in end.body
        assert "error.images has the images" in end.__notes__[0]


@pytest.mark.parametrize(
    ("body", "posts", "is_billed"),
    [
        ({**OWN, "data": [{"url": "https://cdn.example/fox.png"}]}, 1, True),
        ({**OWN, "detail": [{"input": f"data:image/png;base64,{IMAGE}"}]}, 3, False),
        ({"error": {**OWN["error"], "input": IMAGE}}, 3, False),
        ({**OWN, "data": [{"url": "see the manual"}]}, 3, False),
    ],
)
def test_results_are_told_from_the_request(body: Any, posts: int, is_billed: bool) -> None:
    """A URL in data is a result; an image that the reply repeats from the request is none."""
    retry = imgkit.RetryPlugin(chance=lambda: 0.0)
    with WireServer(reply(500, body, retry_after_ms="1")) as server:
        with imgkit.ImageService("requests", base_url=server.base_url, retry=retry) as service:
            with pytest.raises(imgkit.ImgkitError) as caught:
                service.create_image("a fox")
    assert (server.posts, caught.value.maybe_billed) == (posts, is_billed)


class FrankProvider(OpenAIProvider):
    """A provider whose `error` calls every failure the API's own."""

    def error(self, head: Head, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return imgkit.ServerError("It failed and cost nothing.", status=head.status)


class SilentProvider(FrankProvider):
    """A provider with the default rule."""

    failure_is_free = BaseProvider.failure_is_free


class GenerousProvider(FrankProvider):
    """A provider whose API bills no failure."""

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        return True


class RulelessProvider:
    """A provider of another base class, older than the rule."""

    def __init__(self) -> None:
        self._provider = FrankProvider()

    def __getattr__(self, name: str) -> Any:
        if name == "failure_is_free":
            raise AttributeError(name)
        return getattr(self._provider, name)


@pytest.mark.parametrize(
    ("provider", "posts"),
    [(FrankProvider(), 3), (SilentProvider(), 1), (RulelessProvider(), 1), (GenerousProvider(), 3)],
)
def test_the_rule_outranks_the_error(flavor: ServiceRunner, provider: Any, posts: int) -> None:
    """The provider's rule decides about the next attempt, whatever class its error has."""
    expected = imgkit.ServerError if posts > 1 else imgkit.OutcomeUnknownError
    retry = imgkit.RetryPlugin(chance=lambda: 0.0)
    script = reply(500, OWN, retry_after_ms="1")
    with WireServer(script) as server, pytest.raises(imgkit.ImgkitError) as caught:
        flavor.run(create_image, "requests", base_url=server.base_url, retry=retry, provider=provider)
    assert type(caught.value) is expected
    assert server.posts == posts


def test_a_later_failure_keeps_the_unknown_outcome(flavor: ServiceRunner, http_backend: str) -> None:
    """Raises the attempt that may have been billed, even if a later attempt was refused."""
    budget = imgkit.Budget(100, allow_unknown=True)
    lost = reply(502, PAGE, retry_after_ms="1")
    refused = reply(400, {"error": {"message": "no", "code": "x"}})
    retry = imgkit.RetryPlugin(on_unknown="retry-once")
    with WireServer(lost, refused) as server, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        flavor.run(create_image, http_backend, base_url=server.base_url, retry=retry, plugins=[budget])
    assert (server.posts, caught.value.status, budget.unpriced) == (2, 502, 1)
    assert "A later attempt of this call failed, too. HTTP 400" in caught.value.__notes__[0]


WAITS: list[tuple[int, dict[str, str], float | None]] = [
    (500, {"retry-after": "3"}, 3.0),
    (503, {"retry-after": "3"}, 3.0),
    (503, {"retry-after-ms": "1500", "retry-after": "3"}, 1.5),
    (500, {"retry-after": "120"}, 120.0),
    (503, {"retry-after": "121"}, None),
    (500, {"retry-after-ms": "120001"}, None),
    (500, {"retry-after": "soon"}, 0.25),
    (502, {"retry-after": "3", "x-should-retry": "true"}, 3.0),
    (409, {"retry-after": "3", "x-should-retry": "true"}, 3.0),
    (502, {"retry-after": "3"}, None),
    (500, {"retry-after": "3", "x-should-retry": "false"}, None),
]


@pytest.mark.parametrize(("status", "headers", "wait_s"), WAITS)
def test_waits_as_long_as_the_server_asks(status: int, headers: dict[str, str], wait_s: float | None) -> None:
    """Waits for Retry-After on every reply that may be sent again, and gives up above two minutes."""
    retry = imgkit.RetryPlugin(chance=lambda: 0.0)
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=retry) as service:
        flow = OperationFlows(service._core).create_image("a fox")
        assert isinstance(advance(flow, None), SendRequest)
        assert advance(flow, Head(status, headers)) == ReadChunk()
        advance(flow, json.dumps(OWN).encode())
        if wait_s is None:
            with pytest.raises(imgkit.ImgkitError):
                advance(flow, b"")
        else:
            assert advance(flow, b"") == Sleep(wait_s)
            flow.close()


def test_an_unknown_outcome_is_repeated_after_the_server_s_wait() -> None:
    """on_unknown="retry-once" waits for Retry-After, too."""
    retry = imgkit.RetryPlugin(on_unknown="retry-once", chance=lambda: 0.0)
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=retry) as service:
        flow = OperationFlows(service._core).create_image("a fox")
        advance(flow, None)
        advance(flow, Head(503, {"retry-after": "7"}))
        advance(flow, PAGE)
        assert advance(flow, b"") == Sleep(7.0)
        assert isinstance(advance(flow, None), SendRequest)
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            advance(flow, EffectFailed(imgkit.NotSentError("Refused.", permanent=True)))
    assert caught.value.retry_after_s == 7.0


def test_success_after_an_own_error(flavor: ServiceRunner, http_backend: str) -> None:
    """Returns the images of the second attempt."""
    with WireServer(reply(503, OWN, retry_after_ms="1"), reply(200, answer())) as server:
        response = flavor.run(create_image, http_backend, base_url=server.base_url, retry=True)
    assert [attempt.status for attempt in response.meta.attempts] == [503, 200]
