"""AUTOMATIC1111's web UI: one open request, its progress beside it, white masks, a login."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.core import progress_watch
from imgkit.errors import InvalidRequestError
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.providers.a1111 import A1111Provider
from imgkit.providers.a1111_fake import FakeA1111
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.fakes import LOST, SCENARIOS, FakeReply, FakeRequest, json_reply
from imgkit.testing.wire_server import WireServer, serve_fake
from imgkit.wire.messages import HttpRequest
from tests.conftest import ServiceRunner
from tests.support.event_streams import watch
from tests.support.provider_apis import RequestLog, paint_input

CREATE, EDIT = "POST /sdapi/v1/txt2img", "POST /sdapi/v1/img2img"
LOGIN = "ann:secret-pass-1234"
ENCODED = base64.b64encode(LOGIN.encode()).decode()
TIMEOUT_S = 10.0


class WatchedFake(RequestLog, FakeA1111):
    """The fake, with the requests that it has received."""


class SlowFake(WatchedFake):
    """Holds the images back until the progress was asked for a number of times, and answers it as told."""

    def __init__(self, questions: int = 2, tell: Callable[[], FakeReply] | None = None) -> None:
        super().__init__()
        self._questions = threading.Semaphore(0)
        self._wanted = questions
        self._tell = tell

    def answer(self, request: FakeRequest) -> FakeReply:
        """Answer a request beside others."""
        if request.path.endswith("/progress"):
            self._questions.release()
            return super().answer(request) if self._tell is None else self._tell()
        while self._wanted > 0:
            assert self._questions.acquire(timeout=TIMEOUT_S), "the progress was not asked for"
            self._wanted -= 1
        return super().answer(request)

    def give_up(self) -> None:
        """Answer without further questions."""
        self._wanted = 0
        self._questions.release()


class Watch:
    """Keeps the progress of calls."""

    def __init__(self) -> None:
        self.seen: list[JobProgress] = []

    @hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        """Keep an event."""
        if isinstance(event, JobProgress):
            self.seen.append(event)


def open_with(server: WireServer, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service without a login."""
    return {"provider": "a1111", "base_url": server.origin, **settings}


def create(**fields: Any) -> Callable[[Any], Any]:
    """Return a call."""
    return lambda service: service.create_image("a red fox", **{"size": "64x64", **fields})


