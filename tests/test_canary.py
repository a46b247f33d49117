"""No key gets out: callers give it in every place, servers repeat it in every place, all sinks are read."""

from __future__ import annotations

import itertools
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

import imgkit
from imgkit import models
from imgkit.cli.run import run
from imgkit.core import download, recording, send
from imgkit.core.probe import Probe
from imgkit.default_plugins import logging as logs
from imgkit.default_plugins.telemetry import TelemetryPlugin
from imgkit.images.sources import UrlSource
from imgkit.redact import PrivateDict, Secret
from imgkit.wire.messages import HttpRequest
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.spool_filter import SpoolFilter
from tests.conftest import ServiceRunner
from tests.support.leak_scenes import CREATES, EDITS, MODELS, RETRIES, STREAMS, Scene
from tests.support.leaks import (
    CREDENTIALS,
    SHAPES,
    HookHeader,
    Sinks,
    give_key,
    give_options,
    list_traces,
    make_keys,
    restart_echo,
)
from tests.support.pictures import picture
from tests.support.wire_server import WireServer


async def read_stream(stream: Any) -> list[Any]:
    """Return the events and the response of a stream of either service."""
    if hasattr(stream, "__aenter__"):
        async with stream:
            return [*[event async for event in stream], stream.response]
    with stream:
        return [*stream, stream.response]


def finish(coroutine: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


MODES = ("all", "proxy", "spool")
"""Calls that keep everything; that send through a proxy and keep nothing; that neither save nor cache."""

OPERATIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "create": lambda service, options: service.create_image("a fox", **options),
    "edit": lambda service, options: service.create_image_edit(picture(), "a hat", **options),
    "variation": lambda service, options: service.create_image_variation(picture(), **options),
    "probe": lambda service, options: service.probe(),
    "list models": lambda service, options: service.list_models(),
    "stream": lambda service, options: read_stream(
        service.stream_image("a fox", partial_images=1, **options)
    ),
}
SCENES: dict[tuple[str, str], Scene] = {
    **{("create", name): scene for name, scene in {**CREATES, **RETRIES}.items()},
    **{("edit", name): scene for name, scene in EDITS.items()},
    **{("variation", name): scene for name, scene in EDITS.items()},
    **{("probe", name): scene for name, scene in MODELS.items()},
    **{("list models", name): scene for name, scene in MODELS.items()},
    **{("stream", name): scene for name, scene in STREAMS.items()},
}


class RetryAtOnce:
    """A plugin that retries once, without a pause."""

    @imgkit.hookimpl
    def imgkit_retry_wait(self, outcome: Any) -> float | None:
        return 0.0 if outcome.attempts == 1 else None


