"""Streams stepped by hand, and requests refused before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import threading
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest

import imgkit
from imgkit import CreateImageRequest, PartialImage, RetryPlugin
from imgkit.core.operations import OperationFlows
from imgkit.providers import BaseProvider
from imgkit.providers.openai import OpenAIProvider
from imgkit.runtime.flow import EffectFailed, EmitEvent, Finished, ReadChunk, SendRequest, Sleep, advance
from imgkit.wire.messages import Head
from tests.conftest import ServiceRunner
from tests.support.event_streams import WHOLE, completed, event, partial, streamed, watch
from tests.support.pictures import picture
from tests.support.wire_server import WireServer

EVENTS = Head(200, {"content-type": "text/event-stream"})
LIMITED = event({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


def build_flow(service: Any, **more: Any) -> Any:
    """Return the flow of a stream."""
    return OperationFlows(service._core).stream_image("a fox", **more)


@pytest.fixture
def service() -> Any:
    retry = RetryPlugin(on_unknown="retry-once")
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=retry) as service:
        yield service


def test_retries_before_the_first_event(service: Any) -> None:
    """Retries unsent and refused requests, also if the first event is a refusal."""
    flow = build_flow(service)
    assert isinstance(advance(flow, None), SendRequest)
    assert isinstance(advance(flow, EffectFailed(imgkit.NotSentError("no"))), Sleep)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, EVENTS) == ReadChunk()
    assert isinstance(advance(flow, LIMITED), Sleep)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, EVENTS) == ReadChunk()
    assert isinstance(advance(flow, EffectFailed(imgkit.OutcomeUnknownError("cut"))), Sleep)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, EVENTS) == ReadChunk()
    assert isinstance(advance(flow, partial()), EmitEvent)
    assert advance(flow, None) == ReadChunk()
    assert isinstance(advance(flow, completed()), EmitEvent)
    rest = advance(flow, None)
    assert isinstance(rest, ReadChunk)
    assert rest.grace_s is not None
    assert 0 < rest.grace_s <= 1
    end = advance(flow, b"")
    assert isinstance(end, Finished)
    assert [attempt.error for attempt in end.value.meta.attempts] == [
        "NotSentError", "RateLimitError", "OutcomeUnknownError", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (LIMITED, imgkit.RateLimitError),
        (event({"error": {"message": "no", "code": "server_error"}}), imgkit.ServerError),
        (EffectFailed(imgkit.OutcomeUnknownError("cut")), imgkit.OutcomeUnknownError),
        (EffectFailed(imgkit.NotSentError("a liar")), imgkit.NotSentError),
    ],
)
def test_no_retry_after_the_first_event(service: Any, result: Any, error: type[Exception]) -> None:
    """Sends nothing again after the first event, however the stream ends."""
    flow = build_flow(service)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, EVENTS) == ReadChunk()
    effect = advance(flow, partial())
    assert isinstance(effect, EmitEvent)
    assert isinstance(effect.event, PartialImage)
    assert advance(flow, None) == ReadChunk()
    with pytest.raises(error):
        advance(flow, result)


def test_several_events_in_one_chunk(service: Any) -> None:
    """Delivers each event of a chunk before it reads more."""
    flow = build_flow(service)
    advance(flow, None)
    advance(flow, EVENTS)
    effect = advance(flow, partial(0) + partial(1) + completed())
    kinds = []
    while isinstance(effect, EmitEvent):
        kinds.append(type(effect.event).__name__)
        effect = advance(flow, None)
    assert kinds == ["PartialImage", "PartialImage", "Completed"]
    assert isinstance(effect, ReadChunk)
    flow.close()


def test_the_first_event_sends_the_request(flavor: ServiceRunner) -> None:
    """Sends nothing when the stream is built or entered; the first event sends the request."""
    with WireServer(streamed(completed())) as server:

        def blocking(service: Any) -> None:
            assert repr(service.stream_image("a fox")) == "ImageStream(not entered)"
            with service.stream_image("a fox") as events:
                assert repr(events) == "ImageStream(open)"

        async def awaiting(service: Any) -> None:
            assert repr(service.stream_image("a fox")) == "AsyncImageStream(not entered)"
            async with service.stream_image("a fox") as events:
                assert repr(events) == "AsyncImageStream(open)"

        flavor.run(blocking if flavor.flavor == "sync" else awaiting, "requests", base_url=server.base_url)
        assert server.accepted == 0


def test_misuse_of_a_blocking_stream() -> None:
    """Explains reads outside the context, a second entry, and a response read too early."""
    with imgkit.ImageService() as service:
        stream = service.stream_image("a fox", size="64x64")
        for use in (lambda: iter(stream), lambda: next(stream)):
            with pytest.raises(imgkit.StreamError, match="Write `with images"):
                use()
        with stream as events:
            with pytest.raises(imgkit.StreamError, match="open already"), stream:
                pass
            with pytest.raises(imgkit.StreamError, match="after its last event"):
                _ = events.response
            assert len(list(events)) == 1
            with pytest.raises(imgkit.StreamError, match="is over"):
                list(events)
            with pytest.raises(StopIteration):
                next(events)
            assert len(events.response) == 1
        with pytest.raises(imgkit.StreamError, match="is over"), stream:
            pass
        assert repr(stream) == "ImageStream(ended)"
        assert len(stream.response) == 1
        with service.stream_image("a fox", size="64x64", partial_images=2) as events:
            next(events)
            assert sum(1 for _ in events) == 2  # iteration may continue after a break
        with service.stream_image("a fox", size="64x64") as events:
            pass
        with pytest.raises(imgkit.StreamError, match="is over") as caught:
            list(events)
        assert not caught.value.maybe_billed


def test_misuse_of_an_async_stream() -> None:
    """Explains the same misuse of an asynchronous stream, and refuses two readers at once."""

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService("aiohttp", base_url=base_url) as service:
            stream = service.stream_image("a fox")
            with pytest.raises(imgkit.StreamError, match="Write `async with images"):
                stream.__aiter__()
            with pytest.raises(imgkit.StreamError, match="Write `async with images"):
                await anext(stream)
            async with stream as events:
                first = asyncio.create_task(anext(events))
                await asyncio.sleep(0)
                with pytest.raises(imgkit.StreamError, match="One reads at a time"):
                    await anext(events)
                gate.set()
                await first
                with pytest.raises(StopAsyncIteration):
                    await anext(events)
                assert len(events.response) == 1
            with pytest.raises(imgkit.StreamError, match="is over"):
                events.__aiter__()

    gate = threading.Event()

    def script(line: Any) -> None:
        assert gate.wait(20)
        streamed(completed())(line)

    with WireServer(script) as server:
        asyncio.run(main(server.base_url))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"partial_images": 4}, "partial_images: Must be a whole number from 0 to 3"),
    ({"partial_images": -1}, "partial_images: Must be"),
    ({"partial_images": True}, "partial_images: Must be"),
    ({"partial_images": "2"}, "partial_images: Must be"),
    ({"n": 11}, "n: A stream has at most 10"),
    ({"n": 0}, "n: Must be"),
    ({"extra_body": {"stream": True}}, "stream_image"),
    ({"extra_body": {"partial_images": 1}}, "partial_images=2"),
    ({"prompt": CreateImageRequest(prompt="a fox", response_format="url")}, "response_format: Streams carry"),
    ({"prompt": " "}, "prompt: The prompt is empty"),
]


@pytest.mark.parametrize(("arguments", "problem"), WRONG)
def test_wrong_values(flavor: ServiceRunner, arguments: dict[str, Any], problem: str) -> None:
    """Refuses wrong values before anything is sent."""
    arguments = {"prompt": "a fox", **arguments}
    prompt = arguments.pop("prompt")
    with WireServer(streamed(completed())) as server, pytest.raises(imgkit.InvalidRequestError) as caught:
        watch(
            flavor,
            lambda service: service.stream_image(prompt, **arguments),
            "requests",
            base_url=server.base_url,
        )
    assert problem in str(caught.value)
    assert server.accepted == 0


@pytest.mark.parametrize(
    ("model", "arguments", "problem"),
    [
        ("gpt-image-2.6-sunburst", {"output_format": "gif"}, "gif and svg come whole"),
        ("dall-e-3", {}, "GPT image models stream"),
    ],
)
def test_models_that_do_not_stream(model: str, arguments: dict[str, Any], problem: str) -> None:
    """Refuses models and formats known not to stream before anything is sent."""
    with (
        imgkit.ImageService("requests", model=model, api_key="sk-test") as official,
        official.stream_image("a fox", **arguments) as events,
        pytest.raises(imgkit.InvalidRequestError, match=problem),
    ):
        next(events)


OWN_RULES: dict[str, Any] = {
    "hosts": ["compatible"],
    "rules": {
        "one": {"field": "n", "most": 1, "sure": True},
        "whole": {"field": "partial_images", "most": 0, "sure": True},
    },
    "models": [{"id": "mine", "rules": ["one", "whole"]}],
}


def test_missing_values_count_as_the_least() -> None:
    """Sends a stream without numbers to a model that makes one image and no partial images."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "mine", "models": OWN_RULES}
    with imgkit.ImageService("requests", **settings) as service:
        assert isinstance(advance(build_flow(service), None), SendRequest)
        for wrong, problem in (
            ({"n": 2}, "n: A stream has at most 1 images"),
            ({"partial_images": 1}, "partial_images: mine takes 0 to 0,"),
        ):
            with pytest.raises(imgkit.InvalidRequestError, match=problem):
                advance(build_flow(service, **wrong), None)


