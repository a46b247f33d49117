"""A replay sends nothing, whatever part of imgkit asks, and whatever a plugin brings along."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from vcr.errors import CannotOverwriteExistingCassetteException

import imgkit
from imgkit.cli.run import run as imgkit_command
from imgkit.plugins import Token, hookimpl
from imgkit.plugins.events import Cancelled, Failed
from imgkit.testing import WireServer, answer, cassette, png, reply
from imgkit.testing.wire_server import Line
from tests.conftest import ServiceRunner
from tests.support.event_streams import completed, partial, streamed
from tests.support.processes import run_in_fork
from tests.support.wire_backends import Backends, fail_when_touched

OFFICIAL = "https://api.openai.com/v1"


class Api:
    """A scripted API that fails each request once it is closed.

    Attributes:
        is_closed: a request from now on is a failure of the test.
        refusals: number of 429 replies before the next image.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self.refusals = 0

    def __call__(self, line: Line) -> None:
        if self.is_closed:
            fail_when_touched(line)
        elif line.request_line.startswith("GET /v1/models"):
            reply(200, {"data": [{"id": "gpt-image-2"}]})(line)
        elif line.request_line.startswith("GET"):
            reply(200, png(5, 64), content_type="image/png")(line)
        elif b'"stream":true' in line.body:
            streamed(partial(0), completed())(line)
        elif self.refusals:
            self.refusals -= 1
            error = {"message": "slow down", "code": "rate_limit_exceeded"}
            reply(429, {"error": error}, retry_after_ms="1")(line)
        elif b"url" in line.body:
            reply(200, {"data": [{"url": f"http://{line.headers['host']}/img.png"}]})(line)
        else:
            count = json.loads(line.body).get("n", 1)
            reply(200, answer(*(png(number) for number in range(count))))(line)


def read_stream(service: Any) -> Any:
    """Return the names of the events of a stream."""
    if isinstance(service, imgkit.ImageService):
        with service.stream_image("a fox", partial_images=1) as events:
            return [type(event).__name__ for event in events]

    async def main() -> list[str]:
        async with service.stream_image("a fox", partial_images=1) as events:
            return [type(event).__name__ async for event in events]

    return main()


def create_many(service: Any) -> Any:
    """Return the digests of the images of a call that is split into three."""
    if isinstance(service, imgkit.ImageService):
        return [image.data for image in service.create_image("a fox", n=25, model="gpt-image-2")]

    async def main() -> list[bytes]:
        return [image.data for image in await service.create_image("a fox", n=25, model="gpt-image-2")]

    return main()


def download(service: Any) -> Any:
    """Return the bytes of an image at a result URL."""
    if isinstance(service, imgkit.ImageService):
        return service.create_image("a fox", response_format="url")[0].data

    async def main() -> bytes:
        response = await service.create_image("a fox", response_format="url")
        return bytes((await service.download(response[0])).data)

    return main()


def list_models(service: Any) -> Any:
    """Return the models of the host."""
    return service.list_models()


DOORS = {
    "stream": read_stream,
    "split call": create_many,
    "download": download,
    "list_models": list_models,
}


@pytest.mark.parametrize("backend", ["requests", "aiohttp", "stdlib-based"])
@pytest.mark.parametrize("door", DOORS)
def test_door_is_closed(door: str, backend: str, flavor: ServiceRunner, tmp_path: Path) -> None:
    """Replays each kind of request, then misses it, without touching the server."""
    api, work = Api(), DOORS[door]
    with WireServer(api) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": [Backends()]}
        with cassette(tmp_path / "c.yaml"):
            recorded = flavor.run(work, "requests", **settings)
        api.is_closed, before = True, server.accepted
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            assert flavor.run(work, backend, **settings) == recorded
            with pytest.raises(CannotOverwriteExistingCassetteException):
                flavor.run(work, backend, **settings)
        assert server.accepted == before


def test_retries_are_replayed(tmp_path: Path) -> None:
    """Replays two refusals and the image in their order."""
    api = Api()
    api.refusals = 2
    with WireServer(api) as server:
        for _ in range(2):
            with (
                cassette(tmp_path / "c.yaml"),
                imgkit.ImageService("requests", base_url=server.base_url, retry=True) as service,
            ):
                response = service.create_image("a fox")
            assert [attempt.status for attempt in response.meta.attempts] == [429, 429, 200]
            api.is_closed = True
        assert server.posts == 3


def test_doctor_is_answered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Answers the free request of `imgkit doctor --live`, and reports a missing recording."""
    api = Api()
    with WireServer(api) as server:
        command = ["doctor", "--live", "--base-url", server.base_url]
        for _ in range(2):
            with cassette(tmp_path / "c.yaml"):
                assert imgkit_command(command) == 0
            assert "1 models; for images: gpt-image-2" in capfd.readouterr().out
            api.is_closed = True
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            assert imgkit_command(command) == 0
            assert imgkit_command(command) == 6
        assert "it matches 1 recorded interaction" in capfd.readouterr().err
        assert server.accepted == 1


class Login:
    """A source of tokens that must not be asked."""

    def token(self) -> Token:
        """Fail the test."""
        raise AssertionError("A replay fetches a token.")


class Observer:
    """A plugin that keeps the events that end a call."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    @hookimpl
    def imgkit_on_event(self, event: object) -> None:
        if isinstance(event, Failed | Cancelled):
            self.ends.append(event)