OUTCOMES: dict[str, type[BaseException] | None] = {
    "refused": imgkit.ModerationBlockedError,
    "invalid": imgkit.NotFoundError,
    "failing": imgkit.ServerError,
    "lost_submit": imgkit.OutcomeUnknownError,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios(flavor: ServiceRunner, http_backend: str, scenario: str) -> None:
    """Sends one request in each situation but a refused one, and needs no login on this machine."""
    fake = WatchedFake(scenario)
    outcome = OUTCOMES.get(scenario)
    with serve_fake(fake) as server:
        settings = open_with(server, retry=scenario == "rate_limited")
        if outcome is None:
            response = flavor.run(create(n=3), http_backend, **settings)
            assert len(response) == (2 if scenario == "fewer" else 3)
            assert response[0].width == 64
        else:
            with pytest.raises(outcome):
                flavor.run(create(n=3), http_backend, **settings)
    assert fake.count[CREATE] == (2 if scenario == "rate_limited" else 1)
    assert not any("authorization" in each.headers for each in fake.requests)


def test_the_default_address_needs_no_login() -> None:
    """A server at the default address gets unsigned requests."""
    fake = WatchedFake()
    with serve_fake(fake) as server:
        provider = type("Local", (A1111Provider,), {"base_url": server.origin})()
        response = ServiceRunner("sync").run(create(), "requests", provider=provider)
    assert len(response) == 1


def tell_nonsense() -> FakeReply:
    """Return a progress without its members."""
    return json_reply(200, {"progress": None})


def tell_page() -> FakeReply:
    """Return the page of a proxy."""
    return FakeReply(502, {"content-type": "text/html"}, b"<html>busy</html>" * 1000)


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between the questions for the progress."""
    monkeypatch.setattr(progress_watch, "PAUSE_S", 0.005)


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("cached", [False, True])
def test_progress(flavor: ServiceRunner, http_backend: str, cached: bool, tmp_path: Path) -> None:
    """Observers learn the progress of an open reply, also where a cache keeps its images."""
    fake, watch = SlowFake(), Watch()
    plugins: list[object] = [watch, *([CachePlugin(folder=tmp_path)] if cached else [])]
    with serve_fake(fake) as server:
        response = flavor.run(create(), http_backend, **open_with(server, plugins=plugins))
    assert len(response) == 1
    assert fake.count[CREATE] == 1
    first = watch.seen[0]
    assert (first.job, first.progress, first.note) == (None, 0.4, "step 8 of 20")


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("tell", [lambda: LOST, tell_nonsense, tell_page])
def test_a_progress_that_fails(
    flavor: ServiceRunner, http_backend: str, tell: Callable[[], FakeReply]
) -> None:
    """A progress that drops, breaks or makes no sense costs neither the images nor a second request."""
    fake, watch = SlowFake(tell=tell), Watch()
    with serve_fake(fake) as server:
        response = flavor.run(create(), http_backend, **open_with(server, plugins=[watch], retry=True))
    assert len(response) == 1
    assert fake.count[CREATE] == 1
    assert watch.seen == []


@pytest.mark.usefixtures("_short_pauses")
def test_a_progress_without_answer(flavor: ServiceRunner, http_backend: str) -> None:
    """The images are delivered while a question for the progress is still open."""
    is_delivered = threading.Event()

    def keep_silent() -> FakeReply:
        assert is_delivered.wait(TIMEOUT_S), "the call waits for its progress"
        return LOST

    fake = SlowFake(1, keep_silent)
    with serve_fake(fake) as server:
        response = flavor.run(create(), http_backend, **open_with(server))
        is_delivered.set()
    assert len(response) == 1
    assert fake.count[CREATE] == 1


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("room", [1, 2])
def test_room_for_few_requests(flavor: ServiceRunner, http_backend: str, room: int) -> None:
    """A question for the progress never waits for the room that its own request takes."""
    fake = SlowFake(room - 1)
    with serve_fake(fake) as server:
        response = flavor.run(create(), http_backend, **open_with(server, max_in_flight=room))
    assert len(response) == 1


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("partial_images", [0, 1])
def test_a_stream_shows_the_preview(flavor: ServiceRunner, http_backend: str, partial_images: int) -> None:
    """A stream emits the unfinished image beside the open reply, once, and then the images."""
    fake = SlowFake(3)
    with serve_fake(fake) as server:
        events = watch(
            flavor,
            lambda service: service.stream_image("a fox", size="64x64", n=2, partial_images=partial_images),
            http_backend,
            **open_with(server),
        ).events
    kinds = [type(event).__name__ for event in events]
    assert kinds == [*["PartialImage"] * partial_images, "Completed", "Completed"]
    if partial_images:
        assert events[0].image.width == 16
    assert fake.count[CREATE] == 1


@pytest.mark.usefixtures("_short_pauses")
def test_leaving_a_stream_between_previews(flavor: ServiceRunner, http_backend: str) -> None:
    """A stream that is left after a preview ends its request at once, without a thread or a task left."""
    fake = SlowFake(10**6)
    with serve_fake(fake) as server:
        events = watch(
            flavor,
            lambda service: service.stream_image("a fox", size="64x64", partial_images=1),
            http_backend,
            see=lambda event: True,
            **open_with(server),
        ).events
        fake.give_up()
    assert [type(event).__name__ for event in events] == ["PartialImage"]


@pytest.mark.parametrize("name", ["progress", "decode_progress"])
def test_a_bug_in_the_progress(flavor: ServiceRunner, name: str) -> None:
    """A provider whose progress raises loses no image."""

    def fail(self: BaseProvider, *arguments: object) -> None:
        raise KeyError("bug")

    provider = type("BuggyProvider", (A1111Provider,), {name: fail})()
    fake = SlowFake(0 if name == "progress" else 2)
    with serve_fake(fake) as server:
        response = flavor.run(create(), "requests", **open_with(server, provider=provider))
    assert len(response) == 1


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("place", [5, "http://[", "stranger"])
def test_a_progress_at_a_strange_place(flavor: ServiceRunner, http_backend: str, place: object) -> None:
    """A question that cannot be sent, or goes to another host, is left out: no image is lost, and no key."""
    fake = SlowFake(1)
    with WireServer(lambda line: None) as stranger, serve_fake(fake) as server:

        def name_place(self: BaseProvider, *arguments: object, **more: object) -> object:
            fake.give_up()
            url = stranger.origin if place == "stranger" else place
            return HttpRequest("GET", url) if isinstance(url, str) else url

        provider = type("BuggyProvider", (A1111Provider,), {"progress": name_place})()
        response = flavor.run(create(), http_backend, **open_with(server, provider=provider))
        assert stranger.accepted == 0
    assert len(response) == 1


def test_the_bodies() -> None:
    """Sends the fields of the API; options of ``extra_body`` join them and win."""
    fake = WatchedFake()
    options = {"steps": 20, "seed": 7, "override_settings": {"CLIP_stop_at_last_layers": 2}}
    with serve_fake(fake) as server, imgkit.ImageService("requests", **open_with(server)) as service:
        service.create_image("a mug", size="512x768", n=2, model="sd.safetensors", extra_body=options)
        service.create_image_variation(paint_input((61, 43)), extra_body={"subseed_strength": 0.3})
    create_body, variation = (each.json() for each in fake.requests)
    assert create_body == {
        "prompt": "a mug",
        "width": 512,
        "height": 768,
        "n_iter": 2,
        "steps": 20,
        "seed": 7,
        "override_settings": {"sd_model_checkpoint": "sd.safetensors", "CLIP_stop_at_last_layers": 2},
    }
    assert base64.b64decode(variation.pop("init_images")[0]) == paint_input((61, 43))
    assert variation == {"prompt": "", "width": 64, "height": 40, "subseed_strength": 0.3}


def test_masks_are_white(flavor: ServiceRunner, http_backend: str) -> None:
    """Pixels that may change are white, and the image keeps its size."""
    fake = WatchedFake()
    edit = lambda service: service.create_image_edit(  # noqa: E731
        paint_input(), prompt="a hat", mask=paint_input(hole=True)
    )
    with serve_fake(fake) as server:
        assert len(flavor.run(edit, http_backend, **open_with(server))) == 1
    (request,) = fake.requests
    body = request.json()
    mask = PIL.Image.open(io.BytesIO(base64.b64decode(body["mask"]))).convert("L")
    assert (mask.getpixel((1, 1)), mask.getpixel((1, 47))) == (255, 0)
    assert (body["width"], body["height"]) == (64, 48)
    assert fake.count[EDIT] == 1


@pytest.mark.parametrize("info", ["{", "[]", None, 5])
def test_facts_that_cannot_be_read(info: object) -> None:
    """An image is delivered although the facts about it cannot be read."""
    fake = WatchedFake()
    reply = {"images": [base64.b64encode(paint_input()).decode()], "info": info}
    fake.handle = lambda request: json_reply(200, reply)  # type: ignore[method-assign]
    with serve_fake(fake) as server:
        assert len(ServiceRunner("sync").run(create(), "requests", **open_with(server))) == 1


def test_seeds_and_the_grid() -> None:
    """The grid of several images is left out, and each image has its seed."""
    with imgkit.ImageService("offline", provider="a1111") as service:
        response = service.create_image("a red fox", size="64x64", n=2, extra_body={"seed": 40})
    assert [image.width for image in response] == [64, 64]
    assert response.extra == {"seed": 40, "sd_model_name": "model"}


@pytest.mark.parametrize("given", [LOGIN, ENCODED, f"Basic {ENCODED}"])
@pytest.mark.usefixtures("_short_pauses")
def test_a_login(
    flavor: ServiceRunner, http_backend: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login signs the request and its progress, as a pair or in base64, and no message shows it."""
    monkeypatch.setenv("A1111_AUTH", given)
    fake = SlowFake(1)
    with serve_fake(fake) as server:
        flavor.run(create(), http_backend, **open_with(server))
        assert {each.headers["authorization"] for each in fake.requests} == {f"Basic {ENCODED}"}
        assert len(fake.requests) >= 2
        fake.handle = lambda request: json_reply(401, {"detail": f"Bad {LOGIN}"})  # type: ignore[method-assign]
        fake._wanted = 0
        with pytest.raises(imgkit.AuthenticationError) as caught:
            flavor.run(create(), http_backend, **open_with(server))
    assert "secret-pass" not in str(caught.value)


def test_the_error_of_the_web_ui() -> None:
    """An exception of the web UI is its own word: nothing was billed, and its text is shown."""
    with serve_fake(WatchedFake("failing")) as server, pytest.raises(imgkit.ServerError) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert "CUDA out of memory" in str(caught.value)
    assert not caught.value.maybe_billed


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"images": [], "info": "{}", "parameters": {}}, imgkit.EmptyResultError),
        ({"images": None, "info": "{}"}, imgkit.UnreadableReplyError),
        ({"images": ["!"], "info": "{}", "parameters": {}}, imgkit.EmptyResultError),
        ({"images": 5, "info": "{"}, imgkit.UnreadableReplyError),
    ],
)
def test_replies_without_images(reply: dict[str, Any], error: type[BaseException]) -> None:
    """A reply without a readable image is an error that keeps the reply."""
    fake = WatchedFake()
    fake.handle = lambda request: json_reply(200, reply)  # type: ignore[method-assign]
    with serve_fake(fake) as server, pytest.raises(error) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server))
    assert json.loads(caught.value.body) is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"size": "large"}, "is not a size"), ({"quality": "high"}, "takes no quality")],
)
def test_values_that_the_api_lacks(fields: dict[str, Any], words: str) -> None:
    """A field that the API does not have is refused before the call."""
    with (
        imgkit.ImageService("offline", provider="a1111") as service,
        pytest.raises(InvalidRequestError, match=words),
    ):
        service.create_image("a red fox", **fields)


def test_offline(flavor: ServiceRunner) -> None:
    """All operations run offline, without a login."""
    calls: list[Callable[[Any], Any]] = [
        create(n=2),
        lambda service: service.create_image_edit(paint_input(), prompt="a hat", mask=paint_input(hole=True)),
        lambda service: service.create_image_variation(paint_input()),
    ]
    counts = [len(flavor.run(call, "offline", provider="a1111")) for call in calls]
    assert counts == [2, 1, 1]