def test_an_error_event_without_its_end(service: Any) -> None:
    """Raises the error of an event that lacks only its blank line."""
    flow = build_flow(service)
    refused = event({"error": {"message": "Not this.", "code": "content_policy_violation"}})
    effect = advance(flow, None)
    for news in (EVENTS, refused[:-1]):
        effect = advance(flow, news)
        assert effect == ReadChunk()
    with pytest.raises(imgkit.ModerationBlockedError, match="Not this"):
        advance(flow, b"")


def test_wrong_keywords(service: Any) -> None:
    """Refuses unknown keywords when the call is made, with the nearest real name."""
    with pytest.raises(imgkit.InvalidRequestError, match="did you mean 'partial_images'"):
        service.stream_image("a fox", partial_image=2)
    with pytest.raises(imgkit.InvalidRequestError, match="is missing"):
        service.stream_image()


def test_extra_body_cannot_stream_a_plain_call(service: Any) -> None:
    """Points a plain call with "stream" in extra_body to stream_image."""
    with pytest.raises(imgkit.InvalidRequestError, match="stream_image"):
        service.create_image("a fox", extra_body={"stream": True})


class PlainProvider(BaseProvider):
    """A provider that does not stream."""

    name = "plain"

    def __init__(self) -> None:
        inner = OpenAIProvider()
        for name in ("base_url", "env", "base64_keys", "check", "encode", "decode", "error"):
            setattr(self, name, getattr(inner, name))


