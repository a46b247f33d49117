"""The outcome of a call: its error outlives the failures behind it, and missing images are reported."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

import imgkit
from imgkit.core.operations import OperationFlows
from imgkit.runtime.flow import EffectFailed, SendRequest, Sleep, advance
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, drop, reply
from imgkit.wire.transfer import DriverTransfer
from tests.support.event_streams import completed, streamed
from tests.support.official import official

KEY = "sk-test-0123456789"
QUOTA = reply(429, {"error": {"message": "no credit", "code": "insufficient_quota"}})
OUTAGE = reply(503, {"error": {"message": "overloaded", "type": "server_error", "code": "server_error"}})


class RetryAtOnce:
    """A plugin that retries each failure once, without a pause."""

    @imgkit.hookimpl(tryfirst=True)
    def imgkit_retry_wait(self, outcome: Any) -> float:
        return 0.0 if outcome.number == 1 else -1.0


class FailsLater:
    """A plugin whose hook fails before the second attempt."""

    def __init__(self) -> None:
        self.calls = 0

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ZeroDivisionError("broken")


@pytest.mark.parametrize("kind", [imgkit.OutcomeUnknownError, imgkit.RateLimitError])
def test_a_plugin_that_fails_before_a_retry_keeps_the_error(kind: type[imgkit.ImgkitError]) -> None:
    """Raises the error of the attempt that was sent, with the plugin's failure as a note."""
    error = kind("no") if kind is imgkit.OutcomeUnknownError else imgkit.RateLimitError("no", status=429)
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "retry": False}
    with imgkit.ImageService("requests", plugins=[RetryAtOnce(), FailsLater()], **settings) as service:
        flow = OperationFlows(service._core).create_image("a fox")
        assert isinstance(advance(flow, None), SendRequest)
        assert isinstance(advance(flow, EffectFailed(error)), Sleep)
        with pytest.raises(kind) as caught:
            advance(flow, None)
    assert caught.value is error
    assert "FailsLater" in caught.value.__notes__[0]


def test_an_attempt_that_may_be_billed_outweighs_later_ones(flavor: Any, http_backend: str) -> None:
    """Raises the unknown outcome of the first attempt, although the second one was refused."""
    with WireServer(drop, reply(400, {"error": {"message": "too dark"}})) as server:
        with pytest.raises(imgkit.OutcomeUnknownError) as caught:
            flavor.run(
                lambda service: service.create_image("a fox"),
                http_backend,
                base_url=server.base_url,
                plugins=[RetryAtOnce()],
            )
        assert server.posts == 2
    assert "too dark" in caught.value.__notes__[0]


def test_a_transfer_stays_sent() -> None:
    """Never calls a request unsent after it was marked as sent, whatever the type of the failure."""
    transfer = DriverTransfer(5, 5, 5)
    transfer.mark_unsent()
    assert isinstance(transfer.to_error(OSError()), imgkit.NotSentError)
    transfer.mark_sent()
    transfer.mark_unsent()
    for unsent in (False, True):
        assert isinstance(transfer.to_error(OSError(), unsent=unsent), imgkit.OutcomeUnknownError)
    assert isinstance(transfer.for_next_request().to_error(OSError(), unsent=True), imgkit.NotSentError)


CALLS: dict[str, Any] = {
    "create": lambda service: service.create_image("a fox", n=3),
    "body": lambda service: service.create_image("a fox", extra_body={"n": 3}),
    "edit": lambda service: service.create_image_edit(png(1), "a hat", n=3),
    "variation": lambda service: service.create_image_variation(png(1), n=3, strategy="native"),
}


@pytest.mark.parametrize("call", CALLS)
def test_fewer_images_than_requested(flavor: Any, http_backend: str, call: str) -> None:
    """Warns if fewer images arrive than were requested."""
    with WireServer(reply(200, answer())) as server:
        response = flavor.run(CALLS[call], http_backend, base_url=server.base_url)
    assert response.warnings == ("3 images were requested, 1 arrived.",)


