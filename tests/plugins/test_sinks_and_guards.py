"""Sinks receive every response and guards every request, where both may block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import hookimpl
from imgkit.core.operations import OperationFlows
from imgkit.errors import PluginWarning
from imgkit.plugins import Call
from imgkit.runtime.flow import RunBlocking, SendRequest, advance
from imgkit.testing.samples import answer, png
from tests.support.event_streams import completed, partial, streamed
from tests.support.wire_server import Line, WireServer, drop, reply


def thread_has_loop() -> bool:
    """Return whether an event loop runs in this thread, so that blocking would block it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Upload:
    """A plugin with one sink, which is the plugin itself."""

    def __init__(self, receive: Callable[[imgkit.ImagesResponse], Any] = lambda response: None) -> None:
        self.responses: list[imgkit.ImagesResponse] = []
        self.blocks_a_loop: list[bool] = []
        self._receive = receive

    @hookimpl
    def imgkit_sinks(self, settings: Any) -> Any:
        return [self]

    def receive(self, response: imgkit.ImagesResponse) -> Any:
        self.blocks_a_loop.append(thread_has_loop())
        self.responses.append(response)
        return self._receive(response)


class Moderation:
    """A plugin with one guard, which refuses prompts with a word."""

    def __init__(self, word: str = "", error: BaseException | None = None, verdict: Any = None) -> None:
        self.checked: list[tuple[Any, Call]] = []
        self.blocks_a_loop: list[bool] = []
        self._word, self._verdict = word, verdict
        self._error = error or imgkit.ModerationBlockedError(
            f"The guard refuses {word!r}.", status=0, stage="input"
        )

    @hookimpl
    def imgkit_guards(self, settings: Any) -> Iterable[Any]:
        yield self

    def check(self, request: Any, call: Call) -> Any:
        self.blocks_a_loop.append(thread_has_loop())
        self.checked.append((request, call))
        if self._word and self._word in request.prompt:
            raise self._error
        return self._verdict


def run(flavor: Any, backend: str, server: WireServer, work: Callable[[Any], Any], *plugins: object) -> Any:
    """Return the result of a call with plugins at a server."""
    return flavor.run(work, backend, base_url=server.base_url, plugins=list(plugins))


def stream(service: Any, prompt: str = "a fox") -> Any:
    """Return the response of a stream that is read to its end, or a coroutine for it."""
    if isinstance(service, imgkit.ImageService):
        with service.stream_image(prompt) as events:
            for _ in events:
                pass
            return events.response

    async def read() -> Any:
        async with service.stream_image(prompt) as events:
            async for _ in events:
                pass
            return events.response

    return read()


def test_a_sink_receives_the_response_where_it_may_block(flavor: Any, http_backend: str) -> None:
    """A sink gets the response outside the event loop, and its texts become warnings."""
    upload = Upload(lambda response: ["the bucket is almost full"])
    with WireServer(reply(200, answer(png(1)))) as server:
        response = run(flavor, http_backend, server, lambda service: service.create_image("a fox"), upload)
    assert response.warnings == ("the bucket is almost full",)
    assert [image.data for image in upload.responses[0]] == [png(1)]
    assert upload.blocks_a_loop == [False]


def test_a_sink_sees_saved_images(flavor: Any, tmp_path: Path) -> None:
    """A sink gets the images after they are saved, with their paths."""
    upload = Upload()
    flavor.run(
        lambda service: service.create_image("a fox", size="64x64", save_to=tmp_path / "fox.png"),
        plugins=[upload],
    )
    assert [image.path for image in upload.responses[0]] == [tmp_path / "fox.png"]


def serve_by_url(line: Line) -> None:
    """Answer a POST with the URL of an image on the same server, and a GET with the image."""
    if line.request_line.startswith("GET"):
        reply(200, png(1), content_type="image/png")(line)
    else:
        reply(200, {"data": [{"url": f"http://{line.headers['host']}/fox.png"}]})(line)


def test_a_sink_gets_images_behind_urls(flavor: Any, http_backend: str) -> None:
    """A sink under either service gets the bytes of an image that the API gave as a URL."""
    datas: list[bytes] = []
    upload = Upload(lambda response: datas.extend(image.data for image in response))
    with WireServer(serve_by_url) as server:
        response = run(flavor, http_backend, server, lambda service: service.create_image("a fox"), upload)
    assert (datas, response.warnings) == ([png(1)], ())


def _raise(error: BaseException) -> Any:
    raise error


class Unreadable(Exception):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        raise ZeroDivisionError


async def _receive_later() -> None:
    """Do nothing, later."""