def test_a_provider_without_streams(flavor: ServiceRunner) -> None:
    """Refuses to stream with such a provider and sends nothing; a plain call works."""
    with pytest.raises(imgkit.ConfigurationError, match="Provider plain does not stream. Use create_image"):
        watch(flavor, lambda service: service.stream_image("a fox"), "offline", provider=PlainProvider())
    provider: Any = PlainProvider()  # without the optional attributes of a provider
    with imgkit.ImageService("offline", provider=provider) as service:
        assert len(service.create_image("a fox", size="64x64")) == 1


def test_plugins_know_the_partial_images() -> None:
    """Tells plugins the number of partial images, and counts it in estimates."""
    seen: list[Any] = []

    class Looker:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any, call: Any) -> None:
            seen.append(call.partial_images)

    with imgkit.ImageService(plugins=[Looker()]) as offline:
        offline.create_image("a fox", size="64x64")
        for count in (None, 2):
            with offline.stream_image("a fox", size="64x64", partial_images=count) as events:
                list(events)
    assert set(seen) == {None, 0, 2}
    assert [count for count, _ in itertools.groupby(seen)] == [None, 0, 2]
    with imgkit.ImageService("requests", model="gpt-image-2", api_key="sk-test") as official:
        plain = official.estimate("a fox", quality="low", size="1024x1024")
        more = official.estimate("a fox", quality="low", size="1024x1024", partial_images=2)
    assert plain.low == more.low
    assert plain.high is not None
    assert more.high is not None
    assert more.high - plain.high == Decimal(200 * 30) / 1_000_000