@pytest.mark.parametrize("script", [reply(200, answer()), streamed(completed())], ids=["JSON", "events"])
def test_a_stream_with_fewer_images(http_backend: str, script: Any) -> None:
    """Warns if a stream, or the plain reply to one, has fewer images than were requested."""
    with WireServer(script) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
            with service.stream_image("a fox", n=3) as events:
                list(events)
            assert events.response.warnings == ("3 images were requested, 1 arrived.",)


def create_many(flavor: Any, server: WireServer, backend: str, n: int, **more: Any) -> Any:
    """Create `n` images at the official host."""
    settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2"}
    return flavor.run(lambda service: service.create_image("a fox", n=n), backend, **settings, **more)


def test_a_split_call_with_fewer_images(flavor: Any, http_backend: str) -> None:
    """Warns once if the parts of a call bring fewer images than were requested."""
    with WireServer(reply(200, answer())) as server:
        response = create_many(flavor, server, http_backend, 25)
    assert response.warnings == ("25 images were requested, 3 arrived.",)


def test_a_dead_quota_stops_the_retries_of_other_parts(flavor: Any, http_backend: str) -> None:
    """Ends the pauses of all parts as soon as one part meets a dead quota."""
    lock = threading.Lock()
    posts: list[Line] = []

    def script(line: Line) -> None:
        with lock:
            posts.append(line)
            is_last = len(posts) == 4
        (QUOTA if is_last else reply(429, {"error": {"message": "slow"}}, retry_after="60"))(line)

    with WireServer(script) as server:
        with pytest.raises(imgkit.RateLimitError) as caught:
            create_many(flavor, server, http_backend, 60, retry=True)
        assert server.posts == 4
    assert "5 more requests" in "".join(caught.value.__notes__)


def test_an_outage_costs_the_attempts_of_one_part(
    flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lets one part probe a failing server, and stops all others when it gives up."""
    monkeypatch.setattr("imgkit.default_plugins.retry.BACKOFF_S", 0.02)
    with WireServer(OUTAGE) as server:
        with pytest.raises(imgkit.ServerError):
            create_many(flavor, server, http_backend, 60, retry=imgkit.RetryPlugin())
        assert server.posts <= 6


def test_parts_go_on_after_an_outage(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats every part once the probe has succeeded."""
    monkeypatch.setattr("imgkit.default_plugins.retry.BACKOFF_S", 0.02)
    lock = threading.Lock()
    posts: list[Line] = []

    def script(line: Line) -> None:
        with lock:
            posts.append(line)
            is_early = len(posts) <= 2
        images = answer(*[png(1)] * json.loads(line.body)["n"])
        (OUTAGE if is_early else reply(200, images))(line)

    with WireServer(script) as server:
        response = create_many(flavor, server, http_backend, 30, retry=imgkit.RetryPlugin())
        assert len(response) == 30
        assert server.posts == 5
    assert response.errors == ()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (reply(502, b"<html>"), imgkit.ServerError),
        (reply(408, {"error": {"message": "late"}}), imgkit.ApiError),
        (drop, imgkit.TransportError),
        (reply(200, b"hm"), imgkit.UnreadableReplyError),
    ],
)
def test_a_list_of_models_is_free(
    flavor: Any, http_backend: str, script: Any, kind: type[imgkit.ImgkitError]
) -> None:
    """No failure of the list of models may have cost money, and the message does not say so."""
    with WireServer(script) as server:
        probe = flavor.run(lambda service: service.probe(), http_backend, base_url=server.base_url)
        with pytest.raises(kind) as caught:
            flavor.run(lambda service: service.list_models(), http_backend, base_url=server.base_url)
    assert type(caught.value) is type(probe.problem) is kind
    assert not caught.value.maybe_billed
    assert "billed an image" not in str(caught.value)
