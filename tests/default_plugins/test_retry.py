"""Retries: which failures are retried, after which wait, and which never are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import imgkit
from imgkit.core.core import Core
from imgkit.core.operations import OperationFlows
from imgkit.default_plugins.retry import RetryPlugin
from imgkit.plugins.events import Call, Failed, Outcome, Retrying, Started, Succeeded
from imgkit.runtime.flow import EffectFailed as News
from imgkit.runtime.flow import Finished, ReadChunk, SendRequest, Sleep, advance
from imgkit.wire.headers import retry_after_s
from imgkit.wire.messages import Head
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, drop, raw, reply

CALL = Call(
    id="1", operation="create_image", backend="requests", provider="openai", base_url="http://h/v1",
    host_class="compatible", timeout_s=600,
)  # fmt: skip


def plugin(**options: Any) -> RetryPlugin:
    return RetryPlugin(**{"clock": lambda: 0.0, "chance": lambda: 1.0, **options})


def core(*plugins: Any) -> Core:
    service = imgkit.ImageService(
        "requests", base_url="http://127.0.0.1:1/v1", retry=False, plugins=list(plugins)
    )
    service.close()
    return service._core


def outcome(kind: Any, number: int = 1, error: Any = None, **facts: Any) -> Outcome:
    made = error or imgkit.OutcomeUnknownError("m")
    values = {"attempts": number, "elapsed_s": 0.0, "remaining_s": 600.0, **facts}
    return Outcome(kind=kind, error=made, number=number, **values)


def refused(**facts: Any) -> imgkit.RateLimitError:
    return imgkit.RateLimitError("slow", status=429, **facts)


def list_waits(kind: Any, error: Any = None, count: int = 7, **options: Any) -> list[float | None]:
    """Return the plugin's waits after the first failures of one kind."""
    one = plugin(**options)
    return [one.imgkit_retry_wait(outcome(kind, number, error), CALL) for number in range(1, count + 1)]


def test_unsent() -> None:
    """Tries four times within thirty seconds if nothing was sent, with growing waits."""
    assert list_waits("unsent", imgkit.NotSentError("m"), 5) == [0.5, 1.0, 2.0, None, None]
    late = outcome("unsent", 2, imgkit.NotSentError("m"), elapsed_s=31.0)
    assert plugin().imgkit_retry_wait(late, CALL) is None
    assert list_waits("unsent", imgkit.NotSentError("m", permanent=True), 1) == [None]


def test_refused() -> None:
    """Tries five times after a rate limit, with the server's wait or 1, 2, 4, 8 seconds."""
    assert list_waits("refused", refused(), 6) == [1.0, 2.0, 4.0, 8.0, None, None]
    assert list_waits("refused", refused(retry_after_s=20.0), 1) == [pytest.approx(22.0)]
    assert list_waits("refused", refused(retry_after_s=120.0), 1) == [pytest.approx(132.0)]
    assert list_waits("refused", refused(retry_after_s=120.5), 1) == [None]


def test_failed() -> None:
    """Retries a reported failure twice, or as often as configured."""
    assert list_waits("failed", count=4) == [0.5, 1.0, None, None]
    assert list_waits("failed", count=2, retry_server_errors=0) == [None, None]


def test_unknown() -> None:
    """Retries an unknown outcome only with "retry-once", and only once."""
    assert list_waits("unknown", count=3) == [None, None, None]
    assert list_waits("unknown", count=3, on_unknown="retry-once") == [0.5, None, None]


def test_jitter() -> None:
    """Waits between half of a step and the whole step, at most eight seconds."""
    low = list_waits("unsent", imgkit.NotSentError("m"), 3, chance=lambda: 0.0)
    assert low == [0.25, 0.5, 1.0]
    one = plugin(retry_server_errors=5)
    assert one._backoff_s(1000) == 8.0


def test_server_forbids_a_retry() -> None:
    """Ends a call after `x-should-retry: false`, whatever the failure."""
    for kind, error in (("refused", refused()), ("unsent", imgkit.NotSentError("m"))):
        error.should_retry = False  # type: ignore[union-attr]
        assert list_waits(kind, error, 1) == [None]


def test_no_wait_beyond_the_deadline() -> None:
    """Starts no wait that exceeds the deadline."""
    soon = outcome("refused", 1, refused(retry_after_s=20.0), remaining_s=10.0)
    assert plugin().imgkit_retry_wait(soon, CALL) is None