def test_an_image_is_in_memory_once(service: Any) -> None:
    """An event of 8 MB takes little more memory than its image, and never its whole base64."""
    data = WHOLE[:-12] + random.Random(1).randbytes(8_000_000)
    stream = completed(data)
    chunks = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]
    flow = build_flow(service)
    advance(flow, None)
    advance(flow, EVENTS)
    tracemalloc.start()
    for chunk in chunks:
        effect = advance(flow, chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(effect, EmitEvent)
    assert effect.event.image.data == data
    assert peak < len(data) + 2_000_000
    flow.close()


def test_request_objects_and_hooks(service: Any) -> None:
    """Takes request objects, which plugins may change."""

    class Twice:
        @imgkit.hookimpl
        def imgkit_prepare(self, request: Any, call: Any) -> Any:
            return CreateImageRequest(prompt=f"{request.prompt}, twice", n=2)

    with imgkit.ImageService(plugins=[Twice()]) as offline:
        with offline.stream_image(CreateImageRequest(prompt="a fox", size="64x64")) as events:
            assert len(list(events)) == 2
        assert events.response[1].about["prompt"] == "a fox, twice"
    request = imgkit.CreateImageEditRequest(image=picture(), prompt="blue")
    flow = OperationFlows(service._core).stream_image_edit(request)
    effect = advance(flow, None)
    while not isinstance(effect, SendRequest):
        effect = advance(flow, effect.fn())  # type: ignore[union-attr]  # a RunBlocking
    assert effect.request.url.endswith("/images/edits")
    flow.close()


def test_both_services_have_equal_stream_methods() -> None:
    """Both services have the same parameters and docstrings for streams, with named results."""
    for name in ("stream_image", "stream_image_edit"):
        ours, theirs = getattr(imgkit.ImageService, name), getattr(imgkit.AsyncImageService, name)
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
        assert inspect.signature(ours).return_annotation == "ImageStream"
        assert inspect.signature(theirs).return_annotation == "AsyncImageStream"
        assert ours.__doc__ == theirs.__doc__
        known = inspect.signature(getattr(imgkit.ImageService, name.replace("stream", "create"))).parameters
        own = set(inspect.signature(ours).parameters)
        assert own - set(known) == {"partial_images"}
        assert set(known) - own <= {
            "response_format", "style", "frame_count", "frame_duration_ms", "svg", "cache", "replica",
        }  # fmt: skip


def test_dry_run_of_a_stream() -> None:
    """Shows the request of a stream as text."""
    with imgkit.ImageService() as service:
        text = service.dry_run("stream_image", "a fox", partial_images=1)
    assert "accept: text/event-stream, application/json" in text
    assert '"partial_images":1' in text


def test_errors_survive_pickling() -> None:
    """A StreamError survives pickling with its images."""
    import pickle

    image = imgkit.Image.from_bytes(WHOLE)
    error = pickle.loads(pickle.dumps(imgkit.StreamError("no", maybe_billed=True, images=(image,))))
    assert error.images[0].data == WHOLE
    assert error.maybe_billed