FAULTS: dict[str, Callable[[Any], Any]] = {
    "an error": lambda response: _raise(ZeroDivisionError("oops")),
    "an error of imgkit": lambda response: _raise(imgkit.ConfigurationError("oops")),
    "an error without text": lambda response: _raise(Unreadable()),
    "sys.exit": lambda response: _raise(SystemExit(3)),
    "a cancelled loop": lambda response: _raise(asyncio.CancelledError()),
    "a number": lambda response: 3,
    "the response": lambda response: response,
    "bytes": lambda response: b"text",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sink_never_costs_an_image(flavor: Any, http_backend: str, fault: str) -> None:
    """A sink that fails costs one warning with its plugin's name; the sinks behind it still run."""
    bad, good = Upload(FAULTS[fault]), Upload()
    with WireServer(reply(200, answer(png(1)))) as server:
        response = run(flavor, http_backend, server, lambda service: service.create_image("a fox"), bad, good)
    assert [image.data for image in response] == [png(1)]
    (warning,) = response.warnings
    assert "Upload' failed in its sink" in warning
    assert len(good.responses) == 1


def test_sinks_receive_streams_and_split_calls_once(flavor: Any, http_backend: str) -> None:
    """A stream read to its end, and a call of several requests, reach a sink once each."""
    upload = Upload(lambda response: "seen")
    with WireServer(streamed(partial(), completed())) as server:
        response = run(flavor, http_backend, server, stream, upload)
    assert response.warnings == ("seen",)
    response = flavor.run(
        lambda service: service.create_image("a fox", model="gpt-image-1", n=12, size="1024x1024"),
        plugins=[upload],
    )
    assert [len(response) for response in upload.responses] == [1, 12]


def test_a_stream_left_early_says_that_no_sink_ran() -> None:
    """Leaving a stream at its last image skips the sinks and warns of it."""
    upload = Upload()
    with (
        WireServer(streamed(completed())) as server,
        imgkit.ImageService("requests", base_url=server.base_url, plugins=[upload]) as service,
        pytest.warns(PluginWarning, match="reached no sink"),
        service.stream_image("a fox") as events,
    ):
        next(iter(events))
    assert upload.responses == []


def test_a_ledger_settles_after_the_sinks(tmp_path: Path) -> None:
    """A paid reply stays in the spool until the sinks are done, so a death in a sink loses nothing."""
    kept: list[int] = []
    upload = Upload(lambda response: kept.append(len(list((tmp_path / "spool").glob("*/*")))))
    with WireServer(reply(200, answer(png(1)))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "state_folder": tmp_path}
        with imgkit.ImageService("requests", plugins=[upload], **settings) as service:
            service.create_image("a fox")
    assert kept[0] > 0
    assert list((tmp_path / "spool").glob("*/*")) == []


def test_a_sink_gets_images_of_the_cache(tmp_path: Path) -> None:
    """Images from the cache reach the sinks, too."""
    upload = Upload()
    plugins = [imgkit.CachePlugin(folder=tmp_path), upload]
    with imgkit.ImageService(plugins=plugins) as service:
        for _ in range(2):
            service.create_image("a fox", size="64x64")
    assert [response.meta.cached for response in upload.responses] == [False, True]


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "create": lambda service: service.create_image("a fox"),
    "edit": lambda service: service.create_image_edit(png(1), "a fox"),
    "stream": stream,
    "split": lambda service: service.create_image("a fox", model="gpt-image-1", n=12),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_guard_refuses_before_anything_is_sent(flavor: Any, http_backend: str, operation: str) -> None:
    """An error of a guard ends every operation, with no connection made."""
    guard = Moderation("fox")
    with (
        WireServer(drop) as server,
        pytest.raises(imgkit.ModerationBlockedError, match="refuses 'fox'") as caught,
    ):
        run(flavor, http_backend, server, OPERATIONS[operation], guard)
    assert server.lines == []
    assert not caught.value.maybe_billed
    assert guard.blocks_a_loop == [False]


def test_a_guard_is_asked_once_for_a_call(flavor: Any, http_backend: str) -> None:
    """A guard sees the request after the prepare hooks, once for all attempts and parts of a call."""

    class Shout:
        @hookimpl
        def imgkit_prepare(self, request: Any) -> Any:
            from dataclasses import replace

            return replace(request, prompt=request.prompt.upper())

    guard = Moderation()
    failing = reply(429, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}, retry_after_ms="1")
    with WireServer(failing, reply(200, answer(png(1)))) as server:
        flavor.run(
            lambda service: service.create_image("a fox"),
            http_backend,
            base_url=server.base_url,
            plugins=[Shout(), guard],
            retry=True,
        )
        assert server.posts == 2
    (((request, call)),) = guard.checked
    assert (request.prompt, call.operation) == ("A FOX", "create_image")