def test_budget() -> None:
    """Spends at most a hundred tokens on retries, and gains one per success."""
    one = plugin(on_unknown="retry-once")
    answers = [one.imgkit_retry_wait(outcome("unknown"), CALL) for _ in range(6)]
    assert answers == [0.5] * 5 + [None]
    for _ in range(20):
        one.imgkit_on_event(Succeeded(None), CALL)  # type: ignore[arg-type]  # its content does not matter
    assert one.imgkit_retry_wait(outcome("unknown"), CALL) == 0.5


def test_breaker() -> None:
    """Sends nothing for half a minute after five failures in a minute; then one call tries."""
    now = [0.0]
    one = plugin(clock=lambda: now[0])
    failure = Failed(imgkit.ServerError("m", status=500))
    for _ in range(5):
        one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]  # not looked at
        one.imgkit_on_event(failure, CALL)
    with pytest.raises(imgkit.NotSentError, match="30 s"):
        one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]
    now[0] = 31.0
    one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]
    with pytest.raises(imgkit.NotSentError):
        one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]
    one.imgkit_on_event(Succeeded(None), CALL)  # type: ignore[arg-type]
    one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]


def end_calls(one: RetryPlugin, error: Exception, count: int = 5, call: Call = CALL) -> None:
    """Let calls fail one after the other."""
    for _ in range(count):
        one.imgkit_on_event(Failed(error), call)


def is_open(one: RetryPlugin, call: Call = CALL) -> bool:
    """Return whether the breaker rejects a call."""
    try:
        one.imgkit_before_send(None, call)  # type: ignore[arg-type]  # not looked at
    except imgkit.NotSentError:
        return True
    return False


OPENING = (
    imgkit.NotSentError("refused"),
    imgkit.NotSentError("unknown host", permanent=True),
    imgkit.OutcomeUnknownError("reset"),
    imgkit.OutcomeUnknownError("gateway", status=502),
    imgkit.ServerError("failed", status=503),
)
RESETTING = (
    imgkit.OutcomeUnknownError("timeout", status=408),
    imgkit.BadRequestError("no", status=400),
    imgkit.ConflictError("no", status=409),
    imgkit.RateLimitError("slow", status=429),
    imgkit.QuotaExceededError("no credit", status=429),
    imgkit.RedirectRefusedError("moved", status=307),
    imgkit.EmptyResultError("no images"),
    imgkit.UnreadableReplyError("no images"),
)
NEUTRAL = (
    imgkit.InvalidRequestError({"n": "must be at least 1."}),
    imgkit.EndpointRetiredError("retired", status=0),
    imgkit.ServiceClosedError("closed"),
)


@pytest.mark.parametrize("error", OPENING, ids=repr)
def test_breaker_counts_failures_of_the_host(error: Exception) -> None:
    """Opens after five failed connections or 5xx replies, and names the last one and the way out."""
    one = plugin()
    end_calls(one, error, 4)
    assert not is_open(one)
    end_calls(one, error, 1)
    with pytest.raises(imgkit.NotSentError) as caught:
        one.imgkit_before_send(None, CALL)  # type: ignore[arg-type]  # not looked at
    text = str(caught.value)
    assert f"The last failure: {type(error).__name__}: {error}. " in text
    assert text.count("Nothing was sent") == 1
    assert "another 30 s" in text
    assert "retry=False" in text
    assert caught.value.permanent


@pytest.mark.parametrize("error", RESETTING, ids=repr)
def test_breaker_resets_after_an_answer(error: Exception) -> None:
    """Counts no answer below 500, and forgets earlier failures after one."""
    one = plugin()
    end_calls(one, error, 9)
    assert not is_open(one)
    end_calls(one, OPENING[0], 4)
    end_calls(one, error, 1)
    end_calls(one, OPENING[0], 4)
    assert not is_open(one)


@pytest.mark.parametrize("error", NEUTRAL, ids=repr)
def test_breaker_ignores_errors_before_sending(error: Exception) -> None:
    """Neither counts an error that came before sending, nor forgets failures after it."""
    one = plugin()
    end_calls(one, OPENING[0], 4)
    end_calls(one, error, 9)
    assert not is_open(one)
    end_calls(one, OPENING[0], 1)
    assert is_open(one)


def test_breaker_resets_after_a_refused_attempt() -> None:
    """Forgets earlier failures after an attempt that the host refused, before the call ends."""
    one = plugin()
    end_calls(one, OPENING[0], 4)
    one.imgkit_on_event(Retrying(outcome("refused", 1, refused()), 1.0), CALL)
    end_calls(one, OPENING[0], 4)
    assert not is_open(one)