def test_replay_needs_no_key_and_no_token(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays for the official host without a key, and without asking the token source."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with WireServer(Api()) as server, cassette(tmp_path / "c.yaml"):
        with imgkit.ImageService("requests", base_url=server.base_url) as service:
            for _ in range(2):
                service.create_image("a fox", model="gpt-image-2")
    with cassette(tmp_path / "c.yaml", record_mode="none"):
        for plugins in ([], [imgkit.TokenAuth(Login())]):
            response = flavor.run(
                lambda service: service.create_image("a fox", model="gpt-image-2"),
                "requests",
                base_url=OFFICIAL,
                plugins=plugins,
            )
            assert response[0].width == 8
    with imgkit.ImageService("requests", base_url=OFFICIAL) as service:
        with pytest.raises(imgkit.MissingKeyError):
            service.create_image("a fox", model="gpt-image-2")


def test_miss_is_free_for_ledgers_and_observers(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Ends a call without a recording as one that sent nothing: no spooled reply, no spent budget."""
    budget = imgkit.Budget(5, tmp_path / "budget", allow_unknown=True)
    observer = Observer()
    settings: dict[str, Any] = {"state_folder": tmp_path / "state", "plugins": [observer, budget]}
    with WireServer(Api()) as server:
        with (
            cassette(tmp_path / "c.yaml"),
            imgkit.ImageService("requests", base_url=server.base_url) as first,
        ):
            first.create_image("a hen")
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            with pytest.raises(CannotOverwriteExistingCassetteException):
                flavor.run(create_many, "requests", base_url=server.base_url, **settings)
        assert server.posts == 1
    (end,) = observer.ends
    assert isinstance(end, Failed)
    assert isinstance(end.error, imgkit.FixtureMissingError)
    assert not end.error.maybe_billed
    assert budget.spent == 0
    assert imgkit.open_spool(tmp_path / "state").list_replies() == []


def test_miss_reaches_calls_that_share_a_request(tmp_path: Path) -> None:
    """Raises vcrpy's exception in each of several equal calls of which one asks, and keeps no failure."""
    plugins = [imgkit.CachePlugin(imgkit.MemoryStore())]
    errors: list[Exception] = []
    with WireServer(Api()) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": plugins}
        with cassette(tmp_path / "c.yaml"), imgkit.ImageService("requests", **settings) as service:
            service.list_models()
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            with imgkit.ImageService("requests", **settings) as service:

                def miss() -> None:
                    try:
                        service.create_image("an elk")
                    except Exception as error:
                        errors.append(error)

                threads = [threading.Thread(target=miss) for _ in range(6)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        assert {type(error) for error in errors} == {CannotOverwriteExistingCassetteException}
        assert len(errors) == 6
        assert server.posts == 0
        with imgkit.ImageService("requests", **settings) as service:
            assert service.create_image("an elk")[0].width == 8


def test_call_keeps_the_cassette_that_it_started_with(tmp_path: Path) -> None:
    """Sends the rest of a call with its key although a cassette opens meanwhile."""
    entered = threading.Event()
    opened = threading.Event()

    def script(line: Line) -> None:
        if not entered.is_set():
            entered.set()
            opened.wait(5)
            reply(429, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}, retry_after_ms="1")(
                line
            )
        else:
            assert line.headers["authorization"] == "Bearer sk-test"
            reply(200, answer(png(3)))(line)

    with WireServer(reply(200, answer())) as other, cassette(tmp_path / "c.yaml"):
        with imgkit.ImageService("requests", base_url=other.base_url) as service:
            service.create_image("a hen")
    with WireServer(script) as server:
        with imgkit.ImageService("requests", base_url=server.base_url, api_key="sk-test") as service:
            images: list[bytes] = []
            thread = threading.Thread(target=lambda: images.append(service.create_image("a fox")[0].data))
            thread.start()
            assert entered.wait(5)
            with cassette(tmp_path / "c.yaml", record_mode="none"):
                opened.set()
                thread.join()
        assert images == [png(3)]
        assert server.posts == 2


def test_forked_child_replays(tmp_path: Path) -> None:
    """Answers in a forked child too."""
    api = Api()
    with WireServer(api) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "retry": False}

        def create() -> bool:
            with imgkit.ImageService("requests", **settings) as service:
                return service.create_image("a fox")[0].width == 8

        with cassette(tmp_path / "c.yaml"):
            assert create()
        api.is_closed = True
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            assert run_in_fork(create) == 0
        assert server.posts == 1