class Canary:
    """Calls with a key in every place, and a search of what they leave.

    Args:
        flavor, backend: The service.
        shape: Name of the shape of the keys.
        folder: Folder of the files.
        monkeypatch, caplog: The fixtures.
    """

    def __init__(
        self,
        flavor: ServiceRunner,
        backend: str,
        shape: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self._flavor = flavor
        self._backend = backend
        self._keys = make_keys(shape)
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._caplog = caplog
        self.plugins: list[object] = []
        caplog.set_level(logging.DEBUG)
        # Downloads are repeated at once.
        monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0, 0.0))

    def find_leaks(self, operation: str, name: str, scene: Scene, *, how: str, mode: str) -> list[str]:
        """Make a call and return the places that show a key.

        Args:
            operation, name, scene: The call and the server.
            how: One of `CREDENTIALS`.
            mode: One of `MODES`.
        """
        sinks = Sinks(self._folder / f"{operation}-{name}".replace(" ", "-"))
        places = set(self._keys) - ({"proxy"} if mode != "proxy" else set())
        if operation in ("probe", "list models"):
            places &= {"credential", "proxy"}
        keys = [self._keys[place] for place in sorted(places)]
        self._caplog.clear()
        with WireServer(*scene(keys)) as server, sinks.catch_warnings():
            retries: list[object] = [RetryAtOnce()] if name in RETRIES else []
            values = self._call(operation, server, sinks, retries, how, mode)
        found = sinks.find(keys, self._caplog.records, *values)
        return sorted({f"{place}: {trace}" for place, trace in found})

    def list_traces(self) -> list[str]:
        """Return the texts that betray one of the keys."""
        return [trace for key in self._keys.values() for trace in list_traces(key)]

    def _call(
        self, operation: str, server: WireServer, sinks: Sinks, retries: list[object], how: str, mode: str
    ) -> list[Any]:
        """Return the results of a call, and its error."""
        secret_folder = self._folder / "secret"
        secret_folder.mkdir(exist_ok=True)
        settings, plugins = give_key(how, self._keys["credential"], secret_folder, self._monkeypatch)
        settings |= {
            "base_url": server.base_url,
            "plugins": [
                *plugins,
                *retries,
                *self.plugins,
                HookHeader(self._keys["hook header"]),
                *sinks.make_plugins(keeps=mode == "all"),
            ],
            "timeout_s": 20,
        }
        if mode != "proxy":
            settings["state_folder"] = sinks.folder / "state"
        if mode == "proxy":
            password = quote(self._keys["proxy"], safe="")
            settings |= {
                "base_url": "http://api.example/v1",
                "proxy": f"http://user:{password}@127.0.0.1:{server.port}",
                "allow_insecure": True,
            }
        options = give_options(self._keys) | ({} if mode == "spool" else {"save_to": sinks.folder / "out"})

        def work(service: Any) -> Any:
            self._shown = [repr(service), str(service)]
            result = OPERATIONS[operation](service, options)
            return finish(result) if operation == "stream" and self._flavor.flavor == "sync" else result

        try:
            result = self._flavor.run(work, self._backend, **settings)
        except imgkit.ImgkitError as error:
            return [error, *self._shown, *getattr(error, "images", ()), getattr(error, "body", b"")]
        results = list(result) if isinstance(result, list | tuple) else [result]
        results += [result.problem] if isinstance(result, Probe) else []
        parts = [part for item in results if isinstance(item, imgkit.ImagesResponse) for part in item]
        return [*results, *parts, *self._shown]


