"""Cassettes stand between service and backend: they replay and record whatever library sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vcr
import yaml
from vcr.errors import CannotOverwriteExistingCassetteException

import imgkit
from imgkit.cli.run import run as imgkit_command
from imgkit.testing import WireServer, answer, canary, cassette, png, reply, vcr_config
from imgkit.testing.wire_server import Line
from tests.conftest import ServiceRunner
from tests.support.event_streams import completed, partial, streamed
from tests.support.wire_backends import (
    NAMES,
    Backends,
    Built,
    PycurlBackend,
    StdlibBackend,
    fail_when_touched,
)
from tests.testing.test_vcr_config import CALLS, make_call, send_private_data

ALL = ("requests", "aiohttp", *NAMES)
OWN_KEY = "0123456789abcdef" * 2


def call_elk(service: Any) -> Any:
    """Make a call that no cassette holds."""
    return service.create_image("an elk")


def make_calls(path: Path, backend: Any, base_url: str, names: Any, mode: str = "none") -> list[Any]:
    """Return the outcomes of calls on a cassette."""
    settings: dict[str, Any] = {"base_url": base_url, "api_key": canary.KEY, "plugins": [Backends()]}
    if backend == "offline":
        settings = {}
    with cassette(path, record_mode=mode), imgkit.ImageService(backend, retry=False, **settings) as service:
        return [make_call(service, name) for name in names]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Record all kinds of calls with requests; the server stays, and fails whoever touches it afterwards.

    The value is the path of the cassette, the outcomes and the base URL.
    """
    path, scripts = tmp_path_factory.mktemp("recording") / "c.yaml", [send_private_data]
    with WireServer(lambda line: scripts[-1](line)) as server:
        outcomes = make_calls(path, "requests", server.base_url, CALLS, "once")
        assert server.posts == len(CALLS)
        scripts.append(fail_when_touched)
        accepted = server.accepted
        yield path, dict(zip(CALLS, outcomes, strict=True)), server.base_url
        assert server.accepted == accepted


@pytest.mark.parametrize("backend", [*ALL, "offline", "unbuildable"])
def test_one_recording_replays_on_every_backend(backend: str, recording: Any) -> None:
    """Replays calls, edits, refusals and downloads in another order, and builds no backend."""
    path, outcomes, base_url = recording
    Built.count = 0
    names = list(reversed(CALLS))
    assert make_calls(path, backend, base_url, names) == [outcomes[name] for name in names]
    assert Built.count == 0


@pytest.mark.parametrize("backend", ALL)
def test_replay_touches_no_server(backend: str, recording: Any, flavor: ServiceRunner) -> None:
    """Replays for another host, and fails a request without a recording, without touching that host."""
    path, outcomes, _ = recording
    settings: dict[str, Any] = {"api_key": canary.KEY, "plugins": [Backends()], "retry": True}
    with WireServer(fail_when_touched) as server:
        with cassette(path, record_mode="none"):
            response = flavor.run(CALLS["big"], backend, base_url=server.base_url, **settings)
            with pytest.raises(CannotOverwriteExistingCassetteException, match="already been played"):
                flavor.run(CALLS["big"], backend, base_url=server.base_url, **settings)
            with pytest.raises(CannotOverwriteExistingCassetteException, match='recorded, "an elk" is'):
                flavor.run(call_elk, backend, base_url=server.base_url, **settings)
        assert [image.data for image in response] == outcomes["big"]
        assert server.accepted == 0


@pytest.mark.parametrize("kind", [PycurlBackend, StdlibBackend])
def test_instance_is_never_opened(kind: Any, recording: Any) -> None:
    """Answers for a backend instance too, without opening it."""
    path, outcomes, base_url = recording
    backend = kind(imgkit.backends.BackendOptions())
    assert make_calls(path, backend, base_url, ["edit"]) == [outcomes["edit"]]


