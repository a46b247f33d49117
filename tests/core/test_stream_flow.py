"""Streams without a wire: the plan stepped by hand, and what is refused before anything is sent."""

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
from imgkit.providers.base import BaseProvider
from imgkit.providers.openai import OpenAIProvider
from imgkit.runtime.flow import EffectFailed, EmitEvent, Finished, ReadChunk, SendRequest, Sleep, advance
from imgkit.wire.messages import Head
from tests.conftest import Face
from tests.support.event_streams import WHOLE, completed, event, partial, streamed, watch
from tests.support.pictures import picture
from tests.support.wire_server import WireServer

EVENTS = Head(200, {"content-type": "text/event-stream"})
LIMITED = event({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


def flow_of(service: Any, **more: Any) -> Any:
    return OperationFlows(service._core).stream_image("a fox", **more)


@pytest.fixture
def service() -> Any:
    retry = RetryPlugin(on_unknown="retry-once")
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=retry) as service:
        yield service


def test_before_the_first_event_it_is_tried_again(service: Any) -> None:
    """What was not sent, was refused, or was told by an event to be refused, is sent again."""
    flow = flow_of(service)
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
    assert advance(flow, None) == ReadChunk()
    end = advance(flow, b"")
    assert isinstance(end, Finished)
    assert [one.error for one in end.value.meta.attempts] == [
        "NotSentError", "RateLimitError", "OutcomeUnknownError", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("news", "error"),
    [
        (LIMITED, imgkit.RateLimitError),
        (event({"error": {"message": "no", "code": "server_error"}}), imgkit.ServerError),
        (EffectFailed(imgkit.OutcomeUnknownError("cut")), imgkit.OutcomeUnknownError),
        (EffectFailed(imgkit.NotSentError("a liar")), imgkit.NotSentError),
    ],
)
def test_after_the_first_event_it_is_not(service: Any, news: Any, error: type[Exception]) -> None:
    """Whatever ends it then, nothing is sent again."""
    flow = flow_of(service)
    assert isinstance(advance(flow, None), SendRequest)
    assert advance(flow, EVENTS) == ReadChunk()
    need = advance(flow, partial())
    assert isinstance(need, EmitEvent)
    assert isinstance(need.event, PartialImage)
    assert advance(flow, None) == ReadChunk()
    with pytest.raises(error):
        advance(flow, news)


def test_several_events_in_one_chunk(service: Any) -> None:
    """Each is handed on before more is read."""
    flow = flow_of(service)
    advance(flow, None)
    advance(flow, EVENTS)
    need = advance(flow, partial(0) + partial(1) + completed())
    kinds = []
    while isinstance(need, EmitEvent):
        kinds.append(type(need.event).__name__)
        need = advance(flow, None)
    assert kinds == ["PartialImage", "PartialImage", "Completed"]
    assert need == ReadChunk()
    flow.close()


def test_nothing_is_sent_before_it_is_asked_for(flavor: Face) -> None:
    """Neither the call nor its context sends anything; the first event does."""
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


def test_misuse() -> None:
    """Outside of its context, twice, after its end, before its end: an error that says how."""
    with imgkit.ImageService() as service:
        stream = service.stream_image("a fox", size="64x64")
        for use in (lambda: iter(stream), lambda: next(stream)):
            with pytest.raises(imgkit.StreamError, match="say `with images"):
                use()
        with stream as events:
            with pytest.raises(imgkit.StreamError, match="entered already"), stream:
                pass
            with pytest.raises(imgkit.StreamError, match="read to its end"):
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
            assert sum(1 for _ in events) == 2  # iterating may go on after a break
        with service.stream_image("a fox", size="64x64") as events:
            pass
        with pytest.raises(imgkit.StreamError, match="is over") as caught:
            list(events)
        assert not caught.value.maybe_billed


def test_misuse_of_the_asynchronous_one() -> None:
    """The same under the other service; two tasks cannot read one stream at once."""

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService("aiohttp", base_url=base_url) as service:
            stream = service.stream_image("a fox")
            with pytest.raises(imgkit.StreamError, match="say `async with images"):
                stream.__aiter__()
            with pytest.raises(imgkit.StreamError, match="say `async with images"):
                await anext(stream)
            async with stream as events:
                first = asyncio.create_task(anext(events))
                await asyncio.sleep(0)
                with pytest.raises(imgkit.StreamError, match="one task"):
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
    ({"partial_images": 4}, "partial_images: must be a whole number from 0 to 3"),
    ({"partial_images": -1}, "partial_images: must be"),
    ({"partial_images": True}, "partial_images: must be"),
    ({"partial_images": "2"}, "partial_images: must be"),
    ({"n": 11}, "n: one stream has at most 10"),
    ({"n": 0}, "n: Must be"),
    ({"extra_body": {"stream": True}}, "stream_image"),
    ({"extra_body": {"partial_images": 1}}, "partial_images=2"),
    ({"prompt": CreateImageRequest(prompt="a fox", response_format="url")}, "response_format: Streams carry"),
    ({"prompt": " "}, "prompt: The prompt is empty"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_wrong_values(flavor: Face, given: dict[str, Any], said: str) -> None:
    """They are refused before anything is sent."""
    arguments = {"prompt": "a fox", **given}
    prompt = arguments.pop("prompt")
    with WireServer(streamed(completed())) as server, pytest.raises(imgkit.InvalidRequestError) as caught:
        watch(flavor, lambda one: one.stream_image(prompt, **arguments), "requests", base_url=server.base_url)
    assert said in str(caught.value)
    assert server.accepted == 0


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("gpt-image-2.6-sunburst", {"output_format": "gif"}, "gif and svg come whole"),
        ("dall-e-3", {}, "GPT image models stream"),
    ],
)
def test_models_that_do_not_stream(model: str, given: dict[str, Any], said: str) -> None:
    """What is known of a model is told before anything is sent."""
    with (
        imgkit.ImageService("requests", model=model, api_key="sk-test") as official,
        official.stream_image("a fox", **given) as events,
        pytest.raises(imgkit.InvalidRequestError, match=said),
    ):
        next(events)