@pytest.fixture
def make_canary(
    flavor: ServiceRunner,
    http_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Callable[[str], Canary]:
    """A factory of canaries for each service and backend; it takes the shape of the keys."""
    return lambda shape: Canary(flavor, http_backend, shape, tmp_path, monkeypatch, caplog)


def test_no_sink_shows_a_key(
    make_canary: Callable[[str], Canary],
    flavor: ServiceRunner,
    http_backend: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A key that a server repeats anywhere is in no message, log, span, file, pickle, variable or output."""
    canaries = [make_canary(shape) for shape in SHAPES]
    # Each scene runs with both services and both backends, each time with another shape and another way.
    is_sync, is_requests = flavor.flavor == "sync", http_backend == "requests"
    turn = 2 * is_sync + is_requests
    restart_echo(turn)
    every_way = itertools.cycle(itertools.product(CREDENTIALS, MODES))
    ways = itertools.islice(every_way, 4 * turn, None)
    leaks = {}
    for number, ((operation, name), scene) in enumerate(SCENES.items()):
        (how, mode), canary = next(ways), canaries[(number + turn) % len(canaries)]
        if (number + is_sync + is_requests) % 2:
            continue
        if found := canary.find_leaks(operation, name, scene, how=how, mode=mode):
            leaks[operation, name, how, mode] = found
    assert leaks == {}
    assert not list(tmp_path.rglob("*.refused"))
    out, err = capfd.readouterr()
    traces = [trace for canary in canaries for trace in canary.list_traces()]
    assert [trace for trace in traces if trace in out + err] == []
    assert run(["cassette", "check", str(tmp_path)]) == 0


def speak(key: str, channel: str) -> object:
    """Return a plugin that tells a key at the end of a call.

    Args:
        key: The key.
        channel: "log", "extra", "warning", "output", "note" or "cause".
    """

    class Speaker:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ not in ("Succeeded", "Failed"):
                return
            if channel == "log":
                logging.getLogger("speaker").debug("%s", key)
            elif channel == "extra":
                logging.getLogger("speaker").debug("x", extra={"k": key})
            elif channel == "warning":
                warnings.warn(key, stacklevel=1)
            elif channel == "output":
                sys.stdout.write(key)
            elif hasattr(event, "error"):
                if channel == "note":
                    event.error.add_note(key)
                event.error.__cause__ = ValueError(key)

    return Speaker()


class Plant(NamedTuple):
    """A leak to plant.

    Attributes:
        owner, name: An attribute.
        value: Its value with the leak.
        sinks: Places in which the key must be found.
    """

    owner: object
    name: str
    value: Any
    sinks: tuple[str, ...]


def keep(name: str, *sinks: str) -> Plant:
    """Return a leak: a method of `SecretFilter` returns its argument unchanged."""
    return Plant(SecretFilter, name, lambda self, value, **options: value, sinks)


def tell_headers(self: TelemetryPlugin, event: Any, state: Any) -> None:
    """Put a header of the request into a span."""
    state.span.set_attribute("a", event.request.headers["x-vault-token"])


PLANTED = {
    "headers": keep("clean_headers", "an event", "a log record", "pickle of ImagesResponse"),
    "bodies": keep("clean_bytes", "attributes of", "calls.yaml", "bytes"),
    "values": keep("clean_json", ".png.json", ".entry", "pickle of ImagesResponse", "repr of"),
    "texts": keep("clean_text", "str of", "calls.yaml"),
    "errors": Plant(SecretFilter, "clean_error", lambda self, error: None, ("str of", "a log record")),
    "spool": Plant(SpoolFilter, "clean", lambda self, chunks: list(chunks), ("reply.json.part",)),
    "tape": Plant(recording, "_clean_exchange", lambda *values: values[:3], ("calls.yaml",)),
    "parameters": Plant(models, "hide_members", lambda value: value, ("call.json",)),
    "logged headers": Plant(
        logs, "safe_headers", lambda headers, secret=(): dict(headers), ("a log record",)
    ),
    "request": Plant(HttpRequest, "__repr__", lambda self: repr(list(self.headers.items())), ("an event",)),
    "arguments": Plant(PrivateDict, "__repr__", dict.__repr__, ("a frame of", "variables of")),
    "secrets": Plant(Secret, "__repr__", Secret.reveal, ("a frame of", "variables of")),
    "sent secrets": Plant(send, "collect_secrets", lambda signed, request: (), ("a frame of", "str of")),
    "links": Plant(UrlSource, "__getstate__", lambda self: (self.url, None), ("pickle of Image",)),
    "attributes": Plant(TelemetryPlugin, "_describe_request", tell_headers, ("a span",)),
}
PLANTED_SCENES = (
    *(("create", name) for name in ("images", "unreadable", "broken head 0", "by url", "gone", "key")),
    ("edit", "images"),
    ("stream", "event error"),
)
SPOKEN = {
    "log": "a log record",
    "extra": "a log record",
    "warning": "a warning",
    "note": "notes of",
    "cause": "traceback of",
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Canary:
    """A canary for the planted leaks."""
    restart_echo(0)
    return Canary(ServiceRunner("sync"), "requests", "no shape", tmp_path, monkeypatch, caplog)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found(planted: Canary, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same search finds each leak that is planted into imgkit."""
    plant = PLANTED[name]
    monkeypatch.setattr(plant.owner, plant.name, plant.value)
    missing = set(plant.sinks)
    for operation, scene in PLANTED_SCENES:
        places = planted.find_leaks(operation, scene, SCENES[operation, scene], how="text", mode="all")
        missing -= {sink for sink in missing if sink in " ".join(places)}
        # The search takes long; the further scenes can add nothing.
        if not missing:
            break
    assert missing == set()


@pytest.mark.parametrize("channel", [*SPOKEN, "output"])
def test_a_spoken_key_is_found(planted: Canary, channel: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The same search finds a key that a plugin tells in a log, a warning, a note or a cause."""
    key = make_keys("no shape")["member"]
    planted.plugins = [speak(key, channel)]
    places = planted.find_leaks("create", "key", SCENES["create", "key"], how="text", mode="all")
    if channel == "output":
        assert key in capfd.readouterr().out
    else:
        assert any(SPOKEN[channel] in place for place in places), places