@pytest.mark.parametrize("mode", ["once", "new_episodes"])
@pytest.mark.parametrize("backend", ALL)
def test_records_once_for_every_backend(backend: str, mode: str, tmp_path: Path) -> None:
    """Sends what is not recorded once, records it without the key, and replays it."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        recorded = make_calls(path, backend, server.base_url, ["create", "wrong", "edit"], mode)
        assert server.posts == 3
        base_url = server.base_url
        if mode == "new_episodes":
            again = make_calls(path, backend, server.base_url, ["edit", "big", "create"], mode)
            assert (again[0], again[2], server.posts) == (recorded[2], recorded[0], 4)
    assert make_calls(path, "requests", base_url, ["edit", "wrong"]) == [recorded[2], recorded[1]]
    assert canary.find_secret(folders=[tmp_path]) == []
    assert imgkit_command(["cassette", "check", str(tmp_path)]) == 0


def test_equal_requests_get_recordings_of_their_own(tmp_path: Path) -> None:
    """Records as many replies as were asked for, also for equal requests, so the replay succeeds."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        make_calls(path, "requests", server.base_url, ["create"], "once")
        for _ in range(2):
            make_calls(path, "requests", server.base_url, ["create", "create", "create"], "new_episodes")
        assert server.posts == 3
        assert len(make_calls(path, "aiohttp", server.base_url, ["create"] * 3)) == 3
        assert server.posts == 3


def test_new_episodes_builds_no_backend_for_recorded_requests(recording: Any) -> None:
    """Builds a backend only for a request that it must send."""
    path, outcomes, base_url = recording
    assert make_calls(path, "unbuildable", base_url, ["url"], "new_episodes") == [outcomes["url"]]