def test_breaker_keeps_hosts_and_operations_apart() -> None:
    """Rejects calls of the same operation to the same host only."""
    one = plugin()
    end_calls(one, OPENING[0])
    assert is_open(one, replace(CALL, base_url="http://H:80/v2"))
    assert not is_open(one, replace(CALL, base_url="http://h:81/v1"))
    assert not is_open(one, replace(CALL, operation="create_image_edit"))
    one.imgkit_on_event(Succeeded(None), replace(CALL, operation="create_image_edit"))  # type: ignore[arg-type]
    assert is_open(one)


def test_breaker_counts_only_calls_that_were_sent() -> None:
    """Ignores a call that a cache answers, or that a plugin rejects before it is sent."""
    one = plugin()
    end_calls(one, OPENING[0], 4)
    for end in (Failed(imgkit.NotSentError("Not at night.")), Succeeded(None)):  # type: ignore[arg-type]
        one.imgkit_on_event(Started(), CALL)
        one.imgkit_on_event(end, CALL)
    assert not is_open(one)
    end_calls(one, OPENING[0], 1)
    assert is_open(one)


def test_breaker_over_the_wire(flavor: Any, http_backend: str) -> None:
    """Failing edits stop edits, not creations, and the message names the last failure."""
    failing = [reply(502, b"<html>Bad luck</html>") for _ in range(5)]
    ends: list[Any] = []

    def calls(service: Any) -> list[Any]:
        return [lambda: service.create_image_edit(answered, "blue")] * 6 + [
            lambda: service.create_image("a fox")
        ]

    def run_blocking(service: Any) -> None:
        for call in calls(service):
            try:
                ends.append(call())
            except imgkit.ImgkitError as error:
                ends.append(error)

    async def run_async(service: Any) -> None:
        for call in calls(service):
            try:
                ends.append(await call())
            except imgkit.ImgkitError as error:
                ends.append(error)

    answered = picture()
    with WireServer(*failing, reply(200, answer())) as server:
        run = run_blocking if flavor.flavor == "sync" else run_async
        flavor.run(run, http_backend, base_url=server.base_url, retry=True)
        assert server.posts == 6
    assert [type(end) for end in ends[:5]] == [imgkit.OutcomeUnknownError] * 5
    assert type(ends[5]) is imgkit.NotSentError
    assert "create_image_edit" in str(ends[5])
    assert "Bad luck" in str(ends[5])
    assert len(ends[6].images) == 1


@pytest.mark.parametrize(
    "options", [{"on_unknown": "always"}, {"retry_server_errors": -1}, {"retry_server_errors": True}]
)
def test_invalid_settings(options: dict[str, Any]) -> None:
    """Rejects invalid settings."""
    with pytest.raises(imgkit.ConfigurationError):
        RetryPlugin(**options)


def test_a_retried_call_step_by_step() -> None:
    """Sleeps, opens the same request again and records the attempts."""
    flow = OperationFlows(core(plugin())).create_image("a fox")
    first = advance(flow, None)
    assert isinstance(first, SendRequest)
    assert advance(flow, News(imgkit.NotSentError("no"))) == Sleep(0.5)
    again = advance(flow, None)
    assert isinstance(again, SendRequest)
    assert again.request == first.request
    assert advance(flow, Head(429, {"retry-after-ms": "10"})) == ReadChunk()
    pause = advance(flow, b"")
    assert isinstance(pause, Sleep)
    assert pause.wait_s == pytest.approx(0.011)
    assert isinstance(advance(flow, None), SendRequest)
    advance(flow, Head(200, {}))
    advance(flow, json.dumps(answer()).encode())
    end = advance(flow, b"")
    assert isinstance(end, Finished)
    assert [(one.status, one.error) for one in end.value.meta.attempts] == [
        (None, "NotSentError"), (429, "RateLimitError"), (200, None),
    ]  # fmt: skip


NEVER: dict[str, tuple[int, Any, dict[str, str]]] = {
    "quota": (429, {"error": {"code": "insufficient_quota"}}, {"retry-after": "1"}),
    "billing": (400, {"error": {"code": "billing_hard_limit_reached"}}, {}),
    "bad request": (400, {"error": {"code": "invalid_value"}}, {"x-should-retry": "true"}),
    "wrong key": (401, {"error": {"code": "invalid_api_key"}}, {}),
    "conflict": (409, {"error": {"message": "x"}}, {}),
    "gateway": (504, None, {}),
    "timeout of a gateway": (408, None, {}),
    "another server error": (501, {"error": {"message": "x"}}, {}),
    "moderation": (400, {"error": {"code": "moderation_blocked"}}, {}),
}