def test_wrong_keywords(service: Any) -> None:
    """They are refused when the call is made, with the nearest real name."""
    with pytest.raises(imgkit.InvalidRequestError, match="did you mean 'partial_images'"):
        service.stream_image("a fox", partial_image=2)
    with pytest.raises(imgkit.InvalidRequestError, match="is missing"):
        service.stream_image()


def test_extra_body_of_the_plain_calls_names_the_streams(service: Any) -> None:
    """Whoever wants a stream is told how."""
    with pytest.raises(imgkit.InvalidRequestError, match="stream_image"):
        service.create_image("a fox", extra_body={"stream": True})


class Plain(BaseProvider):
    """A provider that does not stream."""

    name = "plain"

    def __init__(self) -> None:
        inner = OpenAIProvider()
        for name in ("base_url", "env", "base64_keys", "check", "encode", "decode", "error"):
            setattr(self, name, getattr(inner, name))


def test_a_provider_without_streams(flavor: Face) -> None:
    """It says so, and sends nothing; a plain call works."""
    with pytest.raises(imgkit.ConfigurationError, match="provider plain does not stream: use create_image"):
        watch(flavor, lambda one: one.stream_image("a fox"), provider=Plain())
    with imgkit.ImageService(provider=Plain()) as service:
        assert len(service.create_image("a fox", size="64x64")) == 1


def test_what_plugins_and_ledgers_know() -> None:
    """A call says that it is a stream, and of how many partial pictures; estimates count them."""
    seen: list[Any] = []

    class Looker:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any, call: Any) -> None:
            seen.append(call.partial_images)

    with imgkit.ImageService(plugins=[Looker()]) as offline:
        offline.create_image("a fox", size="64x64")
        for wanted in (None, 2):
            with offline.stream_image("a fox", size="64x64", partial_images=wanted) as events:
                list(events)
    assert set(seen) == {None, 0, 2}
    assert [one for one, _ in itertools.groupby(seen)] == [None, 0, 2]
    with imgkit.ImageService("requests", model="gpt-image-2", api_key="sk-test") as official:
        plain = official.estimate("a fox", quality="low", size="1024x1024")
        more = official.estimate("a fox", quality="low", size="1024x1024", partial_images=2)
    assert plain.low == more.low
    assert more.high - plain.high == Decimal(200 * 30) / 1_000_000


def test_a_picture_is_never_there_twice(service: Any) -> None:
    """An event of 8 MB takes the memory of its picture, and little more; its base64 is never there whole."""
    data = WHOLE[:-12] + random.Random(1).randbytes(8_000_000)
    stream = completed(data)
    chunks = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]
    flow = flow_of(service)
    advance(flow, None)
    advance(flow, EVENTS)
    tracemalloc.start()
    for one in chunks:
        need = advance(flow, one)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(need, EmitEvent)
    assert need.event.image.data == data  # type: ignore[attr-defined]  # a Completed
    assert peak < len(data) + 2_000_000
    flow.close()


def test_request_objects_and_hooks(service: Any) -> None:
    """Request objects work, and plugins may change them."""

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
    need = advance(flow, None)
    while not isinstance(need, SendRequest):
        need = advance(flow, need.fn())  # type: ignore[union-attr]  # a Run
    assert need.request.url.endswith("/images/edits")
    flow.close()


def test_the_methods_are_alike() -> None:
    """Both services have them with the same parameters and descriptions; their results are named."""
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


def test_preview() -> None:
    """What would be sent can be looked at."""
    with imgkit.ImageService() as service:
        shown = service.dry_run("stream_image", "a fox", partial_images=1)
    assert "accept: text/event-stream" in shown
    assert '"partial_images":1' in shown


def test_errors_survive_pickling() -> None:
    """As all errors of the tree."""
    import pickle

    image = imgkit.Image.from_bytes(WHOLE)
    error = pickle.loads(pickle.dumps(imgkit.StreamError("no", maybe_billed=True, images=(image,))))
    assert error.images[0].data == WHOLE
    assert error.maybe_billed