def test_a_guard_protects_the_cache(tmp_path: Path) -> None:
    """A refused request gets no image from the cache either."""
    store = imgkit.CachePlugin(folder=tmp_path)
    with imgkit.ImageService(plugins=[store]) as service:
        service.create_image("a fox", size="64x64")
        service.plugins.add(Moderation("fox"))
        with pytest.raises(imgkit.ModerationBlockedError):
            service.create_image("a fox", size="64x64")


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3)])
def test_a_guard_that_fails_sends_nothing(flavor: Any, http_backend: str, error: BaseException) -> None:
    """A guard that breaks costs the call, as nobody has checked the request, and the error names it."""
    with (
        WireServer(drop) as server,
        pytest.raises(imgkit.PluginError, match=r"Moderation' failed in its guard") as caught,
    ):
        run(
            flavor,
            http_backend,
            server,
            lambda service: service.create_image("a fox"),
            Moderation("fox", error),
        )
    assert server.lines == []
    assert caught.value.hook == "imgkit_guards"


@pytest.mark.parametrize("verdict", [False, True, "refused"])
def test_a_verdict_that_is_returned_is_an_error(verdict: object) -> None:
    """A guard that returns its verdict in place of raising is refused, so that no refusal is missed."""
    with (
        imgkit.ImageService(plugins=[Moderation(verdict=verdict)]) as service,
        pytest.raises(imgkit.PluginError, match=r"check returned a \w+\. Nothing was sent\."),
    ):
        service.create_image("a fox", size="64x64")


def test_the_deadline_holds_for_a_guard() -> None:
    """The asynchronous service gives up a guard at the deadline of the call."""
    released = threading.Event()

    class Slow(Moderation):
        def check(self, request: Any, call: Call) -> None:
            released.wait(10)

    async def main() -> None:
        async with imgkit.AsyncImageService(plugins=[Slow()]) as service:
            try:
                await service.create_image("a fox", size="64x64", timeout_s=0.05)
            finally:
                released.set()

    with pytest.raises(imgkit.NotSentError):
        asyncio.run(main())


def test_the_flow_asks_guards_before_it_sends() -> None:
    """The flow asks each guard in an effect that may block, and then yields the request."""
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=[Moderation()])
    flow = OperationFlows(service._core).create_image("a fox")
    effect = advance(flow, None)
    assert isinstance(effect, RunBlocking)
    assert effect.before_sending
    effect.fn()
    assert isinstance(advance(flow, None), SendRequest)
    service.close()


class AsyncSink:
    """A sink whose method is a coroutine function."""

    async def receive(self, response: Any) -> None:
        """Do nothing."""


class AsyncStore:
    """A cache store with a coroutine function."""

    async def try_lease(self, key: str, **rest: Any) -> Any:
        """Do nothing."""

    def commit(self, lease: Any, entry: Any) -> None:
        """Do nothing."""

    def abandon(self, lease: Any, failure: Any = None) -> None:
        """Do nothing."""


def _yield_and_fail() -> Any:
    yield Upload()
    raise ZeroDivisionError("oops")


WRONG_RESULTS: list[tuple[str, Callable[[], Any], str]] = [
    ("imgkit_sinks", lambda: 7, "returned a int"),
    ("imgkit_sinks", lambda: [Moderation()], "not a Sink"),
    ("imgkit_sinks", lambda: [Upload], "returned the class Upload"),
    ("imgkit_sinks", lambda: [AsyncSink()], "receive is a coroutine function"),
    ("imgkit_sinks", _yield_and_fail, "ZeroDivisionError: oops"),
    ("imgkit_guards", lambda: [Upload()], "not a Guard"),
    ("imgkit_cache", AsyncStore, "try_lease is a coroutine function"),
    ("imgkit_recorder", lambda: Upload, "returned the class Upload"),
]


@pytest.mark.parametrize(("hook", "function", "problem"), WRONG_RESULTS)
def test_a_wrong_resource_is_refused(hook: str, function: Callable[[], Any], problem: str) -> None:
    """A resource without its protocol stops the service when it is built, and the error says why."""

    class Wrong:
        """A plugin with one hook."""

    setattr(Wrong, hook, hookimpl(lambda self: function()))
    with pytest.raises(imgkit.PluginError, match=problem) as caught:
        imgkit.ImageService(plugins=[Wrong()])
    assert caught.value.hook == hook


def test_a_single_object_and_none_will_do() -> None:
    """A hook may return one object in place of a list, or None."""

    class Single(Upload):
        @hookimpl
        def imgkit_sinks(self, settings: Any) -> Any:
            return self

        @hookimpl
        def imgkit_guards(self) -> None:
            return None

    upload = Single()
    with imgkit.ImageService(plugins=[upload]) as service:
        service.create_image("a fox", size="64x64")
    assert len(upload.responses) == 1