def test_service_from_a_replay_sends_later(recording: Any) -> None:
    """Builds the backend of a service when a request is sent after the cassette has closed."""
    path, outcomes, _ = recording
    with WireServer(reply(200, answer(png(9)))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": [Backends()]}
        for backend in ("stdlib-based", "httpx-coroutines"):
            with cassette(path, record_mode="none"):
                service = imgkit.ImageService(backend, **settings)
                assert make_call(service, "big") == outcomes["big"]
            with service:
                assert service.create_image("a fox")[0].data == png(9)
        assert server.posts == 2
    with cassette(path, record_mode="none"):
        service = imgkit.ImageService("requests", base_url=server.base_url, retry=False)
    with service, pytest.raises(imgkit.NotSentError):
        service.create_image("a fox")


def test_cassette_is_complete_after_each_reply(tmp_path: Path) -> None:
    """Has a paid reply on disk before the next request, so a killed process loses none."""
    path = tmp_path / "c.yaml"
    counts = []

    def script(line: Line) -> None:
        counts.append(path.read_text().count("method: POST") if path.exists() else 0)
        send_private_data(line)

    with WireServer(script) as server:
        make_calls(path, "requests", server.base_url, ["create", "big", "edit"], "all")
    assert counts == [0, 1, 2]


def test_stream_left_early_is_recorded(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Records the events of a stream that the caller leaves, and replays them."""
    path = tmp_path / "c.yaml"

    def leave(service: Any) -> Any:
        if flavor.flavor == "sync":
            with service.stream_image("a fox", partial_images=1) as stream:
                return type(next(iter(stream))).__name__

        async def main() -> str:
            async with service.stream_image("a fox", partial_images=1) as stream:
                return type(await anext(aiter(stream))).__name__

        return main()

    with WireServer(streamed(partial(0), completed())) as server:
        for _ in range(2):
            with cassette(path):
                assert flavor.run(leave, http_backend, base_url=server.base_url, model="m") == "PartialImage"
        assert server.posts == 1


def test_key_in_reply_headers_is_removed(http_backend: str, tmp_path: Path) -> None:
    """Removes the key that was sent from the headers of the reply, whatever it looks like."""
    path = tmp_path / "c.yaml"
    plugins = [imgkit.RecorderPlugin(tmp_path / "recorder.yaml")]
    with WireServer(reply(200, answer(), x_echo=f"got {OWN_KEY}")) as server, cassette(path):
        settings: dict[str, Any] = {"base_url": server.base_url, "api_key": OWN_KEY, "plugins": plugins}
        with imgkit.ImageService(http_backend, **settings) as service:
            service.create_image("a fox")
    for name in ("c.yaml", "recorder.yaml"):
        text = (tmp_path / name).read_text()
        assert OWN_KEY not in text
        assert "got scrubbed" in text


def test_inner_cassette_takes_the_place_of_the_outer(recording: Any, tmp_path: Path) -> None:
    """Answers from the inner cassette, then from the outer again."""
    path, outcomes, base_url = recording
    with WireServer(reply(200, answer(png(9)))) as server:
        with cassette(path, record_mode="none"), imgkit.ImageService("requests", base_url=base_url) as outer:
            with cassette(tmp_path / "inner.yaml"):
                with imgkit.ImageService("requests", base_url=server.base_url) as inner:
                    assert inner.create_image("a big fox")[0].data == png(9)
            assert make_call(outer, "big") == outcomes["big"]
    assert len(yaml.safe_load((tmp_path / "inner.yaml").read_text())["interactions"]) == 1


@pytest.mark.parametrize("mode", ["none", "all"])
@pytest.mark.parametrize("backend", NAMES)
def test_plain_vcrpy_refuses_unpatched_backends(
    backend: str, mode: str, flavor: ServiceRunner, tmp_path: Path
) -> None:
    """Refuses a backend that vcrpy does not patch, in every mode, before anything is sent."""
    with WireServer(fail_when_touched) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": [Backends()]}
        with vcr.use_cassette(str(tmp_path / "c.yaml"), record_mode=mode, **vcr_config()):
            with pytest.raises(imgkit.ConfigurationError, match="vcrpy does not intercept .*imgkit_cassette"):
                flavor.run(CALLS["create"], backend, **settings)
            with imgkit.ImageService() as offline:
                assert offline.create_image("a fox", size="64x64")[0].width == 64
        assert server.accepted == 0


def test_vcrpy_leaves_services_alone_afterwards(tmp_path: Path) -> None:
    """Sends with any backend again once vcrpy's cassette is closed."""
    with WireServer(reply(200, answer())) as server:
        with vcr.use_cassette(str(tmp_path / "c.yaml"), **vcr_config(custom_patches=((Built, "count", 7),))):
            assert Built.count == 7
        with imgkit.ImageService("stdlib-based", base_url=server.base_url, plugins=[Backends()]) as service:
            assert service.create_image("a fox")[0].width == 8


def test_requests_of_threads_are_recorded_once_each(tmp_path: Path) -> None:
    """Records every request of many threads, and each gets its own reply on replay."""
    path = tmp_path / "c.yaml"

    def run(base_url: str, mode: str) -> dict[int, bytes]:
        replies: dict[int, bytes] = {}
        with cassette(path, record_mode=mode):
            with imgkit.ImageService("stdlib-based", base_url=base_url, plugins=[Backends()]) as service:

                def work(number: int) -> None:
                    replies[number] = service.create_image("x" * number)[0].data

                threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        return replies

    with WireServer(send_private_data) as server:
        recorded = run(server.base_url, "once")
        assert (len(recorded), server.posts) == (8, 8)
        assert run(server.base_url, "none") == recorded
        assert server.posts == 8


def test_ignored_host_is_sent_with_its_key(recording: Any, flavor: ServiceRunner) -> None:
    """Sends a request that a setting leaves to the backend, with its key, as vcrpy does."""
    path, _, _ = recording
    with WireServer(reply(200, answer(png(9)))) as server:
        with cassette(path, record_mode="none", ignore_hosts=["127.0.0.1"]):
            settings = {"base_url": server.base_url, "api_key": canary.KEY}
            response = flavor.run(CALLS["big"], "requests", **settings)
        assert response[0].data == png(9)
        assert server.lines[0].headers["authorization"] == f"Bearer {canary.KEY}"


def test_simulated_failure_stays_simulated(recording: Any, flavor: ServiceRunner) -> None:
    """Leaves an offline service alone that simulates a failure, and records nothing of it."""
    path, _, _ = recording
    with cassette(path, record_mode="none"), pytest.raises(imgkit.RateLimitError):
        flavor.run(CALLS["big"], "offline", client_options={"simulate": 429})


def test_backend_that_cannot_be_built_sends_nothing(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Reports a backend that cannot be built when a recording needs it."""
    with cassette(tmp_path / "c.yaml"):
        with pytest.raises(imgkit.PluginError, match="must not be built"):
            flavor.run(CALLS["create"], "unbuildable", base_url="http://127.0.0.1:9/v1", plugins=[Backends()])
    assert list(tmp_path.iterdir()) == []