@pytest.mark.parametrize("case", NEVER)
def test_never_retried(case: str) -> None:
    """Ends the call after quota errors, rejections, invalid requests and gateway timeouts."""
    status, body, headers = NEVER[case]
    flow = OperationFlows(core(plugin())).create_image("a fox")
    advance(flow, None)
    advance(flow, Head(status, headers))
    advance(flow, json.dumps(body).encode() if body else b"<html>")
    with pytest.raises(imgkit.ImgkitError):
        advance(flow, b"")


@pytest.mark.parametrize("status", [408, 409, 502, 504])
def test_server_allows_a_retry(status: int) -> None:
    """Retries 408, 409 and gateway errors after `x-should-retry: true`."""
    flow = OperationFlows(core(plugin())).create_image("a fox")
    advance(flow, None)
    advance(flow, Head(status, {"x-should-retry": "true"}))
    advance(flow, json.dumps({"error": {"message": "x"}}).encode())
    assert advance(flow, b"") == Sleep(0.5)


def test_posts_are_counted(flavor: Any, http_backend: str) -> None:
    """Repeats a POST after a rate limit or a reported failure, never after a cut connection."""
    limited = reply(429, {"error": {"code": "rate_limit_exceeded"}}, retry_after_ms="5")
    with WireServer(limited, limited, reply(200, answer())) as server:
        made = flavor.run(
            lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url, retry=True
        )
    assert server.posts == len(made.meta.attempts) == 3
    assert len({line.body for line in server.lines}) == 1
    for script in (drop, raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")):
        with WireServer(script) as server, pytest.raises(imgkit.OutcomeUnknownError):
            flavor.run(
                lambda service: service.create_image("a fox"),
                http_backend, base_url=server.base_url, retry=True,
            )  # fmt: skip
        assert server.posts == 1


def test_sleeps_end_with_the_deadline(flavor: Any) -> None:
    """Does not wait for a server that asks for more time than is left."""
    with pytest.raises(imgkit.RateLimitError):
        flavor.run(
            lambda service: service.create_image("a fox", timeout_s=0.5),
            client_options={"simulate": "rate_limit_exceeded"},
            retry=True,
        )


NOW = 1696004797
RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "20"}, 20),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-10"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "1, 2"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:57 GMT"}, 20),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:27 GMT"}, None),
    ({"retry-after": "Fri, 29 Sep 100000 16:26:57 GMT"}, None),
    ({"retry-after": "Fri, 29 Sep 2028 16:26:57 GMT", "date": "Fri, 29 Sep 2028 16:26:37 GMT"}, 20),
    ({"retry-after": "Fri, 29 Sep 2023 16:26:57 GMT", "date": "soon"}, 20),
    ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "20"}, 20),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "expected"), RETRY_AFTER)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """Parses each form of Retry-After, and ignores invalid values."""
    assert retry_after_s(headers, NOW) == expected


class BrokenText(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("result", ["soon", float("nan"), True, 1j, ZeroDivisionError(), BrokenText()])
def test_a_broken_retry_plugin_keeps_the_error(result: Any) -> None:
    """Ends the call with the error of its attempt, and names the plugin in a note."""

    class Odd:
        @imgkit.hookimpl
        def imgkit_retry_wait(self) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

    flow = OperationFlows(core(Odd())).create_image("a fox")
    advance(flow, None)
    with pytest.raises(imgkit.OutcomeUnknownError) as caught:
        advance(flow, News(imgkit.OutcomeUnknownError("dropped")))
    assert caught.value.maybe_billed
    (note,) = caught.value.__notes__
    assert "Odd" in note
    assert "imgkit_retry_wait" in note


def test_an_endless_pause_ends_the_call() -> None:
    """Ends the call after a pause that no float can hold."""

    class Endless:
        @imgkit.hookimpl
        def imgkit_retry_wait(self) -> int:
            return 10**400

    flow = OperationFlows(core(Endless())).create_image("a fox")
    advance(flow, None)
    with pytest.raises(imgkit.NotSentError):
        advance(flow, News(imgkit.NotSentError("no")))


def test_a_plugin_may_give_up() -> None:
    """Ends the call after a negative number, without calling the next plugin."""

    class Impatient:
        @imgkit.hookimpl
        def imgkit_retry_wait(self) -> float:
            return -1.0

    flow = OperationFlows(core(Impatient(), plugin())).create_image("a fox")
    advance(flow, None)
    with pytest.raises(imgkit.NotSentError):
        advance(flow, News(imgkit.NotSentError("no")))
